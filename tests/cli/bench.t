#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# moe-run bench: its lists, its three outputs, its refusals.
. "${MOE_TEST_SRCDIR:-.}/tests/cli/lib.sh"

model=$tmp/tiny
make_model "$model"
bench() {
    moe bench -m "$model" -r 2 --no-machine "$@"
}

bench -p 8 -n 4 -q
status_is 0 'bench runs'
err_empty '... quietly'
is "$(sed -n 's/^| tiny |.*| \([pt][pg][0-9]*\) |.*/\1/p' "$tmp/out" \
    | tr '\n' ' ')" 'pp8 tg4 ' '... a row for each test'
bench -p 1,4-6 -n 2-8*2 -b 1-3+2 -d 0,5 -o csv
status_is 0 'lists and ranges'
is "$(sed -n 's/^"tiny","cpu","\([^"]*\)",.*/\1/p' "$tmp/out" | sed -n \
    '1p;4p;5p;7p;8p;28p' | tr '\n' ';')" \
    'pp1;pp6;tg2;tg8;pp1 b3;tg8 b3 @ d5;' '... every test in order'
is "$(awk -F, '{ print NF }' "$tmp/out" | sort -u | wc -l | tr -d ' ')" 1 \
    '... in CSV of equal width'
is "$(head -n 1 "$tmp/out" | cut -d , -f 1-5)" \
    model,backend,test,n_prompt,n_gen '... with a head'
bench -p 8 -n 4 -o json --ops
status_is 0 'JSON'
json_check "$tmp/out" '... is JSON'
if perl -MJSON::PP -e 1 2> /dev/null; then
    is "$(perl -MJSON::PP -e 'local $/; my $j = decode_json(<STDIN>);
        my $t = $j->{results}[1]; my $s = $t->{rest_s};
        $s += $_->{seconds} for @{$t->{operations}};
        print "$t->{test} $t->{tokens} ", scalar @{$t->{samples}}, " ",
            ($s > 0 ? "timed" : "not timed"), " ", $t->{read_share}' \
        < "$tmp/out")" 'tg4 4 2 timed 0' '... with samples and operations'
else
    skip '... with samples and operations' 'no perl with JSON::PP'
fi
bench -p 0 -n 4 --ops
out_has '| expert ffn | 2 |' 'operations in the table'
moe bench -m "$model" -r 1 -p 0 -n 2 -q --budget 2000M
status_is 0 'with the ceilings'
out_has '| machine, ' '... a table of the machine'
out_has ' % |' '... and shares of it'
is "$(awk -F '|' '/^\| tiny / { print ($10 > 0 && $11 > 0) }' "$tmp/out")" 1 \
    '... and what the planner said'

bench -p 0 -n 0
refuses 2 'nothing to time' 'nothing asked for'
for list in x '' 1,,2 1, 4-2 1-4*1 0-4*2 99999999 1-100; do
    bench -p "$list"
    refuses 2 "--n-prompt: '$list'" "a bad list: '$list'"
done
bench -b 0
refuses 2 '--batch: 0' 'no sequence'
bench -r 0
refuses 2 '--repetitions' 'no repetition'
bench -o xml
refuses 2 'md, csv, json' 'an unknown output'
bench -p 100000
refuses 2 'model.context' 'more than the model knows'
bench -n 8 -c 4
refuses 2 'raise model.context' 'a context that was asked for stands'
bench -p 8 -n 4 -b 40 --batch-rows 32
refuses 2 'engine.batch_rows' 'more sequences than rows'
moe bench --temperature 1
refuses 2 'no effect' 'an option without effect'
shape=$src/tests/quant/fixtures/qwen3_moe-w4a16
moe bench --shape "$shape" --layers 1 -p 8 -n 4 -r 1 --no-machine -q
status_is 0 'a shape with random weights'
out_has '(1 of 2 layers)' '... and a part of its layers'
tr -d '\n' < "$shape/config.json" \
    | sed 's/"mlp_only_layers": *\[[^]]*\]/"mlp_only_layers": [1]/' \
    > "$tmp/dense.json"
grep -q '"mlp_only_layers": \[1\]' "$tmp/dense.json"
ok $? 'a shape whose second layer is dense'
moe bench --shape "$tmp/dense.json" --layers 1 -p 8 -n 0 -r 1 --no-machine -q
status_is 0 '... can lose it'
moe bench --shape olmoe-1b -p 8 -n 0 --layers 17
refuses 2 '17 layers' 'a preset by the beginning of its name'
moe bench --shape "$shape" -m "$model"
refuses 2 'one of them' 'a shape and a model'
moe bench --shape no-such-shape -r 1
refuses 2 'no-such-shape' 'an unknown shape'
moe bench --shape no-such-shape --format nonsense -r 1
refuses 2 'no-such-shape' '... before its format'
for flag in '--layers 2' '--format bf16' '--skew 1'; do
    bench $flag
    refuses 2 'without --shape' "$flag without a shape"
done
moe bench --shape "$shape" --skew -1
refuses 2 '--skew' 'a negative skew'
moe bench --help
out_has '-b, --batch LIST' 'the help names the list'
out_lacks '-b, --batch-rows' '... and not the option of the same letter'
finish
