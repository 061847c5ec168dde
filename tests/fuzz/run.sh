#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Build a fuzzer with clang and run it:
#   tests/fuzz/run.sh NAME [SECONDS]      NAME: safetensors tokenizer ini
#                                         device gguf
# SECONDS are of processor time.  Findings and the grown corpus stay in
# build/fuzz/NAME.
set -eu
cd "$(dirname "$0")/../.."
name=$1
seconds=${2-600}
cc=${CC-clang-14}
out=build/fuzz/$name
mkdir -p "$out/corpus" "$out/findings"
flags="-g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all
 -D_GNU_SOURCE -DPACKAGE_VERSION=\"fuzz\" -Iinclude -Icore -I. -std=gnu11
 $(pkg-config --cflags json-c inih libpcre2-8 libutf8proc)"
[ -e build/config.h ] && flags="$flags -Ibuild"
$cc $flags tests/fuzz/fuzz_"$name".c core/*/*.c \
    $(pkg-config --libs json-c inih libpcre2-8 libutf8proc) \
    -lm -ldl -lpthread -o "$out/fuzz"
# the kernel ends it: SIGXCPU, 24, is the good end
status=0
(ulimit -S -t "$seconds" && exec nice "$out/fuzz" -rss_limit_mb=2048 \
    -timeout=60 -artifact_prefix="$out/findings/" "$out/corpus" \
    tests/fuzz/corpus/"$name") || status=$?
[ "$status" = 152 ] && status=0
exit "$status"
