#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What is made from the tables and kept in the tree is up to date
# (`make update-docs` makes it anew); examples can be read.
. "${MOE_TEST_SRCDIR:-.}/tests/cli/lib.sh"
unset MOE_PLUGIN_PATH

same() { # FILE ARG...
    file=$1
    shift
    moe "$@"
    cmp -s "$tmp/out" "$src/$file"
    ok $? "$file is up to date"
}
same conf/moe.ini config --ini
same man/options.scd config --man options
same man/ini.scd config --man ini
same contrib/completions/moe-run.bash --completion-bash

for file in "$src"/conf/examples/*.ini; do
    moe config --config "$file"
    status_is 0 "${file##*/} can be read"
done

if command -v bash > /dev/null; then
    words_after() {
        bash -c '. "$1"; shift; COMP_WORDS=(moe-run "$@")
            COMP_CWORD=$#; _moe_run; echo "${COMPREPLY[*]}"' - \
            "$src/contrib/completions/moe-run.bash" "$@"
    }
    is "$(words_after ch)" chat 'completion knows the commands'
    is "$(words_after --thr)" --threads '... the flags'
    is "$(words_after quantize --exp)" --experts '... those of a command'
    is "$(words_after chat --exp)" '' '... and no others'
    is "$(words_after --min-tier na)" native '... and the words of an option'
else
    skip 'completion works' 'no bash'
fi

if command -v scdoc > /dev/null; then
    for page in moe-run.1 moe.ini.5 moe-plugin.7 libmoerun.3 \
            moe-conform.1; do
        sed -e "/^@OPTIONS@\$/r $src/man/options.scd" -e '/^@OPTIONS@$/d' \
            "$src/man/$page.scd" | scdoc > "$tmp/out" 2> "$tmp/err"
        ok $? "$page is good scdoc"
    done
else
    skip 'the manual is good scdoc' 'no scdoc'
fi

moe config --json
for key in $(sed -n 's/.*"env":"\(MOE_[A-Z_]*\)".*/\1/p' "$tmp/out"); do
    grep -qF "$(echo "$key" | sed 's/_/\\_/g')" "$src/man/options.scd" \
        || echo "$key" >> "$tmp/missing"
done
[ ! -s "$tmp/missing" ]
ok $? 'the manual names every variable'

finish
