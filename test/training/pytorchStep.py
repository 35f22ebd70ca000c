"""Times training steps in PyTorch for training.bench.ts, one thread: a checkpoint folder, an editor (MEND or LTE) and a file of what a step is fed;
then for each line on stdin a step (loss, gradients, Adam), and a line of seconds and loss on stdout."""
import json
import struct
import sys
import time

import numpy
import torch
import torch.nn.functional as F

folder, editor, fed = sys.argv[1:4]
torch.set_num_threads(1)
config = json.load(open(f"{folder}/config.json"))["text_config"]
types = {"F16": numpy.float16, "F32": numpy.float32, "I64": numpy.int64}


def read(path):
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    data = numpy.memmap(path, mode="r", offset=8 + length)
    header.pop("__metadata__", None)
    found = {}
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        values = numpy.frombuffer(data[first:last].tobytes(), dtype=types[entry["dtype"]]).reshape(entry["shape"])
        found[name] = torch.from_numpy(values.astype(numpy.int64 if entry["dtype"] == "I64" else numpy.float32))
    return found


weights = read(f"{folder}/model.safetensors")
given = read(fed)
parameters = {name[2:]: value.clone().requires_grad_() for name, value in given.items() if name.startswith("p:")}
optimizer = torch.optim.Adam(parameters.values(), lr=1e-4)
hidden, heads = config["hidden_size"], config["num_attention_heads"]
size = hidden // heads
model = "language_model.model"


def norm(x, name):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + config["rms_norm_eps"]) * weights[f"{model}.{name}.weight"]


def rotate(x, cosine, sine):
    first, second = x.chunk(2, -1)
    return x * cosine + torch.cat((-second, first), -1) * sine


def decoder(x, start, feeds, change):
    """Logits of rows from layer `start` on; `change` adds to what a linear layer gives."""
    cosine, sine, mask = feeds["cosine"], feeds["sine"], feeds["mask"]

    def linear(y, name):
        full = f"{model}.{name}"
        return y @ weights[f"{full}.weight"].T + change(full, y)

    batch, rows, _ = x.shape
    split = lambda y: y.view(batch, rows, heads, size).transpose(1, 2)
    for layer in range(start, config["num_hidden_layers"]):
        at = f"layers.{layer}"
        y = norm(x, f"{at}.input_layernorm")
        query, key, value = (split(linear(y, f"{at}.self_attn.{part}_proj")) for part in "qkv")
        scores = rotate(query, cosine, sine) @ rotate(key, cosine, sine).transpose(-1, -2) / size**0.5 + mask
        merged = (scores.softmax(-1) @ value).transpose(1, 2).reshape(batch, rows, hidden)
        x = x + linear(merged, f"{at}.self_attn.o_proj")
        y = norm(x, f"{at}.post_attention_layernorm")
        inner = F.silu(linear(y, f"{at}.mlp.gate_proj")) * linear(y, f"{at}.mlp.up_proj")
        x = x + linear(inner, f"{at}.mlp.down_proj")
    flat = x.reshape(batch * rows, hidden)
    head = weights[f"{model}.embed_tokens.weight"]
    return lambda chosen: norm(flat[chosen], "norm") @ head.T


def likelihood(logits_at, feeds):
    nll = F.cross_entropy(logits_at(feeds["picked"]), feeds["next"], reduction="none")
    return [(nll * feeds[f"weight.{term}"]).sum() for term in ("reliability", "textGenerality", "imageGenerality")]


def locality(logits_at, feeds):
    before, after = feeds["before"].log_softmax(-1), logits_at(feeds["picked_locality"]).log_softmax(-1)
    drift = (before.exp() * (before - after)).sum(-1)
    return [(drift * feeds[f"weight.{term}"]).sum() for term in ("imageLocality", "textLocality")]


def mend():
    changes = {}
    for name, key, mode, at in json.loads(given_meta["modules"]):
        u, delta = given[f"u.{at}"], given[f"delta.{at}"]
        of = lambda part: parameters.get(f"{key}.{part}", given.get(f"{key}.{part}"))
        x = torch.cat(((u - of("u_mean")) / (of("u_std") + 1e-7), (delta - of("v_mean")) / (of("v_std") + 1e-7)), 1)
        for layer in range(given_layers):
            own = f"mlp.layers.{layer}"
            moved = x @ of(f"{own}.v").T @ of(f"{own}.u").T + of(f"{own}.bias")
            x = x + F.relu(moved * of(f"{own}.mode_scale.weight")[mode] + of(f"{own}.mode_shift.weight")[mode])
        rate = parameters["edit_lrs"][at] * given[f"share.{at}"]
        changes[name] = (x[:, : u.shape[1]], x[:, u.shape[1] :], rate)

    def change(name, y):
        if name not in changes:
            return 0
        u, delta, rate = changes[name]
        return (y @ u.T) @ delta * rate

    logits_at = decoder(given["entering"], int(given_meta["from"]), given, change)
    return 0.1 * sum(likelihood(logits_at, given) + locality(logits_at, given))


def lte():
    change = lambda name, y: (y @ parameters[f"{name}.right"]) @ parameters[f"{name}.left"]
    shown, plain = ({name[6:]: value for name, value in given.items() if name.startswith(kind)} for kind in ("shown.", "plain."))
    logits_at = decoder(shown["embeddings"], 0, shown, change)
    loss = sum(likelihood(logits_at, shown)) + sum(locality(logits_at, shown)) / 2
    return loss + sum(locality(decoder(plain["embeddings"], 0, plain, change), plain)) / 2


with open(fed, "rb") as file:
    (length,) = struct.unpack("<Q", file.read(8))
    given_meta = json.loads(file.read(length)).get("__metadata__", {})
given_layers = int(given_meta.get("networkLayers", 0))
print("ready", flush=True)
for line in sys.stdin:
    begun = time.perf_counter()
    optimizer.zero_grad()
    loss = {"MEND": mend, "LTE": lte}[editor]()
    loss.backward()
    optimizer.step()
    print(time.perf_counter() - begun, loss.item(), flush=True)
