#!/bin/sh
# Files whose metadata contradicts itself or the tensors: verify tells of them, the forward pass refuses them with the
# same words, edit warns when it makes them and quantize when it passes them on.
. "$(dirname "$0")/lib.sh"

text=$src/LICENSE
run 0 convert "$demo" -o "$work/m.gguf" --type Q8_0
run 0 verify "$work/m.gguf"

# damaged KEY=VALUE TEXT: edit warns with the text, verify finds it.
damaged()
{
    run 0 edit "$work/m.gguf" -o "$work/bad.gguf" --force --set "$1"
    says "warning: $work/bad.gguf: $2"
    run 3 verify "$work/bad.gguf"
    prints "$work/bad.gguf: $2"
}

# fatal KEY=VALUE TEXT: and neither perplexity nor imatrix runs the model; quantize warns.
fatal()
{
    damaged "$1" "$2"
    run 1 perplexity "$work/bad.gguf" --text "$text" --ctx 64 --chunks 1
    says "error: $work/bad.gguf: $2"
    run 1 imatrix "$work/bad.gguf" --text "$text" --ctx 64 --chunks 1 -o "$work/x.gguf"
    says "error: $work/bad.gguf: $2"
    absent "$work/x.gguf"
    run 0 quantize "$work/bad.gguf" -o "$work/x.gguf" --type Q8_0 --dry-run
    says "warning: $work/bad.gguf: $2"
}

fatal tokenizer.ggml.tokens=a,b,c \
    "key 'tokenizer.ggml.tokens' has 3 tokens, but tensor 'token_embd.weight' has 4096 rows"
fatal qwen3.block_count=3 "key 'qwen3.block_count' is 3, but 11 tensors are of layers beyond that, 'blk.3."
fatal qwen3.block_count=0 "key 'qwen3.block_count' is 0, expected 1 to 4096"
fatal qwen3.attention.head_count=0 "key 'qwen3.attention.head_count' is 0 in layer 0, expected 1 to 65536"
fatal qwen3.attention.head_count_kv=0 "key 'qwen3.attention.head_count_kv' is 0 in layer 0, expected a divisor"
fatal qwen3.attention.head_count_kv=3 "key 'qwen3.attention.head_count_kv' is 3 in layer 0, expected a divisor"
fatal qwen3.attention.layer_norm_rms_epsilon=-5 "key 'qwen3.attention.layer_norm_rms_epsilon' is -5, expected"
fatal qwen3.rope.freq_base=-1 "key 'qwen3.rope.freq_base' is -1, expected a number above 0"
fatal qwen3.context_length=0 "key 'qwen3.context_length' is 0, expected 1 to 4294967295"
fatal qwen3.rope.dimension_count=7 "key 'qwen3.rope.dimension_count' is not an even number from 2 to"
fatal qwen3.pooling_type=4 "key 'qwen3.pooling_type' says that texts are ranked, but there is no tensor"
fatal qwen3.nextn_predict_layers=4 "key 'qwen3.nextn_predict_layers' is 4, expected less than block_count (4)"

# block_count counts blocks that predict further tokens, so theirs are no layers beyond it.
run 0 edit "$work/m.gguf" -o "$work/mtp.gguf" --set qwen3.nextn_predict_layers=1
run 0 perplexity "$work/mtp.gguf" --text "$text" --ctx 64 --chunks 1

# Runtimes replace such an id, and so does the forward pass.
damaged tokenizer.ggml.eos_token_id=999999 \
    "key 'tokenizer.ggml.eos_token_id' is 999999, but the vocabulary has 4096 tokens"
run 0 perplexity "$work/bad.gguf" --text "$text" --ctx 64 --chunks 1

# A later edit does not repeat what was wrong before, and one that mends says nothing.
run 0 edit "$work/bad.gguf" -o "$work/named.gguf" --set general.name=x
[ ! -s "$work/err" ] || fail "edit warned of what it did not do"
run 0 edit "$work/bad.gguf" -o "$work/bad.gguf" --force --set tokenizer.ggml.eos_token_id=1
[ ! -s "$work/err" ] || fail "edit warned of what it mended"
run 0 verify "$work/bad.gguf"
# Also when it replaces its input; the warnings are in the JSON, and a number that no tensor fits does not bring one
# for each of them.
run 0 edit "$work/bad.gguf" -o "$work/bad.gguf" --force --set qwen3.embedding_length=64 --json
prints "more problems, which 'kerf verify' lists"
json

# A part that is not there is a finding, as a part that is cut.
run 0 split "$work/m.gguf" -o "$work/parts" --max-tensors 20
rm "$work/parts-00002-of-00003.gguf"
run 3 verify "$work/parts-00001-of-00003.gguf"
prints "part 2 of 3 of its split set is needed"
run 1 perplexity "$work/parts-00001-of-00003.gguf" --text "$text"
run 1 verify "$work/parts-00002-of-00003.gguf"

done_testing
