"""Times a Llama-kind decoder in PyTorch for beside-pytorch.bench.ts, one thread: a checkpoint folder, then a line on stdin for each
measurement ("prefill ROWS" or "decode TOKENS"), a line of seconds on stdout for each. `dtype` is float32 or bfloat16."""
import json
import struct
import sys
import time

import numpy
import torch

folder, dtype = sys.argv[1], getattr(torch, sys.argv[2])
torch.set_num_threads(1)
torch.set_grad_enabled(False)
config = json.load(open(f"{folder}/config.json"))["text_config"]
with open(f"{folder}/model.safetensors", "rb") as file:
    (length,) = struct.unpack("<Q", file.read(8))
    header = json.loads(file.read(length))
data = numpy.memmap(f"{folder}/model.safetensors", mode="r", offset=8 + length)


def weight(name):
    entry = header[name]
    first, last = entry["data_offsets"]
    values = numpy.frombuffer(data[first:last].tobytes(), dtype=numpy.float16).reshape(entry["shape"])
    return torch.from_numpy(values.astype(numpy.float32)).to(dtype)


hidden, heads = config["hidden_size"], config["num_attention_heads"]
groups = config["num_key_value_heads"]
size = hidden // heads
model = "language_model.model"
layers = []
for layer in range(config["num_hidden_layers"]):
    at = f"{model}.layers.{layer}"
    names = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"]
    names += ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", "input_layernorm", "post_attention_layernorm"]
    layers.append([weight(f"{at}.{name}.weight") for name in names])
final, head = weight(f"{model}.norm.weight"), weight("language_model.lm_head.weight")
frequencies = 1.0 / 10000 ** (torch.arange(0, size, 2).float() / size)


def norm(x, scale):
    wide = x.float()
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-5)).to(dtype) * scale


def rotate(x, cosine, sine):
    first, second = x.chunk(2, -1)
    return x * cosine + torch.cat((-second, first), -1) * sine


def run(x, past, start):
    rows = x.shape[0]
    angles = torch.outer(torch.arange(start, start + rows).float(), frequencies)
    cosine, sine = (t(torch.cat((angles, angles), -1)).to(dtype) for t in (torch.cos, torch.sin))
    mask = torch.full((rows, start + rows), -1e9).triu(start + 1).to(dtype)
    for index, (q, k, v, o, gate, up, down, before, after) in enumerate(layers):
        normed = norm(x, before)
        query = rotate((normed @ q.T).view(rows, heads, size).transpose(0, 1), cosine, sine)
        key = rotate((normed @ k.T).view(rows, groups, size).transpose(0, 1), cosine, sine)
        value = (normed @ v.T).view(rows, groups, size).transpose(0, 1)
        if past[index] is not None:
            key, value = torch.cat((past[index][0], key), 1), torch.cat((past[index][1], value), 1)
        past[index] = (key, value)
        wide = [t.repeat_interleave(heads // groups, 0) for t in (key, value)]
        scores = torch.softmax((query @ wide[0].transpose(1, 2)).float() / size**0.5 + mask, -1).to(dtype)
        x = x + (scores @ wide[1]).transpose(0, 1).reshape(rows, hidden) @ o.T
        normed = norm(x, after)
        x = x + (torch.nn.functional.silu(normed @ gate.T) * (normed @ up.T)) @ down.T
    return norm(x[-1:], final) @ head.T


print("ready", flush=True)
for line in sys.stdin:
    what, count = line.split()
    past = [None] * len(layers)
    if what == "prefill":
        x = torch.randn(int(count), hidden).to(dtype)
        start = time.perf_counter()
        run(x, past, 0)
        print((time.perf_counter() - start), flush=True)
    else:
        run(torch.randn(32, hidden).to(dtype), past, 0)
        start = time.perf_counter()
        for token in range(int(count)):
            run(torch.randn(1, hidden).to(dtype), past, 32 + token)
        print((time.perf_counter() - start) / int(count), flush=True)
