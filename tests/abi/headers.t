#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every public header compiles alone, without a warning, as C11 and as C++20;
# a plugin's descriptor can be written in both.
src=${MOE_TEST_SRCDIR:-.}
tmp=$(mktemp -d "${TMPDIR:-/tmp}/moe-headers-XXXXXX") || exit 1
trap 'rm -rf "$tmp"' EXIT
n=0

# try NAME COMMAND...
try() {
    name=$1
    shift
    n=$((n + 1))
    if "$@" >"$tmp/log" 2>&1; then
        echo "ok $n - $name"
    else
        echo "not ok $n - $name"
        sed 's/^/# /' "$tmp/log"
    fi
}

cat >"$tmp/descriptor.c" <<'END'
#include <moe/backend.h>
#include <moe/plugin.h>
static moe_status
init(const struct moe_host *host, void **self, struct moe_error *err)
{
    (void) host;
    *self = NULL;
    return moe_fail(err, MOE_E_UNSUPPORTED, 0, "only compiled");
}
static void
fini(void *self)
{
    (void) self;
}
static const struct moe_backend_ops ops = {
    .struct_size = sizeof(struct moe_backend_ops)
};
MOE_PLUGIN_DEFINE(none) = {
    MOE_PLUGIN_HEADER,
    .kind = MOE_KIND_BACKEND,
    .name = "none",
    .version = "1",
    .license = "Apache-2.0",
    .summary = "compiled, never loaded",
    .ops = &ops,
    .init = init,
    .fini = fini,
};
END
cp "$tmp/descriptor.c" "$tmp/descriptor.cc"

c_flags="-std=c11 -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror"
# No -Wshadow: a struct and a function of one name, like stat, are meant.
cxx_flags="-std=c++20 -Wall -Wextra -Wpedantic -Wconversion -Werror"
# The descriptor leaves optional fields out, as plugins do.
mild="-Wno-missing-field-initializers"

for cc in ${MOE_TEST_CC:-cc} gcc clang; do
    command -v "$cc" >/dev/null 2>&1 || continue
    case " $seen " in *" $cc "*) continue ;; esac
    seen="$seen $cc"
    for h in types plugin quantizer backend ops moe plan; do
        echo "#include <moe/$h.h>" >"$tmp/$h.c"
        try "moe/$h.h alone, C11, $cc" \
            "$cc" $c_flags "-I$src/include" -fsyntax-only "$tmp/$h.c"
    done
    try "a descriptor in C11, $cc" "$cc" $c_flags $mild "-I$src/include" \
        -fsyntax-only "$tmp/descriptor.c"
    try "a descriptor that is built in, $cc" "$cc" $c_flags $mild \
        -DMOE_BUILTIN "-I$src/include" -fsyntax-only "$tmp/descriptor.c"
done
for cxx in g++ clang++; do
    command -v "$cxx" >/dev/null 2>&1 || continue
    for h in types plugin quantizer backend ops moe plan; do
        echo "#include <moe/$h.h>" >"$tmp/$h.cc"
        try "moe/$h.h alone, C++20, $cxx" \
            "$cxx" $cxx_flags "-I$src/include" -fsyntax-only "$tmp/$h.cc"
    done
    try "a descriptor in C++20, $cxx" "$cxx" $cxx_flags $mild \
        "-I$src/include" -fsyntax-only "$tmp/descriptor.cc"
done
echo "1..$n"
