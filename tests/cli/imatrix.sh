#!/bin/sh
# kerf imatrix: collecting, its options and refusals, merging, converting, showing, JSON lines; a run that is
# killed and resumed ends in the same bytes.
. "$(dirname "$0")/lib.sh"

toy=$work/toy
"$bin/make_checkpoint" --arch qwen3 --layers 2 --vocab 512 "$toy" >/dev/null || fail "make_checkpoint"
for i in 1 2 3 4 5 6; do
    cat "$src"/README.md "$src"/libquant/types.c
done >"$work/text"
text=$work/text

# Collect
run 0 imatrix "$toy" --text "$text" -o "$work/a.gguf" --ctx 64 --chunks 40 --threads 2 --json
for key in output n_entries n_chunks n_tokens ctx perplexity perplexity_stderr entries name n_values n_experts \
    starved_experts seconds; do
    prints "\"$key\":"
done
prints '"n_entries": 14'
prints '"n_chunks": 40'
prints '"n_tokens": 2560'
absent "$work/a.gguf.kerf-state"
run 1 imatrix "$toy" --text "$text" -o "$work/a.gguf" --ctx 64
says "exists already"
run 1 imatrix collect "$toy" --text "$text" -o "$work/b.gguf" --ctx 64 --chunks 40 --memory 1MiB
says "windows of 64 tokens need" && says "raise --memory by at least"
[ ! -e "$work/b.gguf" ] || fail "a refused run left an output"
run 0 imatrix collect "$toy" --text "$text" -o "$work/b.gguf" --ctx 64 --chunks 40 --threads 1 --memory 20MiB --save-every 16
prints "14 entries from 40 windows of 64 tokens"
prints " ± "
same "$work/a.gguf" "$work/b.gguf"
for isa in ref sse2 avx2 avx512 neon; do # those that this processor has: the same bytes
    "$kerf" inspect "$toy" --isa "$isa" >"$work/out" 2>&1 || continue
    run 0 imatrix "$toy" --text "$text" -o "$work/$isa.gguf" --ctx 64 --chunks 3 --isa "$isa"
    same "$work/ref.gguf" "$work/$isa.gguf"
done
# A second text of which --chunks leaves nothing is warned of, and not said to be a source.
cp "$src/LICENSE" "$work/second.txt"
run 0 imatrix "$toy" --text "$text" --text "$work/second.txt" -o "$work/two.gguf" --ctx 64 --chunks 3
says "second.txt: no window of it is used: --chunks 3"
run 0 imatrix show "$work/two.gguf"
! grep -q second.txt "$work/out" || fail "an unused text is said to be a source"
run 0 imatrix "$toy" --text "$text" --text "$work/second.txt" -o "$work/two.gguf" --ctx 64 --force
! grep -q "no window" "$work/err" || fail "a warning of a text that is used"
run 0 imatrix "$toy" --text "$text" -o "$work/dry.gguf" --dry-run --ctx 64 --chunks 3
prints "would be collected from 3 windows of 64 tokens (192 tokens)"
absent "$work/dry.gguf"
run 0 imatrix "$toy" --text "$text" -o "$work/dry.gguf" --dry-run --ctx 64 --chunks 3 --json
json
prints '"n_tokens": 192'
prints '"n_entries": null'
prints '"perplexity": null'
absent "$work/dry.gguf"
run 0 imatrix "$toy" --text "$text" -o "$work/head.gguf" --ctx 64 --chunks 2 --process-output --no-perplexity --json
prints '"perplexity": null'
grep -qE '"(output|token_embd).weight"' "$work/out" || fail "the head is missing"
run 0 imatrix "$toy" --text "$text" -o "$work/plain.gguf" --ctx 64 --chunks 2 --no-perplexity
run 0 imatrix "$toy" --text "$text" -o "$work/seen.gguf" --ctx 64 --chunks 2 --no-perplexity --attention
! cmp -s "$work/plain.gguf" "$work/seen.gguf" || fail "--attention changed nothing"
run 0 imatrix "$toy" --text "$text" -o "$work/prior.gguf" --ctx 64 --chunks 2 --expert-prior 32
says "--expert-prior changed nothing"

# Use
run 0 quantize "$toy" -o "$work/q.gguf" --type Q3_K_M --imatrix "$work/a.gguf"
run 0 quantize "$toy" -o "$work/q-none.gguf" --type Q3_K_M
! cmp -s "$work/q.gguf" "$work/q-none.gguf" || fail "the importance matrix changed nothing"

# Merge, convert, show
run 0 imatrix "$toy" --text "$src/libquant/types.h" -o "$work/c.gguf" --ctx 64 --chunks 5
run 0 imatrix merge "$work/a.gguf" "$work/c.gguf" -o "$work/ac.gguf" --json
prints '"n_chunks": 45'
prints "types.h"
run 0 imatrix merge "$work/c.gguf" "$work/a.gguf" -o "$work/ca.gguf" --quiet
run 0 imatrix convert "$work/a.gguf" -o "$work/a.dat"
run 0 imatrix "$toy" --text "$text" -o "$work/direct.dat" --ctx 64 --chunks 40
same "$work/a.dat" "$work/direct.dat"
run 0 imatrix convert "$work/a.dat" -o "$work/back.gguf"
prints "1 data set"
! grep -q "1 data sets" "$work/out" || fail "one data set in the plural"
run 1 imatrix convert "$work/a.dat" -o "$work/back.gguf"
says "exists"
run 0 imatrix show "$work/ac.gguf"
prints "14 entries, 45 chunks of 64 tokens"
prints "blk.1.ffn_down.weight"
prints "coverage: 14 of 14 tensors have data"
grep -qE '^blk\.0\.ffn_down\.weight .* -$' "$work/out" || fail "a cosine with the layer below the first"
grep -qE '^blk\.1\.ffn_down\.weight .* -?[01]\.[0-9]{4}$' "$work/out" || fail "no cosine with the layer below"
run 0 inspect "$work/ac.gguf"
! grep -q "parameters\|bits per weight" "$work/out" || fail "an importance matrix has no weights"
run 0 inspect "$work/ac.gguf" --json
prints '"n_parameters": null'
prints '"bits_per_weight": null'
run 0 imatrix convert --help
prints "usage: kerf imatrix convert A -o"
run 2 imatrix convert "$work/a.gguf" "$work/c.gguf" -o "$work/x.gguf"
says "unexpected operand"
run 0 imatrix show "$work/a.dat" --json
json
run 0 imatrix show "$work/a.dat"
prints "40 chunks of a size that the file does not tell"
run 0 imatrix show "$work/a.gguf"
prints "40 chunks of 64 tokens"
run 0 imatrix show "$work/a.dat" --json
prints '"cos_sim": null'
for key in path n_entries n_chunks ctx expert_prior n_without_data n_starved_experts datasets entries layers \
    tokens_mean entropy cos_sim; do
    prints "\"$key\":"
done

# JSON lines
for i in 1 2 3 4 5 6 7 8 9 10 11 12; do
    echo '{"n": '$i', "text": "A record of some words, the number of which is small.",
           "chat": [{"role": "user", "content": "How many words?"}, {"role": "assistant", "content": "Few."}]}' | tr -d '\n'
    echo
done >"$work/chat.jsonl"
run 0 imatrix "$toy" --text "$work/chat.jsonl" --jsonl text -o "$work/l.gguf" --ctx 32 --chunks 2
run 0 imatrix "$toy" --text "$work/chat.jsonl" --jsonl chat -o "$work/m.gguf" --ctx 32 --chunks 2
! cmp -s "$work/l.gguf" "$work/m.gguf" || fail "two fields gave the same sums"
run 1 imatrix "$toy" --text "$work/chat.jsonl" --jsonl words -o "$work/x.gguf" --ctx 32
says "chat.jsonl: line 1: expected an object with the field 'words'"
run 0 perplexity "$toy" --text "$work/chat.jsonl" --jsonl chat --ctx 32 --chunks 2
run 2 imatrix "$toy" --ids "$work/ids" --jsonl text -o "$work/x.gguf"

# Refusals
run 2 imatrix "$toy" --text "$text"
says "--output FILE is required"
run 2 imatrix "$toy" --text "$text" -o "$work/x.bin"
says "ends in .gguf or .dat"
run 2 imatrix "$toy" -o "$work/x.gguf"
says "--text"
run 2 imatrix "$toy" --text "$text" -o "$work/x.gguf" --stride 16
says "unknown option --stride"
run 2 imatrix "$toy" --text "$text" -o "$work/x.gguf" --expert-prior 99999999999
run 2 imatrix merge -o "$work/x.gguf"
cp "$work/a.gguf" "$work/input.gguf"
run 1 imatrix merge "$work/input.gguf" "$work/c.gguf" -o "$work/input.gguf" --force
says "inputs are never replaced"
run 1 imatrix "$work/q.gguf" --text "$text" -o "$work/q.gguf" --ctx 64 --chunks 2 --force
says "inputs are never replaced"
run 1 quantize "$toy" -o "$work/input.gguf" --type Q3_K_M --imatrix "$work/input.gguf" --force
says "inputs are never replaced"
same "$work/a.gguf" "$work/input.gguf"
run 1 imatrix "$toy" --text "$text" -o "$work/no-folder/x.gguf"
says "no-folder"
run 1 imatrix "$toy" --text "$work/chat.jsonl" --ctx 100000 -o "$work/x.gguf"
says "do not fill one window"
run 1 imatrix show "$text"
run 1 imatrix merge "$work/a.gguf" "$demo/model.safetensors" -o "$work/x.gguf"
absent "$work/x.gguf"

# Killed in the middle, resumed: the same bytes. Waves of 16 windows; the state stands after the first.
set -- "$toy" --text "$text" -o "$work/k.gguf" --ctx 64 --threads 1 --save-every 16
run 0 imatrix "$@"
mv "$work/k.gguf" "$work/want.gguf"
n_resumed=0
for signal in KILL KILL TERM; do
    rm -f "$work/k.gguf" "$work/k.gguf.kerf-state"
    "$kerf" imatrix "$@" >"$work/out" 2>"$work/err" &
    pid=$!
    while kill -0 "$pid" 2>/dev/null && [ ! -e "$work/k.gguf.kerf-state" ]; do
        sleep 0.01
    done
    kill "-$signal" "$pid" 2>/dev/null || true
    status=0
    wait "$pid" 2>/dev/null || status=$?
    [ "$status" -ne 0 ] || continue # it was faster
    absent "$work/k.gguf"
    if [ "$signal" = TERM ]; then
        [ "$status" -eq 143 ] || [ "$status" -eq 1 ] || fail "SIGTERM: exit $status"
        says "kerf: stopped on request: "
        says "--resume continues from there"
    fi
    run 1 imatrix "$@" --resume --no-perplexity
    says "another model, text or options"
    run 1 imatrix "$@" --resume --no-perplexity --dry-run
    says "another model, text or options"
    cp "$work/k.gguf.kerf-state" "$work/state"
    run 0 imatrix "$@" --resume --dry-run
    prints "windows are done and kept in $work/k.gguf.kerf-state; the run would continue from there"
    done_windows=$(sed -n 's/^\([0-9]*\) of [0-9]* windows are done.*/\1/p' "$work/out")
    [ "$done_windows" -gt 0 ] || fail "no windows are said to be done"
    run 0 imatrix "$@" --resume --dry-run --json
    json
    prints "\"n_chunks_resumed\": $done_windows,"
    same "$work/k.gguf.kerf-state" "$work/state"
    run 0 imatrix "$@" --resume
    ! grep -q "continued after" "$work/err" || n_resumed=$((n_resumed + 1))
    same "$work/k.gguf" "$work/want.gguf"
    absent "$work/k.gguf.kerf-state"
done
run 0 imatrix "$@" --resume --force
says "nothing to resume; started from the beginning"
# A finished output is known, by this run alone.
run 0 imatrix "$@" --resume --json
says "is finished already; --force writes it again"
prints '"resumed": "complete"'
run 1 imatrix "$@" --resume --no-perplexity
says "is not what this run would write"
same "$work/k.gguf" "$work/want.gguf"
echo "resumed: $n_resumed of 3"
: >"$work/k.gguf.kerf-state"
run 0 imatrix "$@" --force --dry-run
says "would be dropped; --resume continues"
run 1 imatrix "$@" --force --resume --dry-run
says "k.gguf.kerf-state"
run 0 imatrix "$@" --force
says "are dropped; --resume continues"
run 0 imatrix "$@" --force --resume --dry-run
prints "nothing to resume; the run would start"
same "$work/k.gguf" "$work/want.gguf"
# The same ids as one text are other windows than as two
head -c 500 "$src/tests/data/prose.md" >"$work/t1"
head -c 3000 "$src/README.md" >"$work/t2"
{ "$kerf" tokenize "$demo" "$work/t1" && echo && "$kerf" tokenize "$demo" "$work/t2"; } >"$work/i12" 2>/dev/null || fail "tokenize"
set -- imatrix "$demo" --ctx 32 --chunks 8 -o "$work/pair.gguf"
run 0 "$@" --text "$work/t1" --text "$work/t2"
run 0 "$@" --text "$work/t1" --text "$work/t2" --resume
says "is finished already"
run 1 "$@" --ids "$work/i12" --resume
says "is not what this run would write"

done_testing
