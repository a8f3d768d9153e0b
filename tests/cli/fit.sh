#!/bin/sh
# kerf fit: levels with sizes that add up, the same from a folder, a file and a configuration; what a context costs.
. "$(dirname "$0")/lib.sh"

value() { sed -n "s/^ *\"$1\": \([^,]*\),*$/\1/p" "$work/out" | sed -n "${2:-1}p"; }
# sum_of_tensors ARGS...: bytes of the tensors that convert would write.
sum_of_tensors()
{
    run 0 convert "$demo" --dry-run --json "$@"
    sed -n '/"tensors"/,$s/^ *"n_bytes": \([0-9]*\).*/\1/p' "$work/out" | awk '{ n += $1 } END { print n }'
}
full=$(sum_of_tensors)
mixed=$(sum_of_tensors --type Q4_K_M)
[ "$full" -gt 8000000 ] && [ "$mixed" -lt 3000000 ] || fail "tensors of $full and $mixed bytes"

run 0 fit "$demo" --memory 20MiB --ctx 512 --json
json
for key in memory_bytes ctx kv_type levels type weights_bytes kv_bytes overhead_bytes total_bytes fits max_ctx; do
    prints "\"$key\": "
done
[ "$(grep -c '"type"' "$work/out")" -eq 7 ] || fail "not the model and six levels"
[ "$(value type)" = '"BF16"' ] && [ "$(value weights_bytes)" = "$full" ] || fail "the model as it is"
[ "$(value type 5)" = '"Q4_K_M"' ] && [ "$(value weights_bytes 5)" = "$mixed" ] || fail "Q4_K_M"
[ "$(value kv_bytes 5)" -eq $((4 * 2 * 2 * 64 * 512 * 2)) ] || fail "4 layers, 2 heads of 64, F16"
[ "$(value total_bytes 5)" -eq $((mixed + $(value kv_bytes 5) + $(value overhead_bytes 5))) ] || fail "the sum"
[ "$(value fits 5)" = true ] && [ "$(value max_ctx 5)" = 512 ] || fail "capped by the training"
cp "$work/out" "$work/folder"

# The same from the configuration alone, and with --dry-run; nothing is written anywhere.
run 0 fit "$demo/config.json" --memory 20MiB --ctx 512 --json
says "neither weights nor an index"
same "$work/out" "$work/folder"
run 0 fit "$demo" --memory 20MiB --ctx 512 --json --dry-run
same "$work/out" "$work/folder"

# Text, and a cache of a smaller type.
run 0 fit "$demo" --memory 16MiB --ctx 512 --types Q4_K_M,Q8_0 --kv-type q8_0
prints "max ctx"
prints "Q4_K_M"
prints "* all the context that the model was trained for"
run 0 fit "$demo" --memory 12MiB --ctx 512 --kv-type q8_0 --json
[ "$(value kv_bytes)" -eq $((4 * 2 * 2 * 64 / 32 * 34 * 512)) ] || fail "34 bytes for 32 numbers"
run 0 fit "$demo" --memory 1MiB --ctx 512 --json
[ "$(value fits)" = false ] && [ "$(value max_ctx)" = 0 ] || fail "nothing fits"
run 0 fit "$demo" --memory 1GiB --ctx 4096
says "4096 tokens are more than the 512"

# Files: a level by its own name; others from float or 8-bit weights, or on request.
run 0 convert "$demo" -o "$work/q8.gguf" --type Q8_0
run 0 quantize "$demo" -o "$work/q4.gguf" --type Q4_K_M
run 0 fit "$work/q4.gguf" --memory 20MiB --ctx 512 --json
[ "$(grep -c '"type"' "$work/out")" -eq 1 ] && [ "$(value type)" = '"Q4_K_M"' ] || fail "a quantized file is one level"
[ "$(value weights_bytes)" = "$mixed" ] || fail "its own size"
run 0 fit "$work/q4.gguf" --memory 20MiB --ctx 512 --json --types Q2_K
[ "$(value type 2)" = '"Q2_K"' ] || fail "another level on request"
run 0 fit "$work/q8.gguf" --memory 20MiB --ctx 512 --json
[ "$(value type)" = '"Q8_0"' ] && [ "$(value type 2)" = '"Q6_K"' ] || fail "levels below Q8_0"
[ "$(value weights_bytes 4)" = "$mixed" ] || fail "Q4_K_M of the file"

# An importance matrix is part of the recipe.
run 0 imatrix "$demo" --text "$src/LICENSE" --ctx 64 --chunks 2 -o "$work/im.gguf"
run 0 fit "$demo" --memory 20MiB --ctx 512 --json --types Q2_K_S --imatrix "$work/im.gguf"
[ "$(value weights_bytes 2)" = "$(sum_of_tensors --type Q2_K_S --imatrix "$work/im.gguf")" ] || fail "Q2_K_S"
run 1 fit "$demo" --memory 20MiB --types Q2_K_S
says "Q2_K_S"

# Wrong usage, and what is no model.
run 2 fit "$demo"
says "--memory is missing"
run 2 fit "$demo" --memory 8GiB --types Q4_KK
says "--types"
run 2 fit "$demo" --memory 8GiB --kv-type q5_0
says "expected one of f16|q8_0|q4_0"
run 2 fit "$demo" --memory 8GiB --ctx 0
run 1 fit "$work/nothing" --memory 8GiB
says "no such file or folder"
run 1 fit "$src/tests/data/demo-qwen3/tokenizer.json" --memory 8GiB
run 0 fit --help
[ "$(grep -c -e "--memory SIZE" "$work/out")" -eq 2 ] || fail "--memory stands in the help more than in usage and options"

done_testing
