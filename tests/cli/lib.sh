# lib.sh - what the command-line tests share. Sourced with the arguments KERF SOURCE_DIR BINARY_DIR.
kerf=$1
src=$2
bin=$3
demo=$src/tests/data/demo-qwen3
work=$(mktemp -d "${TMPDIR:-/tmp}/kerf-cli.XXXXXX")
trap 'rm -rf "$work"' EXIT
n_checks=0

fail()
{
    echo "FAILED: $*" >&2
    [ -s "$work/out" ] && { echo "--- stdout"; head -c 2000 "$work/out"; } >&2
    [ -s "$work/err" ] && { echo "--- stderr"; head -c 2000 "$work/err"; } >&2
    exit 1
}

# run STATUS ARGS...: the program ends with this exit code; its streams are in $work/out and $work/err. Sets want, got.
run()
{
    want=$1
    shift
    got=0
    "$kerf" "$@" >"$work/out" 2>"$work/err" </dev/null || got=$?
    [ "$got" -eq "$want" ] || fail "kerf $*: exit $got, expected $want"
    n_checks=$((n_checks + 1))
}

# says TEXT / prints TEXT: standard error / standard output of the last run holds this text.
says()
{
    grep -qF -e "$1" "$work/err" || fail "standard error lacks: $1"
    n_checks=$((n_checks + 1))
}
prints()
{
    grep -qF -e "$1" "$work/out" || fail "standard output lacks: $1"
    n_checks=$((n_checks + 1))
}

# absent PATH: nothing stands there, nor a temporary file or a journal beside it.
absent()
{
    [ ! -e "$1" ] || fail "$1 exists"
    [ ! -e "$1.kerf-part" ] || fail "$1.kerf-part was left behind"
    for ending in kerf-part.journal kerf-part.journal.new kerf-old; do
        [ ! -e "$1.$ending" ] || fail "$1.$ending was left behind"
    done
    n_checks=$((n_checks + 1))
}

# json: standard output of the last run is one JSON object (checked where a parser is at hand).
json()
{
    if command -v python3 >/dev/null 2>&1; then
        python3 -c 'import json, sys; assert isinstance(json.load(sys.stdin), dict)' <"$work/out" 2>/dev/null ||
            fail "standard output is not a JSON object"
    elif command -v jq >/dev/null 2>&1; then
        jq -e 'type == "object"' <"$work/out" >/dev/null || fail "standard output is not a JSON object"
    fi
    n_checks=$((n_checks + 1))
}

same()
{
    cmp -s "$1" "$2" || fail "$1 and $2 differ"
    n_checks=$((n_checks + 1))
}

done_testing()
{
    echo "ok: $n_checks checks"
}
