#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# On a terminal: the editor of chat, its history, the progress bar.
. "${MOE_TEST_SRCDIR:-.}/tests/cli/lib.sh"
model=$tmp/model
make_model "$model"
script -qec true /dev/null > /dev/null 2>&1 \
    || skip_all 'no script(1) that runs a command on a terminal'

# the program on a terminal, with $tmp/in as what is typed
on_terminal() { # ARG...
    printf '#!/bin/sh\nexec "%s"' "$run" > "$tmp/cmd"
    for arg; do
        printf " '%s'" "$arg" >> "$tmp/cmd"
    done
    echo >> "$tmp/cmd"
    chmod +x "$tmp/cmd"
    script -qec "$tmp/cmd" /dev/null < "$tmp/in" > "$tmp/out" 2> "$tmp/err"
    status=$?
}

printf 'The man\n/exit\n' > "$tmp/in"
on_terminal chat -m "$model" -n 4 --temp 0 --ignore-eos
status_is 0 'chat on a terminal'
out_has '/help lists the commands' '... greets'
if "$run" --version | grep -q libedit; then
    grep -q 'The\\040man\|The man' "$tmp/state/moe-run/history"
    ok $? '... and keeps what was said'
    # shellcheck disable=SC2012
    is "$(ls -l "$tmp/state/moe-run/history" | cut -c 1-10)" '-rw-------' \
        '... for its user alone'
else
    skip 'history' 'built without libedit'
fi

printf 'The man\n' > "$tmp/in"
on_terminal -m "$model" -n 4 --temp 0 --ignore-eos
status_is 0 'no prompt, no template'
out_has 'prompt> ' '... asks for a prompt'

: > "$tmp/in"
on_terminal quantize "$model" "$tmp/quantized" \
    --experts fp8-e4m3-channel
status_is 0 'quantize on a terminal'
out_has '100 %' '... shows how far it is'
TERM=dumb on_terminal quantize "$model" "$tmp/quantized2" \
    --experts fp8-e4m3-channel
out_lacks '100 %' '... but not on a dumb one'

finish
