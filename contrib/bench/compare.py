#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""moe-run and llama.cpp side by side: same shape, same bits, same threads.

    compare.py --config conf/model/olmoe-1b-7b-0924.json --layers 4 \\
        --llama-time ./llama_time pp512 tg64 tg16b4

Each round runs ours, then theirs, in processes of their own; figures are
medians over the rounds, ratios are medians of each round's own ratio.  The
share of the reading speed is of the ceiling that moe-run measured in the same
round, and counts the same weight bytes for both.  What other processes took of
the machine stands below the table.  See README.md.
"""
import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import time

import gguf  # the file beside this one

TEST = re.compile(r"(pp|tg)(\d+)(?:b(\d+))?$")


def parse(name):
    m = TEST.match(name)
    if not m or int(m[2]) < 1:
        raise SystemExit(f"{name}: pp512, tg64 or tg16b4 are tests")
    return m[1], int(m[2]), int(m[3] or 1)


def busy():
    """Seconds of processor time that the machine has worked."""
    with open("/proc/stat") as f:
        v = [int(x) for x in f.readline().split()[1:]]
    tick = os.sysconf("SC_CLK_TCK")
    return (sum(v[:3]) + sum(v[5:8])) / tick  # without idle and iowait


def children():
    r = resource.getrusage(resource.RUSAGE_CHILDREN)
    return r.ru_utime + r.ru_stime


class Others:
    """Processors that were busy with something else than our processes."""

    def __init__(self):
        self.seen = []

    def run(self, args):
        t, b, c = time.monotonic(), busy(), children()
        p = subprocess.run(args, capture_output=True, text=True)
        if p.returncode != 0:
            raise SystemExit(f"{' '.join(args)}: {p.stderr.strip()}")
        seconds = time.monotonic() - t
        self.seen.append(max(0, busy() - b - (children() - c)) / seconds)
        return p.stdout


def ours(a, tests, others):
    """{test: result} of one round."""
    wanted, groups = {}, {}  # one process for batches with the same lengths
    for name in tests:
        kind, n, batch = parse(name)
        wanted.setdefault(batch, {"pp": [], "tg": []})[kind].append(str(n))
    for batch, w in wanted.items():
        key = ",".join(w["pp"]) or "0", ",".join(w["tg"]) or "0"
        groups.setdefault(key, []).append(str(batch))
    out = {}
    for (prompts, gens), batches in groups.items():
        args = [a.moe_run, "bench", "--shape", a.config, "--format", a.format,
                "-t", str(a.threads), "-r", "1", "-o", "json",
                "--batch-rows", str(a.batch_rows), "-b", ",".join(batches),
                "-p", prompts, "-n", gens]
        if a.layers:
            args += ["--layers", str(a.layers)]
        for r in json.loads(others.run(args + a.ours))["results"]:
            out[r["test"].replace(" ", "")] = r
    return out


def theirs(a, tests, others):
    """{test: tokens/s} of one round."""
    out = {}
    if a.llama_time:
        text = others.run([a.llama_time, a.gguf, str(a.threads)] + tests)
        for line in text.splitlines():
            name, tps = line.split()
            out[name] = float(tps)
        return out
    for name in tests:
        kind, n, batch = parse(name)
        if batch > 1:
            continue
        text = others.run([a.llama_bench, "-m", a.gguf, "-t", str(a.threads),
                           "-r", "1", "-o", "json", "-mmp", "0",
                           "-p", str(n if kind == "pp" else 0),
                           "-n", str(n if kind == "tg" else 0)])
        out[name] = json.loads(text)[0]["avg_ts"]
    return out


def table(tests, mine, other, others):
    med = statistics.median
    print("| test | moe-run t/s | other t/s | ratio (least..most) | "
          "moe-run read | other read | experts |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name in tests:
        x = [r[name] for r in mine]
        tps = [r["tokens_per_s"] for r in x]
        row = [name, f"{med(tps):.2f}"]
        share = med(r["read_share"] for r in x)
        experts = (f"{med(r['distinct'] for r in x):.1f} of "
                   f"{x[0]['expected_distinct']:.1f}")
        if name in other[0]:
            y = [r[name] for r in other]
            ratio = sorted(p / q for p, q in zip(tps, y))
            # bytes a step over the time of a step, which is a token of each
            steps = [r["tokens"] / r["steps"] for r in x]
            read = med(r["weight_bytes"] * q / s / r["read_ceiling"]
                       for r, q, s in zip(x, y, steps))
            row += [f"{med(y):.2f}", f"{med(ratio):.2f} ({ratio[0]:.2f}.."
                    f"{ratio[-1]:.2f})", f"{100 * share:.0f} %",
                    f"{100 * read:.0f} %"]
        else:
            row += ["-", "-", f"{100 * share:.0f} %", "-"]
        print("| " + " | ".join(row + [experts]) + " |")
    all_r = [r for m in mine for r in m.values()]
    print(f"\n{len(mine)} rounds; reading ceiling "
          f"{med(r['read_ceiling'] for r in all_r) / 1e9:.1f} GB/s, arithmetic "
          f"{med(r['arith_ceiling'] for r in all_r) / 1e9:.0f} Gop/s (medians "
          f"of what each test found); entropy of routing "
          f"{min(r['entropy'] for r in all_r):.3f} or more; other processes "
          f"kept {med(others.seen):.2f} of {os.cpu_count()} processors busy "
          f"(at most {max(others.seen):.2f}); load "
          f"{' '.join(f'{v:.1f}' for v in os.getloadavg())}")


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("tests", nargs="+", help="pp512, tg64, tg16b4")
    p.add_argument("--moe-run", default="moe-run")
    p.add_argument("--llama-time", help="llama_time.c, built by build.sh")
    p.add_argument("--llama-bench", help="instead: any llama-bench (batch 1)")
    p.add_argument("--config", required=True,
                   help="config.json of the shape, such as conf/model/*.json")
    p.add_argument("--layers", type=int, default=0)
    p.add_argument("--gguf", help="the file; made if it is not there")
    p.add_argument("--format", default="int4-g32")
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--batch-rows", type=int, default=512)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--minutes", type=float, default=60,
                   help="begin no round after so long")
    p.add_argument("--ours", nargs="*", default=[], metavar="ARG",
                   help="more arguments for moe-run bench")
    p.add_argument("--keep", metavar="FILE", help="every figure as JSON")
    a = p.parse_args()
    if not a.llama_time and not a.llama_bench:
        p.error("--llama-time or --llama-bench")
    for name in a.tests:
        parse(name)
    if "/" not in a.config:
        a.config = "./" + a.config  # a file, and no preset's name
    a.gguf = a.gguf or f"{a.config}-{a.layers or 'all'}.gguf"
    if not os.path.exists(a.gguf):
        gguf.write(a.config, a.gguf + ".part", a.layers)
        os.rename(a.gguf + ".part", a.gguf)
    others, mine, other = Others(), [], []
    end = time.monotonic() + 60 * a.minutes
    for i in range(a.rounds):
        if i > 0 and time.monotonic() > end:
            break
        mine.append(ours(a, a.tests, others))
        other.append(theirs(a, a.tests, others))
        print(f"round {i + 1} of {a.rounds}", file=sys.stderr)
    if a.keep:
        with open(a.keep, "w") as f:
            json.dump({"moe-run": mine, "other": other, "busy": others.seen},
                      f, indent=1)
    table(a.tests, mine, other, others)


if __name__ == "__main__":
    main()
