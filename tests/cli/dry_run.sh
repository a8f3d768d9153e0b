#!/bin/sh
# --dry-run: what would be done, with sizes and names; no work, no files; the same JSON keys with null for what has to
# be measured.
. "$(dirname "$0")/lib.sh"

text=$src/LICENSE
mkdir "$work/in" "$work/dry"
run 0 convert "$demo" -o "$work/in/q8.gguf" --type Q8_0
run 0 convert "$demo" -o "$work/in/full.gguf"
run 0 imatrix "$demo" --text "$text" --ctx 64 --chunks 2 -o "$work/in/im.gguf"
run 0 hessian "$demo" --text "$text" --ctx 64 --chunks 2 -o "$work/in/h.gguf"
cd "$work/dry"
value() { sed -n "s/^ *\"$1\": \([^,]*\),*$/\1/p" "$work/out" | sed -n "${2:-1}p"; }
keys() { sed -n 's/^ *"\([a-z0-9_]*\)": .*/\1/p' "$1" | sort -u; }

# dry ARGS...: it works, as text and as JSON (left in $work/out), and leaves nothing behind.
dry()
{
    run 0 "$@" --dry-run
    cp "$work/out" "$work/dry-text"
    run 0 "$@" --dry-run --json
    json
    [ -z "$(ls -A .)" ] || fail "kerf $*: a dry run wrote $(ls -A .)"
}
tells()
{
    grep -qF -e "$1" "$work/dry-text" || fail "the text of the dry run lacks: $1"
    n_checks=$((n_checks + 1))
}
# like ARGS...: the keys are those of the run itself.
like()
{
    keys "$work/out" >"$work/dry-keys"
    run 0 "$@" --json
    keys "$work/out" >"$work/real-keys"
    rm -f ./*
    same "$work/dry-keys" "$work/real-keys"
}

set -- --text "$text" --ctx 64 --chunks 2
dry perplexity "$demo" "$@" --save-logits l.f32
tells "would write l.f32 and l.f32.json"
prints '"perplexity": null'
prints '"n_chunks": 2'
prints '"n_tokens_scored": 62'
prints '"logits": "l.f32"'
[ "$(value n_bytes)" -eq "$(wc -c <"$work/in/full.gguf")" ] || fail "size of a folder is not that of its conversion"
like perplexity "$demo" "$@" --save-logits l.f32

dry ladder "$demo" "$@" --types Q8_0,Q2_K --html p.html
tells "would run   128 tokens through 3 models, 62 of them scored"
tells "would write p.html"
tells "Q2_K ("
prints '"kld_mean": null'
prints '"html": "p.html"'
[ "$(value n_bytes 2)" -eq "$(wc -c <"$work/in/q8.gguf")" ] || fail "size of a level is not that of its file"
like ladder "$demo" "$@" --types Q8_0,Q2_K --html p.html

dry compare "$demo" "$work/in/q8.gguf" Q4_K_M "$work/in/full.gguf" "$@" --max-kld 0
tells "q8.gguf ("
prints '"top1_agreement": null'
[ "$(value n_bytes 1)" -eq "$(value n_bytes 4)" ] || fail "a folder and its conversion differ in size"
[ "$(value bits_per_weight 1)" = "$(value bits_per_weight 4)" ] || fail "a folder and its conversion differ in bits"
like compare "$demo" "$work/in/q8.gguf" Q4_K_M "$@" --max-kld 9

dry imatrix "$demo" "$@" -o im.gguf
tells "im.gguf: would be collected from 2 windows of 64 tokens (128 tokens)"
prints '"perplexity": null'
dry imatrix merge "$work/in/im.gguf" -o im.dat
tells "im.dat: would have"
like imatrix merge "$work/in/im.gguf" -o im.dat

dry allocate "$demo" "$@" --target-bpw 4 -o x.plan --table t --html p.html
tells "would measure 29 tensors"
tells "would write t"
prints '"expected_loss": null'
[ "$(value budget_bytes)" -gt 2000000 ] || fail "no budget"
like allocate "$demo" "$@" --target-bpw 4 -o x.plan
run 1 allocate "$demo" "$@" --target-size 500kB -o x.plan --dry-run
says "is not possible"
run 0 allocate "$demo" "$@" --target-bpw 4 -o x.plan --table "$work/in/t"
rm x.plan
dry allocate "$demo" --table "$work/in/t" --target-bpw 4 -o x.plan --html p.html # solving needs no measuring
tells "bits per weight, expected loss"

dry convert "$demo" -o x.gguf --type Q4_K_M
like convert "$demo" -o x.gguf --type Q4_K_M
dry edit "$work/in/q8.gguf" -o x.gguf --set a=b
dry split "$work/in/q8.gguf" -o x --max-tensors 20
dry merge "$work/in/q8.gguf" -o x.gguf

# alike ARGS...: an output that stands is refused by the dry run as by the run, in the same words and with the same exit
# code, and is not touched.
alike()
{
    find . -type f -exec cksum {} + | sort >"$work/before"
    run 1 "$@" --dry-run
    cp "$work/err" "$work/dry-err"
    run 1 "$@"
    same "$work/err" "$work/dry-err"
    find . -type f -exec cksum {} + | sort >"$work/after"
    same "$work/before" "$work/after"
}
q8=$work/in/q8.gguf
echo stands >x.gguf
for command in "convert $demo" "quantize $demo --type Q4_K" "edit $q8 --set a=b" "merge $q8" \
    "imatrix merge $work/in/im.gguf" "hessian merge $work/in/h.gguf" "imatrix $demo $*" "hessian $demo $*" \
    "quantize $demo --type Q4_K --method feedback $*" "best $demo --text $text --ctx 64 --target-bpw 4" \
    "allocate $demo $* --target-bpw 4"; do
    # shellcheck disable=SC2086 # a command and its options
    alike $command -o x.gguf
    says "x.gguf: exists already; use --force"
    # shellcheck disable=SC2086
    alike $command -o no/folder/x.gguf
    says "folder 'no/folder'"
done
alike convert "$demo" -o x.gguf --resume
says "is not what this run would write"
alike edit "$q8" -o "$q8" --set a=b
says "is the input itself; add --force"
run 0 convert "$demo" -o x.gguf --force --dry-run
[ "$(cat x.gguf)" = stands ] || fail "a dry run with --force replaced a file"
run 0 split "$q8" -o s --max-tensors 20
alike split "$q8" -o s --max-tensors 20
says "s-00001-of-00003.gguf: exists already; use --force"
run 0 convert "$demo" -o y.gguf --type Q8_0 --resume
run 0 convert "$demo" -o y.gguf --type Q8_0 --resume --dry-run
says "y.gguf: is finished already"
prints "y.gguf: Q8_0,"
alike convert "$demo" -o y.gguf --type Q4_K --resume
says "is not what this run would write"
rm ./*
for command in "perplexity $demo --text $text --ctx 64 --save-logits" "allocate $demo --text $text --ctx 64 --target-bpw 4 -o"; do
    # shellcheck disable=SC2086 # a command and its options
    run 1 $command "$work/no/folder/x"
    says "folder '$work/no/folder'"
done
: >l.f32.json
run 1 perplexity "$demo" "$@" --save-logits l.f32
says "l.f32.json: exists already"
[ ! -e l.f32 ] || fail "half of the output was written"
cd "$work"

# Token ids that the model has not are met when they are read, not in the work
printf '[1, 2, 3, 999999%s]\n' "$(printf ', %s' $(seq 1 200))" >"$work/beyond"
for command in perplexity allocate best quantize; do
    set -- $command "$demo" --ids "$work/beyond" --ctx 32
    case $command in
    allocate | best) set -- "$@" --target-bpw 5 -o "$work/beyond.out" ;;
    quantize) set -- "$@" --type Q3_K_M --method feedback -o "$work/beyond.out" ;;
    esac
    run 1 "$@" --dry-run
    says "beyond: token id 999999 at position 3 is outside the vocabulary of 4096"
    cp "$work/err" "$work/dry-err"
    run 1 "$@"
    same "$work/err" "$work/dry-err"
done
[ -z "$(find "$work" -name 'beyond.out*')" ] || fail "something is left"

done_testing
