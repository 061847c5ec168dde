# SPDX-License-Identifier: Apache-2.0
# lib.sh - TAP for tests of the moe-run program, in POSIX sh.
#
# moe ARG...        runs it: $status, $tmp/out, $tmp/err; input: $tmp/in
# is, status_is, out_has, err_has, ...   one test each
# finish            prints the plan
set -u
LC_ALL=C
export LC_ALL
run=${MOE_TEST_RUN:-${MOE_RUN:?MOE_RUN: the program to test}}
src=${MOE_TEST_SRCDIR:-.}
tmp=$(mktemp -d "${TMPDIR:-/tmp}/moe-cli.XXXXXX") || exit 1
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
# the program refuses variables that it does not know
unset MOE_RUN MOE_CONFORM
unset NO_COLOR CLICOLOR_FORCE
COLUMNS=80 TERM=xterm HOME=$tmp
XDG_STATE_HOME=$tmp/state XDG_CONFIG_HOME=$tmp/config
export COLUMNS TERM HOME XDG_STATE_HOME XDG_CONFIG_HOME
count=0
failures=0

ok() { # STATUS NAME
    count=$((count + 1))
    if [ "$1" -eq 0 ]; then
        echo "ok $count - $2"
    else
        failures=$((failures + 1))
        echo "not ok $count - $2"
        sed 's/^/# out: /' "$tmp/out" 2>/dev/null | head -n 20
        sed 's/^/# err: /' "$tmp/err" 2>/dev/null | head -n 20
    fi
}

is() { # GOT WANT NAME
    [ "$1" = "$2" ]
    ok $? "$3"
    [ "$1" = "$2" ] || printf '# got  %s\n# want %s\n' "$1" "$2"
}

moe() {
    if [ -f "$tmp/in" ]; then
        "$run" "$@" < "$tmp/in" > "$tmp/out" 2> "$tmp/err"
    else
        "$run" "$@" < /dev/null > "$tmp/out" 2> "$tmp/err"
    fi
    status=$?
}

status_is() { # WANT NAME
    is "$status" "$1" "$2"
}

out_has() { # TEXT NAME
    grep -qF -e "$1" "$tmp/out"
    ok $? "$2"
}

err_has() { # TEXT NAME
    grep -qF -e "$1" "$tmp/err"
    ok $? "$2"
}

out_lacks() { # TEXT NAME
    ! grep -qF -e "$1" "$tmp/out"
    ok $? "$2"
}

out_empty() { # NAME
    [ ! -s "$tmp/out" ]
    ok $? "$1"
}

err_empty() { # NAME
    [ ! -s "$tmp/err" ]
    ok $? "$1"
}

# One line on standard error, "moe-run: ...", nothing on standard output,
# and the exit status.
refuses() { # WANT-STATUS TEXT NAME
    [ "$status" = "$1" ] && [ ! -s "$tmp/out" ] \
        && [ "$(wc -l < "$tmp/err")" -eq 1 ] \
        && grep -q '^moe-run: ' "$tmp/err" \
        && grep -qF -e "$2" "$tmp/err"
    ok $? "$3 (status $1)"
    [ "$status" = "$1" ] || echo "# status $status"
}

skip() { # NAME REASON
    count=$((count + 1))
    echo "ok $count - $1 # SKIP $2"
}

skip_all() { # REASON
    echo "1..0 # SKIP $1"
    exit 0
}

# Whether a file is one JSON value; without perl's JSON nothing is known.
json_check() { # FILE NAME
    if perl -MJSON::PP -e 1 2>/dev/null; then
        perl -MJSON::PP -e 'local $/; decode_json(<STDIN>)' \
            < "$1" 2> "$tmp/err"
        ok $? "$2"
    else
        skip "$2" "no perl with JSON::PP"
    fi
}

# A tiny model of random weights with a tokenizer, in $1.
make_model() {
    mkdir -p "$1"
    cp "$src/tests/model/fixtures/mixtral/"*.json \
        "$src/tests/model/fixtures/mixtral/model.safetensors" \
        "$src/tests/cli/model/tokenizer.json" "$1"
    chmod -R u+w "$1"
}

finish() {
    echo "1..$count"
    [ "$failures" -eq 0 ]
    exit $?
}
