#!/bin/sh
# A stored reference: a comparison with it is the direct one, and a wrong one is refused.
. "$(dirname "$0")/lib.sh"

text=$work/text.txt
ref=$work/demo.kerf-ref
cat "$src/LICENSE" "$src/tests/golden/README.md" >"$text"
value() { sed -n "s/^ *\"$1\": \([^,]*\),*$/\1/p" "$work/out" | sed -n "$2p"; }
# figures FILE: what has to be equal to the bit, without times and sketched divergences
figures() { grep -E '"(perplexity|nll_mean|ppl_ratio|ppl_ratio_stderr|top1_agreement|delta_p_mean|delta_p_rms|n_tokens_scored|ids_sha256|sha256|n_tokens|n_bytes|bits_per_weight)":' "$work/out" >"$1"; }

run 0 quantize "$demo" -o "$work/q4.gguf" --type Q4_K_M
run 0 quantize "$demo" -o "$work/q2.gguf" --type Q2_K
run 0 compare "$demo" "$work/q4.gguf" "$work/q2.gguf" --text "$text" --ctx 128 --save-reference "$ref" --json
json
figures "$work/direct"
prints "\"saved_reference\": \"$ref\""
kld=$(value kld_mean 1)
absent "$ref.kerf-part"

# The same figures, without the reference, without the text; with the text as well.
run 0 compare --reference "$ref" "$work/q4.gguf" "$work/q2.gguf" --json
json
figures "$work/stored"
same "$work/direct" "$work/stored"
awk -v a="$kld" -v b="$(value kld_mean 1)" 'BEGIN { d = a / b - 1; exit !(d < 0.001 && d > -0.001) }' ||
    fail "mean KLD $(value kld_mean 1), directly $kld"
prints "\"stored_reference\": \"$ref\""
prints "\"model\": \"$demo\""
run 0 compare --reference "$ref" "$work/q4.gguf" --text "$text" --ctx 128
prints "stored in   $ref"
run 0 compare --reference "$ref" "$work/q4.gguf" --chunks 2 --json --html "$work/page.html" --threads 1 --memory 32MiB
[ "$(value n_chunks 1)" = 2 ] || fail "--chunks"
run 3 compare --reference "$ref" "$work/q2.gguf" --max-kld 0.0001
run 0 compare --reference "$ref" "$work/q2.gguf" --dry-run
prints "through 1 model,"

# Without candidates it is only stored, and the bytes are the same whatever the threads and the memory.
run 0 compare "$demo" --text "$text" --ctx 128 --save-reference "$work/again.ref" --threads 1 --memory 64MiB
same "$ref" "$work/again.ref"
run 0 compare "$demo" --text "$text" --ctx 128 --save-reference "$work/dry.ref" --dry-run
prints "would write $work/dry.ref"
absent "$work/dry.ref"

# What is refused.
run 2 compare "$demo" --text "$text"
says "expected a reference and at least one candidate"
run 2 compare --reference "$ref" Q4_K_M
says "a stored reference does not have"
run 2 compare --reference "$ref" "$demo" --save-reference "$work/x"
says "exclude each other"
run 1 compare "$demo" --text "$text" --ctx 128 --save-reference "$ref"
says "--force"
run 1 compare --reference "$work/q4.gguf" "$demo"
says "not a stored reference"
run 1 compare --reference "$ref" "$work/q4.gguf" --ctx 256
says "windows of 128 tokens, and --ctx asks for 256"
run 1 compare --reference "$ref" "$work/q4.gguf" --stride 16 --ctx 128
says "--stride asks for 16"
run 1 compare --reference "$ref" "$work/q4.gguf" --activations q8
says "was made with activations f32, and --activations asks for q8"
run 1 compare --reference "$ref" "$work/q4.gguf" --ctx 512 # the default is meant when it is said
says "--ctx asks for 512"
run 1 compare --reference "$ref" "$work/q4.gguf" --jsonl text
says "--jsonl: says what is in a --text"
run 1 compare --reference "$ref" "$work/q4.gguf" --parse-special
says "--parse-special: says what is in a --text"
# The same tokens in other texts are other figures by text
awk 'BEGIN { for (i = 0; i < 256; i++) printf " the" }' >"$work/half.txt"
cat "$work/half.txt" "$work/half.txt" >"$work/whole.txt"
cp "$work/half.txt" "$work/other.txt"
run 0 compare "$demo" --text "$work/half.txt" --text "$work/other.txt" --ctx 64 --save-reference "$work/halves.ref"
run 0 compare --reference "$work/halves.ref" "$work/q4.gguf" --text "$work/half.txt" --text "$work/other.txt"
run 1 compare --reference "$work/halves.ref" "$work/q4.gguf" --text "$work/whole.txt"
says "was made of these tokens in other texts: window 5 is of text 2 there, and of text 1 here"
run 0 compare --reference "$work/halves.ref" "$work/q4.gguf" --text "$work/whole.txt" --chunks 4 # the first text alone
# What the reference was made with holds without being asked for, and is said
run 0 compare "$demo" --text "$text" --ctx 64 --chunks 2 --by-position --save-reference "$work/by.ref"
run 0 compare --reference "$work/by.ref" "$work/q4.gguf" --by-position
! grep -q "holds here, too" "$work/err" || fail "what was asked for is no news"
run 0 compare --reference "$work/by.ref" "$work/q4.gguf"
says "by.ref: was made with --by-position, which holds here, too"
# What the first version wrote is read; it does not know which text a window is from.
old=$src/tests/data/version-1.kerf-ref
run 0 compare --reference "$old" "$demo" --text "$src/tests/data/prose.md" --max-kld 1e-5
prints "2 of 8 tokens, 3 scored in each"
run 1 compare --reference "$old" "$demo" --weights 1
says "was made by a version that did not keep which text a token is from"
run 1 compare --reference "$old" "$demo" --by-position
says "was made without --by-position"
for how in "--imatrix $work/q4.gguf" --allow-requantize --no-fallback; do
    run 2 compare --reference "$ref" "$work/q4.gguf" $how
    says "${how%% *}: is for types and mixes"
done
run 0 compare "$demo" --text "$text" --ctx 64 --chunks 2 --activations q8 --save-reference "$work/q8.ref"
run 1 compare --reference "$work/q8.ref" "$work/q4.gguf" --activations f32
says "was made with activations q8, and --activations asks for f32"
run 0 compare --reference "$work/q8.ref" "$work/q4.gguf" --activations q8 --ctx 64
run 1 compare --reference "$ref" "$work/q4.gguf" --text "$src/README.md"
says "was made of other tokens than this text gives"
run 1 compare --reference "$ref" "$work/q4.gguf" --html "$ref" --force
says "inputs are never replaced"
same "$ref" "$work/again.ref"
cp -r "$demo" "$work/other" # one token has another text
sed -i 's/<|im_end|>/<|im_done|>/g' "$work/other"/tokenizer*.json
run 1 compare --reference "$ref" "$work/other"
says "its tokens are not those of the reference"
head -c 100000 "$ref" >"$work/cut.ref"
run 1 compare --reference "$work/cut.ref" "$work/q4.gguf"
says "cut.ref"
cp "$ref" "$work/bad.ref"
printf 'x' | dd of="$work/bad.ref" bs=1 seek=60000 conv=notrunc 2>/dev/null
run 1 compare --reference "$work/bad.ref" "$work/q4.gguf"
says "bad.ref"

done_testing
