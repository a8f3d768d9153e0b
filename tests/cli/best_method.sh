#!/bin/sh
# --method best: refusals, the same bytes for any number of threads and any memory, after a kill and under Hessians from
# a file; what it does not take is error feedback's, to the bit; and what the file says of it.
. "$(dirname "$0")/lib.sh"

toy=$work/toy
"$bin/make_checkpoint" --arch qwen3 --layers 2 --vocab 512 "$toy" >/dev/null || fail "make_checkpoint"
for i in 1 2 3 4; do
    cat "$src"/README.md "$src"/libquant/types.c
done >"$work/text"
text=$work/text

run 2 quantize "$toy" -o "$work/q.gguf" --type Q3_K --method best
says "--text"
run 2 quantize "$toy" -o "$work/q.gguf" --type Q3_K --method best --hessian "$work/h.gguf"
says "--text"
run 2 quantize "$toy" -o "$work/q.gguf" --type Q3_K --method best --text "$text" --held-out 0
says "--held-out 0 is for --method feedback"
run 1 quantize "$toy" -o "$work/q.gguf" --type Q3_K --method best --text "$text" --ctx 64 --memory 3MiB
says "raise --memory"
run 0 quantize "$toy" --type Q3_K --method best --text "$text" --ctx 64 --chunks 20 --dry-run
prints "the second time behind quantized layers"

set -- quantize "$toy" --type Q3_K --method best --text "$text" --ctx 64 --chunks 20 --held-out 4
run 0 "$@" -o "$work/q1.gguf" --threads 1 --json
json
says "50000 and more are recommended"
prints '"name": "best"'
prints '"kld_without"'
run 0 "$@" -o "$work/q2.gguf" --threads 5 --memory 200MiB
prints "corrected for the inputs of quantized layers"
same "$work/q1.gguf" "$work/q2.gguf"
run 0 verify "$work/q1.gguf"
run 0 inspect "$work/q1.gguf"
prints "kerf.method.corrected.n_tensors"
prints "kerf.method.held_out.kld_feedback"
for left in kerf-hessian kerf-hessian.kerf-state kerf-feedback; do
    [ ! -e "$work/q1.gguf.$left" ] || fail "q1.gguf.$left was left behind"
done

# Killed once layers are solved, and resumed
"$kerf" "$@" -o "$work/k.gguf" --resume >/dev/null 2>&1 &
pid=$!
n=0
while [ $n -lt 200 ] && [ ! -e "$work/k.gguf.kerf-feedback" ]; do
    sleep 0.1
    n=$((n + 1))
done
sleep 0.5
kill -9 "$pid" 2>/dev/null
wait "$pid" 2>/dev/null
run 0 "$@" -o "$work/k.gguf" --resume
same "$work/q1.gguf" "$work/k.gguf"

# Logits of a head of zeros are the same whatever is quantized: corrections are told of where no KLD is left, too
"$bin/make_checkpoint" --arch qwen3 --layers 1 --vocab 300 --untied "$work/zero" >/dev/null || fail "make_checkpoint"
run 0 inspect "$work/zero" --json
of_head() { sed -n '/"name": "lm_head.weight"/,/}/p' "$work/out" | sed -n "s/^ *\"$1\": \([0-9]*\),*$/\1/p"; }
dd if=/dev/zero of="$work/zero/model.safetensors" bs=1 seek="$(of_head offset)" count="$(of_head n_bytes)" conv=notrunc \
    2>/dev/null
run 0 quantize "$work/zero" -o "$work/z.gguf" --type Q3_K --method best --text "$text" --ctx 32 --chunks 6 --held-out 2 --json
json
prints '"kld_with": 0'
prints '"name": "best"'

# Another method's output is not this run's
run 1 quantize "$toy" -o "$work/k.gguf" --type Q3_K --method feedback --text "$text" --ctx 64 --chunks 20 --resume
says "is not what this run would write"

echo "$n_checks checks passed"
