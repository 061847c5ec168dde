# SPDX-License-Identifier: Apache-2.0
"""Bits per byte of a Hugging Face folder on a text file.

    evaluate.py --model DIR --text FILE [--index valid.index.csv]
                [--plain] [--stride N] [--load]

Text that holds end marks (a line "<|endoftext|>") is taken document by
document: each is scored as [end mark] + document + [end mark], where the
first mark is context only and the last one is predicted, and its bytes are
those of the text between the marks. With --plain, or where there is no mark,
the file is one run of tokens whose first is context only, and its bytes are
the file's size.

The figure is the sum of -log2 p over all predicted tokens, over the bytes.
Windows are as long as the model's context (max_position_embeddings). The
first window counts in full; each later one starts `stride` predicted tokens
after the one before it and counts only what that has not (default: half the
context, so that a counted token sees at least half a context before it).
Positions start at 0 in every window. FILE may be an .xz file.

--index adds a line for each part. --load reports how evenly the experts of a
mixture were used.
"""

import argparse
import json
import lzma
import math
import os

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

MARK = "\n<|endoftext|>\n"


def windows(count, context, stride):
    """(first input, inputs, first counted) for `count` predicted tokens."""
    start, done = 0, 0
    while done < count:
        n = min(context, count - start)
        yield start, n, done - start
        done = start + n
        start += stride


@torch.no_grad()
def score(model, ids, context, stride):
    """Bits to predict ids[1:]."""
    x = torch.tensor(ids)
    bits = 0.0
    for p, n, skip in windows(len(ids) - 1, context, stride):
        logits = model(x[None, p:p + n]).logits[0, skip:].float()
        bits += F.cross_entropy(logits, x[p + 1 + skip:p + 1 + n],
                                reduction="sum").item() / math.log(2)
    return bits


class Load:
    """Counts the experts chosen, from the routers' own outputs."""

    def __init__(self, model):
        self.top_k = model.config.num_experts_per_tok
        self.count = {}
        for name, module in model.named_modules():
            if name.endswith("mlp.gate"):
                module.register_forward_hook(self.hook(name))

    def hook(self, name):
        def add(_module, _inputs, out):
            logits = out[0] if isinstance(out, tuple) else out
            logits = logits.reshape(-1, logits.shape[-1])
            hit = logits.topk(self.top_k, dim=-1).indices.flatten()
            n = torch.bincount(hit, minlength=logits.shape[-1])
            self.count[name] = self.count.get(name, 0) + n
        return add

    def report(self):
        out = {}
        for name, n in self.count.items():
            layer = name.split(".")[2]
            out[layer] = round((n.max() / n.float().mean()).item(), 3)
        return out


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--model", required=True)
    ap.add_argument("--text", required=True)
    ap.add_argument("--index")
    ap.add_argument("--plain", action="store_true")
    ap.add_argument("--stride", type=int)
    ap.add_argument("--load", action="store_true")
    ap.add_argument("--threads", type=int, default=1)
    args = ap.parse_args()
    torch.set_num_threads(args.threads)

    tok = Tokenizer.from_file(os.path.join(args.model, "tokenizer.json"))
    model = AutoModelForCausalLM.from_pretrained(
        args.model, dtype=torch.float32).eval()
    context = model.config.max_position_embeddings
    stride = args.stride or context // 2
    load = Load(model) if args.load else None
    opener = lzma.open if args.text.endswith(".xz") else open
    with opener(args.text, "rb") as f:
        raw = f.read()
    text = raw.decode("utf-8")

    total = {}
    if args.plain or MARK not in text:
        ids = tok.encode(text).ids
        total["all"] = [score(model, ids, context, stride), len(raw),
                        len(ids) - 1]
    else:
        docs = text.split(MARK)
        if docs[-1] == "":
            docs.pop()
        parts = [None] * len(docs)
        if args.index:
            with open(args.index) as f:
                parts = [line.split(",")[1] for line in f][1:]
        for part, doc in zip(parts, docs, strict=True):
            ids = [0] + tok.encode(doc).ids + [0]
            figures = (score(model, ids, context, stride),
                       len(doc.encode("utf-8")), len(ids) - 1)
            for key in {"all", part or "all"}:
                row = total.setdefault(key, [0.0, 0, 0])
                for i, v in enumerate(figures):
                    row[i] += v
    for key in sorted(total):
        bits, size, tokens = total[key]
        print(json.dumps({"part": key, "bits_per_byte":
                          round(bits / size, 4), "nats_per_token":
                          round(bits * math.log(2) / tokens, 4),
                          "bytes": size, "tokens": tokens}))
    if load:
        print(json.dumps({"load_max_over_mean": load.report()}))


if __name__ == "__main__":
    main()
