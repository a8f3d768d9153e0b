#!/bin/sh
# LoRA adapters: merged while converting, and written as adapter files.
. "$(dirname "$0")/lib.sh"

"$bin/make_adapter" patterns "$work/lora" "$work/base" || fail "make_adapter"
"$bin/make_adapter" dora "$work/dora" || fail "make_adapter"

# Merged straight to a type: the bytes of merging first and quantizing then, whatever threads, memory, instructions.
run 0 convert "$work/base" --lora "$work/lora" -o "$work/f32.gguf" --type F32
run 0 convert "$work/base" --lora "$work/lora" -o "$work/a.gguf" --type Q4_K_M
run 0 convert "$work/base" --lora "$work/lora" -o "$work/b.gguf" --type Q4_K_M --threads 1 --memory 64MiB --isa ref
same "$work/a.gguf" "$work/b.gguf"
run 0 quantize "$work/f32.gguf" -o "$work/c.gguf" --type Q4_K_M
run 0 diff "$work/a.gguf" "$work/c.gguf" --exit-code
run 0 verify "$work/a.gguf"
run 0 inspect "$work/a.gguf"
prints "kerf.lora.0.sha256"

# auto keeps the precision of the base; another scale is another file; 0 adds nothing.
run 0 convert "$work/base" --lora "$work/lora=0.5" -o "$work/half.gguf" --json
json
prints '"scale": 0.5'
prints '"n_changed": 12'
prints '"type": "BF16"'
run 0 convert "$work/base" -o "$work/base.gguf"
run 0 convert "$work/base" --lora "$work/lora=0" -o "$work/zero.gguf" --type BF16
run 3 diff "$work/half.gguf" "$work/base.gguf" --exit-code
[ "$("$kerf" hash "$work/zero.gguf" --json | sed -n '/"tensors"/,$p')" = \
    "$("$kerf" hash "$work/base.gguf" --json | sed -n '/"tensors"/,$p')" ] || fail "scale 0 changed a weight"

# A finished output of another adapter is not taken for this one's.
run 1 convert "$work/base" --lora "$work/lora" -o "$work/half.gguf" --resume
run 0 convert "$work/base" --lora "$work/lora=0.5" -o "$work/half.gguf" --resume
says "is finished already"

# As an adapter file, which goes onto the GGUF file of the base and gives the same weights.
run 0 convert "$work/lora" --base "$work/base" -o "$work/lora.gguf"
run 0 inspect "$work/lora.gguf"
prints "adapter.lora.alpha"
prints "blk.0.attn_q.weight.lora_a"
run 0 convert "$work/base" -o "$work/base32.gguf" --type F32
run 0 convert "$work/base32.gguf" --lora "$work/lora.gguf" -o "$work/merged.gguf"
run 3 diff "$work/merged.gguf" "$work/f32.gguf" --exit-code
prints "21 of 21 tensors are the same, 2 metadata keys differ"
run 0 convert "$work/lora" --base "$work/base/config.json" -o "$work/lora16.gguf" --type F16
prints "F16"

# In Q8_0 the rows of the rank stay F16 where they are less than a block; so does the reference converter.
run 0 convert "$work/lora" --base "$work/base" -o "$work/lora8.gguf" --type Q8_0 --json
json
prints '"code": "type-fallback"'
prints '"type": "Q8_0"'
run 0 inspect "$work/lora8.gguf"
prints "blk.0.attn_q.weight.lora_a         Q8_0"
prints "blk.0.attn_q.weight.lora_b         F16"
! grep -q "kerf.recipe" "$work/out" || fail "an adapter file with the recipe of a mix"
run 1 convert "$work/lora" --base "$work/base" -o "$work/x.gguf" --type Q8_0 --no-fallback
says "rows are not a multiple of 32"
run 0 convert "$work/base32.gguf" --lora "$work/lora8.gguf" -o "$work/merged8.gguf"
run 0 compare "$work/merged.gguf" "$work/merged8.gguf" --text "$src/README.md" --ctx 32 --chunks 2 --max-kld 1e-3

# As a candidate: the model with the adapter, by whatever way, is the merged file; scales and sums of several.
for candidate in "$work/base+$work/lora" "$work/base32.gguf+$work/lora.gguf" \
    "$work/base+$work/lora=0.25+$work/lora.gguf=0.75"; do
    run 0 compare "$work/f32.gguf" "$candidate" --text "$src/README.md" --ctx 32 --chunks 2 --max-kld 1e-9
    prints "${candidate#"$work/"}"
done
run 3 compare "$work/base" "$work/base+$work/lora" --text "$src/README.md" --ctx 32 --chunks 2 --max-kld 1e-3
run 0 perplexity "$work/base+$work/lora" --text "$src/README.md" --ctx 32 --chunks 2
# What --resume keeps of one sum is no other's.
kept() { run 0 perplexity "$1" --text "$src/README.md" --ctx 32 --chunks 2 --resume --state "$work/kept"; }
for model in "$work/base" "$work/base+$work/lora" "$work/base+$work/lora=0.5"; do
    kept "$model"
    says "nothing to resume; started from the beginning"
done
kept "$work/base+$work/lora"
says "1 of 1 measurement taken from "
# Nor is what it keeps of a file that of another one of this name, size and time.
mkdir "$work/one" "$work/two"
run 0 convert "$work/base" --lora "$work/lora" -o "$work/one/m.gguf" --type F32
run 0 convert "$work/base" --lora "$work/lora=0.5" -o "$work/two/m.gguf" --type F32
touch -r "$work/one/m.gguf" "$work/two/m.gguf"
[ "$(wc -c <"$work/one/m.gguf")" -eq "$(wc -c <"$work/two/m.gguf")" ] || fail "two files of one size"
for model in "$work/one/m.gguf" "$work/two/m.gguf"; do
    kept "$model"
    says "nothing to resume; started from the beginning"
done
# No output replaces a part of a sum.
for output in "$work/base32.gguf" "$work/lora.gguf" "$work/lora/adapter_config.json"; do
    cp "$output" "$work/before"
    run 1 compare "$work/base" "$work/base32.gguf+$work/lora.gguf" "$work/base+$work/lora" --text "$src/README.md" \
        --ctx 32 --chunks 2 --html "$output" --force
    same "$output" "$work/before"
done
# Whatever runs a model runs a sum, and gives what it gives for the merged file.
text="--text $src/README.md --ctx 32 --chunks 4"
for model in "$work/f32.gguf" "$work/base32.gguf+$work/lora.gguf"; do
    run 0 imatrix "$model" $text -o "$work/sum.imatrix.gguf" --force
    run 0 imatrix show "$work/sum.imatrix.gguf" --json
    sed -n '/"entries": \[/,$p' "$work/out" >"$work/entries.$(basename "$model")"
    run 0 hessian "$model" $text -o "$work/sum.hessian.gguf" --force
    run 0 ladder "$model" $text --types Q8_0,Q4_0 --json
    grep '"mean_kld"' "$work/out" >"$work/kld.$(basename "$model")"
    run 0 score "$model" --task "$src/tests/data/tasks/small.jsonl" --limit 2
    run 0 allocate "$model" $text --target-size 500KiB -o "$work/sum.plan" --force
done
same "$work/entries.f32.gguf" "$work/entries.lora.gguf"
same "$work/kld.f32.gguf" "$work/kld.lora.gguf"
run 1 imatrix "$work/base32.gguf+$work/lora.gguf" $text -o "$work/lora.gguf" --force
# The matrix belongs to the sum, not to its base.
run 0 imatrix "$work/base+$work/lora" $text -o "$work/sum.imatrix.gguf" --force
run 0 convert "$work/base" --lora "$work/lora" --imatrix "$work/sum.imatrix.gguf" --type Q4_K_M -o "$work/x.gguf"
! grep -q "another model" "$work/err" || fail "the importance matrix of a sum is not taken for its own"
run 0 convert "$work/base" --imatrix "$work/sum.imatrix.gguf" --type Q4_K_M -o "$work/x.gguf" --force
says "another model"
rm "$work/x.gguf"
run 1 compare "$work/base" "$work/base+$work/none" --text "$src/README.md"
says "none"
run 1 compare "$work/base" "$work/base+$work/lora=much" --text "$src/README.md"
says "'much' is not a number"

# Refusals.
run 1 convert "$work/lora" -o "$work/x.gguf"
says "--base BASE"
run 2 convert "$work/lora" --base "$work/base" -o "$work/x.gguf" --type Q4_K_M
says "an adapter file is written in F32, F16, BF16 or Q8_0"
run 2 convert "$work/lora" --base "$work/base" -o "$work/x.gguf" --lora "$work/dora"
for option in "--tensor-type .=Q8_0" "--output-type Q8_0" "--embedding-type Q8_0" --pure --leave-output; do
    run 2 convert "$work/lora" --base "$work/base" -o "$work/x.gguf" --type F16 $option
    says "${option%% *}: is about the tensors of a model"
done
absent "$work/x.gguf"
run 1 convert "$work/dora" --base "$work/base" -o "$work/x.gguf"
says "DoRA, whose magnitudes an adapter file cannot hold"
run 1 convert "$work/lora" --base "$work/base.gguf" -o "$work/x.gguf"
says "not a GGUF file"
run 1 convert "$work/base" --lora "$work/lora=much" -o "$work/x.gguf"
says "'much' is not a number"
run 1 convert "$work/base.gguf" --lora "$work/lora" -o "$work/x.gguf"
says "--base CHECKPOINT -o lora.gguf"
run 1 convert "$work/base" --lora "$work/base.gguf" -o "$work/x.gguf"
says "expected 'adapter'"
run 0 quantize "$work/base32.gguf" -o "$work/q8.gguf" --type Q8_0
run 1 convert "$work/q8.gguf" --lora "$work/lora.gguf" -o "$work/x.gguf"
says "already quantized (Q8_0)"
absent "$work/x.gguf"
run 1 convert "$work/base" --lora "$work/lora" -o "$work/lora/adapter_model.safetensors" --force
[ -s "$work/lora/adapter_model.safetensors" ] || fail "an adapter was replaced"
done_testing
