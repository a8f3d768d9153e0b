#!/bin/sh
# What a run says beside its result: warnings as lines, objects and an exit code; failures as objects.
. "$(dirname "$0")/lib.sh"

text=$src/tests/data/prose.md
"$bin/make_checkpoint" --arch llama --layers 4 --hidden 576 --heads 9 --kv-heads 3 --ffn 1536 --vocab 1024 \
    "$work/narrow" >/dev/null || fail "make_checkpoint"

# A fallback per tensor is one line with a count; the list with --verbose; all of it counts for --strict.
run 0 quantize "$work/narrow" -o "$work/n.gguf" --type Q4_K_M
[ "$(grep -c 'warning' "$work/err")" -eq 1 ] || fail "expected one line about fallbacks"
says "more tensors; --verbose lists them)"
run 0 quantize "$work/narrow" -o "$work/n.gguf" --type Q4_K_M --force --json
json
says "more tensors; --verbose lists them)"
grep -q '"code": "type-fallback"' "$work/out" || fail "no code in the JSON"
grep -A3 '"code": "type-fallback"' "$work/out" | grep -q '"tensor": "token_embd.weight"' || fail "no tensor in the JSON"
n=$(grep -A3 '"code": "type-fallback"' "$work/out" | sed -n 's/.*"count": \([0-9]*\).*/\1/p')
[ "$n" -gt 4 ] || fail "a count of $n"
run 0 quantize "$work/narrow" -o "$work/n.gguf" --type Q4_K_M --force -v
[ "$(grep -c 'warning: tensor' "$work/err")" -eq "$n" ] || fail "--verbose does not list $n tensors"
run 3 quantize "$work/narrow" -o "$work/s.gguf" --type Q4_K_M --strict -q --json
[ "$(cat "$work/err")" = "kerf: 1 warning (type-fallback), --strict: exit code 3" ] || fail "--quiet is not quiet"
prints '"type-fallback"'
same "$work/n.gguf" "$work/s.gguf" # written all the same
run 0 quantize "$demo" -o "$work/s.gguf" --type Q4_K_M --strict --force
[ ! -s "$work/err" ] || fail "warnings about a sound model"

# Every object has warnings, here of every command.
run 0 convert "$demo" -o "$work/m.gguf" --json
prints '"warnings": []'
run 0 imatrix "$work/m.gguf" --text "$text" --ctx 64 --chunks 2 -o "$work/i.gguf" --json
prints '"warnings": []'
cp "$work/i.gguf" "$work/j.gguf"
for command in "inspect $work/m.gguf" "inspect $work/i.gguf" "verify $work/m.gguf" "hash $work/m.gguf" \
    "diff $work/m.gguf $work/m.gguf" "tokenize $demo $text" "fit $work/m.gguf --memory 1GiB --ctx 256" \
    "edit $work/m.gguf -o $work/e.gguf --set a=1" "split $work/m.gguf -o $work/p --max-size 3MiB" \
    "merge $work/p-00001-of-00003.gguf -o $work/q.gguf" "imatrix show $work/i.gguf" \
    "imatrix merge $work/i.gguf $work/j.gguf -o $work/k.gguf" "imatrix convert $work/i.gguf -o $work/k.dat" \
    "perplexity $work/m.gguf --text $text --ctx 64 --chunks 1" "perplexity $work/m.gguf --text $text --dry-run" \
    "compare $work/m.gguf Q8_0 --text $text --ctx 64 --chunks 1" \
    "ladder $work/m.gguf --types Q8_0 --text $text --ctx 64 --chunks 1" \
    "allocate $work/m.gguf --text $text --ctx 64 --chunks 1 --target-bpw 5 --dry-run"; do
    run 0 $command --json
    json
    grep -q '^  "warnings": \[\]' "$work/out" || fail "kerf $command: no warnings in its JSON"
done

# A failure is one object, wrong usage too; the exit code is the usual one.
refuses()
{
    code=$1
    shift
    run "$@" --json
    json
    prints '"error": {'
    prints "\"code\": \"$code\""
    prints '"warnings": ['
}
for command in inspect convert quantize tokenize imatrix perplexity compare ladder allocate fit diff hash edit split merge \
    verify; do
    refuses usage 2 "$command" --no-such-option
done
refuses usage 2 no-such-command
refuses usage 2 imatrix sho
# An option is no file.
refuses usage 2 convert "$demo" -o "$work/no.gguf" --type Q9
prints '"file": null'
refuses io 1 inspect "$work/nowhere.gguf"
prints "\"file\": \"$work/nowhere.gguf\""
refuses argument 1 quantize "$work/n.gguf" -o "$work/r.gguf" --type Q5_K_M
prints '"tensor": "token_embd.weight"'
absent "$work/r.gguf"
# An output that stands has a code of its own, whichever command meets it.
refuses exists 1 quantize "$demo" -o "$work/n.gguf" --type Q4_K_M
refuses exists 1 imatrix "$work/m.gguf" --text "$text" --ctx 64 --chunks 2 -o "$work/i.gguf"
refuses exists 1 edit "$work/m.gguf" -o "$work/n.gguf" --set a=1
refuses exists 1 allocate "$work/m.gguf" --text "$text" --ctx 64 --chunks 1 --target-bpw 5 -o "$work/n.gguf"
refuses exists 1 compare "$work/m.gguf" Q8_0 --text "$text" --ctx 64 --chunks 1 --html "$work/n.gguf"
refuses format 1 inspect "$src/tests/data/bad/gguf/$(ls "$src/tests/data/bad/gguf" | head -n 1)"
run 3 verify "$src/tests/data/bad/gguf/$(ls "$src/tests/data/bad/gguf" | head -n 1)" --json # a finding, no failure
json
! grep -q '"error"' "$work/out" || fail "a finding told as failure"
# What stands after -- is no option, not even for a failure that comes before the options are read (mutation: it is one).
run 2 inspect --no-such-option -- --json
[ ! -s "$work/out" ] || fail "a file named --json asks for JSON"

# Every warning in the sources has a code, and every code stands in the table.
if [ -d "$src/formats" ]; then
    codes=$(grep -rhoE '"\[[a-z0-9-]+(\|%s)?\] ' "$src/formats" "$src/calib" "$src/tools" --include=*.c |
        sed 's/^"\[//; s/[]|].*//' | sort -u)
    [ -n "$codes" ] || fail "no codes found"
    for code in $codes; do
        grep -q "^|.*\`$code\`.*|" "$src/tools/README.md" || fail "tools/README.md has no row for '$code'"
        n_checks=$((n_checks + 1))
    done
    bare=$(grep -rnE -A1 '\b(cmd_warn|vocab_warn|rw_plan_warn)\(' "$src/formats" "$src/calib" "$src/tools" --include=*.c |
        grep -E '(cmd_warn|vocab_warn|rw_plan_warn)\([^"]*"[^["]' | grep -v '"%s"' | head -n 3)
    [ -z "$bare" ] || fail "warnings without a code: $bare"
fi

done_testing
