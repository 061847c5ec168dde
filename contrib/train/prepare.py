# SPDX-License-Identifier: Apache-2.0
"""Makes the tokenizer and the token files that train.py reads.

Owns the byte-level BPE (trained here, on the training part only) and the
form of the token files. Leaves the choice of what is sampled how often to
data.py: the files hold each document exactly once.

    prepare.py --data DIR --out DIR [--vocab 4096] [--extra]

DIR holds A_tinystories.txt[.xz] and its companions; a document ends with a
line "<|endoftext|>". Written: tokenizer.json, and for each part PART.npz with
`ids` (uint16, documents one after the other, no end marks), `start`
(documents + 1 offsets into ids) and `bytes` (per document, end mark not
counted).
"""

import argparse
import lzma
import os

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from tokenizers import trainers

EOS = "<|endoftext|>"
MARK = "\n" + EOS + "\n"
TRAIN = {
    "A": "A_tinystories.txt",
    "B": "B_fairytales_storybooks.txt",
    "C": "C_oz.txt",
    "D": "D_adventure.txt",
}
EXTRA = {"E": "E_novels.txt"}
VALID = "valid.txt"

# The split of the Qwen2 and Qwen3 tokenizers: contractions, a word with at
# most one leading non-letter, single digits, runs of punctuation, newlines.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# How many times a part counts when the BPE merges are chosen: the short
# stories are what the model is for, the novels are many. A number below one
# takes that share of the blocks.
BPE_WEIGHT = {"A": 4.0, "B": 2.0, "C": 1.0, "D": 0.34, "E": 0.05}


def read_text(folder, name):
    path = os.path.join(folder, name)
    if os.path.exists(path):
        with open(path, encoding="utf-8", newline="") as f:
            return f.read()
    with lzma.open(path + ".xz", "rt", encoding="utf-8", newline="") as f:
        return f.read()


def documents(text):
    docs = text.split(MARK)
    if docs and docs[-1] == "":
        docs.pop()
    return docs


def blocks(docs, size=4000):
    for doc in docs:
        for i in range(0, len(doc), size):
            yield doc[i:i + size]


def weighted(parts):
    for name, docs in parts.items():
        weight = BPE_WEIGHT[name]
        every = 1 if weight >= 1 else round(1 / weight)
        for _ in range(max(1, round(weight))):
            for i, block in enumerate(blocks(docs)):
                if i % every == 0:
                    yield block


def train_tokenizer(parts, vocab):
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), "isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=[EOS], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tok.train_from_iterator(weighted(parts), trainer)
    return tok


def encode(tok, docs, path):
    ids, start, size = [], [0], []
    for doc in docs:
        ids.append(np.array(tok.encode(doc).ids, dtype=np.uint16))
        start.append(start[-1] + len(ids[-1]))
        size.append(len(doc.encode("utf-8")))
    np.savez(path, ids=np.concatenate(ids), start=np.array(start, np.int64),
             bytes=np.array(size, np.int64))
    return start[-1], sum(size)


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--data", required=True, help="folder of the corpus")
    ap.add_argument("--out", required=True, help="folder to write")
    ap.add_argument("--vocab", type=int, default=4096)
    ap.add_argument("--extra", action="store_true",
                    help="take part E (novels) as well")
    args = ap.parse_args()
    os.makedirs(args.out, exist_ok=True)

    names = dict(TRAIN, **EXTRA) if args.extra else TRAIN
    parts = {k: documents(read_text(args.data, v)) for k, v in names.items()}
    tok = train_tokenizer(parts, args.vocab)
    tok.save(os.path.join(args.out, "tokenizer.json"))

    jobs = dict(parts)
    valid = documents(read_text(args.data, VALID))
    with open(os.path.join(args.data, "valid.index.csv")) as f:
        rows = [line.strip().split(",") for line in f][1:]
    for row, doc in zip(rows, valid, strict=True):
        jobs.setdefault("valid_" + row[1], []).append(doc)
    for name, docs in jobs.items():
        n, size = encode(tok, docs, os.path.join(args.out, name + ".npz"))
        print(f"{name}: {len(docs)} documents, {size} bytes, {n} tokens, "
              f"{size / n:.3f} bytes a token")


if __name__ == "__main__":
    main()
