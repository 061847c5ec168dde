#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# installcheck.sh - what is installed is enough for others to build on.
#
# Builds the template plugins and the example program in a folder outside of
# the tree, with the installed headers and pkg-config files; runs the
# installed moe-conform on the plugins; generates text with each.
#
# From `make installcheck`: DESTDIR, bindir, libdir, pkgconfigdir, plugindir,
# CC, CFLAGS, MOE_TEST_SRCDIR.
set -u
LC_ALL=C
export LC_ALL
src=${MOE_TEST_SRCDIR:-.}
root=${DESTDIR:-}
bin=$root${bindir:?run this by make installcheck}
plugins=$root${plugindir:?}
conform=$bin/moe-conform
run=$bin/moe-run
tmp=$(mktemp -d "${TMPDIR:-/tmp}/moe-installcheck-XXXXXX") || exit 1
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
failures=0
count=0

# The user's own settings are not what is tested.
unset MOE_PLUGIN_PATH MOE_PLUGIN MOE_MODEL MOE_BACKEND DESTDIR
HOME=$tmp
XDG_CONFIG_HOME=$tmp/config
PKG_CONFIG_PATH=$root${pkgconfigdir:-$libdir/pkgconfig}
LD_LIBRARY_PATH=$root$libdir${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export HOME XDG_CONFIG_HOME PKG_CONFIG_PATH LD_LIBRARY_PATH
if [ -n "$root" ]; then
    PKG_CONFIG_SYSROOT_DIR=$root
    export PKG_CONFIG_SYSROOT_DIR
fi

# try NAME COMMAND...: one result; the output of a failure is shown
try() {
    name=$1
    shift
    count=$((count + 1))
    if "$@" >"$tmp/log" 2>&1; then
        echo "ok $count - $name"
    else
        echo "not ok $count - $name"
        grep '^not ok' "$tmp/log" | head -n 20 | sed 's/^/# /'
        tail -n 15 "$tmp/log" | sed 's/^/# /'
        failures=$((failures + 1))
        return 1
    fi
}

# says TEXT: the last log has it
says() {
    count=$((count + 1))
    if grep -qF -e "$1" "$tmp/log"; then
        echo "ok $count - ... it says '$1'"
    else
        echo "not ok $count - ... it says '$1'"
        head -n 20 "$tmp/log" | sed 's/^/# /'
        failures=$((failures + 1))
    fi
}

generate() {
    "$run" generate --plugin-path "$plugins" -p 'The man' -n 24 \
        --temperature 0 -q "$@" </dev/null
}

# text NAME ARGUMENT...: generates something
text() {
    name=$1
    shift
    try "$name" generate "$@" || return 1
    count=$((count + 1))
    if [ "$(wc -c <"$tmp/log")" -gt 10 ]; then
        echo "ok $count - ... $(wc -c <"$tmp/log") bytes of text"
    else
        echo "not ok $count - ... a text"
        sed 's/^/# /' "$tmp/log"
        failures=$((failures + 1))
    fi
}

for f in "$run" "$conform" "$plugins/cpu.so" "$plugins/int4.so" \
    "$plugins/mxfp4.so" \
    "$plugins/testing/fake.so" "$plugins/testing/check.so"; do
    try "installed: ${f##*/}" test -f "$f"
done
try "moe-plugin.pc is found" pkg-config --exists moe-plugin
try "libmoerun.pc is found" pkg-config --exists libmoerun

# Out of the tree: a copy of what a vendor starts from.
mkdir "$tmp/vendor"
for d in plugin-template example; do
    (cd "$src/contrib" && tar cf - "$d") | (cd "$tmp/vendor" && tar xf -)
done
chmod -R u+w "$tmp/vendor"
template=$tmp/vendor/plugin-template
try "the templates build from the installed headers" \
    make -C "$template" CC="${CC:-cc}" CFLAGS="${CFLAGS:--O2}"
scalar=$template/backend-scalar/scalar.so
int8=$template/quantizer-int8/int8.so

try "moe-conform: the backend" "$conform" "$scalar"
try "moe-conform: the backend with the quantizer's formats" \
    "$conform" --load "$int8" "$scalar"
try "moe-conform: the quantizer" "$conform" "$int8"
try "moe-conform: the fake device" "$conform" "$plugins/testing/fake.so"
try "moe-conform: the backend inside of check" \
    "$conform" --set "around=$scalar" "$plugins/testing/check.so"

try "moe-run lists them" "$run" plugins --plugin-path "$plugins" \
    --plugin "$scalar" --plugin "$int8"
says scalar
says int8-channel

# A tiny model of random weights.
model=$tmp/model
mkdir "$model"
cp "$src"/tests/model/fixtures/mixtral/*.json \
    "$src/tests/model/fixtures/mixtral/model.safetensors" \
    "$src/tests/cli/model/tokenizer.json" "$model"
chmod -R u+w "$model"

text "generate with the cpu backend" -m "$model"
cp "$tmp/log" "$tmp/cpu"
text "generate with the template backend" -m "$model" --plugin "$scalar" \
    --backend scalar
count=$((count + 1))
if cmp -s "$tmp/cpu" "$tmp/log"; then
    echo "ok $count - ... the same text"
else
    echo "not ok $count - ... the same text"
    failures=$((failures + 1))
fi
try "quantize with the template quantizer" "$run" quantize \
    --plugin-path "$plugins" --plugin "$int8" --experts int8-channel \
    "$model" "$tmp/model-int8"
text "generate from that with the cpu backend" -m "$tmp/model-int8" \
    --plugin "$int8"
text "generate from that with both templates" -m "$tmp/model-int8" \
    --plugin "$int8" --plugin "$scalar" --backend scalar

# A program that uses the library.
try "the example builds against the installed library" \
    make -C "$tmp/vendor/example" CC="${CC:-cc}" CFLAGS="${CFLAGS:--O2}"
MOE_PLUGIN_PATH=$plugins
export MOE_PLUGIN_PATH
try "the example generates" "$tmp/vendor/example/story" "$model" "The man"
says "The man"

echo "1..$count"
[ "$failures" -eq 0 ]
