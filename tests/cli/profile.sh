#!/bin/sh
# profile.sh KERF SOURCE BUILD - compare --profile: the tables, JSON, page and data; the same for any threads and memory; what
# it does not go with is told by name.
. "$(dirname "$0")/lib.sh"

text=$src/tests/data/prose.md
value() { sed -n "s/^ *\"$1\": \([^,]*\),*$/\1/p" "$work/out" | sed -n "$2p"; }
cd "$work"

run 0 compare "$demo" Q4_K Q2_K --text "$text" --ctx 64 --chunks 6 --profile --profile-windows 2 --html p.html
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
echo "profile: $n_checks checks"
