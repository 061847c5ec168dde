#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Chatting: commands, a model without a template, and one with.
. "${MOE_TEST_SRCDIR:-.}/tests/cli/lib.sh"
model=$tmp/model
make_model "$model"

printf 'The man\n\nin the\n/stats\n/nonsense\n/reset\nThe man\n/exit\nnever\n' \
    > "$tmp/in"
moe chat -m "$model" -n 6 --temp 0 --ignore-eos
status_is 0 'a chat from a file succeeds'
is "$(grep -c 'no chat template' "$tmp/err")" 1 \
    'a model without a template is said so once'
err_has "no command '/nonsense'" 'an unknown command is named'
err_has 'a new conversation begins' '/reset is answered'
is "$(grep -c 'tokens/s' "$tmp/err")" 4 '/stats and the end print figures'
printf 'The man\n' > "$tmp/in"
moe chat -m "$model" -n 6 --temp 0 --ignore-eos -q
cp "$tmp/out" "$tmp/first"
err_empty '-q is quiet'
printf 'nonsense first\n/reset\nThe man\n' > "$tmp/in"
moe chat -m "$model" -n 6 --temp 0 --ignore-eos -q
is "$(tail -n "$(wc -l < "$tmp/first")" "$tmp/out")" "$(cat "$tmp/first")" \
    'after /reset the answer is that of a new chat'
rm "$tmp/in"
moe chat -m "$model" -n 6 --temp 0 --ignore-eos -q -st -p 'The man'
cmp -s "$tmp/out" "$tmp/first"
ok $? 'a single turn is the same'
moe -cnv -m "$model" -n 6 --temp 0 --ignore-eos -q -p 'The man'
cmp -s "$tmp/out" "$tmp/first"
ok $? '-cnv is chat'
printf 'The man \\\nin the\n' > "$tmp/in"
moe chat -m "$model" -n 2 --temp 0 -q --ignore-eos
status_is 0 'a message of two lines'
printf 'a\n%s\n' "$(awk 'BEGIN { for (i = 0; i < 400; i++) printf "a" }')" \
    > "$tmp/in"
moe chat -m "$model" -n 2 -q
status_is 2 'a message longer than the context ends a chat from a file'
printf '\377\n' > "$tmp/in"
moe chat -m "$model" -n 2 -q
refuses 2 'not UTF-8' 'a message that is not UTF-8'

# with a template: the helper needs Python with jinja2
cp "$src/tests/cli/model/tokenizer_config.json" "$model"
helper=$tmp/moe-template
printf '#!/bin/sh\nexec /usr/bin/python3 -IB "%s"\n' \
    "$src/core/text/moe-template.py" > "$helper"
chmod +x "$helper"
printf 'the\n' > "$tmp/in"
if "$helper" < /dev/null 2> "$tmp/err" | grep -q '"ready"'; then
    moe chat -m "$model" -n 6 --temp 0 --ignore-eos -q -sys 'a man' \
        --template-helper "$helper"
    status_is 0 'a chat by a template succeeds'
    ! grep -q 'no chat template' "$tmp/err"
    ok $? '... and says nothing of a missing one'
    # the template by hand
    moe -m "$model" -n 6 --temp 0 --ignore-eos -q \
        -p '<|system|>a man<|end|><|user|>the<|end|><|assistant|>'
    cp "$tmp/out" "$tmp/by-hand"
    moe chat -m "$model" -n 6 --temp 0 --ignore-eos -q -sys 'a man' \
        --template-helper "$helper"
    cmp -s "$tmp/out" "$tmp/by-hand"
    ok $? '... and its layout is the template'\''s'
else
    skip 'a chat by a template' 'the helper does not run here'
fi
moe chat -m "$model" -n 6 -q --template-helper "$tmp/no-such-helper"
[ "$status" -ne 0 ] && grep -q 'no-such-helper' "$tmp/err"
ok $? 'a helper that is not there is named'

finish
