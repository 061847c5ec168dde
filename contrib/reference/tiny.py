# SPDX-License-Identifier: Apache-2.0
"""tiny.py - random weights for a tiny checkpoint, and its reference answers.

Owns how weights are drawn, how a folder is asked for logits and greedy
tokens, and when an answer is far enough from a tie to be a test.  Which
checkpoints there are is for make_models.py and make_quant.py to say.

Weights are drawn by integer arithmetic from a seed and the tensor's name, so
they are the same bits on every machine.  Logits are not: they depend on the
order in which the machine's library adds, by about 1e-6 relative.
"""

import json
import math
import os
import re
import shutil
import zlib

import numpy as np
import safetensors
import safetensors.torch
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16,
          "float16": torch.float16}
SHORT = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
PROMPT = 40     # tokens: longer than any window, no multiple of a KV page
GREEDY = 32     # tokens that follow; 72 in all, past a page of 64
ROWS = [0, 1, 2, 7, 15, 16, 23, 31, 32, 38, 39, 40, 63, 64, 70]
LIMIT = 300000  # bytes a folder may hold

torch.use_deterministic_algorithms(True)
transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


def uniform(seed, name, shape):
    """Uniform on [-1, 1), 21 bits, from PCG64: exact on any machine."""
    gen = np.random.Generator(np.random.PCG64([seed, zlib.crc32(
        name.encode())]))
    draw = gen.integers(-(1 << 20), 1 << 20, size=shape, dtype=np.int64)
    return draw.astype(np.float64) / float(1 << 20)


def weight(seed, name, shape, tied):
    """A tensor whose size suits its part, so that logits have spread, routers
    decide, and the epsilon of a norm is not lost."""
    u = uniform(seed, name, shape) * math.sqrt(3.0)     # unit variance
    if name.endswith("norm.weight"):
        w = 1.0 + 0.25 * u
    elif name.endswith(".bias"):
        w = 0.2 * u
    elif "embed_tokens" in name:
        w = (0.25 if tied else 0.05) * u
    elif re.search(r"(mlp|block_sparse_moe)\.gate\.weight$", name):
        w = 0.5 * u
    elif "shared_expert_gate" in name or "lm_head" in name:
        w = 0.3 * u
    else:
        w = 1.3 / math.sqrt(shape[-1]) * u
    return torch.from_numpy(w.astype(np.float32))


def published_names(config, folder):
    """{name: shape} as save_pretrained writes them for this config."""
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    shapes = {}
    with safetensors.safe_open(os.path.join(folder, "model.safetensors"),
                               "pt") as f:
        for name in f.keys():
            shapes[name] = f.get_slice(name).get_shape()
    return shapes


def load(folder, dtype):
    extra = {}
    kind = AutoConfig.from_pretrained(folder)
    if hasattr(kind, "num_experts_per_tok"):
        extra["experts_implementation"] = "eager"
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation="eager",
        output_loading_info=True, **extra)
    for key in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not info[key], (folder, key, info[key])
    return model.eval()


def logits_of(model, ids):
    """(logits (tokens, vocab) in f32, router logits by MoE layer)."""
    extra = {}
    if hasattr(model.config, "num_experts_per_tok"):
        extra["output_router_logits"] = True
    with torch.no_grad():
        out = model(torch.tensor([ids]), use_cache=False, **extra)
    routers = [r.reshape(len(ids), -1).float()
               for r in (getattr(out, "router_logits", None) or ())]
    return out.logits[0].float(), routers


def greedy_of(model, prompt, count):
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(logits_of(model, ids)[0][-1].argmax()))
    return ids[len(prompt):]


def generated(model, prompt, count):
    """The same by the library's own loop and cache, as a cross-check."""
    with torch.no_grad():
        out = model.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(
                1, len(prompt), dtype=torch.long), do_sample=False,
            max_new_tokens=count, min_new_tokens=count, eos_token_id=None,
            temperature=None, top_p=None, top_k=None, pad_token_id=0)
    return out[0, len(prompt):].tolist()


def prompt_of(config, length, gen, bos):
    """Ids by chance, none of them special; the first is BOS if there is one.
    """
    ids = gen.integers(4, config.vocab_size, size=length).tolist()
    if bos is not None:
        ids[0] = bos
    return ids


class Unfit(Exception):
    """This seed's answers lie too near a tie, or are too dull."""


def check_sequence(model, prompt, greedy, eos, least=1e-3, border=1e-4):
    logits, routers = logits_of(model, prompt + greedy)
    rows = logits[len(prompt) - 1:len(prompt) + len(greedy) - 1]
    best = rows.topk(2, dim=-1).values
    gap = float(((best[:, 0] - best[:, 1]) / rows.abs().amax(-1)).min())
    if gap < least:
        raise Unfit("logits near a tie: %g" % gap)
    if len(set(greedy)) < min(8, len(greedy) // 2):
        raise Unfit("dull: %s" % greedy)
    if set(greedy) & set(eos):
        raise Unfit("ends early")
    nearest = math.inf
    k = getattr(model.config, "num_experts_per_tok", None)
    for r in routers:
        order = r.sort(-1, descending=True).values
        if k < r.shape[1]:
            nearest = min(nearest, float((order[:, k - 1]
                                          - order[:, k]).min()))
            chosen = r.topk(k, -1).indices.flatten()
            counts = torch.bincount(chosen, minlength=r.shape[1])
            if len(prompt) >= PROMPT and (
                    counts.min() == 0 or counts.max() > 0.9 * len(r)):
                raise Unfit("routing is lopsided: %s" % counts.tolist())
    if nearest < border:
        raise Unfit("routers near a tie: %g" % nearest)
    return logits, routers, gap, nearest


def numbers(rows):
    """Rows of floats with nine digits, which give a float32 back exactly."""
    return [["%.9g" % v for v in row] for row in rows.tolist()]


def dump(path, obj):
    """JSON, one line for each entry and for each row of a long list; the
    strings in rows made by numbers() are written as numbers."""
    def text(value):
        if isinstance(value, list):
            if value and isinstance(value[0], list) and len(value) > 3:
                return "[\n" + ",\n".join(text(v) for v in value) + "]"
            if value and all(isinstance(v, str) for v in value) and re.match(
                    r"^-?[0-9]", value[0]):
                return "[" + ",".join(value) + "]"
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    lines = []
    for key, value in obj.items():
        if isinstance(value, dict) and any(
                isinstance(v, list) for v in value.values()):
            inner = ",\n".join(json.dumps(k) + ":" + text(v)
                               for k, v in value.items())
            lines.append(json.dumps(key) + ":{\n" + inner + "}")
        else:
            lines.append(json.dumps(key) + ":" + text(value))
    with open(path, "w", encoding="utf-8", newline="\n") as f:
        f.write("{\n" + ",\n".join(lines) + "\n}\n")


def eos_ids(folder):
    ids = set()
    for name in ("config.json", "generation_config.json"):
        path = os.path.join(folder, name)
        if os.path.exists(path):
            with open(path, encoding="utf-8") as f:
                value = json.load(f).get("eos_token_id")
            if value is not None:
                ids.update(value if isinstance(value, list) else [value])
    return ids


def versions(*more):
    out = {"transformers": transformers.__version__,
           "torch": torch.__version__.split("+")[0],
           "safetensors": safetensors.__version__}
    out.update(more)
    return out


def answers(folder, dtype, seed, batch=()):
    """What reference.json holds for the checkpoint in `folder`; raises Unfit
    where a test on it could fail for no fault."""
    model = load(folder, torch.float32)
    config = model.config
    gen = np.random.Generator(np.random.PCG64([seed, 1]))
    bos = config.bos_token_id
    eos = eos_ids(folder)
    prompt = prompt_of(config, PROMPT, gen, bos)
    greedy = greedy_of(model, prompt, GREEDY)
    logits, routers, gap, nearest = check_sequence(model, prompt, greedy, eos)
    spread = float(logits.std(-1).min())
    if spread < 0.05:
        raise Unfit("logits have no spread: %g" % spread)
    assert generated(model, prompt, GREEDY) == greedy
    ref = {"dtype": dtype, "seed": seed, "made_with": versions(),
           "prompt": prompt, "greedy": greedy, "logits_rows": ROWS,
           "logits": numbers(logits[ROWS])}
    if dtype != "float32":
        native, _ = logits_of(load(folder, DTYPES[dtype]), prompt + greedy)
        ref["logits_" + SHORT[dtype]] = numbers(native[ROWS])
        ref["native_error"] = float("%.3g" % float(
            ((native - logits).abs().amax(-1)
             / logits.abs().amax(-1)).max()))
    ref["margins"] = {"greedy": float("%.3g" % gap)}
    if routers:
        if nearest < math.inf:
            ref["margins"]["router"] = float("%.3g" % nearest)
        k = config.num_experts_per_tok
        layers = moe_layers(model)
        assert len(layers) == len(routers)
        ref["experts"] = {
            str(layer): r[:PROMPT].topk(k, -1).indices.sort(-1).values
            .tolist() for layer, r in zip(layers, routers)}
    if batch:
        ref["batch"] = []
        for n in batch:
            p = prompt_of(config, n, gen, bos)
            g = greedy_of(model, p, 16)
            check_sequence(model, p, g, eos)
            assert generated(model, p, 16) == g
            ref["batch"].append({"prompt": p, "greedy": g})
    return ref


def moe_layers(model):
    out = []
    for i, layer in enumerate(model.model.layers):
        if hasattr(layer.mlp, "gate") and hasattr(layer.mlp, "experts"):
            out.append(i)
    return out


def folder_size(folder):
    """Bytes in the folder; makes its files readable, which the library leaves
    to their owner alone."""
    for f in os.listdir(folder):
        os.chmod(os.path.join(folder, f), 0o644)
    return sum(os.path.getsize(os.path.join(folder, f))
               for f in os.listdir(folder))


def fresh(folder):
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
