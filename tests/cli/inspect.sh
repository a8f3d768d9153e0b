#!/bin/sh
# kerf inspect on every kind of file, and the keys that scripts rely on.
. "$(dirname "$0")/lib.sh"

keys()
{
    for key in format architecture file_type n_tensors n_parameters n_bytes bits_per_weight metadata tensors name type \
        shape offset; do
        prints "\"$key\": "
    done
}

run 0 inspect "$demo" --json
json
keys
prints '"format": "checkpoint"'
prints '"architecture": "Qwen3ForCausalLM"'
prints '"n_parameters": 4197120'
run 0 inspect "$demo/model.safetensors" --json
json
keys
prints '"architecture": null'
run 0 convert "$demo" -o "$work/m.gguf" --type Q4_K_M
run 0 inspect "$work/m.gguf" --json
json
keys
prints '"file_type": "Q4_K_M"'
prints '"qwen3.embedding_length": 256'
prints '"n": 4096'
run 0 inspect "$work/m.gguf" --json --arrays --stats
json
prints '"std": '
run 0 inspect "$work/m.gguf" --stats
prints "nan 0, inf 0"
run 0 inspect "$demo" --stats --threads 1
cp "$work/out" "$work/one"
run 0 inspect "$demo" --stats --threads 5 --isa ref
same "$work/out" "$work/one"

# Single keys, for scripts: the value alone, an array an element a line; several as KEY=VALUE; whole in JSON.
run 0 inspect "$work/m.gguf" --key qwen3.embedding_length
[ "$(cat "$work/out")" = 256 ] || fail "not the value alone"
run 0 inspect "$work/m.gguf" --key tokenizer.ggml.tokens
[ "$(wc -l <"$work/out")" -eq 4096 ] || fail "not a line of each token"
run 0 inspect "$work/m.gguf" --key 'qwen3.[cef]*_length' --key general.architecture
[ "$(cat "$work/out")" = "qwen3.context_length=512
qwen3.embedding_length=256
qwen3.feed_forward_length=$("$kerf" inspect "$work/m.gguf" --key qwen3.feed_forward_length)
general.architecture=qwen3" ] || fail "not a line of each key"
run 0 inspect "$work/m.gguf" --key tokenizer.ggml.tokens --json
json
[ "$(tr ',' '\n' <"$work/out" | wc -l)" -gt 4096 ] || fail "an array cut"
! grep -q '"tensors"' "$work/out" || fail "more than was asked for"
run 0 inspect "$demo" --key architectures --key hidden_size
prints 'architectures=["Qwen3ForCausalLM"]'
prints "hidden_size=256"
mkdir "$work/lines"
sed 's/^{/{"note": "l1\\nhidden_size=2",/' "$demo/config.json" >"$work/lines/config.json"
run 0 inspect "$work/lines" --key note --key hidden_size
[ "$(cat "$work/out")" = 'note=l1\nhidden_size=2
hidden_size=256' ] || fail "a text gives more lines than its own"
sed 's/^{/{"l1\\nhidden_size": 2,/' "$demo/config.json" >"$work/lines/config.json"
run 0 inspect "$work/lines" --key 'l1*' --key hidden_size
[ "$(cat "$work/out")" = 'l1\nhidden_size=2
hidden_size=256' ] || fail "a key gives more lines than its own"
# Numbers, booleans and null of config.json end their lines, as texts and lists do: byte for byte.
sed 's/^{/{"nothing": null,/' "$demo/config.json" >"$work/lines/config.json"
run 0 inspect "$work/lines" --key hidden_size --key vocab_size --key attention_bias --key nothing --key architectures \
    --key rms_norm_eps
printf '%s\n' hidden_size=256 vocab_size=4096 attention_bias=false nothing=null 'architectures=["Qwen3ForCausalLM"]' \
    rms_norm_eps=1e-06 >"$work/want"
same "$work/out" "$work/want"
run 0 inspect "$demo" --key hidden_size
echo 256 >"$work/want"
same "$work/out" "$work/want"
run 0 inspect "$work/m.gguf" --key tokenizer.ggml.tokens --key general.architecture
[ "$(head -n 1 "$work/out" | tr ',' '\n' | wc -l)" -gt 4096 ] || fail "an array cut beside another key"
run 1 inspect "$work/m.gguf" --key qwen3.embeding_length
says "m.gguf: has no metadata key 'qwen3.embeding_length'; did you mean 'qwen3.embedding_length'?"
run 1 inspect "$work/m.gguf" --key 'llama.*' --json
prints '"code": "argument"'

# One number for the size of a file, whichever command tells it: that of the file system.
size=$(($(wc -c <"$work/m.gguf")))
same_size()
{
    run 0 "$@" --json
    grep -q "^ *\"n_bytes\": $size,*$" "$work/out" || fail "$1 does not tell of $size bytes"
    n_checks=$((n_checks + 1))
}
text=$src/tests/data/prose.md
same_size convert "$demo" -o "$work/again.gguf" --type Q4_K_M
same_size inspect "$work/m.gguf"
same_size verify "$work/m.gguf"
same_size fit "$demo" --memory 1GiB --types Q4_K_M
same_size fit "$work/m.gguf" --memory 1GiB
same_size ladder "$demo" --text "$text" --ctx 64 --chunks 1 --types Q4_K_M
same_size compare "$demo" "$work/m.gguf" --text "$text" --ctx 64 --chunks 1
same_size perplexity "$work/m.gguf" --text "$text" --ctx 64 --chunks 1
run 0 split "$work/m.gguf" -o "$work/s" --max-tensors 20
size=$(cat "$work"/s-0*.gguf | wc -c)
same_size inspect "$work/s-00002-of-00003.gguf"
same_size verify "$work/s-00001-of-00003.gguf"
same_size compare "$demo" "$work/s-00001-of-00003.gguf" --text "$text" --ctx 64 --chunks 1
run 0 allocate "$demo" --text "$text" --ctx 64 --chunks 1 --target-bpw 5 --types Q4_K,Q8_0 --probes Q4_K -o "$work/plan" --json
size=$(sed -n 's/^  "n_bytes": \([0-9]*\),$/\1/p' "$work/out")
same_size convert "$demo" -o "$work/planned.gguf" --plan "$work/plan"
[ "$size" -eq "$(wc -c <"$work/planned.gguf")" ] || fail "allocate tells of $size bytes"

run 1 inspect "$work/none"
run 1 inspect "$src/LICENSE"
run 0 inspect "$work/m.gguf" --tensors no_such
says "--tensors: no tensor of $work/m.gguf has a name that matches 'no_such'"

# An importance matrix shows the keys that --key takes, and JSON has them beside those of the old form.
run 0 imatrix "$demo" --text "$src/LICENSE" --ctx 32 --chunks 2 -o "$work/i.gguf"
run 0 inspect "$work/i.gguf"
for key in imatrix.datasets imatrix.chunk_size imatrix.chunk_count; do
    prints "  $key "
done
run 0 inspect "$work/i.gguf" --json
json
prints '"chunk_count": 2'
prints '"imatrix.chunk_count": 2'
run 0 inspect "$work/i.gguf" --key imatrix.datasets
[ "$(cat "$work/out")" = "$src/LICENSE" ] || fail "not the text alone"
run 0 imatrix "$demo" --text "$src/LICENSE" --ctx 32 --chunks 2 -o "$work/i.dat"
run 0 inspect "$work/i.dat"
prints "  chunk_count 2"
run 1 inspect "$work/i.dat" --key chunk_count
says "i.dat: has no metadata keys, and so no 'chunk_count'"

# Names in a file do not speak to the terminal: neither a control character nor a line of their own. JSON escapes them.
esc=$(printf '\033')
run 0 convert "$demo" -o "$work/plain.gguf"
LC_ALL=C sed "s/blk\.0\.attn_q\.weight/blk.0.at${esc}[3q.weight/" "$work/plain.gguf" >"$work/esc.gguf"
LC_ALL=C tr '_' '_' <"$work/esc.gguf" >"$work/odd${esc}[1m.gguf"
for args in "inspect $work/esc.gguf" "inspect $work/odd${esc}[1m.gguf" "hash $work/esc.gguf" \
    "diff $work/plain.gguf $work/esc.gguf"; do
    run 0 $args
    ! grep -q "$esc" "$work/out" || fail "kerf $args prints a control character"
    prints 'blk.0.at?[3q.weight'
done
run 0 inspect "$work/esc.gguf" --json
json
prints 'blk.0.at\u001b[3q.weight'
LC_ALL=C sed "s/blk\.0\.attn_q\.weight/blk.0.at\nn_q.weight/" "$work/plain.gguf" >"$work/line.gguf"
run 0 inspect "$work/line.gguf"
prints 'blk.0.at?n_q.weight'
run 2 "in${esc}x"
says "unknown command 'in?x'"

done_testing
