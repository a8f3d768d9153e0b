#!/bin/sh
# kerf allocate: from a text to a plan to a file of the promised size; the table; rules; what is refused.
. "$(dirname "$0")/lib.sh"

text=$work/text.txt
cat "$src/LICENSE" "$src/tests/golden/README.md" >"$text"
value() { sed -n "s/^ *\"$1\": \([^,]*\),*$/\1/p" "$work/out" | sed -n "${2:-1}p"; }
measure="--text $text --chunks 2 --ctx 64"

# A size of the whole file, measured and solved; the plan makes that file.
run 0 allocate "$demo" $measure --table "$work/losses" --target-size 2500000 -o "$work/a.plan" --json \
    --html "$work/a.html"
for key in plan n_bytes bits_per_weight budget_bytes expected_loss optimality_gap tensors name type loss; do
    prints "\"$key\": "
done
[ "$(value budget_bytes)" = 2500000 ] || fail "budget_bytes is not the target"
n_bytes=$(value n_bytes)
[ "$n_bytes" -le 2500000 ] && [ "$n_bytes" -gt 2450000 ] || fail "$n_bytes bytes of 2500000"
grep -q "</html>" "$work/a.html" || fail "the page is not whole"
grep -q ">0.01</text>" "$work/a.html" || fail "the axis of losses is not written as on the ladder's page"
head -1 "$work/a.plan" | grep -qx "# kerf plan 1" || fail "not a plan"
run 0 quantize "$demo" --plan "$work/a.plan" -o "$work/a.gguf"
[ "$(wc -c <"$work/a.gguf")" -eq "$n_bytes" ] || fail "the file has $(wc -c <"$work/a.gguf") bytes, not $n_bytes"
[ ! -s "$work/err" ] || fail "a plan with its own model is remarked on"
prints "a.gguf: plan, "
run 0 inspect "$work/a.gguf"
prints "kerf.plan.sha256"
prints " (with a plan), "
run 0 fit "$work/a.gguf" --memory 1GiB --json
prints '"type": "plan"'

# A plan for error feedback: the same table, losses as feedback leaves them, the same plan for any number of threads.
run 0 hessian "$demo" --text "$text" --chunks 8 --ctx 64 -o "$work/h.gguf"
run 0 allocate "$demo" $measure --table "$work/weighed" --imatrix "$work/h.gguf" --target-size 2300000 -o "$work/n.plan" \
    --no-confirm --json
loss=$(value expected_loss)
run 0 allocate "$demo" --table "$work/weighed" --hessian "$work/h.gguf" --target-size 2300000 -o "$work/fb1.plan" --json
awk "BEGIN { exit !($(value expected_loss) < 0.999 * $loss) }" || fail "feedback is expected to gain nothing"
prints '"mix": null'
run 0 allocate "$demo" --table "$work/weighed" --hessian "$work/h.gguf" --target-size 2300000 -o "$work/fb2.plan" --threads 1
same "$work/fb1.plan" "$work/fb2.plan"
run 0 quantize "$demo" --type Q3_K_M -o "$work/standard.gguf"
run 0 allocate "$demo" $measure --table "$work/weighed" --imatrix "$work/h.gguf" --target-size "$(wc -c <"$work/standard.gguf")" \
    -o "$work/standard.plan" --json
prints '"mix": "Q3_K_M"' # though its file with an importance matrix has some keys more

# Its file keeps within the size with the record of the feedback; and the importance is that of the Hessians, of which nothing is said.
run 0 quantize "$demo" --plan "$work/fb1.plan" --method feedback --hessian "$work/h.gguf" -o "$work/fb.gguf"
[ "$(wc -c <"$work/fb.gguf")" -le 2300000 ] || fail "the file has $(wc -c <"$work/fb.gguf") bytes of 2300000"
! grep -q "the plan was measured" "$work/err" || fail "a matrix is missed that the Hessians give"
run 0 quantize "$demo" --plan "$work/fb1.plan" --method feedback --text "$text" --ctx 64 -o "$work/fb2.gguf" --dry-run
! grep -q "the plan was measured" "$work/err" || fail "a matrix is missed that the Hessians give"
run 1 allocate "$demo" --table "$work/weighed" --hessian "$work/a.gguf" --target-size 2300000 -o "$work/fb3.plan"
says "expected 'imatrix'"
"$bin/make_checkpoint" --arch qwen3 --layers 4 --hidden 256 "$work/foreign" >/dev/null || fail "make_checkpoint"
run 1 allocate "$work/foreign" $measure --hessian "$work/h.gguf" --target-bpw 5 -o "$work/fb3.plan"
says "was collected with other weights"
absent "$work/fb3.plan"

# A plan with another model, or with other importance than it was measured with, is said to be that; what a person wrote is not.
sed 's/^blk\\.2\\.ffn_up/blk\\.9\\.ffn_up/; /^blk\\.3\\.attn_k/d' "$work/a.plan" >"$work/gaps.plan"
run 0 quantize "$demo" --plan "$work/gaps.plan" -o "$work/x.gguf" --dry-run --json
says "no line for 2 of the 29 matrices that can be quantized, 'blk.2.ffn_up.weight' among them; they keep the precision"
prints "no line for 2 of the 29"
run 0 quantize "$demo" --plan "$work/gaps.plan" --type Q4_K_M --tensor-type blk.2.ffn_up=Q8_0 -o "$work/x.gguf" --dry-run
says "no line for 1 of the 29 matrices that can be quantized, 'blk.3.attn_k.weight' among them; --type decides"
grep -v '^#' "$work/gaps.plan" | grep -v 'blk..9' >"$work/hand.plan"
run 0 quantize "$demo" --plan "$work/hand.plan" -o "$work/x.gguf" --dry-run
[ ! -s "$work/err" ] || fail "a plan written by hand is remarked on"
"$bin/make_checkpoint" --arch qwen3 --layers 5 --hidden 256 "$work/other" >/dev/null || fail "make_checkpoint"
run 0 quantize "$work/other" --plan "$work/a.plan" -o "$work/x.gguf" --dry-run
says "measured with other weights"
says "no line for "
run 0 imatrix "$demo" --text "$text" --chunks 1 --ctx 64 -o "$work/importance.gguf"
run 0 allocate "$demo" --text "$text" --chunks 1 --ctx 16 --probes Q2_K --types Q2_K,Q6_K --imatrix "$work/importance.gguf" \
    --target-bpw 5 -o "$work/i.plan"
run 0 quantize "$demo" --plan "$work/i.plan" --imatrix "$work/importance.gguf" -o "$work/x.gguf" --dry-run
! grep -q "measured with" "$work/err" || fail "the plan's own matrix is taken for another"
run 0 quantize "$demo" --plan "$work/i.plan" -o "$work/x.gguf" --dry-run --json
says "measured with an importance matrix ("
says "at hand none"
prints "at hand none"
run 0 compare "$demo" "plan:$work/i.plan" --text "$text" --chunks 1 --ctx 16 --dry-run
says "measured with an importance matrix ("
run 0 compare "$demo" "plan:$work/i.plan" --imatrix "$work/importance.gguf" --text "$text" --chunks 1 --ctx 16 --dry-run
! grep -q "measured with" "$work/err" || fail "the plan's own matrix is taken for another"
sed 's/^# importance [0-9a-f]\{8\}/# importance 01234567/' "$work/i.plan" >"$work/j.plan"
run 0 quantize "$demo" --plan "$work/j.plan" --imatrix "$work/importance.gguf" -o "$work/x.gguf" --dry-run
says "measured with another importance matrix (01234567"
absent "$work/x.gguf"

# The same plan again: measured with one thread, and from the table without a text, and on the conversion.
run 0 allocate "$demo" $measure --target-size 2500000 -o "$work/b.plan" --threads 1
same "$work/a.plan" "$work/b.plan"
run 0 allocate "$demo" --table "$work/losses" --target-size 2500000 -o "$work/c.plan"
says "no --text: the plan is not compared with the standard mix of its size"
prints "c.plan: a file of "
prints " bytes (at most 2500000), "
says "losses from"
prints "to use it: kerf quantize $demo --plan $work/c.plan -o OUT.gguf"
grep -v "^# confirmed" "$work/a.plan" >"$work/a.unconfirmed" # without a text there is nothing to confirm on
same "$work/a.unconfirmed" "$work/c.plan"
run 0 convert "$demo" -o "$work/bf16.gguf"
run 0 allocate "$work/bf16.gguf" --table "$work/losses" --target-size 2500000 -o "$work/d.plan"
grep -v "^# .* bytes (at most" "$work/a.unconfirmed" >"$work/a.lines"
grep -v "^# .* bytes (at most" "$work/d.plan" >"$work/d.lines"
same "$work/a.lines" "$work/d.lines"

# Fast probes are the default, counted, and confirmed on other windows; full ones stay, and tables say which they are.
run 0 allocate "$demo" $measure --target-size 2500000 -o "$work/fast.plan" --json
prints '"probe": "fast"'
prints '"held_out": true'
prints '"kept": "plan"'
mix=$(value mix | tr -d '"')
[ -n "$mix" ] && [ "$mix" != null ] || fail "no mix beside the plan"
awk "BEGIN { exit !($(value passes) > 5 && $(value passes) <= 20) }" || fail "$(value passes) passes"
awk "BEGIN { exit !($(value plan_kld) < $(value mix_kld)) }" || fail "the plan loses to the mix"
grep -q "^# confirmed  KLD .*$mix of .* held-out tokens" "$work/fast.plan" || fail "the plan does not say how it was confirmed"
same "$work/a.plan" "$work/fast.plan"
grep -q '"probe": *"fast"' "$work/losses" || fail "the table does not say how it was measured"
grep -q "Beside the standard mix" "$work/a.html" || fail "the page lacks the comparison"
run 0 allocate "$demo" --text "$text" --chunks 1 --ctx 16 --probe full --probes Q2_K --types Q2_K,Q6_K --target-bpw 5 \
    --no-confirm -o "$work/full.plan" --table "$work/full.losses" --json
prints '"probe": "full"'
prints '"kept": null'
run 1 allocate "$demo" --table "$work/losses" --probe full --target-bpw 5 -o "$work/x.plan"
says "measured with fast probes, not full"
run 1 allocate "$demo" --table "$work/full.losses" --types Q2_K,Q6_K --probe fast --target-bpw 5 -o "$work/x.plan"
says "measured with full probes, not fast"
run 2 allocate "$demo" $measure --probe fast --probes Q2_K --target-bpw 5 -o "$work/x.plan"
says "--probes names the types of --probe full"
run 0 allocate "$demo" $measure --table "$work/losses" --target-size 2500000 -o "$work/again.plan" --json # confirmed from a table
prints '"held_out": true'
same "$work/a.plan" "$work/again.plan"

# A plan that loses to the mix says so and gives the mix: here the losses are made up.
sed 's/\("loss": \)[0-9.e-]*/\11/' "$work/losses" >"$work/wrong.losses"
awk '/"type": "Q1_0"/ { q = 1 } /"loss"/ { if (q) sub(/: .*/, ": 0"); q = 0 } { print }' "$work/wrong.losses" >"$work/worse.losses"
run 0 allocate "$demo" $measure --table "$work/worse.losses" --target-size 2500000 -o "$work/mix.plan" --json
says "the plan does not beat $mix"
says "the types are those of the mix"
prints '"kept": "mix"'
run 0 quantize "$demo" --plan "$work/mix.plan" -o "$work/mix.gguf"
run 0 quantize "$demo" --type "$mix" -o "$work/q3.gguf"
run 0 diff "$work/mix.gguf" "$work/q3.gguf" --json
[ "$(value n_same)" = "$(value n_tensors)" ] || fail "$(value n_same) of $(value n_tensors) tensors are the mix's"
run 0 allocate "$demo" $measure --table "$work/worse.losses" --types Q1_0,Q2_K --target-size 2500000 -o "$work/x.plan"
says "instead"
rm "$work/x.plan"

# Other budgets and rules from the same table.
run 0 allocate "$demo" --table "$work/losses" --target-bpw 4.5 -o "$work/e.plan" --json
awk "BEGIN { exit !($(value bits_per_weight) <= 4.5 && $(value bits_per_weight) > 4.4) }" || fail "bits per weight"

# Inputs rounded to 8 bits are another measurement, and the table says so.
run 0 allocate "$demo" $measure --activations q8 --target-size 2500000 -o "$work/q8.plan" --table "$work/q8.losses"
grep -q '"activations": *"q8"' "$work/q8.losses" && grep -q '"activations": *"f32"' "$work/losses" ||
    fail "a table does not say how inputs were rounded"
grep '"loss"' "$work/losses" >"$work/f32.figures"
grep '"loss"' "$work/q8.losses" >"$work/q8.figures"
! cmp -s "$work/f32.figures" "$work/q8.figures" || fail "--activations changes nothing"
# A device: the plan, written, takes at most its memory by the figures of fit, and all but a little of it.
memory=17000000
run 0 allocate "$demo" --table "$work/losses" --memory $memory --ctx 512 -o "$work/f.plan" --json
f16=$(value n_bytes)
run 0 quantize "$demo" --plan "$work/f.plan" -o "$work/f.gguf"
run 0 fit "$work/f.gguf" --memory $memory --ctx 512 --json --types Q8_0
total=$(value total_bytes)
[ "$(value fits)" = true ] && [ "$total" -gt $((memory - 65536)) ] || fail "$total bytes of $memory"
run 0 allocate "$demo" --table "$work/losses" --memory $memory --ctx 512 --kv-type q4_0 -o "$work/f4.plan" --json
[ "$(value n_bytes)" -gt $((f16 + 500000)) ] || fail "a smaller cache leaves no more for weights"
run 0 allocate "$demo" --table "$work/losses" --memory 24MB --ctx 2048 -o "$work/f2.plan" --dry-run
says "more than the 512"
run 0 allocate "$demo" --table "$work/losses" --memory 256MiB --target-bpw 4.5 -o "$work/e2.plan"
same "$work/e.plan" "$work/e2.plan"
run 0 allocate "$demo" --table "$work/losses" --target-bpw 4.5 -o "$work/g.plan" --min attn_v=Q6_K \
    --fix 'ffn_down=Q4_K' --max token_embd=Q4_K
grep -c "ffn_down.*  Q4_K  " "$work/g.plan" | grep -qx 4 || fail "--fix does not hold"
! grep "attn_v" "$work/g.plan" | grep -q "Q[2345]_K" || fail "--min does not hold"
! grep "^token_embd" "$work/g.plan" | grep -q "Q[568]_" || fail "--max does not hold"

# Nothing is overwritten or written for nothing; what is impossible is said.
cp "$text" "$work/input.txt"
run 1 allocate "$demo" --text "$work/input.txt" --ctx 64 --chunks 1 --target-bpw 4 -o "$work/input.txt" --force
says "inputs are never replaced"
run 1 allocate "$demo" --table "$work/losses" --target-bpw 4 -o "$work/x.plan" --html "$work/x.plan"
says "give each its own"
run 1 allocate "$demo" --table "$work/losses" --target-bpw 4 -o "$work/x.plan" --html "$work/losses" --force
says "two outputs of this run are this file"
same "$work/input.txt" "$text"
run 1 allocate "$demo" --table "$work/losses" --target-bpw 4 -o "$work/a.plan"
says "exists already"
run 0 allocate "$demo" --table "$work/losses" --target-bpw 4 --dry-run
run 1 allocate "$demo" --table "$work/losses" --target-size 500kB -o "$work/x.plan"
says "the smallest with these types and rules has"
run 1 allocate "$demo" $measure --table "$work/unmeasured" --target-size 500kB -o "$work/x.plan"
says "the smallest with these types and rules has"
[ ! -e "$work/unmeasured" ] || fail "what is impossible was said only behind the measuring"
run 1 allocate "$demo" --table "$work/full.losses" --target-bpw 6 -o "$work/x.plan" --types Q2_K,Q5_1
says "was not measured as Q5_1"
run 1 allocate "$demo" --table "$work/losses" --target-bpw 4 -o "$work/x.plan" --min attn_x=Q4_K
says "finds no tensor"
for i in 1 2 3 4 5; do cat "$src/README.md"; done >"$work/long.txt"
for dry in "" --dry-run; do # windows that the memory does not hold, before anything is encoded or measured
    run 1 allocate "$demo" --text "$work/long.txt" --ctx 4096 --chunks 1 --memory 8MiB --target-bpw 4 --table "$work/long" \
        -o "$work/x.plan" $dry
    says "windows of 4096 tokens need "
    says "raise --memory by at least "
    [ ! -e "$work/long.kerf-state" ] || fail "it was measured before it was refused"
done
run 1 allocate "$demo" --table "$work/losses" --memory 1MiB --ctx 100000 -o "$work/x.plan"
says "leaves nothing"
echo '{"kerf_loss_table": 1' >"$work/broken"
run 1 allocate "$demo" --table "$work/broken" --target-bpw 4 -o "$work/x.plan"
says "broken"
run 2 allocate "$demo" --target-bpw 4 -o "$work/x.plan"
says "--text"
run 2 allocate "$demo" $measure -o "$work/x.plan"
says "give one of"
run 2 allocate "$demo" --table "$work/losses" --memory 8MiB -o "$work/x.plan"
says "--memory with --ctx"
run 2 allocate "$demo" --table "$work/losses" --target-bpw 4 --kv-type q8_0 -o "$work/x.plan"
says "--kv-type is for a device"
run 2 allocate "$demo" --table "$work/losses" --target-bpw 4 --memory 1000 -o "$work/x.plan"
says "at least 1MiB"
run 2 allocate "$demo" $measure --target-bpw 4
says "--output PLAN is required"
run 2 allocate "$demo" $measure --target-bpw 4 -o "$work/x.plan" --types Q4_KK
says "did you mean"
run 2 allocate "$demo" $measure --target-bpw 4 -o "$work/x.plan" --fix attn_q
says "expected REGEX=TYPE"
absent "$work/x.plan"

# Asked to stop, a run keeps what it has measured, and the same command goes on to the same bytes.
set -- allocate "$demo" $measure --threads 1 --target-size 2500000
stop() # ARGS...: stop a run whose bar says that it measures tensors; 1 when it was faster
{
    "$kerf" "$@" --progress bar >"$work/out" 2>"$work/err" &
    pid=$!
    while kill -0 "$pid" 2>/dev/null && ! grep -q probing "$work/err"; do sleep 0.02; done
    kill -TERM "$pid" 2>/dev/null || true
    status=0
    wait "$pid" 2>/dev/null || status=$?
    [ "$status" -ne 0 ]
}
tries=0
until stop "$@" --table "$work/stopped" -o "$work/stopped.plan" && grep -q "kept in" "$work/err"; do
    tries=$((tries + 1))
    [ "$tries" -lt 8 ] || fail "no run could be stopped in the middle"
    rm -f "$work/stopped" "$work/stopped.plan"
done
[ "$status" -eq 143 ] || [ "$status" -eq 1 ] || fail "SIGTERM: exit $status"
kept=$(sed -n 's/^.*kerf: stopped on request: \([0-9]*\) of .*/\1/p' "$work/err")
[ -n "$kept" ] || fail "not said how much is kept"
says " measurements are kept in $work/stopped.kerf-state; the same command continues from there"
absent "$work/stopped"
absent "$work/stopped.plan"
cp "$work/stopped.kerf-state" "$work/state"
if [ "$kept" -gt 0 ]; then
    run 0 "$@" --table "$work/stopped" -o "$work/stopped.plan" --dry-run
    prints "$kept of "
    prints " measurements are kept in $work/stopped.kerf-state; the run would continue from there"
fi
run 1 "$@" --ctx 32 --table "$work/stopped" -o "$work/stopped.plan"
says "stopped.kerf-state: made for another text or other windows of it"
says "(kept by a stopped run of this output); --force drops it"
same "$work/state" "$work/stopped.kerf-state"
run 0 "$@" --table "$work/stopped" -o "$work/stopped.plan"
[ "$kept" -eq 0 ] || says "continued after $kept of "
same "$work/losses" "$work/stopped"
same "$work/a.plan" "$work/stopped.plan"
[ ! -e "$work/stopped.kerf-state" ] || fail "the state outlives its run"
echo mine >"$work/anew.kerf-state"
run 1 allocate "$demo" $measure --target-bpw 4.5 --table "$work/anew" -o "$work/anew.plan" --force
says "anew.kerf-state"
says "; move it away"
[ "$(cat "$work/anew.kerf-state")" = mine ] || fail "a stranger's file was replaced"
cp "$work/losses" "$work/anew.kerf-state"
run 1 allocate "$demo" $measure --target-bpw 4.5 --table "$work/anew" -o "$work/anew.plan"
says "anew.kerf-state: a whole table, expected what a stopped run has kept (kept by"
run 0 allocate "$demo" $measure --target-bpw 4.5 --table "$work/anew" -o "$work/anew.plan" --force
says "; begun from the start"
same "$work/anew" "$work/losses"
# A machine so slow that one step takes longer than a stopped run has is ended in the middle of it.
if stop "$@" -o "$work/unkept.plan" && grep -q 'stopped on request: ' "$work/err"; then
    says "stopped on request: nothing is kept; with --table FILE it would be"
    absent "$work/unkept.plan"
fi

done_testing
