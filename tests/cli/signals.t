#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Ctrl-C and termination: what there is gets printed, the exit status tells.
. "${MOE_TEST_SRCDIR:-.}/tests/cli/lib.sh"
model=$tmp/model
make_model "$model"

# More than a pipe holds, so that it cannot be done before the signal comes.
prompts=
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    prompts="$prompts -p the$i"
done
# a shell lets what runs in the background ignore SIGINT
env --default-signal=INT true 2> /dev/null || skip_all 'an env(1) of old'
for pair in INT:130 TERM:143; do
    rm -f "$tmp/fifo"
    mkfifo "$tmp/fifo"
    # shellcheck disable=SC2086
    env --default-signal=INT "$run" -m "$model" $prompts --ignore-eos -n -1 --jsonl < /dev/null \
        > "$tmp/fifo" 2> "$tmp/err" &
    pid=$!
    exec 3< "$tmp/fifo"
    # the first byte: it generates
    dd bs=1 count=1 <&3 > "$tmp/first" 2> /dev/null
    kill -s "${pair%:*}" "$pid"
    cat "$tmp/first" - <&3 > "$tmp/out"
    exec 3<&-
    wait "$pid"
    status=$?
    status_is "${pair#*:}" "SIG${pair%:*} ends it with ${pair#*:}"
    grep -q '"finish":"interrupted"' "$tmp/out"
    ok $? '... after the text so far'
    grep -q '"type":"stats"' "$tmp/out"
    ok $? '... and the statistics'
    [ "$(grep -c '"type":"end"' "$tmp/out")" -eq 20 ]
    ok $? '... and the end of every text'
done

# while the model is opened, or before, there is nothing to keep
mkfifo "$tmp/never"
"$run" -m "$model" -f "$tmp/never" > "$tmp/out" 2> "$tmp/err" &
pid=$!
exec 4> "$tmp/never"
kill -s TERM "$pid"
wait "$pid"
status=$?
exec 4>&-
status_is 143 'a signal while a prompt is read ends it at once'
out_empty '... with nothing said'

# what a shell put into the background is not meant by Ctrl-C
rm "$tmp/fifo"
mkfifo "$tmp/fifo"
env --ignore-signal=INT "$run" -m "$model" -p the --ignore-eos -n 20 -q \
    < /dev/null > "$tmp/fifo" 2> "$tmp/err" &
pid=$!
exec 3< "$tmp/fifo"
dd bs=1 count=1 <&3 > "$tmp/first" 2> /dev/null
kill -s INT "$pid"
cat <&3 > "$tmp/out"
exec 3<&-
wait "$pid"
status=$?
status_is 0 'SIGINT that is ignored stays so'

finish
