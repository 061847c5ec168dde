#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Better codes for a quantized folder: errors are made up for by neighbours.

    moe-run quantize MODEL OUT --experts int4-g32
    calibrate.py --model MODEL --out OUT [--text FILE] [--windows 32]

Rewrites codes and scales of OUT's experts in place; format, size and every
other tensor stay.  OUT must have INT4 without zero points.

The experts' inputs x are watched while the model reads a text: FILE, which
must not be the one that quality is then judged on, or (without --text) what
the model itself writes at temperature 1.  With H = sum x x^T, columns are
rounded from left to right and what rounding one column did to the outputs is
made up for, as far as H allows, by the columns that are not rounded yet
(Frantar et al., GPTQ, arXiv 2210.17323, equations 2 and 3).  A group's scale
is searched when its turn comes.  Gate and up share the H of all tokens of
their layer, so an expert that was rarely chosen has a good one; down has its
own, from the tokens that came, with a part of the layer's mean mixed in.

For models that transformers holds as mlp.experts with gate_up_proj and
down_proj (tried: Qwen3-MoE).
"""
import argparse
import json
import os
import struct

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

import formats

DAMP = 0.02     # of the mean diagonal, added to H
FEW = 256.0     # tokens that the layer's mean counts as in an expert's H


# ------------------------------------------------------------------- text --

def from_file(path, tok, count, length):
    """count windows, evenly from the file."""
    with open(path, encoding="utf-8") as f:
        text = f.read()
    step, out = len(text) // count, []
    for i in range(count):
        ids = tok.encode(text[i * step:i * step + 8 * length]).ids
        out.append(ids[:length])
    return out


@torch.no_grad()
def from_model(model, count, length):
    torch.manual_seed(1)
    ids = torch.full((count, 1), model.config.eos_token_id or 0)
    past = None
    while ids.shape[1] < length:
        o = model(ids[:, -1:], past_key_values=past, use_cache=True)
        past = o.past_key_values
        p = torch.softmax(o.logits[:, -1].float(), -1)
        ids = torch.cat([ids, torch.multinomial(p, 1)], 1)
    return ids.tolist()


class Watch:
    """Sums x x^T before the experts' two products."""

    def __init__(self, model):
        self.outer, self.inner, self.count = {}, {}, {}
        for i, layer in enumerate(model.model.layers):
            experts = getattr(layer.mlp, "experts", None)
            if hasattr(experts, "gate_up_proj"):
                experts.register_forward_pre_hook(self.hook(i))

    def hook(self, layer):
        def f(m, args):
            x = args[0].reshape(-1, args[0].shape[-1])
            chosen = args[1].reshape(len(x), -1)
            self.outer[layer] = self.outer.get(layer, 0) + (x.T @ x).double()
            for e in range(len(m.gate_up_proj)):
                rows = x[(chosen == e).any(-1)]
                gate, up = (rows @ m.gate_up_proj[e].T).chunk(2, -1)
                h = m.act_fn(gate) * up
                key = layer, e
                self.inner[key] = self.inner.get(key, 0) + (h.T @ h).double()
                self.count[key] = self.count.get(key, 0) + len(rows)
        return f


# --------------------------------------------------------------- rounding --

def scales(x):
    """Least squares scale of each row of x (n, group), as bf16; the sign is
    that of minus the largest magnitude, which has 8 steps then."""
    top = x.gather(1, x.abs().argmax(1, keepdim=True))
    best, least = -top / 7.5, torch.full_like(top, torch.inf)
    for i in range(16):
        s = -top / (6 + 0.25 * i)
        for _ in range(2):
            v = (x / s).round().clamp(-8, 7)
            b = (v * v).sum(1, keepdim=True)
            s = torch.where(b > 0, (x * v).sum(1, keepdim=True) / b, s)
            s = s.bfloat16().to(x.dtype)
            error = ((x - (x / s).round().clamp(-8, 7) * s) ** 2
                     ).sum(1, keepdim=True)
            better = error < least
            best = torch.where(better, s, best)
            least = torch.where(better, error, least)
    zeros = top == 0
    return torch.where(zeros, torch.full_like(top, 2.0 ** -7),
                       best.bfloat16().to(x.dtype))


def feedback(w, h, group):
    """w (n, k): codes (n, k) and scales (n, k / group)."""
    w, h = w.clone(), h.clone()
    n, k = w.shape
    h.diagonal().add_(DAMP * h.diagonal().mean() + 1e-30)
    u = torch.linalg.cholesky(torch.linalg.inv(h), upper=True)
    codes, scale = torch.empty_like(w), w.new_empty(n, k // group)
    for j in range(0, k, group):
        end = j + group
        s = scales(w[:, j:end])
        scale[:, j // group] = s[:, 0]
        error = w.new_empty(n, group)
        for c in range(j, end):
            x = w[:, c:c + 1]
            v = (x / s).round().clamp(-8, 7)
            codes[:, c:c + 1] = v
            e = (x - v * s) / u[c, c]
            error[:, c - j:c - j + 1] = e
            w[:, c + 1:end] -= e * u[c:c + 1, c + 1:end]
        w[:, end:] -= error @ u[j:end, end:]
    return codes, scale


# ------------------------------------------------------------------- file --

class Planes:
    """The tensors of a folder, to be overwritten."""

    def __init__(self, path):
        self.at = {}
        for name in sorted(os.listdir(path)):
            if not name.endswith(".safetensors"):
                continue
            file = os.path.join(path, name)
            with open(file, "rb") as f:
                n = struct.unpack("<Q", f.read(8))[0]
                for t, info in json.loads(f.read(n)).items():
                    if t != "__metadata__":
                        self.at[t] = (file, 8 + n, info)

    def shape(self, t):
        return self.at[t][2]["shape"]

    def put(self, t, dtype, raw):
        file, start, info = self.at[t]
        lo, hi = info["data_offsets"]
        if info["dtype"] != dtype or raw.nbytes != hi - lo:
            raise SystemExit(f"{file}: {t} is {info['dtype']} of {hi - lo} "
                             f"bytes; {dtype} of {raw.nbytes} expected")
        with open(file, "r+b") as f:
            f.seek(start + lo)
            f.write(raw.tobytes())

    def matrix(self, module, codes, scale):
        q = (codes + 8).to(torch.int64).numpy().astype("<u4")
        q = q.reshape(len(q), -1, 8) << 4 * np.arange(8, dtype="<u4")
        self.put(module + ".weight_packed", "I32",
                 np.bitwise_or.reduce(q, 2).astype("<u4"))
        self.put(module + ".weight_scale", "BF16",
                 formats.to_bf16(scale.numpy()))


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--model", required=True)
    p.add_argument("--out", required=True)
    p.add_argument("--text")
    p.add_argument("--windows", type=int, default=32)
    p.add_argument("--length", type=int, default=512)
    p.add_argument("--threads", type=int, default=1)
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    planes = Planes(a.out)
    model = AutoModelForCausalLM.from_pretrained(a.model, dtype=torch.float32)
    length = min(a.length, model.config.max_position_embeddings)
    if a.text:
        tok = Tokenizer.from_file(os.path.join(a.model, "tokenizer.json"))
        texts = from_file(a.text, tok, a.windows, length)
    else:
        texts = from_model(model, a.windows, length)
    watch = Watch(model)
    with torch.no_grad():
        for ids in texts:
            model(torch.tensor([ids]))
    if not watch.outer:
        raise SystemExit(f"{a.model}: no mlp.experts with gate_up_proj")

    for i, outer in watch.outer.items():
        experts = model.model.layers[i].mlp.experts
        n = len(experts.gate_up_proj)
        name = f"model.layers.{i}.mlp.experts."
        probe = f"{name}0.gate_proj.weight_"
        if probe + "packed" not in planes.at \
                or name + "0.gate_proj.weight_zero_point" in planes.at:
            raise SystemExit(f"{a.out}: {probe}packed: INT4 without zero "
                             f"points expected")
        k = 8 * planes.shape(probe + "packed")[1]
        group = k // planes.shape(probe + "scale")[1]
        w = experts.gate_up_proj.detach().double()
        rows = w.shape[1]
        codes, scale = feedback(w.reshape(n * rows, k), outer, group)
        for e in range(n):
            for what, first in (("gate", 0), ("up", rows // 2)):
                lo = e * rows + first
                planes.matrix(f"{name}{e}.{what}_proj",
                              codes[lo:lo + rows // 2],
                              scale[lo:lo + rows // 2])
        mean = sum(watch.inner[i, e] for e in range(n)) / sum(
            watch.count[i, e] for e in range(n))
        for e in range(n):
            codes, scale = feedback(experts.down_proj[e].detach().double(),
                                    watch.inner[i, e] + FEW * mean, group)
            planes.matrix(f"{name}{e}.down_proj", codes, scale)
    least = min(watch.count.values())
    print(f"{sum(map(len, texts))} tokens; an expert got {least} to "
          f"{max(watch.count.values())}")


if __name__ == "__main__":
    main()
