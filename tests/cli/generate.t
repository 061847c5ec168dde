#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Generating with a tiny model of random weights: streams, batches, JSON.
. "${MOE_TEST_SRCDIR:-.}/tests/cli/lib.sh"
model=$tmp/model
make_model "$model"

moe -m "$model" -p 'The man' -n 12 --temperature 0
status_is 0 'a text is generated'
[ -s "$tmp/out" ]
ok $? '... on standard output'
err_has 'tokens/s' '... with a summary on standard error'
err_has 'of a budget of' '... that tells the memory'
err_has 'load max/mean' '... and the load of the experts'
tail -c 1 "$tmp/out" | od -An -c | grep -q '\\n'
ok $? '... and ends with a newline'
cp "$tmp/out" "$tmp/alone"

moe generate -m "$model" --prompt='The man' --predict 12 --temp 0 -q
cmp -s "$tmp/out" "$tmp/alone"
ok $? 'the same by other spellings'
err_empty '... and -q is quiet'
printf 'The man\n' > "$tmp/prompt"
moe run -m "$model" -f "$tmp/prompt" -n 12 --temp 0 -q
cmp -s "$tmp/out" "$tmp/alone"
ok $? 'the same from a file'
cp "$tmp/prompt" "$tmp/in"
moe -m "$model" -n 12 --temp 0 -q
cmp -s "$tmp/out" "$tmp/alone"
ok $? 'the same from standard input'
moe -m "$model" -f - -n 12 --temp 0 -q
cmp -s "$tmp/out" "$tmp/alone"
ok $? '... by name'
rm "$tmp/in"
MOE_MODEL=$model MOE_MAX_TOKENS=12 MOE_TEMPERATURE=0 moe -q -p 'The man'
cmp -s "$tmp/out" "$tmp/alone"
ok $? 'the same from the environment'
moe -m "$model" -p 'The man' -n 12 --temp 0 -q --echo
printf 'The man' | cat - "$tmp/alone" | cmp -s - "$tmp/out"
ok $? '--echo prints the prompt before'

# sampling
moe -m "$model" -p 'The man' -n 40 --seed 7 -q
cp "$tmp/out" "$tmp/seven"
moe -m "$model" -p 'The man' -n 40 --seed 7 -q
cmp -s "$tmp/out" "$tmp/seven"
ok $? 'a seed gives the same text again'
moe -m "$model" -p 'The man' -n 40 --seed 8 -q
! cmp -s "$tmp/out" "$tmp/seven"
ok $? '... and another one another text'
moe -m "$model" -p 'The man' -n 40 -v
seed=$(sed -n 's/^  seed  *\([0-9]*\)$/\1/p' "$tmp/err")
cp "$tmp/out" "$tmp/random"
moe -m "$model" -p 'The man' -n 40 -s "$seed" -q
cmp -s "$tmp/out" "$tmp/random"
ok $? 'the seed in the summary repeats a random text'

# several prompts
moe -m "$model" -p 'The man' -p 'in the' -p 'a' -n 12 --temp 0 -q
is "$(head -n "$(wc -l < "$tmp/alone")" "$tmp/out")" "$(cat "$tmp/alone")" \
    'the first of several texts is the one it is alone'
moe -m "$model" -p 'The man' -p 'in the' -n 4 --temp 0
err_has 'prompt 2 of 2: in the' '... and each is announced'

# JSON
moe -m "$model" -p 'The man' -p 'in the' -n 12 --temp 0 --json
status_is 0 '--json succeeds'
cp "$tmp/out" "$tmp/json"
err_empty '... without a word besides'
json_check "$tmp/json" '... with one JSON object'
if perl -MJSON::PP -e 1 2>/dev/null; then
    perl -MJSON::PP -e 'local $/; my $j = decode_json(<STDIN>);
        my @s = @{$j->{sequences}};
        die "schema" unless $j->{schema_version} == 1;
        die "two" unless @s == 2 && $s[1]{prompt} eq "in the";
        die "tokens" unless @{$s[0]{tokens}} == $s[0]{n_output};
        die "prompt" unless @{$s[0]{prompt_tokens}} == $s[0]{n_prompt};
        die "bos" unless $s[0]{prompt_tokens}[0] == 1;
        die "finish" unless $s[0]{finish} =~ /^(stop|length)$/;
        die "stats" unless $j->{stats}{peak_bytes} > 0
            && $j->{stats}{peak_bytes} <= $j->{stats}{budget_bytes};
        my $load = $j->{stats}{expert_load};
        die "load" unless @$load == 2 && @{$load->[0]{tokens}} == 4;
        my $sum = 0; $sum += $_ for @{$load->[0]{tokens}};
        my $rows = $j->{stats}{prefill_tokens} + $j->{stats}{decode_tokens};
        die "rows $sum $rows" unless $sum == 2 * $rows;
        my $out = 0; $out += $_->{n_output} for @s;
        $sum = 0; $sum += $_ for @{$load->[1]{tokens}};
        die "last $sum $out" unless $sum == 2 * $out;
        binmode STDOUT, ":utf8";
        print $s[0]{text}, "\n"' < "$tmp/json" > "$tmp/out" 2> "$tmp/err"
    ok $? '... that holds what it should'
    cmp -s "$tmp/out" "$tmp/alone"
    ok $? '... and the same text'
    moe -m "$model" -p 'The man' -p 'in the' -n 12 --temp 0 --jsonl
    perl -MJSON::PP -ne 'BEGIN { our %t; our $end = 0; our $stats = 0 }
        $stats and next; /"type":"stats"/ and $stats = 1 and next;
        my $j = decode_json($_);
        die unless $j->{schema_version} == 1;
        $t{$j->{index}} .= $j->{text} if $j->{type} eq "text";
        $end++ if $j->{type} eq "end";
        END { die "ends $end" unless $end == 2 && $stats;
              binmode STDOUT, ":utf8"; print $t{0}, "\n" }' \
        < "$tmp/out" > "$tmp/pieces" 2> "$tmp/err"
    ok $? '--jsonl prints pieces, ends and statistics'
    cmp -s "$tmp/pieces" "$tmp/alone"
    ok $? '... whose pieces are the same text'
else
    skip 'the JSON holds what it should' 'no perl with JSON::PP'
fi

# limits
moe -m "$model" -p 'The man' -n 0
status_is 0 'no tokens at all'
out_empty '... give no text'
moe -m "$model" -p 'The man' -n -1 -c 40 --temp 0 --ignore-eos --json
grep -q '"finish":"length"' "$tmp/out"
ok $? '-n -1 goes on until the context is full'
first=$(cut -c 1 "$tmp/alone" | head -n 1)
moe -m "$model" -p 'The man' -n 12 --temp 0 -q --stop "$first"
out_empty 'a stop text ends the output and is not in it'
moe -m "$model" -p 'The man' -n 12 --temp 0 --json --stop "$first"
grep -q '"finish":"stop"' "$tmp/out"
ok $? '... as the reason says'

# explain, inspect, plugins
moe -m "$model" --explain
status_is 0 '--explain succeeds'
[ -s "$tmp/out" ]
ok $? '... on standard output'
moe -m "$model" --dry-run --json
status_is 0 '... as JSON'
json_check "$tmp/out" '... that is JSON'
moe inspect "$model"
status_is 0 'inspect succeeds'
out_has 'mixtral' '... and names the family'
moe inspect --json -m "$model"
json_check "$tmp/out" '... as JSON'
moe plugins
status_is 0 'plugins succeeds'
out_has 'loaded' '... and lists loaded ones'
moe --list-plugins
status_is 0 '--list-plugins is the same'
moe plugins --json
json_check "$tmp/out" '... as JSON'

# perplexity
printf 'The man in the inn and the hen. The man in the inn and the hen. ' \
    > "$tmp/text"
moe perplexity -m "$model" -f "$tmp/text" -c 16 -q
status_is 0 'perplexity succeeds'
out_has 'bits per byte' '... and prints bits per byte'
moe perplexity -m "$model" -f "$tmp/text" -c 16 --json
json_check "$tmp/out" '... as JSON'
if perl -MJSON::PP -e 1 2>/dev/null; then
    score() {
        "$run" perplexity -m "$model" -f "$tmp/text" --json "$@" \
            < /dev/null 2> "$tmp/err" | perl -MJSON::PP -e 'local $/;
            my $j = decode_json(<STDIN>); die if $j->{bytes} != 64;
            printf "%.6f %d\n", $j->{bits_per_byte}, $j->{tokens}'
    }
    is "$(score)" "$(score --stride 1000)" \
        'one window, whatever the stride'
    is "$(score -c 16 -np 1)" "$(score -c 16 -np 5 -t 2)" \
        'the same figure in any batch and with any number of threads'
    is "$(score -c 16 --stride 15 | cut -d ' ' -f 2)" \
        "$(score -c 16 --stride 3 | cut -d ' ' -f 2)" \
        'every token is scored once, whatever the stride'
else
    skip 'perplexity figures' 'no perl with JSON::PP'
fi

# quantize
moe quantize "$model" "$tmp/quantized" --experts fp8-e4m3-channel -q
status_is 0 'quantize succeeds'
err_empty '... quietly, without a terminal'
moe -m "$tmp/quantized" -p 'The man' -n 4 -q
status_is 0 '... and what it wrote runs'
moe quantize "$model" "$tmp/quantized" --experts fp8-e4m3-channel
[ "$status" -ne 0 ] && [ "$(wc -l < "$tmp/err")" -eq 1 ]
ok $? '... and is not overwritten'
moe quantize "$model" "$tmp/calibrated" --experts fp8-e4m3-channel \
    --calibrate self --calibrate-tokens 300
status_is 0 'quantize --calibrate succeeds'
err_has 'calibrated: ' '... tells how the outputs are off'
err_has 'an expert saw ' '... and what the experts got to see'
moe -m "$tmp/calibrated" -p 'The man' -n 4 -q
status_is 0 '... and what it wrote runs'

finish
