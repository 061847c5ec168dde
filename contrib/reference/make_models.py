# SPDX-License-Identifier: Apache-2.0
"""make_models.py - tiny random checkpoints of every family, with answers.

Writes tests/model/fixtures/NAME/ as the library's save_pretrained lays a
checkpoint out, loads the folder again and records logits and greedy tokens
(tiny.py).  The README.md there says what the files hold.

usage: make_models.py [--out DIR] [NAME...]
"""

import argparse
import json
import os
import re
import tempfile

import safetensors
import torch
from transformers import AutoConfig

import tiny

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "..", "..", "tests", "model", "fixtures")

ATTENTION = r"self_attn\.(q|k|v|o)_proj\.(weight|bias)"
DENSE = r"mlp\.(gate|up|down)_proj\.(weight|bias)"
NORMS = r"(input|post_attention)_layernorm\.weight"
QK_NORMS = r"self_attn\.(q|k)_norm\.weight"
EXPERTS = r"mlp\.experts\.\d+\.(gate|up|down)_proj\.weight|mlp\.gate\.weight"
SHARED = (r"mlp\.shared_expert\.(gate|up|down)_proj\.weight|"
          r"mlp\.shared_expert_gate\.weight")
BLOCKS = (r"block_sparse_moe\.experts\.\d+\.w[123]\.weight|"
          r"block_sparse_moe\.gate\.weight")
# The published names inside a layer, by model_type; anything else in a file
# is an error of this maker.
NAMES = {
    "mixtral": [ATTENTION, NORMS, BLOCKS],
    "qwen2_moe": [ATTENTION, NORMS, EXPERTS, SHARED, DENSE],
    "qwen3_moe": [ATTENTION, NORMS, QK_NORMS, EXPERTS, DENSE],
    "olmoe": [ATTENTION, NORMS, QK_NORMS, EXPERTS],
    "llama": [ATTENTION, NORMS, DENSE],
    "qwen2": [ATTENTION, NORMS, DENSE],
    "qwen3": [ATTENTION, NORMS, QK_NORMS, DENSE],
}

# What published configs of the family have in common, in their own dialect
# (torch_dtype, rope_theta, rope_scaling), which is older than the one that
# save_pretrained writes today (dtype, rope_parameters).
PUBLISHED = {
    "mixtral": dict(
        architectures=["MixtralForCausalLM"], attention_dropout=0.0,
        bos_token_id=1, eos_token_id=2, hidden_act="silu",
        initializer_range=0.02, max_position_embeddings=256,
        output_router_logits=False, rms_norm_eps=1e-05, rope_theta=1000000.0,
        router_aux_loss_coef=0.02, sliding_window=None,
        tie_word_embeddings=False, use_cache=True),
    "qwen2_moe": dict(
        architectures=["Qwen2MoeForCausalLM"], attention_dropout=0.0,
        bos_token_id=3, eos_token_id=3, decoder_sparse_step=1,
        hidden_act="silu", initializer_range=0.02,
        max_position_embeddings=256, max_window_layers=1,
        norm_topk_prob=False, output_router_logits=False, rms_norm_eps=1e-06,
        rope_theta=1000000.0, router_aux_loss_coef=0.001, sliding_window=4,
        tie_word_embeddings=False, use_cache=True, use_sliding_window=False),
    "qwen3_moe": dict(
        architectures=["Qwen3MoeForCausalLM"], attention_bias=False,
        attention_dropout=0.0, bos_token_id=3, decoder_sparse_step=1,
        eos_token_id=2, hidden_act="silu", initializer_range=0.02,
        max_position_embeddings=256, max_window_layers=2, mlp_only_layers=[],
        norm_topk_prob=True, output_router_logits=False, rms_norm_eps=1e-06,
        rope_scaling=None, rope_theta=1000000.0, router_aux_loss_coef=0.001,
        sliding_window=None, tie_word_embeddings=False, use_cache=True,
        use_sliding_window=False),
    "olmoe": dict(
        architectures=["OlmoeForCausalLM"], attention_bias=False,
        attention_dropout=0.0, clip_qkv=None, eos_token_id=2,
        hidden_act="silu", initializer_range=0.02,
        max_position_embeddings=256, norm_topk_prob=False,
        output_router_logits=False, pad_token_id=1, rms_norm_eps=1e-05,
        rope_scaling=None, rope_theta=10000.0, router_aux_loss_coef=0.01,
        tie_word_embeddings=False, use_cache=True),
    "llama": dict(
        architectures=["LlamaForCausalLM"], attention_bias=False,
        attention_dropout=0.0, bos_token_id=1, eos_token_id=2,
        hidden_act="silu", initializer_range=0.02,
        max_position_embeddings=256, mlp_bias=False, pretraining_tp=1,
        rms_norm_eps=1e-05, rope_scaling=None, rope_theta=10000.0,
        tie_word_embeddings=False, use_cache=True),
    "qwen2": dict(
        architectures=["Qwen2ForCausalLM"], attention_dropout=0.0,
        bos_token_id=3, eos_token_id=3, hidden_act="silu",
        initializer_range=0.02, max_position_embeddings=256,
        max_window_layers=1, rms_norm_eps=1e-06, rope_theta=1000000.0,
        sliding_window=4, tie_word_embeddings=False, use_cache=True,
        use_sliding_window=False),
    "qwen3": dict(
        architectures=["Qwen3ForCausalLM"], attention_bias=False,
        attention_dropout=0.0, bos_token_id=3, eos_token_id=2,
        hidden_act="silu", initializer_range=0.02,
        max_position_embeddings=256, max_window_layers=2, rms_norm_eps=1e-06,
        rope_scaling=None, rope_theta=1000000.0, sliding_window=None,
        tie_word_embeddings=False, use_cache=True, use_sliding_window=False),
}


class Fixture:
    """family: model_type.  config: what differs from PUBLISHED[family].
    v5: keep config.json as save_pretrained writes it.  shard: its
    max_shard_size.  generation: what generation_config.json holds besides
    the ids.  batch: lengths of further prompts."""

    def __init__(self, family, dtype="float32", v5=False, shard=None,
                 generation=None, batch=(), **config):
        self.family, self.dtype, self.v5 = family, dtype, v5
        self.shard, self.generation, self.batch = shard, generation, batch
        self.config = config

    def published(self):
        out = dict(PUBLISHED[self.family], model_type=self.family,
                   torch_dtype=self.dtype)
        out.update(self.config)
        return {k: out[k] for k in sorted(out)}


def moe(vocab, hidden, layers, heads, kv, width, experts, top, **more):
    """Shapes of a Qwen or OLMoE mixture: `width` is one expert's."""
    return dict(vocab_size=vocab, hidden_size=hidden,
                num_hidden_layers=layers, num_attention_heads=heads,
                num_key_value_heads=kv, moe_intermediate_size=width,
                num_experts=experts, num_experts_per_tok=top, **more)


def dense(vocab, hidden, layers, heads, kv, width, **more):
    return dict(vocab_size=vocab, hidden_size=hidden,
                num_hidden_layers=layers, num_attention_heads=heads,
                num_key_value_heads=kv, intermediate_size=width, **more)


def mixtral(vocab, hidden, layers, heads, kv, width, experts, top, **more):
    return dict(dense(vocab, hidden, layers, heads, kv, width),
                num_local_experts=experts, num_experts_per_tok=top, **more)


def olmoe(*args, **more):
    out = moe(*args, **more)
    out["intermediate_size"] = out.pop("moe_intermediate_size")
    return out


MIXTRAL = mixtral(112, 36, 2, 6, 2, 44, 4, 2, head_dim=None)
QWEN2_MOE = moe(104, 36, 2, 6, 6, 20, 6, 2, intermediate_size=40,
                shared_expert_intermediate_size=28)
QWEN3_MOE = moe(120, 30, 3, 6, 2, 14, 7, 3, intermediate_size=44,
                head_dim=16)
FIXTURES = {
    "mixtral": Fixture("mixtral", batch=(1, 9, 26, 61), **MIXTRAL),
    "mixtral-window": Fixture("mixtral", **mixtral(
        97, 28, 3, 2, 1, 22, 5, 1, head_dim=10, sliding_window=12)),
    "mixtral-bf16": Fixture("mixtral", "bfloat16", v5=True, **MIXTRAL),
    "mixtral-f16": Fixture("mixtral", "float16", **MIXTRAL),
    "qwen2_moe": Fixture("qwen2_moe", **QWEN2_MOE),
    # Layers 0 and 2 are dense by the step, layer 1 by the list; layer 3 has
    # all of its experts chosen, and normalised.
    "qwen2_moe-step": Fixture("qwen2_moe", **moe(
        100, 40, 4, 4, 2, 18, 4, 4, intermediate_size=50,
        shared_expert_intermediate_size=34, decoder_sparse_step=2,
        mlp_only_layers=[1], norm_topk_prob=True, tie_word_embeddings=True)),
    "qwen2_moe-bf16": Fixture("qwen2_moe", "bfloat16", v5=True, **QWEN2_MOE),
    "qwen3_moe": Fixture("qwen3_moe", generation=dict(
        do_sample=True, pad_token_id=3, eos_token_id=[2, 3], temperature=0.6,
        top_k=20, top_p=0.95), **QWEN3_MOE),
    "qwen3_moe-step": Fixture("qwen3_moe", **moe(
        96, 34, 4, 3, 3, 22, 4, 1, intermediate_size=38, head_dim=14,
        decoder_sparse_step=2, mlp_only_layers=[0], norm_topk_prob=False,
        attention_bias=True, tie_word_embeddings=True,
        rope_scaling=dict(rope_type="yarn", factor=4.0,
                          original_max_position_embeddings=32),
        rope_theta=10000.0, max_position_embeddings=128)),
    "qwen3_moe-bf16": Fixture("qwen3_moe", "bfloat16", v5=True,
                              shard="40KB", **QWEN3_MOE),
    "olmoe": Fixture("olmoe", **olmoe(110, 32, 2, 4, 4, 24, 8, 4)),
    "olmoe-clip": Fixture("olmoe", **olmoe(
        96, 36, 2, 6, 3, 20, 6, 2, clip_qkv=0.6, norm_topk_prob=True)),
    "llama": Fixture("llama", shard="60KB",
                     **dense(118, 40, 3, 4, 2, 54)),
    "llama-llama3": Fixture("llama", generation=dict(
        do_sample=True, eos_token_id=[2, 3], temperature=0.6, top_p=0.9),
        **dense(128, 48, 2, 6, 3, 60, tie_word_embeddings=True,
                rope_theta=500000.0, max_position_embeddings=1024,
                eos_token_id=[2, 3], head_dim=12, rope_scaling=dict(
                    factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                    original_max_position_embeddings=128,
                    rope_type="llama3"))),
    "llama-linear": Fixture("llama", **dense(
        99, 36, 2, 2, 2, 47, attention_bias=True, mlp_bias=True,
        rope_scaling=dict(type="linear", factor=2.5))),
    "llama-bf16": Fixture("llama", "bfloat16", v5=True,
                          **dense(128, 64, 2, 4, 2, 128)),
    "qwen2": Fixture("qwen2", **dense(106, 40, 2, 5, 1, 50,
                                      tie_word_embeddings=True)),
    "qwen2-window": Fixture("qwen2", **dense(
        96, 32, 3, 4, 2, 40, use_sliding_window=True, sliding_window=9,
        max_window_layers=1)),
    "qwen3": Fixture("qwen3", **dense(108, 38, 2, 4, 2, 46, head_dim=20,
                                      tie_word_embeddings=True)),
    "qwen3-bf16": Fixture("qwen3", "bfloat16", **dense(
        108, 38, 2, 4, 2, 46, head_dim=20)),
}


def check_names(family, names):
    inside = [re.compile(r"model\.layers\.\d+\.(%s)$" % p)
              for p in NAMES[family]]
    outside = {"model.embed_tokens.weight", "model.norm.weight",
               "lm_head.weight"}
    for name in names:
        assert name in outside or any(p.match(name) for p in inside), name
    # Every pattern is wanted, except the dense layers that few mixtures have.
    for p in inside:
        if family in ("qwen2_moe", "qwen3_moe") and DENSE in p.pattern:
            continue
        assert any(p.match(n) for n in names), p.pattern


def names_in(folder):
    names = {}
    for f in sorted(os.listdir(folder)):
        if f.endswith(".safetensors"):
            with safetensors.safe_open(os.path.join(folder, f), "pt") as t:
                for name in t.keys():
                    assert name not in names
                    names[name] = (f, t.get_tensor(name).dtype)
    return names


def dump_config(path, obj):
    with open(path, "w", encoding="utf-8", newline="\n") as f:
        json.dump(obj, f, indent=2, ensure_ascii=False)
        f.write("\n")


def build(spec, seed, folder):
    """Write the checkpoint of this seed into `folder`."""
    with tempfile.TemporaryDirectory() as tmp:
        first = os.path.join(tmp, "first")
        os.mkdir(first)
        dump_config(os.path.join(first, "config.json"), spec.published())
        config = AutoConfig.from_pretrained(first)
        shapes = tiny.published_names(config, os.path.join(tmp, "names"))
        check_names(spec.family, shapes)
        dtype = tiny.DTYPES[spec.dtype]
        weights = {n: tiny.weight(seed, n, s, config.tie_word_embeddings)
                   .to(dtype) for n, s in sorted(shapes.items())}
        tiny.safetensors.torch.save_file(
            weights, os.path.join(first, "model.safetensors"),
            metadata={"format": "pt"})
        model = tiny.load(first, dtype)
        tiny.fresh(folder)
        more = {"max_shard_size": spec.shard} if spec.shard else {}
        model.save_pretrained(folder, **more)
        before, _ = tiny.logits_of(model, list(range(4, 24)))

    # What the library wrote, tensor by tensor, is what was drawn.
    names = names_in(folder)
    assert set(names) == set(weights)
    for name, (file, kind) in names.items():
        assert kind == dtype
        with safetensors.safe_open(os.path.join(folder, file), "pt") as t:
            assert torch.equal(t.get_tensor(name), weights[name]), name
    shards = sorted({f for f, _ in names.values()})
    assert (len(shards) > 1) == bool(spec.shard), shards

    if not spec.v5:
        dump_config(os.path.join(folder, "config.json"), spec.published())
        config = spec.published()
        wanted = {"_from_model_config": True}
        for key in ("bos_token_id", "eos_token_id"):
            if config.get(key) is not None:
                wanted[key] = config[key]
        if spec.generation:
            wanted.pop("_from_model_config")
            wanted.update(spec.generation)
        dump_config(os.path.join(folder, "generation_config.json"), wanted)
    after, _ = tiny.logits_of(tiny.load(folder, dtype), list(range(4, 24)))
    assert torch.equal(before, after)
    return len(shards)


def make(name, folder):
    spec = FIXTURES[name]
    for seed in range(1, 400):
        shards = build(spec, seed, folder)
        try:
            ref = tiny.answers(folder, spec.dtype, seed, spec.batch)
        except tiny.Unfit as e:
            why = str(e)
            continue
        break
    else:
        raise SystemExit("%s: no seed fits, the last: %s" % (name, why))
    ref = dict({"family": spec.family}, **ref)
    tiny.dump(os.path.join(folder, "reference.json"), ref)
    size = tiny.folder_size(folder)
    assert size <= tiny.LIMIT, (name, size)
    print("%-16s %-8s seed %3d, %6.1f kB, %d file%s, margins %s%s" % (
        name, spec.dtype, seed, size / 1000, shards, "s"[:shards > 1],
        ref["margins"], ", native error %g" % ref["native_error"]
        if "native_error" in ref else ""), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", default=OUT)
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name in args.names or FIXTURES:
        make(name, os.path.join(args.out, name))


if __name__ == "__main__":
    main()
