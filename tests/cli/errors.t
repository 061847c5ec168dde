#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Bad input from the outside of the program: one clear line each, and the
# documented exit status.
. "${MOE_TEST_SRCDIR:-.}/tests/cli/lib.sh"
model=$tmp/model
make_model "$model"
# a broken copy of the model: broken FILE < new content
broken() {
    rm -rf "$tmp/broken"
    cp -r "$model" "$tmp/broken"
    cat > "$tmp/broken/$1"
}

# prompts
printf 'ab\377cd' > "$tmp/in"
moe -m "$model"
refuses 2 'standard input: line 1, byte 3 (0xff) is not UTF-8' \
    'bytes that are not UTF-8'
rm "$tmp/in"
moe -m "$model" -p "$(printf 'ok\303')"
refuses 2 '--prompt: line 1, byte 3' 'a character that is cut'
moe -m "$model"
refuses 2 'no prompt' 'no prompt at all'
moe -m "$model" -f "$tmp/no-such-file"
refuses 1 'no-such-file: cannot be opened' 'a prompt file that is not there'
moe -m "$model" -f "$tmp"
refuses 1 'cannot be read' 'a folder as a prompt file'
long=$(awk 'BEGIN { for (i = 0; i < 300; i++) printf "the " }')
moe -m "$model" -p "$long"
[ "$status" = 2 ] && [ "$(wc -l < "$tmp/err")" -eq 1 ] \
    && grep -q '256' "$tmp/err"
ok $? 'a prompt longer than the context, with both figures'
moe -m "$model" -c 8 -p 'one two three four five'
[ "$status" = 2 ] && grep -q '8' "$tmp/err"
ok $? '... and than a context that was asked for'
if [ "$(id -u)" -ne 0 ]; then
    echo x > "$tmp/secret"
    chmod 0 "$tmp/secret"
    moe -m "$model" -f "$tmp/secret"
    refuses 1 'Permission denied' 'a prompt file that may not be read'
else
    skip 'a prompt file that may not be read' 'root may read everything'
fi

# models
moe -m "$tmp/no-such-model" -p x
[ "$status" = 1 ] && [ "$(wc -l < "$tmp/err")" -eq 1 ] \
    && grep -q 'no-such-model' "$tmp/err"
ok $? 'a model that is not there'
sed 's/"mixtral"/"nonsense"/; s/MixtralForCausalLM/NonsenseForCausalLM/' \
    "$model/config.json" | broken config.json
moe -m "$tmp/broken" -p x
refuses 4 'nonsense' 'an unknown family'
head -c 1000 "$model/model.safetensors" | broken model.safetensors
moe -m "$tmp/broken" -p x
refuses 5 'model.safetensors' 'a file that is cut'
echo '{' | broken config.json
moe -m "$tmp/broken" -p x
refuses 5 'config.json' 'a config.json that is cut'
echo '{"model": 1}' | broken tokenizer.json
moe -m "$tmp/broken" -p x
[ "$status" = 5 ] || [ "$status" = 4 ]
ok $? 'a broken tokenizer'
err_has 'tokenizer.json' '... is named'

# memory
moe -m "$model" -p x --budget 1K
[ "$status" = 3 ] && [ "$(wc -l < "$tmp/err")" -eq 1 ]
ok $? 'a budget that is too small'
moe -m "$model" -p x -n 2 --budget 2000%
refuses 2 'not a percentage' 'a budget of more than all'

# plugins
moe -m "$model" -p x --plugin "$tmp/no-such-plugin.so"
[ "$status" = 6 ] && [ "$(wc -l < "$tmp/err")" -eq 1 ] \
    && grep -q 'no-such-plugin.so' "$tmp/err"
ok $? 'a plugin that is not there'
echo 'no plugin' > "$tmp/text.so"
moe -m "$model" -p x --plugin "$tmp/text.so"
refuses 6 'text.so' 'a file that is no plugin'
moe -m "$model" -p x --backend nonsense
refuses 6 'nonsense' 'a backend that is not there'
mkdir "$tmp/empty"
moe -m "$model" -p x --plugin-path "$tmp/empty"
[ "$status" = 6 ] && [ "$(wc -l < "$tmp/err")" -eq 1 ]
ok $? 'no backend at all'
moe -m "$model" -p x --set backend.cpu.nonsense=1
refuses 2 'nonsense' 'a key that no plugin reads'
moe quantize "$model" "$tmp/out-dir" --experts nonsense
refuses 4 'nonsense' 'an unknown format'
# a limit on the size of files, as a full disk
(ulimit -f 8
 moe quantize "$model" "$tmp/out-dir" --experts fp8-e4m3-channel
 exit "$status")
status=$?
refuses 1 'File too large' 'a file that may not grow'
[ -z "$(ls -d "$tmp"/out-dir* 2> /dev/null)" ]
ok $? '... and nothing is left of it'
moe quantize "$tmp/no-such-model" "$tmp/out-dir"
[ "$status" -ne 0 ] && [ ! -e "$tmp/out-dir" ]
ok $? 'quantizing nothing leaves nothing behind'
moe quantize "$model" "$tmp/out-dir" --experts fp8-e4m3-channel \
    --calibrate /dev/null
refuses 2 'a file of text is needed' 'calibration with no text'
moe perplexity -m "$model" -f /dev/null
refuses 2 'at least 2' 'a text without tokens'

finish
