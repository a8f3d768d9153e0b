#!/bin/sh
# Man pages and completion, made from the option tables: they are there for every command, say what --help says, and are
# read without complaint by whatever readers are installed. Usage: pages.sh KERF SOURCE_DIR BINARY_DIR.
. "$(dirname "$0")/lib.sh"
sh "$src/tools/install/make_pages.sh" "$work/share" "$kerf" || fail "make_pages.sh"
man=$work/share/man/man1
run 0 --help=commands
cp "$work/out" "$work/commands"
[ "$(wc -l <"$work/commands")" -ge 19 ] || fail "commands are missing"
[ "$(find "$man" -name '*.1' | wc -l)" -eq $(($(wc -l <"$work/commands") + 1)) ] || fail "a page for each command, and one"

while read -r command; do
    name=$(echo "$command" | tr ' ' -)
    page=$man/kerf-$name.1
    grep -q "kerf.-$(echo "$name" | sed 's/-/.-/g') (1)" "$man/kerf.1" || fail "kerf(1) does not name $name"
    # Every option of --help stands in the page, and in the completion of each shell; no other does.
    # shellcheck disable=SC2086 # words
    run 0 $command --help
    grep -oE '^  (-.,|   ) --[a-z0-9-]+' "$work/out" | sed 's/.*--//' | sort >"$work/options"
    sed -n 's/.*\\fB\\-\\-\([a-z0-9\\-]*\)\\fR.*/\1/p' "$page" | sed 's/\\//g' | sort >"$work/of-page"
    diff "$work/options" "$work/of-page" >"$work/out" || fail "kerf-$name(1) and --help list other options"
    n_checks=$((n_checks + 1))
done <"$work/commands"

for page in "$man"/*.1; do
    if command -v mandoc >/dev/null; then
        mandoc -T lint -W warning "$page" >"$work/out" || fail "mandoc: $page"
    fi
    if command -v groff >/dev/null; then
        groff -Wall -ww -man -Tutf8 -z "$page" >"$work/out" 2>&1
        [ ! -s "$work/out" ] || fail "groff: $page"
    fi
    n_checks=$((n_checks + 1))
done

if command -v bash >/dev/null; then
    script=$work/share/bash-completion/completions/kerf
    bash -n "$script" || fail "bash cannot read its completion"
    completes() # WORDS: the last is being typed; the answer in $work/out
    {
        bash -c '. "$0"
            COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
            _kerf
            printf "%s\n" "${COMPREPLY[@]}"' "$script" "$@" >"$work/out" 2>"$work/err"
    }
    answers() # WORDS...: these and no others
    {
        printf '%s\n' "$@" | diff - "$work/out" >"$work/err" || fail "completion in bash: expected $*"
        n_checks=$((n_checks + 1))
    }
    completes kerf per
    answers perplexity
    completes kerf quantize --imatrix-s
    answers --imatrix-strict
    completes kerf quantize --type Q5_K
    answers Q5_K_M Q5_K_S
    completes kerf quantize --output-type Q5_K
    answers Q5_K
    completes kerf fit --kv-type q
    answers q8_0 q5_1 q5_0 q4_1 q4_0
    completes kerf imatrix mer
    answers merge
    completes kerf imatrix merge --exp
    answers --expert-prior
    completes kerf hessian mer
    answers merge
    completes kerf hessian merge --outp
    answers --output
    completes kerf inspect "$src/LICEN"
    answers "$src/LICENSE"
    completes kerf hash --forc
    answers ""
fi
! command -v zsh >/dev/null || zsh -n "$work/share/zsh/vendor-completions/_kerf" || fail "zsh cannot read its completion"
! command -v fish >/dev/null || fish -n "$work/share/fish/vendor_completions.d/kerf.fish" ||
    fail "fish cannot read its completion"
done_testing
