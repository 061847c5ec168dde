# SPDX-License-Identifier: Apache-2.0
"""make_tokenizers.py - tokenizer.json of every kind, and what each must give.

Trains small tokenizers on our own text (texts.py), writes them in the shape
in which the published models write theirs, loads the written file again with
the reference library and records ids and decoded text.  Owns
tests/text/fixtures/; its README.md there says what the files hold.

usage: make_tokenizers.py [--out DIR] [KIND...]
"""

import argparse
import collections
import json
import os
import random

import tokenizers
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models,
                        normalizers, pre_tokenizers, trainers)

import texts

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "..", "..", "tests", "text", "fixtures")

QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
         r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
          r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
DEEPSEEK = [
    r"\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|"
    "[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|"
    "\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
]
BLANK = "\u2581"


# ---------------------------------------------------------------- pieces

def split(pattern, behavior="Isolated", invert=False):
    return {"type": "Split", "pattern": {"Regex": pattern},
            "behavior": behavior, "invert": invert}


def byte_level(add_prefix_space=False, trim_offsets=True, use_regex=True):
    return {"type": "ByteLevel", "add_prefix_space": add_prefix_space,
            "trim_offsets": trim_offsets, "use_regex": use_regex}


def sequence(key, *parts):
    return {"type": "Sequence", key: list(parts)}


def template(bos=None, eos=None, ids=None):
    """TemplateProcessing as the converters write it."""
    def special(s):
        return {"SpecialToken": {"id": s, "type_id": 0}}

    def text(which, type_id):
        return {"Sequence": {"id": which, "type_id": type_id}}
    single, pair = [], []
    for which, type_id in (("A", 0), ("B", 1)):
        part = []
        if bos:
            part.append({"SpecialToken": {"id": bos, "type_id": type_id}})
        part.append(text(which, type_id))
        if eos:
            part.append({"SpecialToken": {"id": eos, "type_id": type_id}})
        if which == "A":
            single = part
        pair += part
    names = [s for s in (bos, eos) if s]
    return {"type": "TemplateProcessing", "single": single, "pair": pair,
            "special_tokens": {s: {"id": s, "ids": [ids[s]], "tokens": [s]}
                               for s in names}}


def added(content, ident, special=True, normalized=None, lstrip=False,
          rstrip=False, single_word=False):
    if normalized is None:
        normalized = not special
    return {"id": ident, "content": content, "single_word": single_word,
            "lstrip": lstrip, "rstrip": rstrip, "normalized": normalized,
            "special": special}


def trained(pre_tokenizer, normalizer, size, specials=(), letters=None):
    """(vocabulary in id order, merges) of a BPE trained on our text.

    `letters` is the alphabet of a tokenizer of characters; it is given in
    full because the trainer's own choice among equally frequent characters
    differs from run to run.
    """
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        tok.normalizer = normalizer
    alphabet = letters or pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, show_progress=False, special_tokens=list(specials),
        initial_alphabet=alphabet, limit_alphabet=len(alphabet))
    tok.train_from_iterator(texts.training_text(), trainer)
    model = json.loads(tok.to_str())["model"]
    order = sorted(model["vocab"], key=model["vocab"].get)
    return order, [tuple(m) for m in model["merges"]]


def bpe(order, merges, pairs=True, bare=False, **fields):
    """A BPE model object; `bare` leaves out what old files leave out."""
    model = {} if bare else {"type": "BPE"}
    model.update(dropout=None, unk_token=None, continuing_subword_prefix="",
                 end_of_word_suffix="", fuse_unk=False)
    if not bare:
        model.update(byte_fallback=False)
    model.update(fields)
    model["vocab"] = {t: i for i, t in enumerate(order)}
    model["merges"] = [list(m) if pairs else " ".join(m) for m in merges]
    return model


def whole(added_tokens, normalizer, pre_tokenizer, post, decoder, model):
    return {"version": "1.0", "truncation": None, "padding": None,
            "added_tokens": added_tokens, "normalizer": normalizer,
            "pre_tokenizer": pre_tokenizer, "post_processor": post,
            "decoder": decoder, "model": model}


def blank_decoder(strip=True):
    parts = [{"type": "Replace", "pattern": {"String": BLANK},
              "content": " "},
             {"type": "ByteFallback"}, {"type": "Fuse"}]
    if strip:
        parts.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return sequence("decoders", *parts)


# ----------------------------------------------------------------- kinds

def gpt2():
    order, merges = trained(
        pre_tokenizers.ByteLevel(add_prefix_space=False), None, 900)
    n = len(order)
    order = order + ["<|endoftext|>"]
    return whole([added("<|endoftext|>", n, normalized=True)], None,
                 {"type": "ByteLevel", "add_prefix_space": False,
                  "trim_offsets": True},
                 {"type": "ByteLevel", "add_prefix_space": True,
                  "trim_offsets": False},
                 {"type": "ByteLevel", "add_prefix_space": True,
                  "trim_offsets": True},
                 bpe(order, merges, pairs=False, bare=True, unk_token=""))


def qwen2():
    pre = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(QWEN2), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    order, merges = trained(pre, normalizers.NFC(), 900)
    n = len(order)
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    plain = ["<tool_call>", "</tool_call>", "<think>", "</think>"]
    extra = [added(s, n + i) for i, s in enumerate(names)]
    extra += [added(s, n + 3 + i, special=False, normalized=False)
              for i, s in enumerate(plain)]
    return whole(extra, {"type": "NFC"},
                 sequence("pretokenizers", split(QWEN2),
                          byte_level(trim_offsets=False, use_regex=False)),
                 byte_level(trim_offsets=False, use_regex=False),
                 byte_level(trim_offsets=False, use_regex=False),
                 bpe(order, merges))


def llama3():
    pre = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    order, merges = trained(pre, None, 900)
    # Words that no merge can build: only ignore_merges finds them.
    for w in ("Ġremember", "camel", "Ġharbo", "127", "Ġ{\"", "ÃŃ", "ĠĠĠx",
              "Ġworx", "WORD", "Ġfü"):
        if w not in order:
            order.append(w)
    n = len(order)
    names = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>",
             "<|end_header_id|>", "<|eot_id|>", "<|reserved_0|>"]
    ids = {s: n + i for i, s in enumerate(names)}
    return whole([added(s, ids[s]) for s in names], None,
                 sequence("pretokenizers", split(LLAMA3),
                          byte_level(use_regex=False)),
                 sequence("processors", byte_level(add_prefix_space=True,
                                                   trim_offsets=False),
                          template(bos="<|begin_of_text|>", ids=ids)),
                 byte_level(add_prefix_space=True),
                 bpe(order, merges, pairs=False, ignore_merges=True,
                     continuing_subword_prefix=None, end_of_word_suffix=None))


def deepseek():
    pre = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(p), "isolated") for p in DEEPSEEK]
        + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    names = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"]
    order, merges = trained(pre, None, 900, specials=names)
    n = len(order)
    extra = [added(s, i, normalized=True) for i, s in enumerate(names)]
    more = ["<｜User｜>", "<｜Assistant｜>", "<think>", "</think>",
            "<｜place▁holder▁no▁0｜>", "<｜place▁holder▁no▁1｜>"]
    for i, s in enumerate(more):
        extra.append(added(s, n + i, special=False,
                           normalized=not s.startswith("<｜p")))
    return whole(extra, sequence("normalizers"),
                 sequence("pretokenizers", *[split(p) for p in DEEPSEEK],
                          byte_level(use_regex=False)),
                 byte_level(add_prefix_space=True, trim_offsets=False),
                 byte_level(add_prefix_space=True),
                 bpe(order, merges, pairs=False))


def sentencepiece(size):
    """Vocabulary and merges as a converted SentencePiece model has them:
    special tokens, 256 bytes, merged pieces, then the single characters."""
    mark = normalizers.Sequence([normalizers.Prepend(BLANK),
                                 normalizers.Replace(" ", BLANK)])
    pre = pre_tokenizers.Split(
        Regex("%s+[^%s\n]*|\n|[^%s\n]+" % (BLANK, BLANK, BLANK)), "isolated")
    count = collections.Counter("".join(texts.training_text()))
    count[BLANK] = count.pop(" ") + 1
    letters = sorted(count, key=lambda c: (-count[c], c))[:180]
    order, merges = trained(pre, mark, size, letters=letters)
    # \n and friends are left to the bytes, as in the published models.
    control = {t for t in order if any(ord(c) < 32 for c in t)}
    merges = [m for m in merges if not any(
        ord(c) < 32 for c in m[0] + m[1])]
    chars = [t for t in order if len(t) == 1 and t not in control]
    words = [t for t in order if len(t) > 1 and t not in control]
    return (["<unk>", "<s>", "</s>"] + ["<0x%02X>" % b for b in range(256)]
            + words + chars, merges)


def llama2():
    order, merges = sentencepiece(640)
    ids = {t: i for i, t in enumerate(order)}
    return whole([added(s, ids[s], normalized=False)
                  for s in ("<unk>", "<s>", "</s>")],
                 sequence("normalizers",
                          {"type": "Prepend", "prepend": BLANK},
                          {"type": "Replace", "pattern": {"String": " "},
                           "content": BLANK}),
                 None, template(bos="<s>", ids=ids), blank_decoder(),
                 bpe(order, merges, pairs=False, unk_token="<unk>",
                     continuing_subword_prefix=None, end_of_word_suffix=None,
                     fuse_unk=True, byte_fallback=True))


def metaspace(scheme, size, strip, eos=False, split_words=False):
    order, merges = sentencepiece(size)
    names = ["[INST]", "[/INST]"]
    order = order[:3] + names + order[3:]
    ids = {t: i for i, t in enumerate(order)}
    decoder = (blank_decoder() if strip else
               {"type": "Metaspace", "replacement": BLANK,
                "prepend_scheme": scheme, "split": split_words})
    model = bpe(order, merges, pairs=not strip, unk_token="<unk>",
                continuing_subword_prefix=None, end_of_word_suffix=None,
                fuse_unk=True, byte_fallback=strip, ignore_merges=False)
    return whole([added(s, ids[s], normalized=False)
                  for s in ["<unk>", "<s>", "</s>"] + names], None,
                 {"type": "Metaspace", "replacement": BLANK,
                  "prepend_scheme": scheme, "split": split_words},
                 template(bos="<s>", eos="</s>" if eos else None, ids=ids),
                 decoder, model)


def mistral():
    return metaspace("first", 500, strip=True)


def always():
    # No byte tokens are used here, so that unknown characters really become
    # <unk>, fused; and the pieces are split at every blank.
    return metaspace("always", 420, strip=False, eos=True, split_words=True)


def neox():
    """As OLMoE's: NFC, built-in regex, runs of blanks as added tokens that
    are not special and are matched in the normalised text."""
    order, merges = trained(
        pre_tokenizers.ByteLevel(add_prefix_space=False), normalizers.NFC(),
        700, specials=["<|padding|>", "<|endoftext|>"])
    n = len(order)
    extra = [added("<|padding|>", 0), added("<|endoftext|>", 1)]
    for i, width in enumerate(range(24, 1, -1)):
        extra.append(added(" " * width, n + i, special=False,
                           normalized=True))
    more = ["|||IP|||", "|||EMAIL|||"]
    for i, s in enumerate(more):
        extra.append(added(s, n + 23 + i, special=False, normalized=False))
    return whole(extra, {"type": "NFC"}, byte_level(),
                 byte_level(trim_offsets=False), byte_level(),
                 bpe(order, merges, pairs=False))


def addedmix():
    """Every flag of an added token, overlapping contents, single digits and
    a normalizer that changes what the tokens are matched against."""
    order, merges = trained(
        pre_tokenizers.Sequence([
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False)]),
        normalizers.Lowercase(), 600, specials=["<pad>"])
    n = len(order)
    extra = [
        added("<pad>", 0),
        added("[MASK]", n, lstrip=True),
        added("[LEFT]", n + 1, special=False, normalized=False, lstrip=True),
        added("[RIGHT]", n + 2, special=False, normalized=False, rstrip=True),
        added("[BOTH]", n + 3, lstrip=True, rstrip=True),
        added("word", n + 4, special=False, normalized=True,
              single_word=True),
        added("né", n + 5, special=False, normalized=True, single_word=True),
        added("Word", n + 6, special=False, normalized=False,
              single_word=True),
        added("overlap", n + 7, special=False, normalized=False),
        added("overlapping", n + 8, special=False, normalized=False),
        added("lap", n + 9, special=False, normalized=True),
        added("<a>", n + 10, special=True, normalized=True),
        added("<a><b>", n + 11, special=True, normalized=True),
        added("<b>", n + 12, special=False, normalized=True, rstrip=True,
              single_word=False),
        added("<|im_start|>", n + 13),
        added("<|im_end|>", n + 14, rstrip=True),
        added("STRASSE", n + 15, special=False, normalized=True),
    ]
    ids = {"<|im_start|>": n + 13, "<|im_end|>": n + 14}
    return whole(extra, {"type": "Lowercase"},
                 sequence("pretokenizers",
                          {"type": "Digits", "individual_digits": True},
                          byte_level(add_prefix_space=True)),
                 template(bos="<|im_start|>", eos="<|im_end|>", ids=ids),
                 byte_level(), bpe(order, merges))


def normal():
    """The other normalizers and splits that a file of these families may
    name: Strip, NFKC, Replace by string and by regex, Split with other
    behaviours, Punctuation."""
    order, merges = trained(
        pre_tokenizers.ByteLevel(add_prefix_space=False), normalizers.NFKC(),
        500, specials=["<s>", "</s>"])
    n = len(order)
    return whole([added("<s>", 0), added("</s>", 1),
                  added("<unk>", n, special=False, normalized=True)],
                 sequence("normalizers",
                          {"type": "Strip", "strip_left": True,
                           "strip_right": True},
                          {"type": "NFKC"},
                          {"type": "Replace", "pattern": {"String": "..."},
                           "content": "…"},
                          {"type": "Replace",
                           "pattern": {"Regex": "[ \\t]{2,}"},
                           "content": "  "}),
                 sequence("pretokenizers",
                          split(r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))",
                                "Isolated"),
                          split(r"[\r\n]", "MergedWithPrevious"),
                          {"type": "Punctuation", "behavior": "Contiguous"},
                          byte_level(use_regex=False)),
                 template(bos="<s>", ids={"<s>": 0}), byte_level(),
                 bpe(order, merges))


KINDS = {"gpt2": gpt2, "qwen2": qwen2, "llama2": llama2, "llama3": llama3,
         "deepseek": deepseek, "mistral": mistral, "always": always,
         "neox": neox, "addedmix": addedmix, "normal": normal}


# ------------------------------------------------------------- reference

def fnv1a64(ids):
    """FNV-1a over the ids as little-endian 32-bit words."""
    h = 0xCBF29CE484222325
    for i in ids:
        for b in i.to_bytes(4, "little"):
            h = ((h ^ b) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return "%016x" % h


def runs(ids):
    out = []
    for i in ids:
        if out and out[-1][0] == i:
            out[-1][1] += 1
        else:
            out.append([i, 1])
    return out


def compact(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def one_per_line(obj):
    """JSON with a line for each entry of the top level, and for each row of
    the long lists, so that a change shows as a line in a diff."""
    parts = []
    for key, value in obj.items():
        if isinstance(value, list) and len(value) > 64:
            rows = []
            for at in range(0, len(value), 8):
                rows.append(",".join(compact(v) for v in value[at:at + 8]))
            text = "[\n" + ",\n".join(rows) + "]"
        else:
            text = compact(value)
        parts.append(compact(key) + ":" + text)
    return "{\n" + ",\n".join(parts) + "\n}\n"


def reference(tok, kind, strings):
    encode = tok.encode
    ids = [encode(s, add_special_tokens=False).ids for s in strings]
    empty = encode("", add_special_tokens=True).ids
    # Where the template puts tokens, found on a text of one token.
    probe = next(s for s, i in zip(strings, ids) if i and s.strip())
    full = encode(probe, add_special_tokens=True).ids
    bare = ids[strings.index(probe)]
    at = next(k for k in range(len(full) + 1)
              if full[k:k + len(bare)] == bare)
    prefix, suffix = full[:at], full[at + len(bare):]
    assert empty == prefix + suffix
    for s, i in zip(strings, ids):
        assert encode(s, add_special_tokens=True).ids == prefix + i + suffix, s

    tok.encode_special_tokens = True
    as_text = {}
    for k, s in enumerate(strings):
        other = encode(s, add_special_tokens=False).ids
        if other != ids[k]:
            as_text[str(k)] = other
    tok.encode_special_tokens = False

    kept, skipped = {}, {}
    for k, (s, i) in enumerate(zip(strings, ids)):
        a = tok.decode(i, skip_special_tokens=False)
        b = tok.decode(i, skip_special_tokens=True)
        if a != s:
            kept[str(k)] = a
        if b != a:
            skipped[str(k)] = b

    rng = random.Random(kind)
    size = tok.get_vocab_size()
    rows = []
    for k in range(40):
        i = prefix + ids[(k * 73) % len(strings)][:12] + suffix
        rows.append(i)
    for k in range(260):
        n = rng.randrange(1, 9)
        if k % 4 == 0:      # bytes and characters, where decoding can break
            rows.append([rng.randrange(min(300, size)) for _ in range(n)])
        else:
            rows.append([rng.randrange(size) for _ in range(n)])
    decode = [[i, tok.decode(i, skip_special_tokens=False),
               tok.decode(i, skip_special_tokens=True)] for i in rows]

    longs = []
    for unit, count in texts.long_rules():
        text = unit * count
        i = encode(text, add_special_tokens=False).ids
        entry = {"repeat": [unit, count], "count": len(i),
                 "fnv1a64": fnv1a64(i), "head": i[:8], "tail": i[-8:],
                 "round_trip": tok.decode(i, skip_special_tokens=False)
                 == text}
        rle = runs(i)
        if len(rle) <= 16:
            entry["rle"] = rle
        longs.append(entry)

    return {"kind": kind,
            "made_with": {"tokenizers": tokenizers.__version__},
            "vocab_size": size, "prefix": prefix, "suffix": suffix,
            "ids": ids, "ids_specials_as_text": as_text,
            "decoded": kept, "decoded_skipping": skipped,
            "decode": decode, "long": longs}


def write(path, text):
    with open(path, "w", encoding="utf-8", newline="\n") as f:
        f.write(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", default=OUT)
    parser.add_argument("kinds", nargs="*")
    args = parser.parse_args()

    groups, strings = texts.strings()
    os.makedirs(args.out, exist_ok=True)
    write(os.path.join(args.out, "strings.json"),
          one_per_line({"groups": groups, "strings": strings,
                        "long": texts.long_rules()}))
    for kind in args.kinds or KINDS:
        folder = os.path.join(args.out, kind)
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, "tokenizer.json")
        spec = KINDS[kind]()
        write(path, one_per_line(spec))
        tok = Tokenizer.from_file(path)
        for t in spec["added_tokens"]:
            assert tok.token_to_id(t["content"]) == t["id"], t
        ref = reference(tok, kind, strings)
        write(os.path.join(folder, "reference.json"), one_per_line(ref))
        size = sum(os.path.getsize(os.path.join(folder, f))
                   for f in os.listdir(folder))
        same = len(strings) - len(ref["decoded"])
        print("%-10s vocab %5d, %6.1f kB, %d of %d strings decode to "
              "themselves" % (kind, ref["vocab_size"], size / 1000, same,
                              len(strings)), flush=True)
        assert size <= 300000, kind


if __name__ == "__main__":
    main()
