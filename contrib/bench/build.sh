#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Builds llama.cpp out of the source package of llama-cpp-python, and
# llama_time against it, below the folder $1.
#
#   FLAGS=native    (default) for this processor, as its users build it
#   FLAGS=portable  AVX2 at most: where a native build dies of SIGILL
#   JOBS=2          compilers at once
set -eu
here=$(cd "$(dirname "$0")" && pwd)
dir=${1:?usage: build.sh FOLDER}
mkdir -p "$dir"
cd "$dir"
case ${FLAGS:-native} in
native) flags='-DGGML_NATIVE=ON' ;;
portable)
    flags='-DGGML_NATIVE=OFF -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON
        -DGGML_AVX512=OFF -DGGML_AMX_TILE=OFF -DGGML_AMX_INT8=OFF' ;;
*)
    echo "FLAGS: native or portable" >&2
    exit 2 ;;
esac
set -- llama_cpp_python-*/vendor/llama.cpp
if [ ! -d "$1" ]; then
    python3 -m venv fetch
    fetch/bin/pip download --quiet --no-binary :all: --no-deps \
        llama-cpp-python
    tar -xf llama_cpp_python-*.tar.gz
    set -- llama_cpp_python-*/vendor/llama.cpp
fi
src=$PWD/$1
# shellcheck disable=SC2086
nice cmake -S "$src" -B build -DCMAKE_BUILD_TYPE=Release $flags \
    -DBUILD_SHARED_LIBS=OFF -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF \
    -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
    -DLLAMA_BUILD_SERVER=OFF
nice cmake --build build -j "${JOBS:-2}" --target llama ggml
${CC:-cc} -O2 -I"$src/include" -I"$src/ggml/include" "$here/llama_time.c" \
    -o llama_time build/src/libllama.a build/ggml/src/libggml.a \
    build/ggml/src/libggml-cpu.a build/ggml/src/libggml-base.a \
    -lstdc++ -lm -lpthread -ldl -fopenmp
echo "$PWD/llama_time"
