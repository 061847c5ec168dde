# SPDX-License-Identifier: Apache-2.0
"""check.py - make every fixture again and compare with the committed ones.

Files must be the same bytes, except reference.json of a checkpoint: ids,
routing and prompts must be the same there, logits within LOGITS of the
largest of their row, because another machine's library adds in another
order.  Logits computed in a 16-bit type are only compared in shape.

usage: check.py [--keep DIR] [tokenizers|models|quant ...]
"""

import argparse
import filecmp
import json
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
TESTS = os.path.join(HERE, "..", "..", "tests")
ROOMS = {"tokenizers": "text", "models": "model", "quant": "quant"}
LOGITS = 2e-5


def files(top):
    out = set()
    for folder, _, names in os.walk(top):
        for n in names:
            if n != "README.md":
                out.add(os.path.relpath(os.path.join(folder, n), top))
    return out


def same_reference(a, b):
    with open(a, encoding="utf-8") as f:
        a = json.load(f)
    with open(b, encoding="utf-8") as f:
        b = json.load(f)
    if list(a) != list(b):
        return "other keys"
    for key in a:
        if key in ("native_error", "margins") or a[key] == b[key]:
            continue
        if not key.startswith("logits") or key == "logits_rows":
            return "%s differs" % key
        if [len(r) for r in a[key]] != [len(r) for r in b[key]]:
            return "%s has another shape" % key
        if key == "logits":
            for k, (x, y) in enumerate(zip(a[key], b[key])):
                top = max(map(abs, x))
                worst = max(abs(p - q) for p, q in zip(x, y)) / top
                if worst > LOGITS:
                    return "row %d of logits differs by %.2g" % (k, worst)
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--keep", help="make them here and leave them")
    parser.add_argument("rooms", nargs="*", choices=[[], *ROOMS])
    args = parser.parse_args()
    bad = total = 0
    with tempfile.TemporaryDirectory() as tmp:
        for what in args.rooms or ROOMS:
            new = os.path.join(args.keep or tmp, what)
            old = os.path.join(TESTS, ROOMS[what], "fixtures")
            subprocess.run(
                [sys.executable, os.path.join(HERE, "make_%s.py" % what),
                 "--out", new], check=True, stdout=subprocess.DEVNULL)
            for name in sorted(files(old) | files(new)):
                a, b = os.path.join(old, name), os.path.join(new, name)
                total += 1
                if not os.path.exists(a):
                    why = "is not committed"
                elif not os.path.exists(b):
                    why = "is no longer made"
                elif filecmp.cmp(a, b, shallow=False):
                    continue
                elif (what != "tokenizers"
                      and name.endswith("reference.json")):
                    why = same_reference(a, b)
                else:
                    why = "differs"
                if why:
                    bad += 1
                    print("tests/%s/fixtures/%s: %s" % (ROOMS[what], name,
                                                        why))
    print("%d files, %d differ" % (total, bad))
    return bad != 0


if __name__ == "__main__":
    sys.exit(main())
