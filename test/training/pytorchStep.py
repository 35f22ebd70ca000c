"""Times training steps in PyTorch for training.bench.ts, one thread: a checkpoint folder, an editor and a file of what a step is fed;
then for each line on stdin a step (loss, gradients, Adam), and a line of processor seconds and loss on stdout."""
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


def decoder(x, start, feeds, change, after={}):
    """Logits of rows from layer `start` on; `change` adds to what a linear layer gives, `after` adapts what a layer gives."""
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
        x = after.get(layer, lambda y: y)(x)
    flat = x.reshape(batch * rows, hidden)
    head = weights[f"{model}.embed_tokens.weight"]
    return lambda chosen: norm(flat[chosen], "norm") @ head.T


def likelihood(logits_at, feeds, smoothing=0.0):
    logits = logits_at(feeds["picked"])
    nll = F.cross_entropy(logits, feeds["next"], reduction="none")
    if smoothing:
        share = smoothing / (logits.shape[-1] - 1)
        nll = nll * (1 - smoothing - share) - share * logits.log_softmax(-1).sum(-1)
    return [(nll * feeds[f"weight.{term}"]).sum() for term in ("reliability", "textGenerality", "imageGenerality")]


def locality(logits_at, feeds, terms=("imageLocality", "textLocality")):
    before, after = feeds["before"].log_softmax(-1), logits_at(feeds["picked_locality"]).log_softmax(-1)
    drift = (before.exp() * (before - after)).sum(-1)
    return [(drift * feeds[f"weight.{term}"]).sum() for term in terms]


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


def ke():
    width = parameters["hyper.lstm.weight_hh_l0"].shape[1]
    parts = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    flat = [parameters[f"hyper.lstm.{part}_l0{way}"] for way in ("", "_reverse") for part in parts]
    zeros = torch.zeros(2, 1, width)
    _, last, _ = torch.lstm(given["text"][None], (zeros, zeros), flat, True, 1, 0.0, False, True, True)
    read = torch.cat((last[0], last[1]), 1)
    condition = F.linear(read, parameters["hyper.linear.weight"], parameters["hyper.linear.bias"]).tanh()

    def normed(x, name):
        v, g = parameters[f"{name}.weight_v"], parameters[f"{name}.weight_g"]
        return F.linear(x, v * (g / v.norm(dim=1, keepdim=True)), parameters[f"{name}.bias"])

    changes = {}
    for at, name in enumerate(json.loads(given_meta["names"])):
        gradient = given[f"edit gradient.{at}"]
        out, into = gradient.shape
        every = normed(normed(condition, f"hyper.cond.{at}.0").tanh(), f"hyper.cond.{at}.1")
        col_a, row_a, col_b, row_b, eta = every.split((into, out, into, out, 1), 1)
        outer = lambda row, column: row.softmax(-1).T @ column
        changes[name] = (gradient * outer(row_a, col_a) + outer(row_b, col_b)) * eta.sigmoid()
    change = lambda name, y: y @ changes[name].T if name in changes else 0
    logits_at = decoder(given["entering"], int(given_meta["from"]), given, change)
    kept = given["before"].shape[0]
    (broken,) = locality(logits_at, {**given, "weight.every": torch.full((kept,), 1 / kept)}, ("every",))
    return sum(likelihood(logits_at, given, float(given_meta["smoothing"]))) + broken - float(given_meta["margin"])


def serac():
    shown, scope = ({name[6:]: value for name, value in given.items() if name.startswith(kind)} for kind in ("shown.", "scope."))
    change = lambda name, y: (y @ parameters[f"{name}.right"]) @ parameters[f"{name}.left"]
    said = sum(likelihood(decoder(shown["embeddings"], 0, shown, change), shown))
    layer_norm = lambda y, name: F.layer_norm(y, y.shape[-1:], parameters[f"{name}.weight"], parameters[f"{name}.bias"])
    dense = lambda y, name: F.linear(y, parameters[f"classifier_proj.{name}.weight"], parameters[f"classifier_proj.{name}.bias"])
    embeddings = scope["distinct"][scope["rows"]]
    inner = dense(layer_norm(embeddings, "classifier_proj.l_in_norm"), "l_in")
    rows = layer_norm(inner + dense(F.relu(dense(inner, "l_mid")), "l_out"), "ln") / 32
    mean = (rows * scope["shares"]).sum(1)
    greatest, least = (rows + scope["outside"]).amax(1), -(-rows + scope["outside"]).amax(1)
    every = torch.cat((mean, greatest, least), 1)
    asked = scope["about"].shape[0]
    stored = every.shape[0] - asked
    scores = every[stored:] @ every[:stored].T / every.shape[1] ** 0.5
    none = torch.full((asked, 1), float(given_meta["threshold"]))
    return said + F.cross_entropy(torch.cat((scores, none), 1), scope["about"])


class Adapter:
    """VEAD's attention by the weights that begin with a prefix: `own` is what the norm of the rows it changes is called."""

    def __init__(self, prefix="", own="ln_img_reps"):
        self.prefix, self.own = prefix, own
        self.width, self.count = int(given_meta["middle"]), int(given_meta["heads"])

    def dense(self, y, name):
        return F.linear(y, parameters[f"{self.prefix}{name}.weight"], parameters[f"{self.prefix}{name}.bias"])

    def layer_norm(self, y, name):
        return F.layer_norm(y, (hidden,), parameters[f"{self.prefix}{name}.weight"], parameters[f"{self.prefix}{name}.bias"])

    def change(self, rows, signal):
        split = lambda y: y.view(y.shape[0], y.shape[1], self.count, self.width // self.count).transpose(1, 2)
        source = self.layer_norm(signal, "ln_edit_reps").repeat(3, 1, 1)
        query = split(self.dense(self.dense(self.layer_norm(rows, self.own), "mlp_begin"), "cross_att_q_mlp"))
        scores = query @ split(self.dense(source, "cross_att_k_mlp")).transpose(-1, -2) / (self.width / self.count) ** 0.5
        attended = (scores + given["signal_mask"].repeat(3, 1, 1, 1)).softmax(-1) @ split(self.dense(source, "cross_att_v_mlp"))
        return self.dense(attended.transpose(1, 2).reshape(rows.shape[0], rows.shape[1], self.width), "mlp_end")


def dualedit():
    edits = given["key_rows"].shape[0]
    text, visual = Adapter("text_adaptor.", "ln_text_reps"), Adapter("visual_adaptor.")

    def adapted(x, adapter, kind, signal):
        flat = x.reshape(-1, hidden)
        rows = flat[given[f"{kind}_rows"]].view(3 * edits, -1, hidden) * given[f"{kind}_used"]
        change = adapter.change(rows, signal[:edits]) * given[f"{kind}_used"]
        return flat.index_add(0, given[f"{kind}_rows"], change.reshape(-1, hidden)).view_as(x)

    at, lowest = int(given_meta["text"]), int(given_meta["visual"])
    x = adapted(given["hidden"], visual, "visual", given["hidden"])
    after = {at: lambda y: adapted(y, text, "text", given[f"hidden.{at}"])}
    logits_at = decoder(x, lowest + 1, given, lambda name, y: 0, after)
    return sum(likelihood(logits_at, given) + locality(logits_at, given, ("imageLocality",)))


def visedit():
    adapter = Adapter()
    hidden_states = given["hidden"]
    all_rows = hidden_states.reshape(-1, hidden)
    edits, count = given["key_rows"].shape[0], adapter.count

    def mapped(y, name, mlp):
        y = adapter.layer_norm(y, f"influence_mapper.{name}")
        inner = F.relu(adapter.dense(y, f"influence_mapper.{mlp}.l_in"))
        return y + adapter.dense(inner, f"influence_mapper.{mlp}.l_out")

    def influence(rows, key):
        image, prompt = mapped(rows, "ln_img_reps", "img_map"), mapped(key, "ln_edit_reps", "prompt_token_map")
        return (image @ prompt[:, :, None])[:, :, 0] / (count * (hidden / count) ** 0.5)

    signal = hidden_states[:edits]
    key = signal.reshape(-1, hidden)[given["key_rows"]]
    rows = all_rows[given["visual_rows"]].view(3 * edits, -1, hidden) * given["visual_used"]
    gate = influence(rows, key.repeat(3, 1)).sigmoid()[:, :, None] * given["visual_used"]
    moved = (adapter.change(rows, signal) * gate).reshape(-1, hidden)
    adapted = all_rows.index_add(0, given["visual_rows"], moved)
    logits_at = decoder(adapted.view_as(hidden_states), int(given_meta["layer"]) + 1, given, lambda name, y: 0)
    terms = likelihood(logits_at, given) + locality(logits_at, given, ("imageLocality",))
    of = lambda name: all_rows[given[name]].view(-1, given["attribution"].shape[1], hidden)
    raised, lowered = influence(of("raised"), key.repeat(2, 1)), influence(of("lowered"), key).sigmoid()
    surprise = lambda y: -(y + 1e-8).log()
    up, down = 2 * surprise(raised.sigmoid()).mean(), surprise(1 - lowered).mean()
    attributed = (given["attribution"] * surprise(raised[edits:].softmax(-1))).sum(-1).mean()
    return sum(terms) + 0.1 * (up + down + attributed)


with open(fed, "rb") as file:
    (length,) = struct.unpack("<Q", file.read(8))
    given_meta = json.loads(file.read(length)).get("__metadata__", {})
given_layers = int(given_meta.get("networkLayers", 0))
print("ready", flush=True)
for line in sys.stdin:
    begun = time.process_time()
    optimizer.zero_grad()
    loss = {"VisEdit": visedit, "DualEdit": dualedit, "MEND": mend, "KE": ke, "SERAC": serac, "LTE": lte}[editor]()
    loss.backward()
    optimizer.step()
    print(time.process_time() - begun, loss.item(), flush=True)
