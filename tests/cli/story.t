#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The model that ships with moe-run tells a story.
. "${MOE_TEST_SRCDIR:-.}/tests/cli/lib.sh"
model=$src/conf/model/stories
[ -s "$model/model.safetensors" ] || skip_all 'the model is not in this tree'

moe -m "$model" -p 'Once upon a time' -n 100 --seed 7
status_is 0 'a story is told'
[ "$(wc -c < "$tmp/out")" -gt 200 ]
ok $? '... of some length'
[ "$(tr -cd 'a-zA-Z ' < "$tmp/out" | wc -c)" -gt \
    $(($(wc -c < "$tmp/out") * 9 / 10)) ]
ok $? '... in letters and blanks'
err_has 'load max/mean' '... by several experts'
cp "$tmp/out" "$tmp/story"
moe -m "$model" -p 'Once upon a time' -n 100 --seed 7 -t 1 -q
cmp -s "$tmp/out" "$tmp/story"
ok $? 'the same by one thread'
moe -m "$model" -p 'The end of' -p 'Once upon a time' -n 100 --seed 7 -q
tail -c "$(wc -c < "$tmp/story")" "$tmp/out" | cmp -s - "$tmp/story"
ok $? 'the same in company'

printf '%s' 'Once upon a time there was a little girl who lived with her
mother in a small house near the forest. One day she went into the forest to
look for her little dog. She was very happy when she saw him by the river.' \
    > "$tmp/text"
moe perplexity -m "$model" -f "$tmp/text" -q
status_is 0 'it scores a text'
bits=$(sed -n 's/^bits per byte  *\([0-9.]*\)$/\1/p' "$tmp/out")
awk -v bits="$bits" 'BEGIN { exit !(bits > 0.2 && bits < 2.5) }'
ok $? "... as one it could have written ($bits bits per byte)"

finish
