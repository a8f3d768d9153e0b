#!/bin/sh
# kerf convert and kerf quantize: the main use, and that nothing is harmed when it fails.
. "$(dirname "$0")/lib.sh"

out=$work/out.gguf
run 0 convert "$demo" -o "$out"
prints "BF16"
run 0 verify "$out"
prints "valid: 46 tensors"

# An existing output stays as it is without --force.
cp "$out" "$work/before"
run 1 convert "$demo" -o "$out" --type Q8_0
says "exists already; use --force"
same "$out" "$work/before"
run 0 convert "$demo" -o "$out" --type Q8_0 --force
prints "Q8_0"

# The same bytes from the checkpoint and from its conversion, whatever threads, memory and instruction set.
cp "$work/before" "$work/bf16.gguf"
run 0 quantize "$work/bf16.gguf" -o "$work/a.gguf" --type Q4_K_M
run 0 quantize "$work/bf16.gguf" -o "$work/b.gguf" --type q4_k_m --threads 1 --memory 64MiB --isa ref
run 0 convert "$demo" -o "$work/c.gguf" --type=Q4_K_M --threads=3
same "$work/a.gguf" "$work/b.gguf"
run 0 diff "$work/a.gguf" "$work/c.gguf" --exit-code
run 3 diff "$work/a.gguf" "$work/bf16.gguf" --exit-code
prints "rmse"

# An input is never replaced, whatever name it is given, nor the file of an option.
cp "$work/bf16.gguf" "$work/same.gguf"
ln -s same.gguf "$work/soft.gguf"
ln "$work/same.gguf" "$work/hard.gguf"
for name in same soft hard; do
    run 1 quantize "$work/same.gguf" -o "$work/$name.gguf" --type Q4_K_M --force
    says "inputs are never replaced"
done
same "$work/same.gguf" "$work/bf16.gguf"
echo "attn_v Q6_K" >"$work/plan"
run 1 quantize "$work/same.gguf" -o "$work/plan" --plan "$work/plan" --force
says "inputs are never replaced"
cp -r "$demo" "$work/ckpt"
chmod -R u+w "$work/ckpt"
run 1 convert "$work/ckpt" -o "$work/ckpt/model.safetensors" --force
says "inputs are never replaced"
run 1 convert "$work/ckpt" -o "$work/ckpt/model-00001-of-00001.safetensors"
says "belongs to the checkpoint"
run 0 convert "$work/ckpt" -o "$work/ckpt/out.gguf"
cp "$work/ckpt/out.gguf" "$work/want.gguf"
run 0 convert "$work/ckpt" -o "$work/ckpt/out.gguf" --force
same "$work/ckpt/out.gguf" "$work/want.gguf"

# --resume of a finished output: there is nothing left to do.
run 0 convert "$work/ckpt" -o "$work/ckpt/out.gguf" --resume --json
json
says "is finished already"
run 1 convert "$work/ckpt" -o "$work/ckpt/out.gguf" --resume --type Q8_0
says "not what this run would write"

# The same of a checkpoint of that folder's name, of that shape, and older, but with other weights.
mkdir "$work/twin"
cp -r "$demo" "$work/twin/ckpt"
chmod -R u+w "$work/twin/ckpt"
size=$(wc -c <"$work/twin/ckpt/model.safetensors")
dd if=/dev/zero of="$work/twin/ckpt/model.safetensors" bs=1 seek=$((size - 64)) count=64 conv=notrunc 2>/dev/null
run 0 convert "$work/ckpt" -o "$work/twin/out.gguf"
run 0 convert "$work/ckpt" -o "$work/twin/out.gguf" --resume
says "is finished already"
run 1 convert "$work/twin/ckpt" -o "$work/twin/out.gguf" --resume
says "not what this run would write"
touch "$work/ckpt/config.json"
run 1 convert "$work/ckpt" -o "$work/ckpt/out.gguf" --resume
says "has a later time of change"
same "$work/ckpt/out.gguf" "$work/want.gguf"

# A quantized source changes type only on request; a copy needs none.
run 1 quantize "$work/a.gguf" -o "$work/d.gguf" --type Q3_K_M
says "already quantized"
absent "$work/d.gguf"
run 0 quantize "$work/a.gguf" -o "$work/d.gguf" --type Q3_K_M --allow-requantize
run 0 convert "$work/a.gguf" -o "$work/e.gguf"
run 0 diff "$work/a.gguf" "$work/e.gguf" --exit-code

# Types by option; a dry run writes nothing.
run 0 convert "$demo" -o "$work/f.gguf" --type Q4_K_M --tensor-type 'attn_v=Q8_0' --embedding-type Q5_K --json
json
prints '"type": "Q5_K"'
run 0 convert "$demo" --type Q2_K --dry-run
prints "would be Q2_K"
run 0 convert "$demo" -o "$work/g.gguf" --type Q2_K --dry-run --json
json
prints '"rmse": null'
absent "$work/g.gguf"
cp "$work/out" "$work/planned"

# The same plan without weights: from the configuration and the tokenizer alone (what was seconds may differ).
mkdir "$work/bare"
cp "$demo"/*.json "$work/bare"
rm -f "$work/bare"/*.index.json
run 0 convert "$work/bare" -o "$work/g.gguf" --type Q2_K --dry-run --json
json
says "neither weights nor an index"
tensors() { sed -n '/"tensors"/,/"warnings"/p' "$1" | grep -v warnings | tr -d ' ,\n' | sed 's/}{/}\n{/g' | sort; }
tensors "$work/planned" >"$work/planned.tensors"
tensors "$work/out" >"$work/bare.tensors"
grep -q blk.3.ffn_down.weight "$work/bare.tensors" || fail "no tensors are listed"
same "$work/planned.tensors" "$work/bare.tensors"
run 0 convert "$work/bare/config.json" --type Q2_K --dry-run
says "no vocabulary"
prints "would be Q2_K"
run 1 convert "$work/bare" -o "$work/g.gguf"
says "found neither"
# Without a vocabulary only on request, and then as llama.cpp loads it; a plan does without.
mkdir "$work/mute"
cp "$demo"/config.json "$demo"/*.safetensors* "$work/mute"
run 1 convert "$work/mute" -o "$work/g.gguf" --json
json
prints "no vocabulary: none of tokenizer.json"
prints "--no-vocab"
absent "$work/g.gguf"
run 0 convert "$work/mute" --dry-run
says "has no vocabulary"
run 0 inspect "$work/mute"
run 0 fit "$work/mute" --memory 1GiB
run 0 convert "$work/mute" -o "$work/mute.gguf" --no-vocab
run 0 inspect "$work/mute.gguf"
grep -qE 'tokenizer.ggml.model +string +none' "$work/out" || fail "the file does not say that it has no vocabulary"
grep -qE 'qwen3.vocab_size +u32 +4096' "$work/out" || fail "the number of token ids is missing"
run 0 verify "$work/mute.gguf"
echo '[1, 5, 9, 300, 17, 4, 88, 2]' >"$work/ids.json"
run 0 perplexity "$work/mute.gguf" --ids "$work/ids.json"
run 1 tokenize "$work/mute.gguf" "$src/tests/data/prose.md"
says "without a vocabulary"
! grep -q -e --ids "$work/err" || fail "an option that tokenize does not take"
run 1 perplexity "$work/mute.gguf" --text "$src/tests/data/prose.md"
says "without a vocabulary; --ids FILE takes token ids in place of a text"
run 1 quantize "$work/mute.gguf" -o "$work/g.gguf" --type Q8_0 --no-vocab
says "--no-vocab is for checkpoints"
run 0 quantize "$work/mute.gguf" -o "$work/mute8.gguf" --type Q8_0
# A tokenizer that cannot be read has the same way out, and one that can is left out as well.
sed 's/"type": *"BPE"/"type": "Unigram"/' "$demo/tokenizer.json" >"$work/mute/tokenizer.json"
run 1 convert "$work/mute" -o "$work/g.gguf"
says "only BPE is supported; or leave the vocabulary out with --no-vocab"
run 0 convert "$work/mute" -o "$work/mute2.gguf" --no-vocab
run 0 diff "$work/mute.gguf" "$work/mute2.gguf" --exit-code
absent "$work/g.gguf"
run 1 convert "$demo" -o "$work/g.gguf" --type IQ1_S
says "becomes IQ1_S, which needs an importance matrix (--imatrix)"
run 0 convert "$demo" -o "$work/iq3_s.gguf" --type IQ3_S # does without
run 0 verify "$work/iq3_s.gguf"
run 0 convert "$demo" -o "$work/iq3_s1.gguf" --type IQ3_S --threads 1 --isa ref
cmp "$work/iq3_s.gguf" "$work/iq3_s1.gguf" || fail "the bytes of a code book depend on threads or kernels"
absent "$work/g.gguf"

# A plan beside --type: its lines win, an override wins over both; a plan that decides most is what the file is called.
printf 'blk\\.0\\.ffn_.* Q5_K\n' >"$work/few.plan"
printf '.*weight Q4_K\n' >"$work/most.plan"
run 0 quantize "$demo" -o "$work/p.gguf" --type Q8_0 --plan "$work/few.plan" --tensor-type ffn_up=Q6_K
run 0 inspect "$work/p.gguf"
prints ", Q8_0 (with a plan), 46 tensors"
prints "kerf.plan.sha256"
grep -qE 'blk.0.ffn_gate.weight +Q5_K' "$work/out" || fail "the line of the plan does not win over --type"
grep -qE 'blk.0.ffn_up.weight +Q6_K' "$work/out" || fail "--tensor-type does not win over the plan"
grep -qE 'blk.1.ffn_gate.weight +Q8_0' "$work/out" || fail "--type is not for the tensors without a line"
run 0 quantize "$demo" --dry-run --type Q8_0 --plan "$work/most.plan"
prints "would be plan, "
run 0 convert "$demo" --dry-run --type MXFP4_MOE
says "no tensor of this model becomes MXFP4"

# Every key that scripts rely on.
run 0 convert "$demo" -o "$work/h.gguf" --json
json
for key in output type n_bytes n_parameters bits_per_weight seconds peak_rss_bytes tensors warnings name source_type \
    shape rmse; do
    prints "\"$key\": "
done

# A split set: parts of bounded size, and the same tensors.
run 0 convert "$demo" -o "$work/s.gguf" --split-max-size 3MiB
[ -e "$work/s-00001-of-00003.gguf" ] && [ -e "$work/s-00003-of-00003.gguf" ] || fail "parts are missing"
run 0 diff "$work/s-00001-of-00003.gguf" "$work/bf16.gguf" --exit-code

run 0 diff "$work/a.gguf" "$work/bf16.gguf" --json
json
for key in same metadata tensors status rmse; do
    prints "\"$key\": "
done

# Failures: usage is 2, everything else 1, and nothing is left behind.
run 2 convert "$demo"
says "--output FILE is required"
run 2 quantize "$demo" -o "$work/x.gguf"
says "--type is missing"
run 2 quantize "$demo" -o "$work/x.gguf" --type Q4_KM
says "did you mean Q4_K"
run 2 quantize "$demo" -o "$work/x.gguf" --type Q4_KX
says "unknown type or mix 'Q4_KX'; did you mean Q4_K_M?"
! grep -q IQ1_S "$work/err" || fail "a near match, and a wall of names beside it"
for pair in Q4:Q4_K_M q8:Q8_0 int4:Q4_K_M Q5:Q5_K_M 4bit:Q4_K_M Q3_K_XL:Q3_K_L IQ4:IQ4_NL; do
    run 2 quantize "$demo" -o "$work/x.gguf" --type "${pair%:*}"
    says "unknown type or mix '${pair%:*}'; did you mean ${pair#*:}?"
done
run 2 quantize "$demo" -o "$work/x.gguf" --type UD-Q4_K_XL
says "which kerf best and kerf allocate do by measurement; did you mean the standard mix Q4_K_M?"
run 2 quantize "$demo" -o "$work/x.gguf" --type Q4_K_M,Q3_K_M
says "'Q4_K_M,Q3_K_M' is a list; give one type or mix"
run 2 quantize "$demo" -o "$work/x.gguf" --type nothing
says "unknown type or mix 'nothing'; there are: "
says "IQ4_XS"
says "IQ2_XXS"
says "TQ1_0"
run 2 convert "$demo" -o "$work/x.gguf" --type COPY
says "COPY, as llama-quantize calls it, is --type auto"
run 0 convert "$demo" -o "$work/x.gguf" --dry-run --type ' Q4_K_M ' --output-type 'q6_k '
prints "x.gguf: would be Q4_K_M,"
run 0 convert "$demo" -o "$work/x.gguf" --dry-run --type AUTO
prints "x.gguf: would be BF16,"
run 2 quantize "$demo" -o "$work/x.gguf" --type Q8_0 --tensor-type attn=FOO
says "unknown tensor type 'FOO'; there are: "
says "NVFP4"
run 2 convert "$demo" -o "$work/x.gguf" --tpye Q8_0
says "did you mean --type?"
run 2 convert "$demo" -o "$work/x.gguf" --memory lots
says "expected a size"
run 2 convert "$demo" -o "$work/x.gguf" --threads
says "needs a value"
run 2 convert "$demo" -o "$work/x.gguf" --tensor-type attn_v
says "expected REGEX=TYPE"
run 1 convert "$work/missing" -o "$work/x.gguf"
run 1 convert "$demo" -o "$work/no/such/folder/x.gguf"
says "folder '$work/no/such/folder'"
run 2 convert "$demo" -o "$work/x.gguf" --isa z80
says "not supported by this CPU"
absent "$work/x.gguf"

# --verbose says more on standard error, and nothing else on standard output.
run 0 quantize "$work/bf16.gguf" -o "$work/plain.gguf" --type Q8_0
grep -v '^/' "$work/out" >"$work/brief" # but for the line with the time
run 0 quantize "$work/bf16.gguf" -o "$work/plain.gguf" --type Q8_0 --verbose --force
says "blk.0.attn_k.weight"
grep -v '^/' "$work/out" >"$work/verbose"
same "$work/brief" "$work/verbose"
run 0 quantize "$work/bf16.gguf" -o "$work/plain.gguf" --type Q8_0 --verbose --force --json
json
says "blk.0.attn_k.weight"
run 0 quantize "$work/bf16.gguf" -o "$work/plain2.gguf" --type Q8_0 --dry-run
prints "blk.0.attn_k.weight"

# --skip-tensor leaves a tensor out, and says so in the report and in JSON; the rest of a model is needed.
run 0 convert "$demo" -o "$work/skip.gguf" --skip-tensor '^nothing\.' --json
json
says "fits no tensor"
run 1 convert "$demo" -o "$work/skip2.gguf" --skip-tensor 'q_norm'
says "4 expected tensors are missing"
run 1 convert "$work/bf16.gguf" -o "$work/skip2.gguf" --skip-tensor 'x' --type Q8_0
says "--skip-tensor is for checkpoints"
done_testing
