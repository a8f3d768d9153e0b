#!/bin/sh
# kerf hessian and --method feedback: files, refusals, resuming; the same bytes for any number of threads, with Hessians
# from a file or collected on the way, and after a kill; and less divergence than the plain encoder on held-out text.
. "$(dirname "$0")/lib.sh"

toy=$work/toy
"$bin/make_checkpoint" --arch qwen3 --layers 2 --vocab 512 "$toy" >/dev/null || fail "make_checkpoint"
for i in 1 2 3 4; do
    cat "$src"/README.md "$src"/libquant/types.c
done >"$work/text"
text=$work/text

# Hessians
run 0 hessian "$toy" --text "$text" -o "$work/a.gguf" --ctx 64 --chunks 20 --threads 2 --json
json
for key in output n_grams n_bytes n_chunks n_tokens ctx n_layers_resumed seconds; do
    prints "\"$key\":"
done
prints '"n_grams": 13'
absent "$work/a.gguf.kerf-state"
run 0 hessian "$toy" --text "$text" -o "$work/b.gguf" --ctx 64 --chunks 20 --threads 1 --memory 64MiB
same "$work/a.gguf" "$work/b.gguf"
run 1 hessian "$toy" --text "$text" -o "$work/a.gguf" --ctx 64
says "exists already"
run 0 hessian "$toy" --text "$text" -o "$work/dry.gguf" --ctx 64 --dry-run
prints "would be 13 Gram matrices"
absent "$work/dry.gguf"
run 2 hessian "$toy" -o "$work/c.gguf"
run 0 hessian "$toy" --text "$text" -o "$work/all.gguf" --ctx 64
run 0 hessian merge "$work/a.gguf" "$work/b.gguf" -o "$work/ab.gguf"
run 0 imatrix "$toy" --text "$text" -o "$work/im.gguf" --ctx 64 --chunks 20 --no-perplexity
run 0 imatrix convert "$work/a.gguf" -o "$work/im2.gguf"
run 0 imatrix convert "$work/im.gguf" -o "$work/im3.gguf" # of no run any more, as the importance in a Hessian file
same "$work/im3.gguf" "$work/im2.gguf"

# A text as token ids or as JSON lines
run 2 quantize "$toy" -o "$work/q.gguf" --type Q4_K --ids "$work/ids"
says "--ids: is for --method feedback and best"
run 2 quantize "$toy" -o "$work/q.gguf" --type Q4_K --method feedback --text "$text" --ids "$work/ids"
says "--text and --ids exclude each other"
"$kerf" tokenize "$toy" "$text" >"$work/ids" 2>/dev/null || fail "kerf tokenize"
set -- --type Q4_K --method feedback --ctx 64 --chunks 8
run 0 quantize "$toy" "$@" --text "$text" -o "$work/w1.gguf" --verbose
prints "  down matrices, first third of the layers: "
prints " with feedback in them alone ("
run 0 quantize "$toy" "$@" --ids "$work/ids" -o "$work/w2.gguf"
run 0 diff "$work/w1.gguf" "$work/w2.gguf"
prints "tensors are the same, 1 metadata key differs" # the name of the text
run 1 quantize "$toy" "$@" --ids "$work/ids" -o "$work/ids" --force
says "inputs are never replaced"
printf '{"a": "%s"}\n' "$(tr -d '"\\' <"$src/tests/data/prose.md" | tr '\n' ' ')" >"$work/lines"
run 0 quantize "$toy" "$@" --text "$work/lines" --jsonl a -o "$work/w3.gguf" --dry-run
prints "would collect Hessians over 8 windows of 64 tokens"

# Refusals
run 2 quantize "$toy" -o "$work/q.gguf" --type Q4_K --method feedback
says "--text"
run 2 quantize "$toy" -o "$work/q.gguf" --type Q4_K --text "$text"
says "--method feedback"
run 2 quantize "$toy" -o "$work/q.gguf" --type Q4_K --method better --text "$text"
says "fast|feedback|best"
run 1 quantize "$toy" -o "$work/q.gguf" --type Q4_K --method feedback --hessian "$work/im.gguf"
says "holds no Hessians"
run 1 quantize "$toy" -o "$work/q.gguf" --type Q8_0 --method feedback --hessian "$work/a.gguf"
says "no matrix takes error feedback"
run 1 quantize "$demo" -o "$work/q.gguf" --type Q4_K --method feedback --hessian "$work/a.gguf"
says "belongs to another model"
absent "$work/q.gguf"
[ ! -e "$work/q.gguf.kerf-feedback" ] || fail "the store was left behind"

run 1 quantize "$toy" -o "$work/q.gguf" --type Q4_K --method feedback --text "$text" --ctx 64 --memory 3MiB
says "raise --memory"
run 0 quantize "$toy" --type Q4_K --method feedback --text "$text" --ctx 64 --chunks 20 --dry-run
prints "would collect Hessians over 20 windows of 64 tokens"
prints "and check on 8 other windows"
run 1 quantize "$toy" --type Q4_K --method feedback --text "$text" --ctx 64 --memory 3MiB --dry-run
says "raise --memory"
[ ! -e "$work/q.gguf.kerf-hessian" ] || fail "it was collected for matrices that do not fit"

# The same bytes
run 0 quantize "$toy" -o "$work/q1.gguf" --type Q3_K_M --method feedback --text "$text" --ctx 64 --chunks 20 --held-out 4 --threads 1
prints "KLD on held-out text: "
run 0 quantize "$toy" -o "$work/q2.gguf" --type Q3_K_M --method feedback --text "$text" --ctx 64 --chunks 20 --held-out 4 \
    --threads 7 --memory 200MiB
same "$work/q1.gguf" "$work/q2.gguf"
run 0 verify "$work/q1.gguf"
run 0 quantize "$toy" -o "$work/q3.gguf" --type Q3_K_M --method feedback --hessian "$work/a.gguf" --text "$text" --ctx 64 \
    --held-out 4
run 0 hash "$work/q1.gguf" # tensors are those of the run that collected on the way; the name of the matrix is not
grep -v '  model$' "$work/out" | grep 'blk\.' >"$work/h1"
run 0 hash "$work/q3.gguf"
grep -v '  model$' "$work/out" | grep 'blk\.' >"$work/h3"
same "$work/h1" "$work/h3"
run 0 inspect "$work/q1.gguf"
prints "kerf.method"
prints "kerf.method.gate"
run 0 inspect "$work/q1.gguf" --json
prints "head: kld"
for left in kerf-hessian kerf-hessian.kerf-state kerf-feedback; do
    [ ! -e "$work/q1.gguf.$left" ] || fail "q1.gguf.$left was left behind"
done

run 1 quantize "$toy" -o "$work/q1.gguf" --type Q3_K_M --method feedback --text "$text" --ctx 64
says "q1.gguf" # refused before any work
[ ! -e "$work/q1.gguf.kerf-hessian" ] || fail "it was collected for an output that is there"
run 1 quantize "$toy" -o "$work/a.gguf" --type Q3_K_M --method feedback --hessian "$work/a.gguf" --force
says "a.gguf"
run 0 quantize "$toy" -o "$work/j.gguf" --type Q3_K_M --method feedback --hessian "$work/a.gguf" --text "$text" --ctx 64 --json
json
prints '"method"'
prints '"kept_plain"'

# Held-out text: what the Hessians have seen counts in tokens; of merged ones nobody knows
run 1 quantize "$toy" -o "$work/s.gguf" --type Q3_K_M --method feedback --hessian "$work/all.gguf" --text "$text" --ctx 32
says "have seen all"
run 0 quantize "$toy" -o "$work/s.gguf" --type Q3_K_M --method feedback --hessian "$work/a.gguf" --text "$text" --ctx 32 --held-out 2
! grep -q "known to be unseen" "$work/err" || fail "the text of other windows is known"
run 0 quantize "$toy" -o "$work/m.gguf" --type Q3_K_M --method feedback --hessian "$work/ab.gguf" --text "$text" --ctx 64 --held-out 2
says "not known to be unseen"

# Files beside the output that are not kerf's stay; another run's are given up
for ending in kerf-feedback kerf-hessian; do
    echo mine >"$work/f.gguf.$ending"
    cp "$work/f.gguf.$ending" "$work/mine"
    run 1 quantize "$toy" -o "$work/f.gguf" --type Q3_K_M --method feedback --text "$text" --ctx 64 --chunks 4 --resume
    says "was not written by kerf"
    same "$work/f.gguf.$ending" "$work/mine"
    rm "$work/f.gguf.$ending"
done
echo "kerf-feedback 1" >"$work/f.gguf.kerf-feedback"
cp "$work/a.gguf" "$work/f.gguf.kerf-hessian"
run 0 quantize "$toy" -o "$work/f.gguf" --type Q3_K_M --method feedback --text "$text" --ctx 64 --chunks 4 --resume
says "solved again"
says "collected again"

run 0 quantize "$toy" -o "$work/l.gguf" --type Q3_K_M --method feedback --text "$text" --ctx 64 --chunks 4 --held-out 4000
says "are held out, not the 4000 of --held-out"
[ "$(grep -c "held out" "$work/err")" = 1 ] || fail "it is said more than once that fewer windows are held out"

# Killed while it collects, and once layers are solved; resumed, and the notes say so.
set -- quantize "$toy" -o "$work/k.gguf" --type Q3_K_M --method feedback --text "$text" --ctx 64 --chunks 20 --held-out 4 --resume
for kept in kerf-hessian.kerf-state kerf-feedback; do
    rm -f "$work/k.gguf"
    "$kerf" "$@" >/dev/null 2>&1 &
    pid=$!
    while kill -0 "$pid" 2>/dev/null && [ ! -e "$work/k.gguf.$kept" ]; do sleep 0.02; done
    kill -9 "$pid" 2>/dev/null
    wait "$pid" 2>/dev/null
    run 0 "$@"
    ! grep -q "nothing to resume" "$work/err" || fail "nothing is said to be resumed"
    same "$work/q1.gguf" "$work/k.gguf"
done

# An output that --resume cannot have begun is refused before the work; what is kept serves --force --resume.
set -- quantize "$toy" -o "$work/k.gguf" --method feedback --text "$text" --ctx 64 --chunks 20 --held-out 4 --resume
run 1 "$@" --type Q4_K_M
says "k.gguf: exists already, and is not what this run would write"
says "use --force to replace it"
[ ! -e "$work/k.gguf.kerf-hessian" ] || fail "it was collected for an output that is another's"
run 1 quantize "$toy" -o "$work/k.gguf" --type Q3_K_M --method feedback --hessian "$work/all.gguf" --resume
says "is not what this run would write"
[ ! -e "$work/k.gguf.kerf-feedback" ] || fail "it was solved for an output that is another's"
cp "$work/a.gguf" "$work/k.gguf.kerf-hessian"
echo "kerf-feedback 1" >"$work/k.gguf.kerf-feedback"
run 1 "$@" --type Q4_K_M
says "--force --resume replaces it"
run 0 "$@" --type Q4_K_M --force
says "the Hessians of a stopped run are reused"
says "was solved by a run with other types"
! grep -q "nothing to resume" "$work/err" || fail "the notes contradict each other"
absent "$work/k.gguf.kerf-hessian"
run 0 "$@" --type Q4_K_M
says "is finished already"

# Less divergence
run 0 quantize "$demo" -o "$work/d.gguf" --type Q3_K --pure --method feedback --text "$text" --ctx 128 --chunks 40 --held-out 8
awk '/KLD on held-out text/ { found = 1; exit !($5 < 0.75 * $9) } END { if (!found) exit 1 }' "$work/out" ||
    fail "the divergence is not below 0.75 of the plain encoder's"
n_checks=$((n_checks + 1))

# Experts are factored side by side, as many as memory holds: the same bytes.
"$bin/make_family" qwen3moe "$work/experts" >/dev/null || fail "make_family"
run 0 hessian "$work/experts" --text "$text" -o "$work/he.gguf" --ctx 64 --chunks 20 --json
prints "\"n_bytes\": $(wc -c <"$work/he.gguf")"
run 0 hessian "$work/experts" --text "$text" -o "$work/he2.gguf" --ctx 64 --chunks 20 --memory 1MiB # sums on the disk
same "$work/he.gguf" "$work/he2.gguf"
run 0 quantize "$work/experts" -o "$work/e1.gguf" --type Q4_0 --method feedback --hessian "$work/he.gguf" --threads 1
run 0 quantize "$work/experts" -o "$work/e2.gguf" --type Q4_0 --method feedback --hessian "$work/he.gguf" --threads 5
same "$work/e1.gguf" "$work/e2.gguf"

# The ladder of solved levels: each is the file that quantize makes, to the last digit of its divergence.
value() { sed -n "s/^ *\"$1\": \([^,]*\),*$/\1/p" "$work/out" | sed -n "${2:-1}p"; }
run 0 ladder "$toy" --text "$src/LICENSE" --ctx 64 --chunks 6 --types Q8_0,Q3_K_M --method feedback --hessian "$work/a.gguf" \
    --json --html "$work/ladder.html" --threads 2
prints '"method": "feedback"'
grep -q "Error feedback under" "$work/ladder.html" || fail "the page does not name the method"
ladder=$(value kld_mean 2)
run 0 quantize "$toy" -o "$work/level.gguf" --type Q3_K_M --method feedback --hessian "$work/a.gguf"
run 0 compare "$toy" "$work/level.gguf" Q3_K_M --text "$src/LICENSE" --ctx 64 --chunks 6 --json
[ "$(value kld_mean 1)" = "$ladder" ] || fail "the level has $ladder, the file $(value kld_mean 1)"
[ "$(value kld_mean 2)" != "$ladder" ] || fail "error feedback changed nothing"
run 0 ladder "$toy" --text "$text" --ctx 64 --chunks 2 --types Q4_K_M --method feedback --hessian "$work/a.gguf"
says "levels are to be measured on text that the Hessians have not seen"
run 2 ladder "$toy" --text "$text" --method feedback
says "--hessian FILE"
run 2 ladder "$toy" --text "$text" --hessian "$work/a.gguf"
says "is for --method feedback"
run 1 ladder "$toy" --text "$text" --ctx 64 --types Q4_K_M --method feedback --hessian "$work/im.gguf"
says "holds no Hessians"

run 2 quantize "$toy" --type Q4_K --jsonl text -o "$work/none.gguf"
says "--jsonl: is for --method feedback and best"
run 2 quantize "$toy" --type Q4_K --method feedback --hessian "$work/a.gguf" --jsonl text -o "$work/none.gguf"
says "--jsonl says what is in a --text, and none is given"

# What has importance is known before the work: a type that needs it where Hessians give none is refused at once, in a dry run too.
for more in "" --dry-run; do
    run 1 quantize "$toy" -o "$work/none.gguf" --type Q4_K --embedding-type IQ2_XXS --method feedback --text "$text" \
        --ctx 64 --chunks 4 $more
    says "'token_embd.weight' becomes IQ2_XXS, and the importance matrix has nothing for it"
    absent "$work/none.gguf.kerf-hessian"
done

done_testing
