#!/bin/sh
# profile.sh KERF SOURCE BUILD - compare --profile: the tables, JSON, page and data; the same for any threads and memory; what
# it does not go with is told by name.
. "$(dirname "$0")/lib.sh"

text=$src/tests/data/prose.md
value() { sed -n "s/^ *\"$1\": \([^,]*\),*$/\1/p" "$work/out" | sed -n "$2p"; }
cd "$work"
ln -s "$demo" model && ln -s "$text" prose.md # short names, however long those of the checkout are

run 0 compare model Q4_K Q2_K --text prose.md --ctx 64 --chunks 6 --profile --profile-windows 2 --html p.html
prints "profile of Q4_K"
prints "2 of 6 windows, 128 tokens, 62 scored; mean KLD"
prints "profile of Q2_K"
prints "ffn_down"
prints "layer 3"
wide=$(LC_ALL=C sed 's/[^ -~]\{2,3\}/x/g' out | LC_ALL=C awk 'length($0) > 80 { print; exit }')
[ -z "$wide" ] || fail "wider than 80 columns: $wide"
for mark in "Where the loss comes from: Q4_K" "Where the loss comes from: Q2_K" "layer 3 restored: loss" 'download="profile.csv"' \
    "blk.0.attn_q.weight, Q4_K: error"; do
    grep -qF "$mark" p.html || fail "the page lacks: $mark"
done

# All windows: the loss is that of the comparison; a plan with one layer as it was says what is left without it.
printf 'blk\\.1\\..* BF16\n.* Q3_K\n' >one.plan
printf '.* Q3_K\n' >all.plan
run 0 compare "$demo" plan:all.plan plan:one.plan --text "$text" --ctx 64 --chunks 4 --json
json
all=$(value kld_mean 1) left=$(value kld_mean 2)
run 0 compare "$demo" plan:all.plan --text "$text" --ctx 64 --chunks 4 --json --profile --profile-windows 9 --threads 1
json
[ "$(value loss_mean 1)" = "$all" ] || fail "loss $(value loss_mean 1), the comparison says $all"
[ "$(value restored_loss 2)" = "$left" ] || fail "without layer 1 $(value restored_loss 2), the comparison says $left"
figures() { grep -E '"(loss_mean|state_error|restored_loss|gain|gain_stderr|error|own_error)":' out; }
figures >one.txt
run 0 compare "$demo" plan:all.plan --text "$text" --ctx 64 --chunks 4 --json --profile --profile-windows 9 --threads 3 \
    --memory 48MiB
figures >three.txt
cmp -s one.txt three.txt || fail "threads or memory change the profile"
run 0 compare "$demo" Q4_K --text "$text" --ctx 64 --chunks 4 --json
prints '"profile": null'

# A plan: as much text and work as the run would take, every layer and kind, and no figure.
run 0 compare model Q4_K Q2_K --text prose.md --ctx 64 --chunks 6 --profile --profile-windows 2 --dry-run
prints "profile     Q4_K_M: 2 of 6 windows, 128 tokens, with each of 4 layers and"
prints "times as much work as the comparison takes"
run 0 compare model Q4_K --text prose.md --ctx 64 --chunks 6 --profile --json --dry-run
json
counted() { sed -n '/"profile": {/,$p' out | grep -E '"(n_windows|n_tokens|n_scored|cost|name|kind|layer)":'; }
counted >plan.txt
[ "$(value loss_mean 1)" = null ] && [ "$(value restored_loss 1)" = null ] || fail "a plan has figures"
run 0 compare model Q4_K --text prose.md --ctx 64 --chunks 6 --profile --json
counted >run.txt
cmp -s plan.txt run.txt && [ "$(wc -l <plan.txt)" -gt 20 ] || fail "the run is not what was planned"
run 0 compare model Q4_K --text prose.md --ctx 64 --chunks 6 --json --dry-run
prints '"profile": null'

# A model of fewer layers, a stored reference, options without their flag.
run 0 convert "$demo" -o full.gguf
run 0 edit full.gguf -o short.gguf --drop-layers 2
run 1 compare full.gguf short.gguf --text "$text" --ctx 64 --chunks 2 --profile
says "short.gguf: has 3 layers"
run 0 compare full.gguf --text "$text" --ctx 64 --chunks 2 --save-reference full.kerf-ref
run 2 compare --reference full.kerf-ref full.gguf --profile
says "--profile: needs the weights of the reference"
run 2 compare full.gguf Q4_K --text "$text" --profile-windows 2
says "--profile-windows: is of --profile"
run 2 compare full.gguf --text "$text" --save-reference other.kerf-ref --profile
says "--profile: there is no candidate"
run 2 compare full.gguf Q4_K --text "$text" --profile --profile-windows 0

# A stop during the profile takes nothing from the comparison, which is finished: its gates, its stored reference, its figures.
# Many thin layers: the profile takes some ten times as long as the comparison before it, in short steps.
"$bin/make_checkpoint" --layers 12 --hidden 64 --heads 2 --kv-heads 2 --head-dim 32 --ffn 64 --vocab 320 thin >/dev/null ||
    fail "make_checkpoint"
"$kerf" compare thin Q4_0 --text "$text" --ctx 64 --chunks 64 --max-kld 9 --save-reference kept.kerf-ref --profile \
    --profile-windows 64 --html stopped.html --json --progress bar >out 2>err </dev/null &
pid=$!
while kill -0 $pid 2>/dev/null && ! grep -q profiling err; do
    sleep 0.05
done
kill -TERM $pid || fail "the run ended before it was stopped"
wait $pid 2>/dev/null
json
prints '"partial": false'
prints '"profiles_partial": true'
prints '"profile": null'
prints '"gates_met": true'
prints '"saved_reference": "kept.kerf-ref"'
prints '"code": "cancelled"'
grep -q "stopped before all profiles were made" stopped.html || fail "the page does not tell of the missing profile"
run 0 convert thin -o thin.gguf
run 0 compare --reference kept.kerf-ref thin.gguf --max-kld 0.01
echo "profile: $n_checks checks"
