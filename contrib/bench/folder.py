#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A checkpoint folder of a model's shape with random int4-g32 weights.

    folder.py conf/model/qwen3-30b-a3b.json OUT [--layers N] [--shard GB]

For timing how a large model starts: `moe-run bench --shape` makes weights in
memory, a start has to come from a disk.  Families OLMoE, Qwen3-MoE and
Mixtral, names and order as `moe-run quantize` writes them (compressed-tensors
"pack-quantized", groups of 32, bf16 scales), every matrix but the embedding
and the routers quantized.  The tokenizer has one token for each byte and
padding, so a prompt can be given.  Needs numpy.
"""
import argparse
import json
import math
import os
import struct

import numpy as np

GROUP = 32
POOL = 1 << 26  # bytes of random codes, from which all matrices are cut


def linear(name, n, k):
    yield name + ".weight_shape", "I64", [2], (n, k)
    yield name + ".weight_packed", "I32", [n, k // 8], None
    yield name + ".weight_scale", "BF16", [n, k // GROUP], 1 / math.sqrt(k)


def plain(name, shape, sigma=None):
    yield name + ".weight", "BF16", shape, sigma


def layer(c, i):
    h, d = c["hidden_size"], c.get("head_dim")
    heads = c["num_attention_heads"]
    d = d or h // heads
    q, kv = heads * d, c["num_key_value_heads"] * d
    w = c.get("moe_intermediate_size") or c["intermediate_size"]
    experts = c.get("num_experts") or c["num_local_experts"]
    mixtral = c["model_type"] == "mixtral"
    p = f"model.layers.{i}."
    block = p + ("block_sparse_moe" if mixtral else "mlp")
    gate, up, down = (("w1", "w3", "w2") if mixtral
                      else ("gate_proj", "up_proj", "down_proj"))
    yield from plain(p + "input_layernorm", [h])
    for e in range(experts):
        x = f"{block}.experts.{e}."
        yield from linear(x + down, h, w)
        yield from linear(x + gate, w, h)
        yield from linear(x + up, w, h)
    yield from plain(block + ".gate", [experts, h], 1 / math.sqrt(h))
    yield from plain(p + "post_attention_layernorm", [h])
    a = p + "self_attn."
    yield from linear(a + "k_proj", kv, h)
    yield from linear(a + "o_proj", h, q)
    yield from linear(a + "q_proj", q, h)
    yield from linear(a + "v_proj", kv, h)
    if c["model_type"] == "qwen3_moe":
        yield from plain(a + "k_norm", [d])
        yield from plain(a + "q_norm", [d])
    elif c["model_type"] == "olmoe":
        yield from plain(a + "k_norm", [kv])
        yield from plain(a + "q_norm", [q])


def tensors(c):
    h, v = c["hidden_size"], c["vocab_size"]
    yield from plain("model.embed_tokens", [v, h], 1.0)
    for i in range(c["num_hidden_layers"]):
        yield from layer(c, i)
    yield from plain("model.norm", [h])
    if not c.get("tie_word_embeddings"):
        yield from linear("lm_head", v, h)


def size(dtype, shape):
    return math.prod(shape) * {"I64": 8, "I32": 4, "BF16": 2}[dtype]


def bf16(x):
    return (np.asarray(x, "<f4").view("<u4") >> 16).astype("<u2").tobytes()


class Pool:
    def __init__(self, rng):
        codes = np.clip(np.rint(rng.standard_normal(POOL) * 2.7), -7, 7)
        self.sigma = float(codes.std())
        codes = (codes + 8).astype(np.uint8)
        self.codes = (codes[0::2] | codes[1::2] << 4).tobytes()
        self.normal = rng.standard_normal(POOL // 8).astype("<f4")
        self.spread = rng.uniform(0.75, 1.25, POOL // 8).astype("<f4")
        self.rng = rng

    def cut(self, what, n):
        """n elements of what, in pieces from random places."""
        while n > 0:
            at = int(self.rng.integers(0, len(what) // 2))
            piece = what[at:at + n]
            yield piece
            n -= len(piece)

    def write(self, f, name, dtype, shape, value):
        if dtype == "I64":
            f.write(struct.pack("<2q", *value))
        elif dtype == "I32":
            for piece in self.cut(self.codes, size(dtype, shape)):
                f.write(piece)
        elif value is None:
            f.write(bf16(np.ones(shape)))
        else:
            scales = name.endswith("_scale")
            factor = value / self.sigma if scales else value
            source = self.spread if scales else self.normal
            for piece in self.cut(source, math.prod(shape)):
                f.write(bf16(piece * factor))


def shards(c, limit):
    out, held = [[]], 0
    for t in tensors(c):
        n = size(t[1], t[2])
        if out[-1] and held + n > limit:
            out.append([])
            held = 0
        out[-1].append(t)
        held += n
    return out


def write_shard(path, pool, list_):
    head, at = {}, 0
    for name, dtype, shape, _ in list_:
        n = size(dtype, shape)
        head[name] = {"dtype": dtype, "shape": shape,
                      "data_offsets": [at, at + n]}
        at += n
    text = json.dumps(head, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for t in list_:
            pool.write(f, *t)
    return at


def byte_tokenizer(vocab):
    """Byte-level BPE without merges: ids 0 to 255 and padding."""
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    other = [b for b in range(256) if b not in keep]
    chars = {b: chr(b) for b in keep}
    chars.update({b: chr(256 + i) for i, b in enumerate(other)})
    words = {chars[b]: b for b in range(256)}
    words.update({f"<{i}>": i for i in range(256, vocab)})
    level = {"type": "ByteLevel", "add_prefix_space": False,
             "trim_offsets": True, "use_regex": False}
    return {"version": "1.0", "truncation": None, "padding": None,
            "added_tokens": [], "normalizer": None, "pre_tokenizer": level,
            "post_processor": None, "decoder": level,
            "model": {"type": "BPE", "dropout": None, "unk_token": None,
                      "continuing_subword_prefix": None,
                      "end_of_word_suffix": None, "fuse_unk": False,
                      "byte_fallback": False, "vocab": words, "merges": []}}


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("config")
    p.add_argument("out")
    p.add_argument("--layers", type=int)
    p.add_argument("--shard", type=float, default=5, help="GB a file")
    p.add_argument("--seed", type=int, default=1)
    a = p.parse_args()
    with open(a.config) as f:
        c = json.load(f)
    c.pop("_about", None)
    if a.layers:
        c["num_hidden_layers"] = a.layers
    gate = "block_sparse_moe" if c["model_type"] == "mixtral" else "mlp"
    c["quantization_config"] = {
        "quant_method": "compressed-tensors", "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": {"group_0": {
            "targets": ["Linear"], "format": "pack-quantized",
            "weights": {"num_bits": 4, "type": "int", "symmetric": True,
                        "strategy": "group", "group_size": GROUP,
                        "dynamic": False, "actorder": None}}},
        "ignore": [f"re:model\\.layers\\.\\d+\\.{gate}\\.gate$"]}
    os.makedirs(a.out, exist_ok=True)
    pool = Pool(np.random.default_rng(a.seed))
    where, total = {}, 0
    lists = shards(c, a.shard * 1e9)
    for i, list_ in enumerate(lists):
        name = (f"model-{i + 1:05}-of-{len(lists):05}.safetensors"
                if len(lists) > 1 else "model.safetensors")
        total += write_shard(os.path.join(a.out, name), pool, list_)
        where.update({t[0]: name for t in list_})
    documents = {"config.json": c,
                 "tokenizer.json": byte_tokenizer(c["vocab_size"])}
    if len(lists) > 1:
        documents["model.safetensors.index.json"] = {
            "metadata": {"total_size": total}, "weight_map": where}
    for name, what in documents.items():
        with open(os.path.join(a.out, name), "w") as f:
            json.dump(what, f)
    print(f"{a.out}: {total / 1e9:.2f} GB in {len(lists)} files")


if __name__ == "__main__":
    main()
