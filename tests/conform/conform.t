#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Our own plugins, and the template backend, under moe-conform: each is one
# result, and what failed is shown.
src=${MOE_TEST_SRCDIR:-.}
build=${MOE_TEST_BUILDDIR:-.}
conform=${MOE_TEST_CONFORM:-moe-conform}
tmp=$(mktemp -d "${TMPDIR:-/tmp}/moe-conform-XXXXXX") || exit 1
trap 'rm -rf "$tmp"' EXIT
n=0
cpu=$build/plugins/backend/cpu/.libs/cpu.so
fake=$build/plugins/backend/fake/.libs/fake.so
check=$build/plugins/backend/check/.libs/check.so
quant=$build/plugins/quant

# Instrumented plugins export more than a plugin may.
if nm -D "$fake" 2>/dev/null | grep -q -E '__(asan|tsan|ubsan)_'; then
    allowed='^not ok [0-9]* - (exports nothing else|needs no moe_)'
else
    allowed='^$'
fi

# run NAME ARGUMENT...
run() {
    name=$1
    shift
    n=$((n + 1))
    "$conform" "$@" >"$tmp/log" 2>&1
    status=$?
    bad=$(grep '^not ok' "$tmp/log" | grep -v -E "$allowed")
    if [ $status -le 1 ] && [ -z "$bad" ] && grep -q '^1\.\.' "$tmp/log"; then
        echo "ok $n - $name: $(grep -c '^ok' "$tmp/log") results"
    else
        echo "not ok $n - $name (status $status)"
        grep -A 2 '^not ok' "$tmp/log" | head -60 | sed 's/^/# /'
        tail -n 3 "$tmp/log" | sed 's/^/# /'
    fi
}

run cpu --load "$quant/fp16/.libs/fp16.so" --load "$quant/fp8/.libs/fp8.so" \
    --load "$quant/int4/.libs/int4.so" \
    --load "$quant/mxfp4/.libs/mxfp4.so" "$cpu"
run fake "$fake"
run "fake, generic" --set generic=yes --load "$quant/int4/.libs/int4.so" \
    "$fake"
run "fake, other order" --set seed=7 "$fake"
run "check around fake" --set "around=$fake" "$check"
run "check around cpu" --set "around=$cpu" "$check"
for q in fp16 fp8 int4 mxfp4; do
    run $q "$quant/$q/.libs/$q.so"
done

# What a vendor starts from.
if ${MOE_TEST_CC:-cc} -I"$src/include" -O1 -fPIC -fvisibility=hidden -shared \
    -o "$tmp/scalar.so" "$src"/contrib/plugin-template/backend-scalar/*.c -lm
then
    run "the template backend" "$tmp/scalar.so"
else
    n=$((n + 1))
    echo "not ok $n - the template backend is compiled"
fi

# Usage and refusals.
n=$((n + 1))
"$conform" >/dev/null 2>&1
[ $? -eq 2 ] && echo "ok $n - no plugin: usage, status 2" ||
    echo "not ok $n - no plugin: usage, status 2"
n=$((n + 1))
"$conform" /nowhere/none.so >"$tmp/log" 2>&1
[ $? -eq 1 ] && grep -q 'no such file' "$tmp/log" &&
    echo "ok $n - a missing plugin: a failure that says so" ||
    echo "not ok $n - a missing plugin: a failure that says so"
n=$((n + 1))
if "$conform" --json "$fake" >"$tmp/log" 2>/dev/null ||
    [ "$allowed" != '^$' ] && grep -q '"result": "pass"' "$tmp/log" &&
    grep -q '"failed":' "$tmp/log"; then
    echo "ok $n - as JSON"
else
    echo "not ok $n - as JSON"
fi
echo "1..$n"
