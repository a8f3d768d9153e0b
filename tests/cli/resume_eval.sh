#!/bin/sh
# compare, ladder and perplexity --resume: killed as often as you like, the figures are those of an unbroken run, and
# one more candidate costs no more than itself.
. "$(dirname "$0")/lib.sh"

text=$src/tests/data/prose.md
value() { sed -n "s/^ *\"$1\": \([^,]*\),*$/\1/p" "$work/out" | sed -n "$2p"; }
# figures FILE: standard output without what a clock says
figures() { grep -vE '"(seconds|tokens_per_second)":' "$work/out" >"$1"; }
parts() { find "$1" -name '*.scores' | wc -l; }

cd "$work"
run 0 quantize "$demo" -o q4.gguf --type Q4_K_M
args="--text $text --ctx 256 --chunks 8 --json --progress off"
run 0 compare "$demo" q4.gguf Q2_K $args
figures unbroken

# Kills: each at another moment, until one run comes through.
n_kills=0
delay=5
while :; do
    "$kerf" compare "$demo" q4.gguf Q2_K $args --resume --threads 1 >out 2>err </dev/null &
    pid=$!
    sleep "0.$delay"
    kill -9 $pid 2>/dev/null || :
    if wait $pid 2>/dev/null; then break; fi
    n_kills=$((n_kills + 1))
    delay=$((delay + 1))
    [ $delay -lt 10 ] || delay=10
    [ $n_kills -lt 12 ] || {
        run 0 compare "$demo" q4.gguf Q2_K $args --resume
        break
    }
    [ -z "$(find kerf-scores -name '*.scores' -size 0 2>/dev/null)" ] || fail "an empty file is among what is kept"
done
cp out "$work/out" 2>/dev/null || :
figures resumed
same unbroken resumed
[ "$(parts kerf-scores)" -eq 3 ] || fail "$(parts kerf-scores) parts are kept, expected one for each model"

# Again: nothing is measured. With one more candidate: only that one.
run 0 compare "$demo" q4.gguf Q2_K $args --resume
says "3 of 3 measurements taken from kerf-scores"
figures again
same unbroken again
run 0 compare "$demo" q4.gguf Q8_0 Q2_K $args
figures unbroken4
run 0 compare "$demo" q4.gguf Q8_0 Q2_K $args --resume --memory 64MiB
says "3 of 4 measurements taken from kerf-scores"
figures resumed4
same unbroken4 resumed4

# The reference of a comparison is the model of a perplexity; a ladder is a comparison.
run 0 perplexity "$demo" $args --resume
says "1 of 1 measurement taken from "
run 0 perplexity "$demo" --text "$text" --ctx 256 --chunks 8 --resume
! grep -q '^speed' "$work/out" || fail "a speed of a run that measured nothing"
run 0 perplexity "$demo" --text "$text" --ctx 256 --chunks 8
grep -q '^speed  *[0-9]' "$work/out" || fail "no speed"
run 0 ladder "$demo" --types Q8_0,Q2_K $args --resume
says "3 of 3 measurements taken from kerf-scores"
# Another text, window or matrix is another measurement.
run 0 perplexity "$demo" --text "$text" --ctx 128 --chunks 8 --resume
says "nothing to resume; started from the beginning"
run 0 perplexity "$demo" --text "$text" --ctx 256 --chunks 7 --resume --state other
says "other: nothing to resume; started from the beginning"
[ "$(parts other)" -eq 1 ] || fail "--state"
run 0 imatrix "$demo" --text "$text" --ctx 256 --chunks 2 -o im.gguf
run 0 compare "$demo" Q2_K $args --resume --imatrix im.gguf
says "1 of 2 measurements taken from kerf-scores"

# So is a cache of keys and values.
run 0 compare "$demo" kv:q4_0 $args
figures plain.kv
run 0 compare "$demo" kv:q4_0 $args --resume
says "1 of 2 measurements taken from kerf-scores"
figures kept.kv
same plain.kv kept.kv

# A stored reference comes out of it as well, the same as from a plain run.
run 0 compare "$demo" q4.gguf $args --save-reference plain.ref
run 0 compare "$demo" q4.gguf $args --save-reference kept.ref --resume
says "2 of 2 measurements taken from kerf-scores"
same plain.ref kept.ref

# Damage is measured anew; what cannot be kept is told.
for f in kerf-scores/*.scores; do
    printf 'x' | dd of="$f" bs=1 seek=100 conv=notrunc 2>/dev/null
done
run 0 compare "$demo" q4.gguf Q2_K $args --resume
says "damaged files there were measured anew"
for f in unbroken "$work/out"; do grep -E '"(kld_|ppl_|top1_|perplexity|delta_p)' "$f" >"$f.figures"; done
same unbroken.figures "$work/out.figures"
run 1 compare --reference kept.ref q4.gguf --resume
says "works with a reference that is a model"
: >file
run 1 perplexity "$demo" --text "$text" --chunks 1 --resume --state file
says "file: expected a folder"
run 1 perplexity "$demo" --text "$text" --chunks 1 --resume --state no/where
says "no/where"
if command -v flock >/dev/null 2>&1; then
    cat >held.sh <<END
"$kerf" perplexity "$demo" --text "$text" --chunks 1 --resume --state held 2>err
END
    flock held.kerf-lock sh held.sh && fail "two runs in one folder"
    says "held: this folder is in use by another run; wait for it, or name another with --state"
fi

done_testing
