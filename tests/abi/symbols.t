#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A plugin exports moe_plugin and needs no moe_* symbol; the library exports
# what core/libmoerun.map says and the public header declares, nothing else.
src=${MOE_TEST_SRCDIR:-.}
build=${MOE_TEST_BUILDDIR:-.}
nm=${NM:-nm}
nm=${nm%% *}
n=0

# result 0|1 NAME
result() {
    n=$((n + 1))
    if [ "$1" -eq 0 ]; then
        echo "ok $n - $2"
    else
        echo "not ok $n - $2"
    fi
}

if ! command -v "$nm" >/dev/null 2>&1; then
    echo "1..0 # SKIP no nm"
    exit 0
fi

for so in "$build"/plugins/*/*/.libs/*.so; do
    [ -f "$so" ] || continue
    name=${so##*/}
    # An instrumented file exports its runtime's symbols as well.
    if "$nm" -D "$so" | grep -q -E '__(asan|tsan|ubsan|sanitizer|gcov)_'; then
        n=$((n + 1))
        echo "ok $n - $name # SKIP instrumented"
        continue
    fi
    exported=$("$nm" -D --defined-only "$so" |
        awk '{ sub(/@.*/, "", $NF); if ($NF !~ /^(_init|_fini|_edata|_end|__bss_start)$/) print $(NF - 1), $NF }' |
        grep -v '^A ' | sort)
    case $exported in
    "D moe_plugin" | "R moe_plugin") result 0 "$name exports moe_plugin" ;;
    *)
        result 1 "$name exports moe_plugin"
        echo "$exported" | sed 's/^/# /'
        ;;
    esac
    needed=$("$nm" -D --undefined-only "$so" | awk '$NF ~ /^moe_/ { print $NF }')
    result "$([ -z "$needed" ]; echo $?)" "$name needs nothing of the core"
done

lib=$build/.libs/libmoerun.so
if [ -f "$lib" ] &&
    ! "$nm" -D "$lib" | grep -q -E '__(asan|tsan|ubsan|sanitizer|gcov)_'; then
    map=$(awk '/global:/ { on = 1; next } /local:/ { on = 0 }
        on { gsub(/[ ;\t]/, ""); if ($0 != "") print }' \
        "$src/core/libmoerun.map" | sort)
    got=$("$nm" -D --defined-only "$lib" | awk '{ sub(/@.*/, "", $NF); print $(NF - 1), $NF }' |
        grep -v '^A ' | awk '{ print $2 }' | sort)
    [ "$map" = "$got" ]
    same=$?
    result $same "libmoerun exports what its map says"
    [ $same -eq 0 ] || printf '%s\n' "map:" $map "library:" $got | sed 's/^/# /'
    declared=$(cat "$src/include/moe/moe.h" "$src/include/moe/plan.h" |
        tr '\n' ' ' |
        grep -o 'MOE_API [^;]*' | grep -o 'moe_[a-z_]*(' | tr -d '(' |
        grep -v -E '^moe_status$' | sort -u)
    [ "$map" = "$declared" ]
    same=$?
    result $same "the map holds what moe/moe.h and moe/plan.h declare"
    [ $same -eq 0 ] || printf '%s\n' "map:" $map "header:" $declared | sed 's/^/# /'
fi
echo "1..$n"
