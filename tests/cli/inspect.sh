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
run 1 inspect "$work/none"
run 1 inspect "$src/LICENSE"

done_testing
