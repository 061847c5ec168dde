#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Builds FOLDER/libggmlq.so: llama.cpp's own quantizers and nothing else of
# it, out of the source package that contrib/bench/build.sh fetches.
#
#   LLAMA=DIR   a folder where that package is unpacked already
set -eu
dir=${1:?usage: ggml.sh FOLDER}
version=0.3.36 # of llama-cpp-python
mkdir -p "$dir"
cd "$dir"
root=${LLAMA:-.}/llama_cpp_python-$version
if [ ! -d "$root" ]; then
    [ -d fetch ] || python3 -m venv fetch
    fetch/bin/pip download --quiet --no-binary :all: --no-deps \
        "llama-cpp-python==$version"
    tar -xf "llama_cpp_python-$version.tar.gz"
    root=llama_cpp_python-$version
fi
src=$root/vendor/llama.cpp/ggml
printf '#define GGML_VERSION "-"\n#define GGML_COMMIT "-"\n' > ggml-version.h
set -- -O2 -fPIC -w -D_GNU_SOURCE -I"$src/include" -I"$src/src" -I.
${CC:-cc} "$@" -c "$src/src/ggml-quants.c" -o quants.o
${CC:-cc} "$@" -c "$src/src/ggml.c" -o ggml.o
${CXX:-c++} "$@" -c "$src/src/ggml-threading.cpp" -o threading.o
# what is missing belongs to backends, which quantizing does not reach
${CXX:-c++} -shared -Wl,-z,lazy quants.o ggml.o threading.o -o libggmlq.so -lm
echo "$PWD/libggmlq.so"
