# SPDX-License-Identifier: Apache-2.0
"""The optimizers: Muon for matrices, AdamW for everything else.

Owns one step of each. Leaves the learning rate's course to train.py, which
hands over a factor for every step.

Muon (Keller Jordan, 2024) replaces the momentum of a matrix by the nearest
orthogonal one, found with a few Newton-Schulz steps. Stacked matrices
[..., out, in] are treated as a batch of separate matrices, so that a layer's
experts cost one call.
"""

import torch

# The odd quintic a x + b x^3 + c x^5 drives singular values towards one.
QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonal(g, steps):
    """g [n, out, in] -> about the nearest matrices with orthonormal rows
    (or columns, where there are fewer of them)."""
    a, b, c = QUINTIC
    tall = g.shape[-2] > g.shape[-1]
    x = g.mT if tall else g
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        s = x @ x.mT
        s = torch.baddbmm(s, s, s, beta=b, alpha=c)
        x = torch.baddbmm(x, s, x, beta=a)
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    def __init__(self, params, lr=0.02, momentum=0.95, decay=0.03, steps=4):
        super().__init__(params, dict(lr=lr, momentum=momentum, decay=decay,
                                      steps=steps))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                m = self.state[p].setdefault("momentum",
                                             torch.zeros_like(p))
                m.lerp_(p.grad, 1 - group["momentum"])
                g = p.grad.lerp(m, group["momentum"])
                u = orthogonal(g.reshape(-1, *p.shape[-2:]), group["steps"])
                size = max(1.0, p.shape[-2] / p.shape[-1]) ** 0.5
                p.mul_(1 - group["lr"] * group["decay"])
                p.add_(u.reshape(p.shape), alpha=-group["lr"] * size)


def optimizers(model, muon_lr, adam_lr):
    """Muon for the matrices inside the layers; AdamW for the embedding (tied
    to the output), the norms and the routers.

    The router's weights add up to one, so a token gets the mean of its
    experts where the dense twin gets the sum of its halves: the experts' down
    projections move top_k times as fast, so that the outputs of the two move
    alike. Routers move slowly: an expert that falls out of use early learns
    nothing."""
    groups = {"matrix": [], "down": [], "plain": [], "router": []}
    for name, p in model.named_parameters():
        if name.endswith("router"):
            groups["router"].append(p)
        elif p.ndim < 2 or name == "embed":
            groups["plain"].append(p)
        elif p.ndim == 3 and name.endswith("down"):
            groups["down"].append(p)
        else:
            groups["matrix"].append(p)
    muon = [{"params": groups["matrix"], "lr": muon_lr}]
    adam = [{"params": groups["plain"], "lr": adam_lr}]
    if model.s.experts:
        muon.append({"params": groups["down"], "lr": muon_lr * model.s.top_k})
        adam.append({"params": groups["router"], "lr": adam_lr / 3})
    return [Muon(muon),
            torch.optim.AdamW(adam, betas=(0.9, 0.95), eps=1e-10,
                              weight_decay=0.0, fused=True)]
