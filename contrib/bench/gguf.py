#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A GGUF file of a model's shape with random Q4_0 weights, for timing only.

    gguf.py conf/model/olmoe-1b-7b-0924.json OUT.gguf [--layers N]

Every matrix but the router is Q4_0 (blocks of 32: a half float and 16 bytes,
18 bytes in all), as `moe-run bench --shape` has int4-g32 of the same 4.5 bits;
routers and norms are F32.  Codes are bell-shaped around 8 and scales such that
a matrix of k inputs has deviation 1 / sqrt(k), so activations stay sane and
routing nearly even.  GGUF version 3 as described in ggml's docs/gguf.md.
Needs numpy.
"""
import argparse
import json
import math
import struct

import numpy as np

F32, Q4_0 = 0, 2
UINT32, FLOAT32, STRING = 4, 6, 8
ALIGN = 32
POOL = 1 << 25  # bytes of random blocks, from which all matrices are cut


def text(s):
    b = s.encode()
    return struct.pack("<Q", len(b)) + b


def value(v):
    if isinstance(v, str):
        return struct.pack("<I", STRING) + text(v)
    if isinstance(v, float):
        return struct.pack("<If", FLOAT32, v)
    return struct.pack("<II", UINT32, v)


def normal(rng, shape, sigma):
    return (rng.standard_normal(shape) * sigma).astype("<f4")


class Blocks:
    """Random Q4_0 blocks; each matrix begins somewhere else in the pool."""

    def __init__(self, rng):
        n = POOL // 18
        codes = np.clip(np.rint(rng.standard_normal((n, 32)) * 2.7), -7, 7)
        self.sigma = float(codes.std())
        codes = (codes + 8).astype(np.uint8)
        self.pool = np.empty((n, 18), np.uint8)
        self.pool[:, 2:] = codes[:, :16] | codes[:, 16:] << 4
        self.spread = rng.uniform(0.75, 1.25, n)
        self.rng = rng

    def write(self, f, rows, k, sigma):
        scale = (self.spread * sigma / self.sigma).astype("<f2")
        self.pool[:, :2] = scale.view(np.uint8).reshape(-1, 2)
        left = rows * k // 32
        while left > 0:
            at = int(self.rng.integers(0, len(self.pool) // 2))
            n = min(left, len(self.pool) - at)
            f.write(self.pool[at:at + n].tobytes())
            left -= n


def tensors(c, layers):
    """(name, dims from the innermost, type, deviation; None: ones)."""
    h, v, e = c["hidden_size"], c["vocab_size"], experts(c)
    d = c.get("head_dim") or h // c["num_attention_heads"]
    q, kv = c["num_attention_heads"] * d, c["num_key_value_heads"] * d
    w = c.get("moe_intermediate_size") or c["intermediate_size"]
    yield "token_embd.weight", (h, v), Q4_0, 1.0
    yield "output_norm.weight", (h,), F32, None
    yield "output.weight", (h, v), Q4_0, 1 / math.sqrt(h)
    for i in range(layers):
        b = f"blk.{i}."
        yield b + "attn_norm.weight", (h,), F32, None
        yield b + "attn_q.weight", (h, q), Q4_0, 1 / math.sqrt(h)
        yield b + "attn_k.weight", (h, kv), Q4_0, 1 / math.sqrt(h)
        yield b + "attn_v.weight", (h, kv), Q4_0, 1 / math.sqrt(h)
        yield b + "attn_output.weight", (q, h), Q4_0, 1 / math.sqrt(q)
        if c["model_type"] == "olmoe":
            yield b + "attn_q_norm.weight", (q,), F32, None
            yield b + "attn_k_norm.weight", (kv,), F32, None
        if c["model_type"] == "qwen3_moe":
            yield b + "attn_q_norm.weight", (d,), F32, None
            yield b + "attn_k_norm.weight", (d,), F32, None
        yield b + "ffn_norm.weight", (h,), F32, None
        yield b + "ffn_gate_inp.weight", (h, e), F32, 1 / math.sqrt(h)
        yield b + "ffn_gate_exps.weight", (h, w, e), Q4_0, 1 / math.sqrt(h)
        yield b + "ffn_up_exps.weight", (h, w, e), Q4_0, 1 / math.sqrt(h)
        yield b + "ffn_down_exps.weight", (w, h, e), Q4_0, 1 / math.sqrt(w)


def experts(c):
    return c.get("num_experts") or c["num_local_experts"]


ARCH = {"olmoe": "olmoe", "qwen3_moe": "qwen3moe", "mixtral": "llama"}


def keys(c, layers):
    a = ARCH[c["model_type"]]
    d = c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]
    kv = {
        "general.architecture": a,
        "general.name": "random weights",
        "general.file_type": 2,
        "general.alignment": ALIGN,
        a + ".context_length": c["max_position_embeddings"],
        a + ".embedding_length": c["hidden_size"],
        a + ".block_count": layers,
        a + ".feed_forward_length": c["intermediate_size"],
        a + ".attention.head_count": c["num_attention_heads"],
        a + ".attention.head_count_kv": c["num_key_value_heads"],
        a + ".attention.key_length": d,
        a + ".attention.value_length": d,
        a + ".attention.layer_norm_rms_epsilon": float(c["rms_norm_eps"]),
        a + ".rope.dimension_count": d,
        a + ".rope.freq_base": float(c["rope_theta"]),
        a + ".expert_count": experts(c),
        a + ".expert_used_count": c["num_experts_per_tok"],
        a + ".vocab_size": c["vocab_size"],
        "tokenizer.ggml.model": "no_vocab",
    }
    if "moe_intermediate_size" in c:
        kv[a + ".expert_feed_forward_length"] = c["moe_intermediate_size"]
    return kv


def size(dims, kind):
    n = math.prod(dims)
    return n * 4 if kind == F32 else n // 32 * 18


def padding(n):
    return -n % ALIGN


def write(config, path, layers, seed=1):
    with open(config) as f:
        c = json.load(f)
    if c["model_type"] not in ARCH:
        raise SystemExit(f"{config}: family {c['model_type']} is not known "
                         f"here; these are: {' '.join(ARCH)}")
    layers = layers or c["num_hidden_layers"]
    rng = np.random.default_rng(seed)
    blocks = Blocks(rng)
    all_t, kv = list(tensors(c, layers)), keys(c, layers)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(all_t), len(kv))
    head += b"".join(text(k) + value(v) for k, v in kv.items())
    at = 0
    for name, dims, kind, _ in all_t:
        head += text(name) + struct.pack("<I", len(dims))
        head += struct.pack(f"<{len(dims)}Q", *dims)
        head += struct.pack("<IQ", kind, at)
        at += size(dims, kind) + padding(size(dims, kind))
    with open(path, "wb") as f:
        f.write(head + bytes(padding(len(head))))
        for name, dims, kind, sigma in all_t:
            if sigma is None:
                f.write(np.ones(dims, "<f4").tobytes())
            elif kind == F32:
                f.write(normal(rng, dims, sigma).tobytes())
            else:
                blocks.write(f, math.prod(dims[1:]), dims[0], sigma)
            f.write(bytes(padding(size(dims, kind))))
    return at


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("config", help="a config.json, such as conf/model/*.json")
    p.add_argument("out")
    p.add_argument("--layers", type=int, default=0, help="only the first N")
    a = p.parse_args()
    print(f"{a.out}: {write(a.config, a.out, a.layers) / 1e9:.2f} GB")
