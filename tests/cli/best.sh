#!/bin/sh
# kerf best: from a model and a text to a file of a size, and a report on text that nothing has seen.
. "$(dirname "$0")/lib.sh"

text=$work/text.txt
cat "$src/LICENSE" "$src/tests/golden/README.md" >"$text"
value() { sed -n "s/^ *\"$1\": \([^,]*\),*$/\1/p" "$work/out" | sed -n "${2:-1}p"; }
set -- best "$demo" --text "$text" --ctx 32 --chunks 8 --target-size 2450000

run 0 "$@" -o "$work/a.gguf" --dry-run
prints "would calibrate on 8 windows of 32 tokens"
prints "would write $work/a.gguf, at most 2450000 bytes (from "
run 0 "$@" -o "$work/a.gguf" --dry-run --json
json
[ "$(value budget_bytes)" = 2450000 ] || fail "the target of a dry run"
[ "$(value min_bytes)" -le 2450000 ] && [ "$(value max_bytes)" -gt 2450000 ] || fail "the sizes that are possible"
[ "$(ls "$work" | grep -c a.gguf)" = 0 ] || fail "a dry run wrote something"

run 0 "$@" -o "$work/a.gguf" --html "$work/a.html" --json
json
n_bytes=$(wc -c <"$work/a.gguf")
[ "$n_bytes" -le 2450000 ] && [ "$n_bytes" -gt 2400000 ] || fail "$n_bytes bytes of 2450000"
prints '"candidates"'
for key in output n_bytes bits_per_weight budget_bytes mix expected_loss tensors method layer_loss_ratio groups; do
    prints "\"$key\":"
done
prints '"budget_bytes": 2450000'
prints '"imatrix": "of the first 8 windows of the text"'
grep -q "of the first 8 windows" "$work/a.html" || fail "the page says nothing of the importance matrix"
[ "$(value kld_mean 2)" != "" ] || fail "no mix beside the file"
awk "BEGIN { exit !($(value kld_mean 1) < $(value kld_mean 2)) }" || fail "the file loses to the mix"
grep -q "</html>" "$work/a.html" || fail "the page is not whole"
[ "$(ls "$work" | grep -c 'a.gguf.')" = 0 ] || fail "files beside the output are left: $(ls "$work")"
run 0 inspect "$work/a.gguf"
prints "kerf.plan.sha256"
prints "kerf.method"
run 0 verify "$work/a.gguf"

# Types beyond those of error feedback are no failure; --memory of a device does not bind the run.
run 0 best "$demo" --text "$text" --ctx 32 --chunks 4 --target-bpw 12 -o "$work/high.gguf" --json
json
prints '"feedback-idle"'
prints '"method": null'
run 0 best "$demo" --text "$text" --ctx 32 --chunks 4 --target-bpw 12 -o "$work/high.gguf" --force
prints "high.gguf: "
prints "  Q8_0  "
run 0 verify "$work/high.gguf"
run 0 best "$demo" --text "$text" --ctx 64 --memory 5MiB -o "$work/b.gguf" --dry-run

# The same text in other forms: token ids, JSON lines, standard input. Its name is in the file, and takes of its size.
set -- best "$demo" --ctx 32 --chunks 4 --target-size 2450000
cd "$work" || exit 1
cp "$text" t
run 0 "$@" --text t -o plain.gguf
"$kerf" tokenize "$demo" t --json >i 2>/dev/null || fail "kerf tokenize"
run 0 "$@" --ids i -o ids.gguf
run 0 diff plain.gguf ids.gguf
prints "46 of 46 tensors are the same, 1 metadata key differs"
"$kerf" "$@" --text - -o stdin.gguf <t >out 2>err || fail "standard input"
run 0 diff plain.gguf stdin.gguf
prints "46 of 46 tensors are the same, 1 metadata key differs"
run 1 "$@" --ids i -o i --force
says "inputs are never replaced"

# The same ids as one text are other windows than as two
head -c 500 t >t1
head -c 3000 "$src/libquant/quantization.md" >t2
{ "$kerf" tokenize "$demo" t1 && echo && "$kerf" tokenize "$demo" t2; } >i12 2>/dev/null || fail "kerf tokenize"
run 0 "$@" --text t1 --text t2 -o two.gguf
run 0 "$@" --text t1 --text t2 -o two.gguf --resume
says "two.gguf: is finished already"
run 1 "$@" --ids i12 -o two.gguf --resume
says "two.gguf: exists already, and is not what this run would write"

# A finished file is known with --resume, as long as it is what the run would write, and nothing else is.
cp plain.gguf copy.gguf
run 1 "$@" --text t -o plain.gguf
says "plain.gguf: exists already; use --force to replace it, or --resume to leave it as it is if this command wrote it"
run 0 "$@" --text t -o plain.gguf --resume --html none.html
says "plain.gguf: is finished already"
says "--html none.html: no page of a file that is finished"
absent none.html
prints "plain.gguf: $(($(wc -c <plain.gguf))) bytes (at most 2450000), "
run 0 "$@" --text t -o plain.gguf --resume --json
json
prints '"resumed": "complete"'
prints '"budget_bytes": 2450000'
same plain.gguf copy.gguf
for other in "--target-size 2440000" "--method best" "--chunks 3" "--ctx 64" "--allow-requantize"; do
    run 1 "$@" --text t $other -o plain.gguf --resume
    says "plain.gguf: exists already, and is not what this run would write"
done
cp plain.gguf damaged.gguf
printf '%300000s' "" | dd of=damaged.gguf bs=1 seek=1500000 conv=notrunc 2>/dev/null
run 1 "$@" --text t -o damaged.gguf --resume
says "damaged.gguf: is this run's, but its blocks are no longer those that were written"
cp "$src/LICENSE" t2
run 1 "$@" --text t2 -o plain.gguf --resume
says "is not what this run would write"
run 0 convert "$demo" -o stranger.gguf --type Q4_K_M
run 1 "$@" --text t -o stranger.gguf --resume
says "is not what this run would write"
run 0 quantize plain.gguf -o packed.gguf --type Q3_K --allow-requantize
run 1 "$@" --text t -o packed.gguf --resume
says "is not what this run would write"
same plain.gguf copy.gguf
[ "$(ls | grep -c 'plain.gguf.')" = 0 ] || fail "files beside the output are left: $(ls)"
printf '{"text": "%s"}\n' "$(tr -d '"\\' <"$src/LICENSE" | tr '\n' ' ')" >"$work/lines.jsonl"
run 0 "$@" --text "$work/lines.jsonl" --jsonl text -o "$work/lines.gguf" --dry-run
set -- best "$demo" --text "$text" --ctx 32 --chunks 8 --target-size 2450000

# What another run kept is given up with a word; a stranger's file stays.
"$bin/make_checkpoint" --arch qwen3 --layers 1 --vocab 300 "$work/toy" >/dev/null || fail "make_checkpoint"
toy() # STATUS ARGS...
{
    status=$1
    shift
    run "$status" best "$work/toy" --ctx 32 --target-bpw 6 -o "$work/t.gguf" "$@"
}
run 0 hessian "$work/toy" --text "$src/LICENSE" --ctx 32 --chunks 4 -o "$work/h.gguf"
cp "$work/h.gguf" "$work/t.gguf.kerf-hessian"
toy 1 --text "$text" --chunks 4
says "t.gguf.kerf-hessian: was kept by a stopped run of this output, but is of another text; --force drops it"
same "$work/h.gguf" "$work/t.gguf.kerf-hessian"
rm "$work/t.gguf.kerf-hessian"
toy 0 --text "$text" --chunks 4 --resume --json
says "t.gguf: nothing to resume; started from the beginning"
prints '"resumed": null'
cp "$work/t.gguf" "$work/whole.gguf"
cp "$work/h.gguf" "$work/t.gguf.kerf-hessian"
echo "kerf-feedback 1" >"$work/t.gguf.kerf-feedback"
toy 0 --text "$text" --chunks 4 --force
says "t.gguf.kerf-hessian: is of another text; collected again"
says "t.gguf.kerf-feedback: was solved by a run with other types, Hessians, importance matrix or version; solved again"
same "$work/t.gguf" "$work/whole.gguf"
cp "$work/h.gguf" "$work/t.gguf.kerf-hessian"
run 0 allocate "$work/toy" --text "$text" --ctx 32 --chunks 1 --target-bpw 6 -o "$work/plan" --table "$work/t.gguf.kerf-losses" \
    --no-confirm
toy 0 --text "$src/LICENSE" --chunks 4 --force
says "the Hessians of a stopped run are reused"
says "t.gguf.kerf-losses: "
says "begun from the start"

# Stopped behind the last layer, since nothing can be written; Hessians and solved layers are taken up
mkdir "$work/t.gguf.kerf-part"
toy 1 --text "$text" --chunks 4 --force
says "t.gguf.kerf-part: cannot be created"
rmdir "$work/t.gguf.kerf-part"
toy 0 --text "$text" --chunks 4 --force --json --resume
says "the Hessians of a stopped run are reused"
prints '"resumed": "continued"'
! grep -q "nothing to resume" "$work/err" || fail "it did resume"
says "kerf: continued after 1 of 1 layer"
same "$work/t.gguf" "$work/whole.gguf"
[ "$(ls "$work" | grep -c 't.gguf\.')" = 0 ] || fail "files beside the output are left: $(ls "$work")"
for ending in kerf-hessian kerf-losses; do
    echo mine >"$work/t.gguf.$ending"
    toy 1 --text "$src/LICENSE" --chunks 4 --force
    says "t.gguf.$ending: "
    says "move it away"
    [ "$(cat "$work/t.gguf.$ending")" = mine ] || fail "a stranger's file was replaced"
    rm "$work"/t.gguf.*
done

# What is refused, before the work.
run 1 "$@" -o "$work/a.gguf"
says "exists already"
run 1 "$@" -o "$text" --force
says "inputs are never replaced"
run 1 "$@" -o "$work/b.gguf" --html "$work/b.gguf"
says "give each its own"
head -c 200 "$src/LICENSE" >"$work/short.txt"
run 1 best "$demo" --text "$work/short.txt" --ctx 32 --target-bpw 4.5 -o "$work/b.gguf"
says "three are the least"
for dry in "" --dry-run; do
    run 1 best "$demo" --text "$text" --ctx 32 --target-bpw 4.5 --memory 1MiB -o "$work/b.gguf" $dry
    says "raise --memory"
    run 1 best "$demo" --text "$text" --ctx 32 --target-size 500000 -o "$work/b.gguf" $dry
    says "a file of 500000 bytes is not possible"
    run 1 best "$demo" --text "$text" --ctx 32 --memory 100000 -o "$work/b.gguf" $dry
    says "leaves nothing of --memory"
done
for i in 1 2 3 4 5; do cat "$src/README.md"; done >"$work/long.txt"
for dry in "" --dry-run; do
    run 1 best "$demo" --text "$work/long.txt" --ctx 4096 --memory 24MiB --target-bpw 4.5 -o "$work/b.gguf" $dry
    says "windows of 4096 tokens need "
    says "raise --memory by at least "
done
[ "$(ls "$work" | grep -c 'b.gguf')" = 0 ] || fail "it was collected for a file that is not possible: $(ls "$work")"
run 2 best "$demo" --text "$text" -o "$work/b.gguf"
says "give one of"
run 2 best "$demo" --text "$text" --ids "$text" --target-bpw 4.5 -o "$work/b.gguf"
says "--text and --ids exclude each other"
run 2 "$@"
says "--output FILE is required"
absent "$work/b.gguf"

done_testing
