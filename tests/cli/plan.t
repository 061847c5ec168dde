#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# moe-run plan: what it answers, what it refuses, how fast it is.
. "${MOE_TEST_SRCDIR:-.}/tests/cli/lib.sh"
MOE_TEST_FACTS=$src/conf
export MOE_TEST_FACTS

# The questions of a new user, one command each.
moe plan mixtral-8x7b --format int4 --concurrency 32
status_is 0 'which machines for Mixtral in 4 bits and 32 sequences'
out_has '1 x a100-80-sxm' 'one A100 of 80 GB is among them'
out_has '2 x rtx-4090' 'and two RTX 4090'
moe plan deepseek-v3 --hardware h100-sxm --gpus 8
status_is 3 'DeepSeek-V3 on 8 H100'
out_has 'IT DOES NOT FIT' 'does not fit'
out_has 'on 16 of them' 'and what would'
moe plan deepseek-v3 --hardware h100-sxm --gpus 8 --json
status_is 3 'the same as JSON'
moe plan mixtral-8x7b --compare --hardware h100-sxm --concurrency 10 \
    --utilization 0.05
status_is 0 'MoE or dense for 10 users and 5 % of the hours'
out_has 'Advice: for 10 sequences at once and 5 % of the hours' 'advice'
out_has 'dense, 46.7B' 'beside the dense one of its size'
moe plan llama-3.1-70b --hardware h100-sxm --gpus 4 --context 128k
out_has 'one sequence of 131,072 tokens takes 42.9 GB of cache' \
    'what a context of 128k takes'
moe plan mixtral-8x7b --ttft 100 --tpot 15 --concurrency 32
out_has '4 x h100-sxm' 'the smallest machine that is fast enough'
out_lacks '1 x h200-sxm' 'and none that is not'
moe plan mixtral-8x7b --hardware h100-sxm --gpus 8 --concurrency 64
status_is 0 'EP or TP on 8 devices'
out_has 'ep 8' 'has both'

moe plan --compare mixtral-8x7b llama-3-70b --hardware a100-80 \
    --api-price 0.5
status_is 0 'two models'
out_has 'reads fewer weights a step at any batch' 'break-even of traffic'
out_has 'an API at $0.50' 'and against an API'

out_has 'from ' 'from so many tokens a day'
moe plan --compare qwen3-30b-a3b llama-3.1-8b --hardware h100-sxm \
    --concurrency 16
out_has 'take llama-3.1-8b' 'of two that cost the same the one that serves more'
moe plan --compare deepseek-v3 llama-3-70b --hardware h100-sxm --gpus 8
out_has 'no batch fits both' 'one that does not fit is compared with nothing'
out_has 'deepseek-v3 does not fit' 'and not recommended'
moe plan --compare deepseek-v3 llama-3-70b --hardware h100-sxm --gpus 8 --json
out_has '"break_even_batch":null' 'nor as JSON'

moe plan "$src/tests/model/fixtures/qwen3_moe" --hardware cpu-2x-epyc-9654
status_is 0 'a folder'
moe plan "$src/conf/model/gpt-oss-20b.json" --hardware rtx-4090
status_is 0 'a file'
out_has 'experts=mxfp4,rest=bf16' 'in the format it is published in'
moe plan qwen3-30b --hardware l40s --tp 1 --gpus 2 --pp 2
status_is 0 'the beginning of a name; stages'
moe plan mixtral-8x7b --skew 1
status_is 0 'skewed routing'
printf '\000\001\002\003' > "$tmp/trace"
moe plan mixtral-8x7b --trace "$tmp/trace"
status_is 2 'a trace that is too short'
i=0
while [ $i -lt 32 ]; do printf '\000\001'; i=$((i + 1)); done > "$tmp/trace"
moe plan mixtral-8x7b --trace "$tmp/trace" --hardware h100-sxm --gpus 8 \
    --ep 8 --concurrency 16
out_has 'has 4.00 times the mean load (traced routing)' \
    'what a recorded trace does to the ranks'
out_has 'reads 2.0 experts' 'and to what is read'
moe plan mixtral-8x7b --trace "$tmp/trace" --hardware h100-sxm --gpus 8 \
    --ep 8 --concurrency 16 --json
out_has '"imbalance":4,' 'as JSON'
printf '\010' | dd of="$tmp/trace" bs=1 conv=notrunc 2> /dev/null
moe plan mixtral-8x7b --trace "$tmp/trace"
refuses 5 'expert 8' 'an expert that is none'

# On the machine itself the engine's own plan stands beside: the same bytes.
moe plan "$src/conf/model/stories" --hardware this --concurrency 16 \
    --context 512 --json
json_check "$tmp/out" 'the machine itself'
[ -s "$tmp/.cache/moe-run/this.ini" ]
ok $? 'is measured once and kept'
engine=$(sed -n 's/.*"engine":{.*"experts":\([0-9]*\),"kv":\([0-9]*\),.*/\1 \2/p' \
    "$tmp/out")
is "$(sed 's/,"batches".*//' "$tmp/out" |
    sed -n 's/.*"device_bytes":{"experts":\([0-9]*\),"rest":[0-9]*,"kv":\([0-9]*\),.*/\1 \2/p')" \
    "$engine" 'experts and cache: planned and in the engine'

# Shapes of the output.
moe plan mixtral-8x7b --json
status_is 0 'JSON of a model'
out_has '"params_total":46702792704' 'has its parameters'
json_check "$tmp/out" 'is JSON'
moe plan mixtral-8x7b --hardware a100-80 --gpus 2 --json
out_has '"fits":true' 'JSON of a plan'
json_check "$tmp/out" 'is JSON too'
moe plan --compare mixtral-8x7b llama-3-70b --hardware a100-80 --json
json_check "$tmp/out" 'a comparison as JSON'
moe plan mixtral-8x7b --hardware a100-80 --sweep --json --batches 1,8 \
    --counts 2 --formats 'bf16;experts=int4,rest=bf16'
json_check "$tmp/out" 'a sweep as JSON'
out_has '"format":"experts=int4,rest=bf16"' 'with a mixed format'
moe plan mixtral-8x7b --hardware a100-80 --csv --batches 1,8 --counts 2,4
is "$(wc -l < "$tmp/out" | tr -d ' ')" 13 'a sweep as CSV: a line a point'
moe plan mixtral-8x7b --hardware a100-80 --chart
out_has 'batch' 'a chart'
for kind in roofline cost memory; do
    moe plan mixtral-8x7b --hardware a100-80 --svg $kind
    out_has '</svg>' "a picture: $kind"
    if command -v xmllint > /dev/null; then
        xmllint --noout "$tmp/out" 2> "$tmp/err"
        ok $? "... well-formed"
    else
        skip '... well-formed' 'no xmllint'
    fi
done
moe plan deepseek-v3 --hardware h200 --counts 8,16 --svg memory --replicas 2 \
    --formats 'experts=int4,attention=fp8,rest=bf16;fp8'
out_has '>int4/fp8/bf16<' 'a mixed format in few characters'
out_has '2 copies' 'and the copies'
moe plan mixtral-8x7b --hardware mi300x --svg cost
refuses 3 '--price' 'a picture of costs that are not known'
moe plan mixtral-8x7b --hardware h100-sxm --counts 1,2,4,8,16,32,64 --svg cost
refuses 2 'has room for 18' 'more lines than a picture can show'
moe plan --models
out_has 'gpt-oss-120b' 'names of models'
moe plan --devices
out_has 'h200-sxm' 'names of devices'
moe plan --articles
status_is 0 'the articles'
cmp -s "$tmp/out" "$src/docs/articles.md"
ok $? 'docs/articles.md is up to date'

# A header without the weights behind it, as a broken download leaves it.
cp "$src/tests/fuzz/corpus/gguf/qwen3moe" "$tmp/cut.gguf"
moe plan "$tmp/cut.gguf"
status_is 0 'a GGUF file that was cut'
out_has 'the file is cut: it ends ' 'says so'
moe plan "$tmp/cut.gguf" --json
out_has '"file_lacks_bytes":' 'as JSON'
moe plan --compare "$tmp/cut.gguf" mixtral-8x7b --hardware h100-sxm
err_has 'cut.gguf: the file is cut' 'compared'
moe plan "$tmp/cut.gguf" --sweep --hardware h100-sxm
err_has 'cut.gguf: the file is cut' 'swept'
moe generate -m "$tmp/cut.gguf" -p x
is "$([ "$status" -ne 0 ] && echo no)" no 'and it does not run'
truncate -s 64M "$tmp/cut.gguf"
moe plan "$tmp/cut.gguf"
out_lacks 'the file is cut' 'a whole one says nothing of it'

# What is refused, in one line, with the exit status of the manual.
moe plan mixtrall-8x7b
refuses 2 'did you mean mixtral-8x7b' 'a model'
(cd "$tmp" && ln -s round round && "$run" plan round > out 2> err)
status=$?
refuses 1 'round: ' 'a link to itself'
moe plan nowhere.gguf
refuses 2 'No such file' 'a file that is not there'
moe plan mixtral-8x7b --hardware "$(printf '%05000d' 0)"
refuses 2 'name of 5000 bytes' 'a device with a name that is too long'
moe plan mixtral-8x7b --hardware h100-sxm --sweep --formats int4,,fp8
refuses 2 'before and behind each' 'a list with nothing between two commas'
moe plan mixtral-8x7b --hardware h100-sxm --sweep --formats ''
refuses 2 '--formats' 'a list of nothing'
moe plan mixtral-8x7b --hardware h10
refuses 2 'h100-sxm' 'a device'
moe plan mixtral-8x7b --format int5
refuses 2 'there is no format' 'a format'
moe plan mixtral-8x7b --hardware h100-sxm --gpus 0
refuses 2 '--gpus' 'no devices'
moe plan mixtral-8x7b --hardware h100-sxm --gpus 2.5
refuses 2 'whole number' 'half a device'
moe plan mixtral-8x7b --hardware h100-sxm --concurrency nan
refuses 2 '--concurrency' 'NaN sequences'
moe plan mixtral-8x7b --hardware h100-sxm --output -3
refuses 2 '--output' 'negative output'
moe plan mixtral-8x7b --hardware h100-sxm --input 1e99
refuses 2 '--input' 'a huge input'
moe plan mixtral-8x7b --hardware h100-sxm --gpus 6 --tp 6
refuses 2 '32 heads are not divided by tp 6; with: 1 2 4 8' 'heads'
moe plan mixtral-8x7b --hardware h100-sxm --gpus 16 --ep 16
refuses 2 '8 experts are not divided by ep 16' 'experts'
moe plan mixtral-8x7b --hardware apple-m4-max-40c --gpus 2
refuses 2 'names no link' 'devices that are not linked'
moe plan
refuses 2 'a model is wanted' 'no model'
moe plan mixtral-8x7b llama-3-70b
refuses 2 '--compare' 'two models without --compare'
moe plan mixtral-8x7b --hardware h100-sxm --skew 1 --trace "$tmp/trace"
refuses 2 'one of them' 'routes both drawn and recorded'
moe plan llama-3-70b --compare --hardware h100-sxm
refuses 2 'second' 'a dense model alone'
moe plan mixtral-8x7b --sweep
refuses 2 '--hardware' 'a sweep without a device'
moe plan mixtral-8x7b --hardware a100-80 --svg pie
refuses 2 'roofline cost memory' 'a picture'

config() { # NAME SED
    mkdir -p "$tmp/$1"
    sed "$2" "$src/conf/model/$3.json" > "$tmp/$1/config.json"
}
config family 's/"mixtral"/"mixtrel"/' mixtral-8x7b
moe plan "$tmp/family"
refuses 4 'nearest: mixtral' 'a family'
config missing '/"n_routed_experts"/d' deepseek-v3
moe plan "$tmp/missing"
refuses 5 'n_routed_experts' 'a missing field is named'
config against 's/"num_key_value_heads": 8/"num_key_value_heads": 7/' \
    gpt-oss-20b
moe plan "$tmp/against"
refuses 5 'num_key_value_heads' 'a field that contradicts another'
config zero 's/"hidden_size": 7168/"hidden_size": 0/' deepseek-v3
moe plan "$tmp/zero"
refuses 5 'hidden_size' 'a size of zero'

config shared '/"n_shared_experts"/d' deepseek-v3
moe plan "$tmp/shared"
refuses 5 'n_shared_experts' 'shared experts are not assumed away'
config groups 's/"n_group": 8/"n_group": 7/' deepseek-v3
moe plan "$tmp/groups"
refuses 5 'n_group' 'groups that do not divide the experts'
config chosen 's/"topk_group": 4/"topk_group": 9/' deepseek-v3
moe plan "$tmp/chosen"
refuses 5 'topk_group' 'more groups than there are'
config rank '/"q_lora_rank"/d' deepseek-v3
moe plan "$tmp/rank"
refuses 5 'q_lora_rank' 'nor a low-rank query'
config width '/"head_dim"/d' gpt-oss-20b
moe plan "$tmp/width"
refuses 5 'head_dim' 'a head is not hidden / heads in every family'
config method 's/"model_type"/"quantization_config": {"quant_method": "hqq"},\
    &/; /"released_in"/d' mixtral-8x7b
moe plan "$tmp/method"
refuses 4 'name a format' 'weights stored in a way that cannot be told'
moe plan "$tmp/method" --format int4
status_is 0 'with a format they can be planned'

moe plan mixtral-8x7b --hardware H100
refuses 2 'h100-sxm' 'a name in capitals: what is meant'
moe plan mixtral-8x7b --format experts=int4,experts=fp8
refuses 2 'twice' 'a class of weights twice'
moe plan mixtral-8x7b --format experts=int4,
refuses 2 'CLASS=FORMAT' 'a comma and nothing after it'
moe plan mixtral-8x7b --hardware h100-sxm --gpus 33 --pp 33
refuses 2 '32 layers are not 33 stages' 'more stages than layers'
moe plan mixtral-8x7b --hardware h100-sxm --pp 3 --json
out_has '"pp":3' 'three stages: the count follows'
moe plan llama-3-70b --hardware h100-sxm --gpus 2 --ep 2
refuses 2 'no experts' 'experts of a dense model, dealt out'
moe plan llama-3-70b --skew 1
refuses 2 'no experts' 'their popularity'
moe plan mixtral-8x7b --trace "$tmp/nowhere"
refuses 1 'nowhere' 'a trace that is not there'
moe plan mixtral-8x7b --gpus 2
refuses 2 'no effect without --hardware' 'a count of nothing'
moe plan mixtral-8x7b --hardware h100-sxm --dark
refuses 2 'no effect without --svg' 'dark words'
moe plan mixtral-8x7b --hardware h100-sxm --batches 1,2
refuses 2 'no effect without --sweep' 'batches without a sweep'
moe plan mixtral-8x7b --hardware h100-sxm --csv --json
refuses 2 '--csv and --json' 'two kinds of output'
moe plan mixtral-8x7b --hardware h100-sxm --compare --csv
refuses 2 'no effect with --compare' 'a comparison as CSV'
moe plan --models mixtral-8x7b
refuses 2 'takes no model' 'a list of a model'
moe plan mixtral-8x7b --hardware h100-sxm --sweep --batches 1,nan
refuses 2 '--batches' 'NaN in a list'
moe plan mixtral-8x7b --hardware h100-sxm --sweep --formats 'fp8;fp9'
refuses 2 'fp9' 'a format in a list'
moe plan mixtral-8x7b --hardware h100-sxm --sweep --counts 3
refuses 2 '32 heads are not divided by tp 3' 'a sweep without one layout'
for flag in gpus tp ep pp replicas concurrency input output context utilization \
    price api-price ttft tpot; do
    bad=
    for value in 0 -1 1e300 nan inf 0x10 ' 5' '5 ' '' 5x --5 \
        00000000000000000000000000000000000000000000000000000000000000005; do
        moe plan mixtral-8x7b --hardware h100-sxm "--$flag" "$value"
        [ $status = 2 ] && [ ! -s "$tmp/out" ] &&
            [ "$(wc -l < "$tmp/err")" -eq 1 ] || bad="$bad '$value'"
    done
    is "$bad" '' "--$flag: zero, negative, huge, overlong and what is no number"
done

# Decimal digits; whole numbers have no exponent, tokens may have a k.
for flag in gpus tp ep pp replicas concurrency input output context; do
    moe plan mixtral-8x7b --hardware h100-sxm "--$flag" 1e3
    refuses 2 'not a whole number' "--$flag: 1e3 is not how it is written"
done
moe plan mixtral-8x7b --hardware h100-sxm --input 1.5k
refuses 2 'tokens' 'one and a half k of tokens'
moe plan mixtral-8x7b --hardware h100-sxm --concurrency 2k
refuses 2 'whole number' 'k is for tokens'
moe plan mixtral-8x7b --hardware h100-sxm --price 1e0 --concurrency +8 --json
out_has '"concurrency":8' 'a sign is fine'
for list in 1,,2 1, ,1 '1, 2' 0x1,2 1e1; do
    moe plan mixtral-8x7b --hardware h100-sxm --sweep --batches "$list"
    refuses 2 '--batches' "a list such as '$list'"
done

# --ttft and --tpot choose the count.
moe plan mixtral-8x7b --hardware h100-sxm --concurrency 32 --tpot 15 --json
out_has '"count":4' 'as many as it takes to be fast enough'
moe plan mixtral-8x7b --hardware h100-sxm --gpus 2 --concurrency 32 --tpot 1
out_has 'THAT IS SLOWER' 'a target that is missed is said'

# Copies of the model: throughput adds up.
field() { # NAME: a number of the plan, not of its batches
    sed 's/,"batches".*//; s/.*"plan"://' "$tmp/out" |
        sed -n "s/.*\"$1\":\([0-9.e+-]*\).*/\1/p"
}
moe plan mixtral-8x7b --hardware a100-80 --gpus 2 --concurrency 64 --json
step=$(field tpot_s) usd=$(field usd_per_m_output)
moe plan mixtral-8x7b --hardware a100-80 --gpus 8 --replicas 4 \
    --concurrency 256 --json
is "$(field replicas) $(field tpot_s) $(field usd_per_m_output)" \
    "4 $step $usd" 'four copies take as long as one, and cost as much a token'
json_check "$tmp/out" 'as JSON'
moe plan mixtral-8x7b --hardware a100-80 --gpus 8 --replicas 4
out_has '4 copies of the model, each on 2 devices' 'in words'
out_lacks 'ways to lay it out' 'the layout was asked for'
moe plan mixtral-8x7b --hardware a100-80 --replicas 3 --json
out_has '"count":6' 'the fewest devices for three'
moe plan mixtral-8x7b --hardware a100-80 --gpus 8 --replicas 3
refuses 2 'with: 1 2 4 8' 'copies that do not share the devices equally'
moe plan mixtral-8x7b --replicas 2 --format int4
out_has '2 x rtx-5090' 'the machines that hold two copies'
moe plan mixtral-8x7b --hardware a100-80 --csv --replicas 2 --counts 4,8 \
    --formats bf16 --batches 8
is "$(sed -n '2,$s/.*,//p' "$tmp/out" | tr '\n' ' ')" '2 2 ' 'in a sweep'
moe plan mixtral-8x7b --hardware a100-80 --gpus 8 --concurrency 64
out_has '4 copies: ' 'and among the ways to lay out eight devices'
out_has 'fastest for each token' 'of which one is best'
moe plan llama-3.1-8b --hardware apple-m4-max --gpus 2 --replicas 2
status_is 0 'copies need no link'

# A small machine: experts on several tiers.
cat > "$tmp/small.ini" << 'EOF'
[device]
memory_bytes = 12884901888
bandwidth_gbs = 360
host_link_gbs = 16
[host]
memory_bytes = 25769803776
disk_gbs = 3
[tflops]
bf16 = 51
EOF
moe plan qwen3-30b-a3b --format int4 --hardware "$tmp/small.ini"
status_is 3 'a model that is larger than the device'
out_has 'in host memory:' 'has room with the host'
out_lacks 'on disk' '... without a disk'
out_lacks 'most popular' '... where experts are alike'
moe plan qwen3-30b-a3b --format int4 --hardware "$tmp/small.ini" --skew 1.5
status_is 3 'the same with popular experts'
out_has 'with the most popular there it has' 'how many are found there'
moe plan qwen3-30b-a3b --format int4 --hardware "$tmp/small.ini" --skew 1.5 \
    --json
out_has '"device_hits":0.' 'as JSON'
moe plan gpt-oss-120b --hardware "$tmp/small.ini"
out_has 'on disk' 'a larger one with a disk as well'
moe plan gpt-oss-120b --hardware "$tmp/small.ini" --json
json_check "$tmp/out" 'also as JSON'
out_has '"tiers":{"device_share":' 'with the tiers'
sed -i /disk_gbs/d "$tmp/small.ini"
moe plan gpt-oss-120b --hardware "$tmp/small.ini"
out_has 'disk_gbs' 'or says what would have to be known'

# Output that cannot be written.
if [ -c /dev/full ]; then
    for form in --models '' --csv --json --chart --compare '--svg cost'; do
        model='mixtral-8x7b --hardware h100-sxm'
        [ "$form" = --models ] && model=
        # shellcheck disable=SC2086
        "$run" plan $model $form > /dev/full 2> "$tmp/err" < /dev/null
        status=$?
        : > "$tmp/out"
        refuses 1 'standard output' "a full disk: ${form:-the table}"
    done
fi

# The machine itself: what was kept is used as long as it is one's own.
kept=$tmp/.cache/moe-run/this.ini
sed 's/^bandwidth_gbs.*/bandwidth_gbs = 77/' "$kept" > "$tmp/kept"
cp "$tmp/kept" "$kept"
moe plan mixtral-8x7b --hardware this --json
out_has '"bandwidth":77000000000' 'the measurement that was kept is used'
spoilt() { # NAME
    moe plan mixtral-8x7b --hardware this --json
    json_check "$tmp/out" "a measurement kept as $1"
    out_lacks '"bandwidth":77000000000' '... is made again'
    err_empty '... without a word'
}
sed 's/^text.*/text = another processor, 99 threads/' "$tmp/kept" > "$kept"
spoilt 'that of another machine'
sed 's/^bandwidth_gbs.*/bandwidth_gbs = nan/' "$tmp/kept" > "$kept"
spoilt 'NaN'
printf 'bandwidth_gbs = 77\n\001\377' > "$kept"
spoilt 'garbage'
: > "$kept"
spoilt 'nothing'
rm "$kept" && mkfifo "$kept"
spoilt 'a pipe that nobody writes to'
cp "$tmp/kept" "$kept"
moe plan mixtral-8x7b --hardware this-anew --json
out_lacks '"bandwidth":77000000000' 'measured again when asked to'
out_has '"name":"this"' 'and under the same name'

# A thousand points in well under the time of a breath.
batches=$(i=1; while [ $i -lt 50 ]; do printf '%d,' $i; i=$((i + 1)); done)50
moe plan qwen3-235b-a22b --hardware h200-sxm --csv --counts 1,2,4,8,16 \
    --formats bf16,fp8,int4,mxfp4 --batches "$batches"
[ "$(wc -l < "$tmp/out")" -ge 900 ]
ok $? 'a sweep of a thousand points'

finish
