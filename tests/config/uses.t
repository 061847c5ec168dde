#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# No option without effect: every row of the table is read somewhere, and
# what the code reads is a row.
src=${MOE_TEST_SRCDIR:-.}
tmp=$(mktemp -d "${TMPDIR:-/tmp}/moe-uses.XXXXXX") || exit 1
trap 'rm -rf "$tmp"' EXIT

sed -n 's/^    { "\([a-z]*\.[a-z_]*\)",.*/\1/p' \
    "$src/core/config/table.c" | sort > "$tmp/rows"
# the sources in one line each, so that a call may be broken anywhere
find "$src/core" "$src/cli" -name '*.c' ! -name table.c -exec cat {} + \
    | tr '\n' ' ' > "$tmp/all"
grep -oE '"[a-z]+\.[a-z_]+"' "$tmp/all" | tr -d '"' | sort -u > "$tmp/named"
grep -oE 'moe_option_(int|float|bool|size|percent|text|list|from)\([^,"]*,[^,")]*"[^"]*"' \
    "$tmp/all" | sed 's/.*"\([^"]*\)"$/\1/' > "$tmp/calls"
grep -oE 'moe_options_(get|set)\([^,"]*,[^,")]*"[^"]*"' "$tmp/all" \
    | sed 's/.*"\([^"]*\)"$/\1/' >> "$tmp/calls"
sort -u "$tmp/calls" > "$tmp/read"

echo 1..3
if [ "$(wc -l < "$tmp/rows")" -ge 30 ]; then
    echo "ok 1 - the table has $(wc -l < "$tmp/rows") rows"
else
    echo 'not ok 1 - the table was not understood'
fi
if unread=$(comm -23 "$tmp/rows" "$tmp/named") && [ -z "$unread" ]; then
    echo 'ok 2 - every row is read'
else
    echo 'not ok 2 - every row is read'
    echo "$unread" | sed 's/^/# nobody reads /'
fi
if alien=$(comm -13 "$tmp/rows" "$tmp/read") && [ -z "$alien" ]; then
    echo 'ok 3 - what is read is a row'
else
    echo 'not ok 3 - what is read is a row'
    echo "$alien" | sed 's/^/# no row /'
fi
