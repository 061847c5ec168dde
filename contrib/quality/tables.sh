#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Makes the tables of docs/quality.md again:
#   tables.sh BUILD LIBGGMLQ.so HELD-OUT-TEXT [CALIBRATION-TEXT]
# PYTHON: the interpreter with requirements.txt; TOKENS: of the held-out text.
set -eu
[ $# -ge 3 ] || { sed -n '3,5s/^# *//p' "$0" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
"${PYTHON:-python3}" "$here/quality.py" --build "$1" --ggml "$2" --text "$3" \
    --tokens "${TOKENS:-4096}" ${4:+--calibrate "$4"} \
    --update "$top/docs/quality.md"
