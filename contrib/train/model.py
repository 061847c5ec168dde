# SPDX-License-Identifier: Apache-2.0
"""The network: Qwen3-MoE and its dense twin Qwen3, in plain PyTorch.

Owns the forward pass used for training and the names under which the
weights are published. Parameters are kept the way training likes them (all
experts of a layer in one stacked tensor); export.py writes them under the
published per-expert names through `published()`.
"""

import dataclasses

import torch
import torch.nn.functional as F
from torch import nn


@dataclasses.dataclass
class Shape:
    vocab: int = 4096
    hidden: int = 256
    layers: int = 5
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    experts: int = 16        # 0: the dense twin
    top_k: int = 2
    expert_width: int = 128  # the dense twin is top_k times as wide
    context: int = 512
    theta: float = 10000.0
    eps: float = 1e-6

    @property
    def dense_width(self):
        return self.top_k * self.expert_width


class Norm(nn.Module):
    def __init__(self, width, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x):
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


def matrix(*shape, std=0.04):
    return nn.Parameter(torch.randn(*shape) * std)


class Attention(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.s = s
        self.q = matrix(s.heads * s.head_dim, s.hidden)
        self.k = matrix(s.kv_heads * s.head_dim, s.hidden)
        self.v = matrix(s.kv_heads * s.head_dim, s.hidden)
        self.o = matrix(s.hidden, s.heads * s.head_dim, std=0.01)
        self.q_norm = Norm(s.head_dim, s.eps)
        self.k_norm = Norm(s.head_dim, s.eps)

    def forward(self, x, cos, sin):
        """x [rows, tokens, hidden]; cos, sin [tokens, head_dim]."""
        s, (b, t, _) = self.s, x.shape

        def split(y, n):
            return y.view(b, t, n, s.head_dim).transpose(1, 2)

        q = rotate(self.q_norm(split(F.linear(x, self.q), s.heads)), cos, sin)
        k = rotate(self.k_norm(split(F.linear(x, self.k), s.kv_heads)),
                   cos, sin)
        v = split(F.linear(x, self.v), s.kv_heads)
        group = s.heads // s.kv_heads
        k = k.repeat_interleave(group, dim=1)
        v = v.repeat_interleave(group, dim=1)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        y = y.transpose(1, 2).reshape(b, t, s.heads * s.head_dim)
        return F.linear(y, self.o)


def rotate(x, cos, sin):
    half = x.shape[-1] // 2
    turned = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return x * cos + turned * sin


class Dense(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.gate_up = matrix(2, s.dense_width, s.hidden)
        self.down = matrix(s.hidden, s.dense_width, std=0.01)

    def forward(self, x):
        """x [tokens, hidden] -> the same shape, and no router figures."""
        g, u = F.linear(x, self.gate_up.flatten(0, 1)).chunk(2, dim=-1)
        return F.linear(F.silu(g) * u, self.down), None


class Experts(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.s = s
        self.router = matrix(s.experts, s.hidden, std=0.02)
        self.gate_up = matrix(s.experts, 2, s.expert_width, s.hidden)
        self.down = matrix(s.experts, s.hidden, s.expert_width, std=0.01)

    def forward(self, x):
        """x [tokens, hidden] -> the same shape, (balance loss, load).

        Rows are sorted by expert, each expert works on its run of rows in
        one matrix product, and the weighted results are added back where the
        rows came from."""
        s = self.s
        prob = F.linear(x, self.router).float().softmax(dim=-1)
        weight, chosen = prob.topk(s.top_k, dim=-1)
        weight = weight / weight.sum(dim=-1, keepdim=True)
        flat = chosen.flatten()
        order = flat.argsort(stable=True)
        load = torch.bincount(flat, minlength=s.experts)
        row = order // s.top_k
        runs = x[row].split(load.tolist())
        out = []
        for r, w, d in zip(runs, self.gate_up.flatten(1, 2).unbind(0),
                           self.down.unbind(0)):
            g, u = F.linear(r, w).chunk(2, dim=-1)
            out.append(F.linear(F.silu(g) * u, d))
        y = torch.cat(out) * weight.flatten()[order, None].to(x.dtype)
        total = torch.zeros_like(x).index_add(0, row, y.to(x.dtype))
        share = load.to(prob.dtype) / flat.numel()
        balance = s.experts * (share * prob.mean(dim=0)).sum()
        return total, (balance, load)


class Layer(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.norm1 = Norm(s.hidden, s.eps)
        self.attention = Attention(s)
        self.norm2 = Norm(s.hidden, s.eps)
        self.mlp = Experts(s) if s.experts else Dense(s)

    def forward(self, x, cos, sin):
        x = x + self.attention(self.norm1(x), cos, sin)
        y, figures = self.mlp(self.norm2(x).flatten(0, 1))
        return x + y.view_as(x), figures


class Model(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.s = s
        self.embed = matrix(s.vocab, s.hidden, std=0.02)
        self.stack = nn.ModuleList(Layer(s) for _ in range(s.layers))
        self.norm = Norm(s.hidden, s.eps)
        inv = s.theta ** (-torch.arange(0, s.head_dim, 2).float() /
                          s.head_dim)
        angle = torch.outer(torch.arange(s.context).float(), inv)
        angle = torch.cat((angle, angle), dim=-1)
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    def forward(self, ids):
        """ids [rows, tokens] -> logits [rows, tokens, vocab], balance loss
        (mean over layers), load [layers, experts] (None if dense)."""
        t = ids.shape[1]
        x = F.embedding(ids, self.embed)
        cos, sin = self.cos[:t], self.sin[:t]
        figures = []
        for layer in self.stack:
            x, f = layer(x, cos, sin)
            figures.append(f)
        logits = F.linear(self.norm(x), self.embed)
        if not self.s.experts:
            return logits, None, None
        return (logits, torch.stack([f[0] for f in figures]).mean(),
                torch.stack([f[1] for f in figures]))


def published(model):
    """The weights as {published name: tensor}."""
    s, out = model.s, {}
    out["model.embed_tokens.weight"] = model.embed
    for i, layer in enumerate(model.stack):
        at = f"model.layers.{i}."
        a, m = layer.attention, layer.mlp
        out[at + "input_layernorm.weight"] = layer.norm1.weight
        out[at + "post_attention_layernorm.weight"] = layer.norm2.weight
        for name in ("q", "k", "v", "o"):
            out[f"{at}self_attn.{name}_proj.weight"] = getattr(a, name)
        out[at + "self_attn.q_norm.weight"] = a.q_norm.weight
        out[at + "self_attn.k_norm.weight"] = a.k_norm.weight
        if not s.experts:
            out[at + "mlp.gate_proj.weight"] = m.gate_up[0]
            out[at + "mlp.up_proj.weight"] = m.gate_up[1]
            out[at + "mlp.down_proj.weight"] = m.down
            continue
        out[at + "mlp.gate.weight"] = m.router
        for e in range(s.experts):
            to = f"{at}mlp.experts.{e}."
            out[to + "gate_proj.weight"] = m.gate_up[e, 0]
            out[to + "up_proj.weight"] = m.gate_up[e, 1]
            out[to + "down_proj.weight"] = m.down[e]
    out["model.norm.weight"] = model.norm.weight
    return out


def config(s):
    """The config.json that transformers reads."""
    c = {
        "architectures": ["Qwen3MoeForCausalLM" if s.experts
                          else "Qwen3ForCausalLM"],
        "model_type": "qwen3_moe" if s.experts else "qwen3",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": None,
        "eos_token_id": 0,
        "head_dim": s.head_dim,
        "hidden_act": "silu",
        "hidden_size": s.hidden,
        "initializer_range": 0.02,
        "intermediate_size": s.dense_width,
        "max_position_embeddings": s.context,
        "num_attention_heads": s.heads,
        "num_hidden_layers": s.layers,
        "num_key_value_heads": s.kv_heads,
        "rms_norm_eps": s.eps,
        "rope_scaling": None,
        "rope_theta": s.theta,
        "sliding_window": None,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": s.vocab,
    }
    if s.experts:
        c.update({
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
            "moe_intermediate_size": s.expert_width,
            "norm_topk_prob": True,
            "num_experts": s.experts,
            "num_experts_per_tok": s.top_k,
            "output_router_logits": False,
            "router_aux_loss_coef": 0.02,
        })
    return c
