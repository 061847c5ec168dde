# SPDX-License-Identifier: Apache-2.0
# bash completion for moe-run; made by moe-run --completion-bash

_moe_run()
{
    local cur=${COMP_WORDS[COMP_CWORD]}
    local prev=${COMP_WORDS[COMP_CWORD-1]}
    local flags operands

    COMPREPLY=()
    case $prev in
    --config)
        COMPREPLY=($(compgen -f -- "$cur"))
        return ;;
    --set)
        return ;;
    -p|--prompt)
        return ;;
    -f|--file)
        COMPREPLY=($(compgen -f -- "$cur"))
        return ;;
    -sys|--system)
        return ;;
    --stride)
        return ;;
    --windows)
        return ;;
    -p|--n-prompt)
        return ;;
    -n|--n-gen)
        return ;;
    -b|--batch)
        return ;;
    -d|--depth|--n-depth)
        return ;;
    --shape)
        return ;;
    --layers)
        return ;;
    --format)
        return ;;
    --skew)
        return ;;
    -r|--repetitions)
        return ;;
    -o|--output)
        return ;;
    --hardware)
        return ;;
    --gpus)
        return ;;
    --format)
        return ;;
    --kv)
        return ;;
    --concurrency)
        return ;;
    --input)
        return ;;
    --output)
        return ;;
    --context)
        return ;;
    --utilization)
        return ;;
    --price)
        return ;;
    --api-price)
        return ;;
    --tp)
        return ;;
    --ep)
        return ;;
    --pp)
        return ;;
    --replicas)
        return ;;
    --ttft)
        return ;;
    --tpot)
        return ;;
    --skew)
        return ;;
    --trace)
        COMPREPLY=($(compgen -f -- "$cur"))
        return ;;
    --batches)
        return ;;
    --formats)
        return ;;
    --counts)
        return ;;
    --svg)
        return ;;
    --man)
        COMPREPLY=($(compgen -W 'options ini' -- "$cur"))
        return ;;
    -m|--model)
        COMPREPLY=($(compgen -d -- "$cur"))
        return ;;
    -c|--context|--ctx-size|--max-model-len|--num-ctx)
        return ;;
    --backend)
        return ;;
    -t|--threads)
        return ;;
    --pin)
        COMPREPLY=($(compgen -W 'auto none close spread' -- "$cur"))
        return ;;
    -b|--batch-rows|--batch-size|--max-num-batched-tokens)
        return ;;
    -np|--sequences|--parallel|--max-num-seqs)
        return ;;
    --min-tier)
        COMPREPLY=($(compgen -W 'none expand generic native' -- "$cur"))
        return ;;
    --budget)
        return ;;
    -ctk|--kv-type|--cache-type-k|--kv-cache-dtype)
        COMPREPLY=($(compgen -W 'auto f32 f16 bf16' -- "$cur"))
        return ;;
    --page-rows)
        return ;;
    --eviction)
        COMPREPLY=($(compgen -W 'lfu lru none' -- "$cur"))
        return ;;
    --plugin-path)
        COMPREPLY=($(compgen -d -- "$cur"))
        return ;;
    --plugin)
        COMPREPLY=($(compgen -f -- "$cur"))
        return ;;
    -n|--max-tokens|--predict|--n-predict|--num-predict)
        return ;;
    --temperature|--temp)
        return ;;
    --top-k)
        return ;;
    --top-p)
        return ;;
    --min-p)
        return ;;
    --repeat-penalty|--repetition-penalty)
        return ;;
    --presence-penalty)
        return ;;
    --frequency-penalty)
        return ;;
    -s|--seed)
        return ;;
    --stop)
        return ;;
    --experts)
        return ;;
    --shared)
        return ;;
    --attention)
        return ;;
    --dense)
        return ;;
    --router)
        return ;;
    --embeddings)
        return ;;
    --calibrate)
        return ;;
    --calibrate-tokens)
        return ;;
    --log-level)
        COMPREPLY=($(compgen -W 'error warn info debug trace' -- "$cur"))
        return ;;
    --template-helper)
        COMPREPLY=($(compgen -f -- "$cur"))
        return ;;
    esac
    case ${COMP_WORDS[1]} in
    chat)
        flags='-p --prompt -sys --system -st --single-turn --config --set
            -v --verbose -q --quiet -h --help -V --version -m --model
            -c --context --backend -t --threads --pin -b --batch-rows
            -np --sequences --min-tier --budget -ctk --kv-type --page-rows
            --eviction --plugin-path --plugin -n --max-tokens --temperature
            --top-k --top-p --min-p --repeat-penalty --presence-penalty
            --frequency-penalty -s --seed --stop --ignore-eos --log-level
            --template-helper'
        operands='' ;;
    inspect|show)
        flags='--json --config --set -v --verbose -q --quiet -h --help
            -V --version -m --model --plugin-path --plugin --log-level'
        operands=d ;;
    quantize)
        flags='--config --set -v --verbose -q --quiet -h --help -V --version
            -t --threads --budget --plugin-path --plugin --experts --shared
            --attention --dense --router --embeddings --calibrate
            --calibrate-tokens --log-level'
        operands=d ;;
    perplexity)
        flags='-f --file --stride --windows --json --config --set -v --verbose
            -q --quiet -h --help -V --version -m --model -c --context
            --backend -t --threads --pin -b --batch-rows -np --sequences
            --min-tier --budget -ctk --kv-type --page-rows --eviction
            --plugin-path --plugin --log-level'
        operands='' ;;
    bench)
        flags='-p --n-prompt -n --n-gen -b --batch -d --depth --n-depth
            --shape --layers --format --skew -r --repetitions -o --output
            --ops --no-machine --config --set -v --verbose -q --quiet
            -h --help -V --version -m --model -c --context --backend
            -t --threads --pin -b --batch-rows -np --sequences --min-tier
            --budget -ctk --kv-type --page-rows --eviction --plugin-path
            --plugin --log-level'
        operands='' ;;
    plan)
        flags='--hardware --gpus --format --kv --concurrency --input --output
            --context --utilization --price --api-price --tp --ep --pp
            --replicas --ttft --tpot --ideal --skew --trace --compare --sweep
            --batches --formats --counts --csv --svg --dark --chart --json
            --models --devices --articles --config --set -v --verbose
            -q --quiet -h --help -V --version --backend -t --threads --pin
            -b --batch-rows -np --sequences --min-tier --budget -ctk --kv-type
            --page-rows --eviction --plugin-path --plugin --log-level'
        operands=d ;;
    plugins)
        flags='--json --config --set -v --verbose -q --quiet -h --help
            -V --version --plugin-path --plugin --log-level'
        operands='' ;;
    config)
        flags='--json --ini --man --config --set -v --verbose -q --quiet
            -h --help -V --version -m --model -c --context --backend
            -t --threads --pin -b --batch-rows -np --sequences --min-tier
            --budget -ctk --kv-type --page-rows --eviction --plugin-path
            --plugin -n --max-tokens --temperature --top-k --top-p --min-p
            --repeat-penalty --presence-penalty --frequency-penalty -s --seed
            --stop --ignore-eos --experts --shared --attention --dense
            --router --embeddings --calibrate --calibrate-tokens --log-level
            --template-helper'
        operands='' ;;
    help)
        flags='--config --set -v --verbose -q --quiet -h --help -V --version'
        operands=c ;;
    *)
        flags='-p --prompt -f --file --echo --json --jsonl --explain --dry-run
            -cnv --conversation --list-plugins --print-config
            --completion-bash --config --set -v --verbose -q --quiet -h --help
            -V --version -m --model -c --context --backend -t --threads --pin
            -b --batch-rows -np --sequences --min-tier --budget -ctk --kv-type
            --page-rows --eviction --plugin-path --plugin -n --max-tokens
            --temperature --top-k --top-p --min-p --repeat-penalty
            --presence-penalty --frequency-penalty -s --seed --stop
            --ignore-eos --log-level --template-helper'
        operands='' ;;
    esac
    if [[ $cur == -* ]]; then
        COMPREPLY=($(compgen -W "$flags" -- "$cur"))
    elif [[ $COMP_CWORD -eq 1 || $operands == c ]]; then
        COMPREPLY=($(compgen -W 'generate chat inspect quantize perplexity bench plan plugins config help' -- "$cur"))
    elif [[ $operands == d ]]; then
        COMPREPLY=($(compgen -d -- "$cur"))
    fi
}
complete -o filenames -F _moe_run moe-run
