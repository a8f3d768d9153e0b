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
# The configuration alone brings warnings of its own, and without a vocabulary there is no size of a file.
figures() { sed '/"warnings"/,$d; /"n_bytes"/d; /"model"/d' "$work/out"; }
figures >"$work/folder"

# Units: KB, MB, GB are powers of 1000, K and KiB and their likes of 1024 (caught: GB taken as 1024 to the third).
for unit in 5GB=5000000000 5gb=5000000000 3MB=3000000 3M=3145728 3MiB=3145728 0.5GiB=536870912 7000K=7168000 7000KB=7000000 4200000=4200000 4200000B=4200000; do
    "$kerf" fit "$demo" --memory "${unit%=*}" --ctx 512 --json >"$work/out" || : # small ones hold no level
    [ "$(value memory_bytes)" = "${unit#*=}" ] || fail "--memory ${unit%=*} is $(value memory_bytes) bytes"
done

# The same from the configuration alone; nothing is written anywhere, so there is no --dry-run.
run 0 fit "$demo/config.json" --memory 20MiB --ctx 512 --json
says "neither weights nor an index"
prints '"code": "planned-without-weights"'
figures >"$work/config"
prints '"n_bytes": null'
same "$work/config" "$work/folder"
run 2 fit "$demo" --memory 20MiB --ctx 512 --json --dry-run

# Text, and a cache of a smaller type.
run 0 fit "$demo" --memory 16MiB --ctx 512 --types Q4_K_M,Q8_0 --kv-type q8_0
prints "max ctx"
prints "Q4_K_M"
prints "* all the context that the model was trained for"
run 3 fit "$demo" --memory 12MiB --ctx 512 --kv-type q8_0 --json
[ "$(value kv_bytes)" -eq $((4 * 2 * 2 * 64 / 32 * 34 * 512)) ] || fail "34 bytes for 32 numbers"
run 3 fit "$demo" --memory 1MiB --ctx 512 --json
[ "$(value fits)" = false ] && [ "$(value max_ctx)" = 0 ] || fail "nothing fits"
prints '"largest_type": null'
says "nothing fits into 1.00 MiB: the smallest level, Q2_K, needs "
says "no shorter context helps"
run 0 fit "$demo" --memory 20MiB --ctx 512 --json
prints '"largest_type": "Q8_0"'
# What the note says of the context holds, and one token more does not fit.
run 3 fit "$demo" --memory 10MiB --ctx 100000 --types Q4_K_M
most=$(sed -n 's/.*with --ctx \([0-9]*\) it fits$/\1/p' "$work/err")
run 0 fit "$demo" --memory 10MiB --ctx "$most" --types Q4_K_M
run 2 fit "$demo" --memory 4
says "--memory: expected a size of at least 1"
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

# Several: each with a line that names it over its rows; a list in JSON; 3 when one of them has no level that fits.
run 0 fit "$work/q4.gguf" --memory 20MiB --ctx 512
says "listed as it is: its weights have less than 8 bits each"
run 0 fit "$work/q4.gguf" "$work/q8.gguf" --memory 20MiB --ctx 512 --types Q2_K
[ "$(grep -c "max ctx" "$work/out")" -eq 1 ] || fail "not one line of column heads"
[ "$(sed -n 's|^.*/\(q[48].gguf\) in .*|\1|p; s|^\(Q[0-9A-Z_]*\) .*|\1|p' "$work/out" | tr '\n' ' ')" = \
    "q4.gguf Q4_K_M Q2_K q8.gguf Q8_0 Q2_K " ] || fail "rows do not stand under their file"
run 0 fit "$work/q4.gguf" "$work/q8.gguf" --memory 20MiB --ctx 512 --json
json
prints '"models": ['
[ "$(grep -c '"model": ' "$work/out")" -eq 2 ] || fail "not two models"
run 3 fit "$work/q4.gguf" "$work/q8.gguf" --memory 4.5MiB --types Q8_0 --ctx 4
says "q8.gguf: nothing fits into 4.50 MiB"

# One that cannot be read keeps none of the others from its rows; 1 counts before 3, as in verify and hash
run 1 fit "$work/nothing" "$work/q4.gguf" --memory 20MiB --ctx 512
says "nothing"
prints "q4.gguf in 20.00 MiB"
[ "$(grep -c "max ctx" "$work/out")" -eq 1 ] || fail "not one line of column heads"
run 1 fit "$work/q4.gguf" "$work/nothing" "$work/q8.gguf" --memory 4.5MiB --types Q8_0 --ctx 4 --json
json
says "q8.gguf: nothing fits into 4.50 MiB"
[ "$(grep -c '"model": ' "$work/out")" -eq 3 ] || fail "not three models"
[ "$(grep -c '"error": ' "$work/out")" -eq 1 ] || fail "not one error"
[ "$(grep -c '"largest_type": ' "$work/out")" -eq 2 ] || fail "not two results"
run 1 fit "$work/nothing" --memory 20MiB --json
json
! grep -q '"model"' "$work/out" || fail "a single failure is not the object"
# An importance matrix is read once, and cannot be read for none of them
run 1 fit "$work/q4.gguf" "$work/q8.gguf" --memory 20MiB --imatrix "$work/nothing.gguf" --json
[ "$(grep -c "nothing.gguf" "$work/err")" -eq 1 ] || fail "the importance matrix is read for each model"

# A checkpoint of packed weights: the first level is what convert writes, mixes are those of quantize. One layer
# of NVFP4 zeros, its safetensors header padded to 4096 bytes.
packed=$work/packed
mkdir "$packed"
cat >"$packed/config.json" <<'END'
{"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 256, "num_hidden_layers": 1,
 "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 64, "intermediate_size": 256, "vocab_size": 32,
 "max_position_embeddings": 512, "rms_norm_eps": 1e-6, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
 "quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4"}}
END
awk -v index_file="$packed/model.safetensors.index.json" '
function add(name, type, shape, bytes)
{
    header = header sprintf("%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%d,%d]}", n ? "," : "", name, type, shape, at, at + bytes)
    map = map sprintf("%s\"%s\":\"model.safetensors\"", n++ ? "," : "", name)
    at += bytes
}
BEGIN {
    add("model.embed_tokens.weight", "BF16", "32,256", 16384)
    add("model.norm.weight", "BF16", "256", 512)
    layer = "model.layers.0."
    add(layer "input_layernorm.weight", "BF16", "256", 512)
    add(layer "post_attention_layernorm.weight", "BF16", "256", 512)
    add(layer "self_attn.q_norm.weight", "BF16", "64", 128)
    add(layer "self_attn.k_norm.weight", "BF16", "64", 128)
    k = split("self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.o_proj mlp.gate_proj mlp.up_proj mlp.down_proj", m, " ")
    for (i = 1; i <= k; i++) {
        add(layer m[i] ".weight", "U8", "256,128", 32768)
        add(layer m[i] ".weight_scale", "F8_E4M3", "256,16", 4096)
        add(layer m[i] ".weight_scale_2", "F32", "", 4)
    }
    printf "%-4096s", "{" header "}"
    printf "{\"weight_map\":{%s}}", map > index_file
}' >"$work/header"
[ "$(wc -c <"$work/header")" -eq 4096 ] || fail "the header of the packed checkpoint"
{
    printf '\000\020\000\000\000\000\000\000'
    cat "$work/header"
    head -c $((16384 + 3 * 512 + 2 * 128 + 7 * (32768 + 4096 + 4))) /dev/zero
} >"$packed/model.safetensors"
demo_before=$demo
demo=$packed
as_is=$(sum_of_tensors)
mixed_packed=$(sum_of_tensors --type Q2_K)
demo=$demo_before
[ "$as_is" -lt 300000 ] || fail "convert keeps the packed weights: $as_is bytes"
run 0 fit "$packed" --memory 20MiB --ctx 512 --json
[ "$(value type)" = '"NVFP4"' ] && [ "$(value weights_bytes)" = "$as_is" ] || fail "packed weights as they are"
run 0 fit "$packed" --memory 20MiB --ctx 512 --json --types Q2_K,Q8_0
[ "$(value type 2)" = '"Q2_K"' ] && [ "$(value weights_bytes 2)" = "$mixed_packed" ] || fail "Q2_K of packed weights"
run 0 convert "$packed" -o "$work/packed.gguf" --no-vocab
run 0 fit "$work/packed.gguf" --memory 20MiB --ctx 512 --json
[ "$(value type)" = '"NVFP4"' ] && [ "$(value weights_bytes)" = "$as_is" ] || fail "the file of packed weights"
# Names tell which weights stay packed: the index alone gives the same plan, the configuration alone does not.
run 0 convert "$packed" --dry-run --json
grep -E '"(name|type|shape|n_bytes)":' "$work/out" >"$work/with-weights"
rm "$packed/model.safetensors"
run 0 convert "$packed" --dry-run --json
grep -E '"(name|type|shape|n_bytes)":' "$work/out" >"$work/with-names"
same "$work/with-weights" "$work/with-names"
grep -q '"type": "NVFP4"' "$work/with-names" || fail "nothing is planned packed"
! grep -q "comes out smaller" "$work/err" || fail "a warning of what is known"
run 0 fit "$packed" --memory 20MiB --ctx 512 --json
[ "$(value type)" = '"NVFP4"' ] && [ "$(value weights_bytes)" = "$as_is" ] || fail "the plan of an index"
run 0 fit "$packed/config.json" --memory 20MiB --ctx 512
says "comes out smaller"

# An importance matrix is part of the recipe.
run 0 imatrix "$demo" --text "$src/LICENSE" --ctx 64 --chunks 2 -o "$work/im.gguf"
run 0 fit "$demo" --memory 20MiB --ctx 512 --json --types Q2_K_S --imatrix "$work/im.gguf"
[ "$(value weights_bytes 2)" = "$(sum_of_tensors --type Q2_K_S --imatrix "$work/im.gguf")" ] || fail "Q2_K_S"
# One that needs a matrix ends nothing: its size is told, and what it needs.
with=$(value weights_bytes 2)
run 0 fit "$demo" --memory 20MiB --ctx 512 --json --types Q2_K_S,Q4_K_M
says "Q2_K_S: needs an importance matrix, --imatrix"
[ "$(grep -c '"type"' "$work/out")" -eq 3 ] || fail "not the model and two levels"
[ "$(value needs_imatrix 2)" = true ] && [ "$(value needs_imatrix 3)" = false ] || fail "which level needs a matrix"
[ "$(value weights_bytes 2)" -gt $((with / 2)) ] || fail "no size of the level that needs a matrix"
run 0 fit "$demo" --memory 20MiB --types IQ2_XXS
says "IQ2_XXS: needs an importance matrix"
run 0 ladder "$demo" --types Q4_K_M,IQ2_XXS,Q2_K --text "$src/LICENSE" --ctx 64 --chunks 2 --json
says "IQ2_XXS: left out, since it needs an importance matrix"
[ "$(grep -c '"type": "Q' "$work/out")" -eq 2 ] || fail "not the two other levels"
run 1 ladder "$demo" --types IQ2_XXS --text "$src/LICENSE" --ctx 64 --chunks 2
says "which needs an importance matrix"
run 1 ladder "$demo" --types IQ2_XXS,IQ1_S --text "$src/LICENSE" --ctx 64 --chunks 2
says "--types IQ2_XXS,IQ1_S: every level needs an importance matrix"

# Wrong usage, and what is no model.
run 2 fit "$demo"
says "--memory is missing"
run 2 fit "$demo" --memory 16EiB
says "--memory: '16EiB' is too large"
run 2 fit "$demo" --memory 16XiB
says "expected a size"
run 2 fit "$demo" --memory 8GiB --types Q4_KK
says "--types"
run 0 fit "$demo" --memory 8GiB --ctx 512 --kv-type q5_1,q4_0 --json
[ "$(value kv_bytes)" -eq $((4 * 2 * 64 / 32 * (24 + 18) * 512)) ] || fail "keys of 24 bytes, values of 18"
[ "$(value kv_bytes_saved)" -eq $((4 * 2 * 2 * 64 * 512 * 2 - $(value kv_bytes))) ] || fail "what the cache saves"
run 0 fit "$demo" --memory 8GiB --ctx 512 --kv-type q8_0
prints "less than f16"
run 2 fit "$demo" --memory 8GiB --kv-type q5_K
says "--kv-type 'q5_K': expected a type, or two with a comma between, of f32|f16"
run 2 fit "$demo" --memory 8GiB --kv-type q8_0,
says "--kv-type 'q8_0,'"
run 2 fit "$demo" --memory 8GiB --ctx 0
run 1 fit "$work/nothing" --memory 8GiB
says "no such file or folder"
run 1 fit "$src/tests/data/demo-qwen3/tokenizer.json" --memory 8GiB
run 0 fit --help
[ "$(grep -c -e "--memory SIZE" "$work/out")" -eq 2 ] || fail "--memory stands in the help more than in usage and options"

# What is planned is no file: no model's name is in its way.
run 0 convert "$demo" -o "$work/(dry run)" --type Q8_0
(cd "$work" && "$kerf" fit "(dry run)" --memory 64MiB >"$work/out" 2>"$work/err") || fail "a model named (dry run)"

done_testing
