#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The engine under watch: a generation on the cpu backend and on the fake
# device, both inside of check, breaks no rule and gives the same text: with
# lazy streams in any order, and with so little memory that experts come and
# go.
src=${MOE_TEST_SRCDIR:-.}
build=${MOE_TEST_BUILDDIR:-.}
run=${MOE_TEST_RUN:-$build/moe-run}
model=$src/conf/model/stories
tmp=$(mktemp -d "${TMPDIR:-/tmp}/moe-engine-XXXXXX") || exit 1
trap 'rm -rf "$tmp"' EXIT
n=0
cpu=$build/plugins/backend/cpu/.libs/cpu.so
fake=$build/plugins/backend/fake/.libs/fake.so
check=$build/plugins/backend/check/.libs/check.so
unset MOE_CONFORM MOE_RUN

if [ ! -f "$model/model.safetensors" ]; then
    echo "1..0 # SKIP no model in $model"
    exit 0
fi

generate() {
    "$run" generate -m "$model" -p 'Once upon' -p 'The dog' -n 12 \
        --temperature 0 "$@" </dev/null >"$tmp/out" 2>"$tmp/err"
}

# ok STATUS NAME
ok() {
    n=$((n + 1))
    if [ "$1" -eq 0 ]; then
        echo "ok $n - $2"
    else
        echo "not ok $n - $2"
        head -n 10 "$tmp/err" | sed 's/^/# /'
    fi
}

# watched NAME INNER BUDGET LINE...: a generation inside of check
watched() {
    name=$1
    inner=$2
    budget=$3
    shift 3
    {
        echo '[backend.check]'
        echo "around = $inner"
        printf '%s\n' "$@"
    } >"$tmp/check.ini"
    generate --config "$tmp/check.ini" --plugin "$check" --backend check \
        --budget "$budget"
    ok $? "$name: it generates"
    cmp -s "$tmp/want" "$tmp/out"
    ok $? "... the same text"
    ! grep -q 'rule broken' "$tmp/err"
    ok $? "... and breaks no rule"
}

# The figure that a refusal names, K, M and G allowed.
smallest() {
    sed -n 's/.*smallest that works is \([0-9]*[KMG]*\).*/\1/p' "$tmp/err"
}

generate
ok $? "the cpu backend generates"
cp "$tmp/out" "$tmp/want"
watched "cpu" "$cpu" auto
# Also the wrapper's own memory counts, so it is there when we ask.
generate --config "$tmp/check.ini" --plugin "$check" --backend check \
    --budget 1M
least=$(smallest)
[ -n "$least" ]
ok $? "a budget of 1M is refused, $least is named"
watched "cpu with $least" "$cpu" "${least:-auto}"

watched "fake" "$fake" auto
printf '[backend.fake]\nmemory = 1M\n' >"$tmp/fake.ini"
generate --config "$tmp/fake.ini" --plugin "$fake" --backend fake
least=$(smallest)
[ -n "$least" ]
ok $? "a device of 1M is refused, $least is named"
for seed in 1 2 3 4; do
    watched "fake with $least, seed $seed" "$fake" auto "seed = $seed" \
        "memory = ${least:-1G}"
done
echo "1..$n"
