#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The command line without a model: help, version, flags, options, sources.
. "${MOE_TEST_SRCDIR:-.}/tests/cli/lib.sh"
unset MOE_PLUGIN_PATH

# help and version
for flag in --help -h help; do
    moe $flag
    status_is 0 "$flag succeeds"
    out_has 'Usage: moe-run' "$flag goes to standard output"
    err_empty "$flag says nothing else"
done
out_has 'perplexity' 'the help lists the commands'
out_has '--threads' 'the help lists the options'
# a default that is a path of this build may be as long as it likes
awk 'length > 80 && !/^ +\[\// { exit 1 }' "$tmp/out"
ok $? 'the help fits the terminal'
moe chat --help
out_has 'Usage: moe-run chat' 'a command has a help of its own'
out_lacks '--experts' '... without what it does not read'
moe help quantize
out_has '--experts' 'help COMMAND is that help too'
moe quantize --help
out_lacks '--temperature' '... without what it does not read'
moe help nonsense
refuses 2 'nonsense' 'help of an unknown command'
moe --version
status_is 0 '--version succeeds'
out_has 'plugin ABI' '--version tells the plugin ABI'
sed -n 1p "$tmp/out" | grep -q '^moe-run [0-9]'
ok $? '--version begins with name and number'
MOE_NONSENSE=1 moe --help
status_is 0 'help works with a broken environment'

# wrong command lines
moe --promt x
refuses 2 "did you mean '--prompt'" 'a misspelt flag of the command'
moe --thread 2
refuses 2 "did you mean '--threads'" 'a misspelt option'
moe --zzzzzzzzz
refuses 2 'generate --help' 'a flag far from all'
moe -Z
refuses 2 "'-Z'" 'an unknown short flag'
moe chta
refuses 2 "did you mean 'chat'" 'a misspelt command'
moe 'Once upon a time'
refuses 2 'a prompt is given with -p' 'a prompt without -p'
moe -q config
refuses 2 'has to be the first word' 'a command after flags'
moe inspect a b
refuses 2 'one word too many' 'too many operands'
moe quantize a
refuses 2 'needs two folders' 'too few operands'
moe --threads
refuses 2 '--threads needs a value' 'a flag without its value'
moe --json=yes
refuses 2 '--json takes no value' 'a switch with a value'
moe inspect --temperature 1
refuses 2 'has no effect' 'an option that the command does not read'
moe quantize --context 5
refuses 2 'has no effect' '... by its key, not only its section'
moe --json --jsonl -p x
refuses 2 'exclude each other' 'two kinds of JSON'
moe --set engine.threads config
refuses 2 'KEY=VALUE' '--set without a value'
moe config --set no.such=1
refuses 2 "no option 'no.such'" '--set of an unknown key'
moe config --man nonsense
refuses 2 'options or ini' 'an unknown part of a page'
moe perplexity -f no-such-file
refuses 1 'no-such-file' 'a text that is not there'
moe chat -st
refuses 2 'needs -p' 'a single turn without a prompt'

# values, each spelling
for args in '--threads 3' '--threads=3' '-t 3' '-t3' '-t=3' \
    '--set engine.threads=3'; do
    # shellcheck disable=SC2086
    moe config $args
    grep -q '^engine.threads  *3  *command line$' "$tmp/out"
    ok $? "config $args"
done
moe config -c 5 -np 6 -ctk f16 -s -1 --temp 0.5
grep -q '^model.context  *5 ' "$tmp/out" \
    && grep -q '^engine.sequences  *6 ' "$tmp/out" \
    && grep -q '^memory.kv_type  *f16 ' "$tmp/out" \
    && grep -q '^generate.seed  *-1  *command' "$tmp/out" \
    && grep -q '^generate.temperature  *0.5 ' "$tmp/out"
ok $? 'short flags of several letters, aliases, values with a minus'
moe config --ctx-size 5 --max-model-len 7
grep -q '^model.context  *7 ' "$tmp/out"
ok $? 'the last one counts'
moe config --ignore-eos
grep -q '^generate.ignore_eos  *true ' "$tmp/out"
ok $? 'a switch of the table'
moe config --ignore-eos --no-ignore-eos
grep -q '^generate.ignore_eos  *false  *command' "$tmp/out"
ok $? '... and its opposite'
moe config --stop 'a, b' --stop 'c"d'
grep -qF 'generate.stop               "a, b","c\"d"' "$tmp/out"
ok $? 'a list takes each flag as an item'
moe config -vv
grep -q '^log.level  *debug  *command' "$tmp/out"
ok $? '-vv asks for debugging messages'
moe config -t x
refuses 2 "--threads: 'x' is not a whole number" 'a wrong value'
moe config --kv-type f61
refuses 2 "did you mean 'f16'" 'a wrong word'

# sources
mkdir -p "$tmp/config/moe-run"
printf '[engine]\nthreads = 2\nsequences = 2\nbatch_rows = 2\n' \
    > "$tmp/config/moe-run/moe.ini"
printf '[engine]\nsequences = 3\nbatch_rows = 3\n[memory]\npage_rows = 3\n' \
    > "$tmp/named.ini"
MOE_BATCH_ROWS=4 MOE_PAGE_ROWS=4 moe config --config "$tmp/named.ini" \
    --page-rows 5
grep -q "^engine.threads  *2  *$tmp/config/moe-run/moe.ini:2\$" "$tmp/out"
ok $? 'the user file counts'
grep -q "^engine.sequences  *3  *$tmp/named.ini:2\$" "$tmp/out"
ok $? '... less than --config'
grep -q '^engine.batch_rows  *4  *MOE_BATCH_ROWS$' "$tmp/out"
ok $? '... which counts less than a variable'
grep -q '^memory.page_rows  *5  *command line$' "$tmp/out"
ok $? '... which counts less than the command line'
grep -q '^model.context  *0  *built-in$' "$tmp/out"
ok $? 'the rest is built in'
moe config --json
json_check "$tmp/out" 'config --json is JSON'
moe config --json
out_has '"where":"built-in"' '... with the sources'
printf '[engine]\nthreads = many\n' > "$tmp/config/moe-run/moe.ini"
moe config
refuses 2 "moe.ini:2: threads: 'many'" 'a wrong file is named with its line'
rm -r "$tmp/config"
moe config --config "$tmp/no-such.ini"
refuses 1 'no-such.ini' 'a --config that is not there'
MOE_THREDS=3 moe config
refuses 2 'did you mean MOE_THREADS' 'a misspelt variable'
moe config --set backend.cpu.isa=avx2
grep -q '^backend.cpu.isa  *avx2  *command line$' "$tmp/out"
ok $? 'a key of a plugin is shown too'

# the complete example is a right one
moe config --ini
sed 's/^;//; s/^path =$/path =/' "$tmp/out" > "$tmp/all.ini"
moe config --config "$tmp/all.ini"
status_is 0 'config --ini prints a file that can be read'
[ "$(grep -c "$tmp/all.ini:" "$tmp/out")" -eq "$(wc -l < "$tmp/out")" ]
ok $? '... and it holds every option'

# streams
moe config
cp "$tmp/out" "$tmp/plain"
CLICOLOR_FORCE=1 moe config --threads 2
grep -q "$(printf '\033')" "$tmp/out"
ok $? 'CLICOLOR_FORCE forces colours'
NO_COLOR=1 CLICOLOR_FORCE=1 moe config --threads 2
! grep -q "$(printf '\033')" "$tmp/out"
ok $? 'NO_COLOR forbids them'
! grep -q "$(printf '\033')" "$tmp/plain"
ok $? 'there are none in a file'
if [ -c /dev/full ]; then
    "$run" config < /dev/null > /dev/full 2> "$tmp/err"
    status=$?
    : > "$tmp/out"
    refuses 1 'No space left' 'a full disk is an error'
else
    skip 'a full disk is an error' 'no /dev/full'
fi
{ "$run" config < /dev/null 2> "$tmp/err"; echo $? > "$tmp/status"; } \
    | head -n 1 > "$tmp/out"
is "$(cat "$tmp/status")" 0 'a reader that goes away is none'
err_empty '... and nothing is said of it'

finish
