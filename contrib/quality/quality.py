#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What number formats cost in quality, ours beside others'.

    quality.py --build BUILD --ggml LIBRARY --text FILE [--model DIR]
               [--tokens N] [--calibrate FILE] [--update docs/quality.md]

First table: the model's matrices in each format, and the mean divergence
KL(bf16 || format) of the predictions at every position of a held-out text.
All logits are libmoerun's.  "as computed": the engine's own arithmetic, which
rounds activations too; "weights alone": the matrices go back to f32 first.
The bf16 side has its cache in f32.  Peers' formats are weights alone.

Second table: relative error of random matrices.

The text is cut at lines "<|endoftext|>", each document into windows of the
model's context, and windows are taken evenly until there are N tokens.
int4-g32 has a row for `--calibrate self`, too, and with --calibrate one for
that text, which must not be the held-out one.  --update replaces what stands
between the page's two table marks.
"""
import argparse
import json
import lzma
import math
import os
import shutil
import subprocess
import sys
import tempfile

import numpy as np

import engine
import formats

MARK = "\n<|endoftext|>\n"
OURS = ["int4-g32", "int4-g64", "int4-g128", "int4-g32z", "int4-g64z",
        "int4-g128z", "fp8-e4m3-channel"]
CLASSES = {
    "experts": (lambda t: ".experts." in t, ["--experts"]),
    "experts and attention": (
        lambda t: ".experts." in t or "self_attn" in t and "_proj" in t,
        ["--experts", "--attention"]),
}


class Run:
    """The build tree's program and library."""

    def __init__(self, build):
        self.program = os.path.join(build, "moe-run")
        self.library = os.path.join(build, ".libs", "libmoerun.so")
        plugins = [os.path.join(d, ".libs") for d, _, files
                   in os.walk(os.path.join(build, "plugins"))
                   if any(f.endswith(".la") for f in files)]
        self.plugins = ":".join(os.path.abspath(d) for d in plugins)

    def quantize(self, source, out, flags):
        subprocess.run([self.program, "quantize", source, out, "-q",
                        "--plugin-path", self.plugins, *flags], check=True)

    def engine(self, model, **options):
        return engine.Engine(os.path.abspath(self.library), model,
                             {"plugin.path": self.plugins, **options})


def windows(e, text, context, tokens):
    """[ids], evenly from all documents, about `tokens` in all."""
    mark = e.encode("<|endoftext|>")
    if len(mark) != 1:
        mark = [0]
    every = []
    for doc in text.split(MARK):
        ids = e.encode(doc) if doc.strip() else []
        for i in range(0, len(ids), context - 1):
            every.append(mark + ids[i:i + context - 1])
    total = sum(len(w) for w in every)
    step = max(1.0, total / tokens)
    return [every[int(i * step)] for i in range(int(len(every) / step))]


def log_softmax(x):
    x = x.astype(np.float64)
    x -= x.max()
    return x - math.log(np.exp(x).sum())


def reference(e, texts):
    out = []
    for ids in texts:
        rows = [None] * len(ids)
        def take(i, x, rows=rows):
            rows[i] = log_softmax(x).astype("<f4")
        e.logits(ids, take)
        out.append(np.stack(rows))
    return out


class Score:
    """Sums over each window: divergence, agreements, bits of the text."""

    def __init__(self, e, texts, ref):
        self.kl = np.zeros(len(texts))
        self.same = self.bits = 0.0
        self.n = np.array([len(t) for t in texts])
        for w, ids in enumerate(texts):
            def take(i, x, w=w, ids=ids):
                p, q = ref[w][i].astype(np.float64), log_softmax(x)
                self.kl[w] += float((np.exp(p) * (p - q)).sum())
                self.same += int(p.argmax()) == int(q.argmax())
                if i + 1 < len(ids):
                    self.bits -= float(q[ids[i + 1]]) / math.log(2)
            e.logits(ids, take)
        e.close()

    def mean(self):
        return self.kl.sum() / self.n.sum()

    def against(self, other):
        """Ratio of mean divergences, and its standard error over windows."""
        r = self.kl.sum() / other.kl.sum()
        d = self.kl - r * other.kl
        return r, math.sqrt((d ** 2).sum()) / other.kl.sum()


def peers(ggml):
    return {"Q4_0": lambda w: ggml("Q4_0", w),
            "Q4_K": lambda w: ggml("Q4_K", w),
            "Q4_K, Q5_0 where 256 does not fit":
                lambda w: formats.q4_k_as_shipped(ggml, w),
            "MXFP4": lambda w: ggml("MXFP4", w),
            "INT4, one scale a row": formats.int4_channel,
            "Q8_0": lambda w: ggml("Q8_0", w)}


def rel(a, b):
    """Sums of squares: of the difference, and of b."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    return np.array([((a - b) ** 2).sum(), (b ** 2).sum()])


def model_table(a, run, ggml, tmp, out):
    source = formats.Folder(a.model)
    with open(os.path.join(a.model, "config.json")) as f:
        context = json.load(f)["max_position_embeddings"]
    with (lzma.open if a.text.endswith(".xz") else open)(
            a.text, "rt", encoding="utf-8") as f:
        text = f.read()
    e = run.engine(a.model, **{"memory.kv_type": "f32"})
    texts = windows(e, text, min(context, a.context), a.tokens)
    size = sum(len(decoded(e, ids[1:])) for ids in texts)
    ref = reference(e, texts)
    e.close()
    n = sum(len(t) for t in texts)
    print(f"{n} tokens in {len(texts)} windows", file=sys.stderr)

    for what, (select, flags) in CLASSES.items():
        rows, mods = [], source.modules(select)
        count = sum(source.raw[m + ".weight"].size for m in mods)
        plain = Score(run.engine(a.model), texts, ref)
        rows.append(("bf16", 16.0, plain, plain))
        own_words = [("int4-g32, calibrated on its own words", "int4-g32",
                      ["--calibrate", "self"])]
        text_of = [("int4-g32, calibrated", "int4-g32",
                    ["--calibrate", a.calibrate])] if a.calibrate else []
        for name, form, more in ([(f, f, []) for f in a.formats] + text_of
                                 + own_words):
            d = os.path.join(tmp, "q")
            run.quantize(a.model, d,
                         [x for f in flags for x in (f, form)] + more)
            q = formats.Folder(d)
            own = Score(run.engine(d), texts, ref)
            alone = through(run, source, {m: q.decode(m) for m in mods}, tmp,
                            texts, ref)
            bits = 8 * sum(q.bytes(m) for m in mods) / count
            rows.append((name, bits, own, alone))
            shutil.rmtree(d)
            print(what, name, own.mean(), alone.mean(), file=sys.stderr)
        for name, f in peers(ggml).items():
            made = {m: f(source.decode(m)) for m in mods}
            bits = 8 * sum(b for _, b in made.values()) / count
            alone = through(run, source, {m: w for m, (w, _) in made.items()},
                            tmp, texts, ref)
            rows.append((name, bits, None, alone))
            print(what, name, alone.mean(), file=sys.stderr)
        base = next(r[3] for r in rows if r[0] == "Q4_K")
        out.append(f"\n### {what[0].upper()}{what[1:]}: {len(mods)} matrices, "
                   f"{count / 1e6:.2f} million weights; {n} tokens\n")
        out.append("| format | bits a weight | KL as computed | KL weights "
                   "alone | of Q4_K's | same first choice | bits a byte |")
        out.append("|---|---:|---:|---:|---:|---:|---:|")
        for name, bits, own, alone in rows:
            s = own or alone
            r, err = s.against(base)
            out.append(
                f"| {name} | {bits:.2f} | "
                f"{f'{own.mean():.5f}' if own else '-'} | "
                f"{alone.mean():.5f} | {r:.2f} ± {err:.2f} | "
                f"{100 * s.same / n:.2f} % | {s.bits / size:.4f} |")


def decoded(e, ids):
    """The bytes of these tokens."""
    import ctypes as c
    text, n = c.c_void_p(), c.c_size_t()
    array = (c.c_uint32 * len(ids))(*ids)
    e.call("moe_engine_decode", e.e, array, c.c_size_t(len(ids)),
           c.c_uint32(0), c.byref(text), c.byref(n))
    b = c.string_at(text, n.value)
    e.lib.moe_free(text)
    return b


def through(run, source, weights, tmp, texts, ref):
    """The model with these f32 matrices, computed with them as they are."""
    d = os.path.join(tmp, "f32")
    formats.write_folder(source, d, weights)
    s = Score(run.engine(d), texts, ref)
    shutil.rmtree(d)
    return s


def random_table(a, run, ggml, tmp, out):
    """A one-layer model of 1024-wide random matrices, written, quantized,
    decoded."""
    rng = np.random.default_rng(20261122)
    wide, n_experts = 1024, 2
    with open(os.path.join(a.model, "config.json")) as f:
        config = json.load(f)
    config.update(hidden_size=wide, moe_intermediate_size=wide, head_dim=64,
                  intermediate_size=wide, num_hidden_layers=1,
                  num_experts=n_experts, num_experts_per_tok=1)
    h = config["num_attention_heads"] * 64
    kv = config["num_key_value_heads"] * 64
    p = "model.layers.0."
    shapes = {"model.embed_tokens": (config["vocab_size"], wide),
              "model.norm": (wide,), p + "input_layernorm": (wide,),
              p + "post_attention_layernorm": (wide,),
              p + "self_attn.q_norm": (64,), p + "self_attn.k_norm": (64,),
              p + "self_attn.q_proj": (h, wide),
              p + "self_attn.k_proj": (kv, wide),
              p + "self_attn.v_proj": (kv, wide),
              p + "self_attn.o_proj": (wide, h),
              p + "mlp.gate": (n_experts, wide)}
    mods = [f"{p}mlp.experts.{i}.{m}_proj" for i in range(n_experts)
            for m in ("gate", "up", "down")]
    shapes.update({m: (wide, wide) for m in mods})
    made, bits = {}, {}
    draws = {"Gaussian": lambda s: rng.standard_normal(s),
             "Student t (4)": lambda s: rng.standard_t(4, s)}
    for kind, draw in draws.items():
        folder = formats.Folder(a.model)
        folder.raw = {m + ".weight": formats.to_bf16(0.02 * draw(s))
                      for m, s in shapes.items()}
        folder.dtype = {t: "BF16" for t in folder.raw}
        src = os.path.join(tmp, "random")
        formats.write_folder(folder, src, {})
        with open(os.path.join(src, "config.json"), "w") as f:
            json.dump(config, f)
        count = len(mods) * wide * wide
        for name in a.formats:
            d = os.path.join(tmp, "q")
            run.quantize(src, d, ["--experts", name])
            q = formats.Folder(d)
            bits[name] = 8 * sum(q.bytes(m) for m in mods) / count
            made[name, kind] = sum(rel(q.decode(m), folder.decode(m))
                                   for m in mods)
            shutil.rmtree(d)
        for name, f in peers(ggml).items():
            if "," in name and name.startswith("Q4_K"):
                continue
            both = [(f(folder.decode(m)), folder.decode(m)) for m in mods]
            bits[name] = 8 * sum(b for (_, b), _ in both) / count
            made[name, kind] = sum(rel(w, x) for (w, _), x in both)
        shutil.rmtree(src)
    out.append(f"\n### Random matrices, {wide} x {wide}: relative error\n")
    out.append("| format | bits a weight | " + " | ".join(draws) + " |")
    out.append("|---|---:|" + "---:|" * len(draws))
    for name, b in bits.items():
        out.append(f"| {name} | {b:.2f} | " + " | ".join(
            f"{100 * math.sqrt(d / t):.2f} %"
            for d, t in (made[name, kind] for kind in draws)) + " |")


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    here = os.path.dirname(os.path.abspath(__file__))
    p.add_argument("--build", required=True, help="a build tree of moe-run")
    p.add_argument("--ggml", required=True, help="what ggml.sh made")
    p.add_argument("--text", required=True)
    p.add_argument("--model", default=os.path.join(
        here, "..", "..", "conf", "model", "stories"))
    p.add_argument("--tokens", type=int, default=4096)
    p.add_argument("--context", type=int, default=512)
    p.add_argument("--formats", nargs="+", default=OURS, metavar="FORMAT")
    p.add_argument("--calibrate", metavar="FILE")
    p.add_argument("--update", metavar="PAGE")
    a = p.parse_args()
    run, ggml, out = Run(a.build), formats.Ggml(a.ggml), []
    with tempfile.TemporaryDirectory() as tmp:
        model_table(a, run, ggml, tmp, out)
        random_table(a, run, ggml, tmp, out)
    text = "\n".join(out) + "\n"
    if a.update:
        with open(a.update, encoding="utf-8") as f:
            head, rest = f.read().split("<!-- tables -->")
            tail = rest.split("<!-- end of tables -->")[1]
        with open(a.update, "w", encoding="utf-8") as f:
            f.write(f"{head}<!-- tables -->\n{text}\n<!-- end of tables -->"
                    f"{tail}")
    else:
        print(text)


if __name__ == "__main__":
    main()
