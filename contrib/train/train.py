# SPDX-License-Identifier: Apache-2.0
"""Trains the default model, or its dense twin.

Owns the loop: learning rate, logging, checkpoints, validation on the way.

    train.py --tokens DIR --out DIR --preset cpu --seconds 5400
    train.py --tokens DIR --out DIR2 --dense --follow DIR/log.csv

The learning rate is a function of the fraction of the allotted time (or of
the allotted steps) that has passed: a short warm-up, a plateau, then straight
down to zero. The factor of every step is logged. A run with --follow repeats
another run's steps instead: same tokens, same order, same factors, so the two
can be compared; it waits for the other's log where it is the faster one.

Started again with the same --out it goes on from the last checkpoint, and
time that passed in between counts as spent. --from starts a run of its own,
with its own schedule, from the weights, the optimizers' state and the place in
the data where another run ended.
"""

import argparse
import csv
import dataclasses
import json
import math
import os
import time

import numpy as np
import torch
import torch.nn.functional as F

from data import EOS_ID, Mixture
from model import Model, Shape
from optim import optimizers

# cpu is what was run for the shipped model. The gpu presets are for a machine
# that has one; gpu makes a model that still fits the limit of 24 MB, and
# gpu_large one that does not.
PRESETS = {
    "cpu": dict(shape={}, rows=6, muon_lr=0.02, adam_lr=3e-3),
    "gpu": dict(shape=dict(layers=6), rows=64, muon_lr=0.02, adam_lr=3e-3),
    "gpu_large": dict(shape=dict(hidden=512, layers=8, heads=8, kv_heads=4,
                                 experts=32, top_k=4, expert_width=256,
                                 context=1024),
                      rows=64, muon_lr=0.02, adam_lr=2e-3),
}
WARMUP, PLATEAU_END = 0.015, 0.35
BALANCE = 0.02       # weight of the load-balancing loss
AVERAGE = 0.98       # of the running mean of the weights, for snapshots
CHECKPOINT_S, VALID_S, WAIT_S = 300, 900, 20
FIELDS = ("step", "rows", "fraction", "factor", "seconds", "tokens", "loss",
          "balance", "imbalance")


def factor(fraction):
    if fraction < WARMUP:
        return max(0.02, fraction / WARMUP)
    if fraction < PLATEAU_END:
        return 1.0
    return max(0.0, (1.0 - fraction) / (1.0 - PLATEAU_END))


class Leader:
    """The schedule of a run of one's own."""

    def __init__(self, args, began):
        self.args, self.began = args, began

    def step(self, n, rows):
        if self.args.steps:
            f = n / self.args.steps
        else:
            f = (time.time() - self.began) / self.args.seconds
        return None if f >= 1.0 else (rows, f, factor(f))


class Follower:
    """The schedule of another run, read from its log as that grows."""

    def __init__(self, path):
        self.path, self.known = path, []

    def step(self, n, _rows):
        while n >= len(self.known):
            done = os.path.exists(os.path.join(os.path.dirname(self.path),
                                               "done.json"))
            with open(self.path, newline="") as f:
                lines = f.read().split("\n")[1:-1]  # only whole lines
            rows = [dict(zip(FIELDS, line.split(","))) for line in lines]
            self.known = [(int(r["rows"]), float(r["fraction"]),
                           float(r["factor"])) for r in rows]
            if n < len(self.known):
                break
            if done:
                return None
            time.sleep(WAIT_S)
        return self.known[n]


@torch.no_grad()
def validate(model, folder, device, limit=12000):
    """Bits per byte on the first `limit` tokens of each validation part:
    a quick look. evaluate.py has the figures that count."""
    model.eval()
    out, context = {}, model.s.context
    for part in "ABCD":
        z = np.load(os.path.join(folder, f"valid_{part}.npz"))
        nats, tokens, size = 0.0, 0, 0.0
        for d in range(len(z["start"]) - 1):
            if tokens >= limit:
                break
            ids = z["ids"][z["start"][d]:z["start"][d + 1]]
            whole = len(ids)
            ids = ids[:limit - tokens].astype(np.int64)
            ids = np.concatenate(([EOS_ID], ids))
            for p in range(0, len(ids) - 1, context):
                w = torch.from_numpy(ids[p:p + context + 1]).to(device)
                logits = model(w[None, :-1])[0][0].float()
                nats += F.cross_entropy(logits, w[1:],
                                        reduction="sum").item()
            tokens += len(ids) - 1
            size += z["bytes"][d] * (len(ids) - 1) / whole
        out[part] = nats / math.log(2) / size
    model.train()
    return out


def save(path, obj):
    torch.save(obj, path + ".new")
    os.replace(path + ".new", path)


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--tokens", required=True, help="what prepare.py wrote")
    ap.add_argument("--out", required=True, help="log and checkpoints")
    ap.add_argument("--preset", choices=PRESETS, default="cpu")
    ap.add_argument("--device", default="cpu")
    ap.add_argument("--dense", action="store_true", help="the dense twin")
    ap.add_argument("--extra", action="store_true", help="use part E too")
    ap.add_argument("--seconds", type=float, help="time to spend")
    ap.add_argument("--steps", type=int, help="or: steps to do")
    ap.add_argument("--follow", help="log.csv of the run to repeat")
    ap.add_argument("--from", dest="origin",
                    help="checkpoint.pt of the run to start from")
    ap.add_argument("--seed", type=int, default=20261121)
    ap.add_argument("--threads", type=int, default=1)
    args = ap.parse_args()
    if sum(map(bool, (args.seconds, args.steps, args.follow))) != 1:
        ap.error("one of --seconds, --steps, --follow is needed")

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    preset = PRESETS[args.preset]
    shape = Shape(**preset["shape"])
    if args.dense:
        shape = dataclasses.replace(shape, experts=0)
    model = Model(shape).to(args.device)
    opts = optimizers(model, preset["muon_lr"], preset["adam_lr"])
    base = [[g["lr"] for g in o.param_groups] for o in opts]
    mean = {k: v.detach().clone() for k, v in model.state_dict().items()}
    mix = Mixture(args.tokens, shape.context, args.seed, args.extra)
    began, n, tokens, spent = time.time(), 0, 0, 0.0

    os.makedirs(args.out, exist_ok=True)
    point = os.path.join(args.out, "checkpoint.pt")
    log_path = os.path.join(args.out, "log.csv")
    again = os.path.exists(point)
    if again or args.origin:
        z = torch.load(point if again else args.origin,
                       map_location=args.device, weights_only=False)
        model.load_state_dict(z["model"])
        for o, state in zip(opts, z["opts"]):
            o.load_state_dict(state)
        mean, tokens = z["mean"], z["tokens"]
        mix.skip(z["taken"])
    if again:
        n, began, spent = z["step"], z["began"], z["spent"]
        with open(log_path) as f:
            keep = f.read().split("\n")[:n + 1]
        with open(log_path, "w") as f:
            f.write("\n".join(keep) + "\n")
    else:
        with open(log_path, "w") as f:
            f.write(",".join(FIELDS) + "\n")
    log = open(log_path, "a", newline="", buffering=1)
    out = csv.writer(log, lineterminator="\n")
    plan = Follower(args.follow) if args.follow else Leader(args, began)
    auto = torch.autocast("cuda", torch.bfloat16,
                          enabled=args.device.startswith("cuda"))

    def checkpoint():
        save(point, {
            "model": model.state_dict(), "mean": mean, "step": n,
            "opts": [o.state_dict() for o in opts], "tokens": tokens,
            "taken": int(mix.count.sum()), "began": began, "spent": spent,
            "shape": dataclasses.asdict(shape), "seed": args.seed})

    saved = looked = time.time()
    while True:
        todo = plan.step(n, preset["rows"])
        if todo is None:
            break
        rows, fraction, times = todo
        t0 = time.time()
        b = torch.from_numpy(mix.batch(rows)).to(args.device)
        with auto:
            logits, balance, load = model(b[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1).float(),
                               b[:, 1:].flatten())
        total = loss if balance is None else loss + BALANCE * balance
        total.backward()
        for o, lrs in zip(opts, base):
            for g, lr in zip(o.param_groups, lrs):
                g["lr"] = lr * times
            o.step()
            o.zero_grad(set_to_none=True)
        with torch.no_grad():
            for k, v in model.state_dict().items():
                mean[k].lerp_(v, 1 - min(AVERAGE, (n + 1) / (n + 10)))
        n += 1
        tokens += rows * shape.context
        spent += time.time() - t0
        uneven = 0.0 if load is None else (
            load.max(dim=1).values / load.float().mean(dim=1)).mean().item()
        out.writerow([n, rows, f"{fraction:.6f}", f"{times:.6f}",
                      f"{spent:.1f}", tokens, f"{loss.item():.4f}",
                      "" if balance is None else f"{balance.item():.4f}",
                      f"{uneven:.3f}"])
        now = time.time()
        if now - looked > VALID_S:
            looked = now
            print(json.dumps({"step": n, "valid": validate(
                model, args.tokens, args.device)}), flush=True)
        if now - saved > CHECKPOINT_S:
            saved = now
            checkpoint()
    checkpoint()
    figures = {"steps": n, "tokens": tokens, "seconds": round(spent, 1),
               "valid": validate(model, args.tokens, args.device),
               "parts": mix.report(), "seed": args.seed,
               "preset": args.preset, "dense": args.dense}
    with open(os.path.join(args.out, "done.json.new"), "w") as f:
        json.dump(figures, f, indent=1)
    os.replace(os.path.join(args.out, "done.json.new"),
               os.path.join(args.out, "done.json"))
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
