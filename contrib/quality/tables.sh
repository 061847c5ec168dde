#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Makes the tables of docs/quality.md again:
#   tables.sh BUILD LIBGGMLQ.so HELD-OUT-TEXT [CALIBRATION-TEXT]
# PYTHON: the interpreter with requirements.txt; TOKENS: of the held-out text.
set -eu
[ $# -ge 3 ] || { sed -n '3,5s/^# *//p' "$0" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
build=$(cd "$1" && pwd)
model=$top/conf/model/stories
python=${PYTHON:-python3}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
plugins=
for so in "$build"/plugins/*/*/.libs; do
    plugins=$plugins${plugins:+:}$so
done
"$build/moe-run" quantize "$model" "$tmp/q" -q --plugin-path "$plugins" \
    --experts int4-g32
"$python" "$here/calibrate.py" --model "$model" --out "$tmp/q" \
    ${4:+--text "$4"}
"$python" "$here/quality.py" --build "$build" --ggml "$2" --text "$3" \
    --tokens "${TOKENS:-4096}" --also "int4-g32, calibrated=$tmp/q" \
    --update "$top/docs/quality.md"
