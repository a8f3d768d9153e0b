#!/bin/sh
# What is refused before any work: values outside their range, files that are not what a command takes, places where
# nothing can be written. Wrong usage is 2, everything else 1.
. "$(dirname "$0")/lib.sh"

text=$src/LICENSE
run 0 convert "$demo" -o "$work/m.gguf" --type Q8_0
run 0 imatrix "$demo" --text "$text" --ctx 64 --chunks 2 -o "$work/im.gguf"

# usage TEXT ARGS...: exit 2, and the message holds the text.
usage()
{
    expected=$1
    shift
    run 2 "$@"
    says "$expected"
}

# Numbers say what they may be.
usage "--threads: expected a whole number from 1 to 1024, found '0'" inspect "$demo" --threads 0
usage "found '1025'" convert "$demo" --dry-run --threads 1025
usage "--memory: expected a size of at least 1MiB" convert "$demo" --dry-run --memory 1
usage "expected a whole number from 2 to 16777216, found '-1'" perplexity "$demo" --text "$text" --ctx -1
usage "--chunks: expected a whole number of at least 1" perplexity "$demo" --text "$text" --chunks 0
usage "--stride: expected" perplexity "$demo" --text "$text" --stride 0
usage "--max-tensors: expected" split "$work/m.gguf" -o "$work/p" --max-tensors 0
usage "--save-every: expected" imatrix "$demo" --text "$text" -o "$work/x.gguf" --save-every 0
usage "--expert-prior: expected a whole number from 0 to 4294967295" imatrix merge "$work/im.gguf" \
    -o "$work/x.gguf" --expert-prior 4294967296

# Gates that nothing can meet.
for gate in "--min-top1 2" "--min-top1 -0.1" "--max-ppl-ratio -1" "--max-ppl-ratio 0" "--max-kld -1" "--max-kld nan"; do
    # shellcheck disable=SC2086 # an option and its value
    usage "${gate%% *}: expected a number" compare "$demo" "$work/m.gguf" --text "$text" $gate
done

# Values that cannot be right.
usage "not supported by this CPU; it has" inspect "$demo" --isa bogus
usage "missing closing parenthesis" convert "$demo" --dry-run --tensor-type 'attn_(q=Q4_K'
usage "missing closing parenthesis" allocate "$demo" --text "$text" --target-bpw 4 -o "$work/x" --fix 'attn_(q=Q4_K'
usage "found 'foo'" edit "$work/m.gguf" -o "$work/x.gguf" --set foo
usage "expected a u8, found '300'" edit "$work/m.gguf" -o "$work/x.gguf" --set x:u8=300
usage "--tensor-type 'ffn_(up|gate|down)=MXFP4'" convert "$demo" --dry-run --type MXFP4
usage "MXFP4_MOE" convert "$demo" --dry-run --type mxfp4
usage "is a type for single tensors" convert "$demo" --dry-run --type NVFP4
usage "read, but not written" convert "$demo" --dry-run --tensor-type attn_q=IQ1_S

# Files of another kind.
run 1 inspect "$src/README.md"
says "none of the kinds that are known here"
says "safetensors"
for command in hash "edit -o $work/x.gguf --set a=b" "split -o $work/x --max-size 1GiB" "merge -o $work/x.gguf"; do
    # shellcheck disable=SC2086 # a command and its options
    run 1 $command "$demo"
    says "kerf convert $demo -o"
done
for command in "perplexity --text $text" "convert -o $work/x.gguf" "quantize --type Q8_0 -o $work/x.gguf" \
    "diff $demo"; do
    # shellcheck disable=SC2086
    run 1 $command "$work/im.gguf"
    says "is an importance matrix"
done

run 3 verify "$work/im.gguf" --json
json
prints '"findings": ["is an importance matrix'
prints '"n_tensors": null'
prints '"n_bytes": null'

# Keys that a model cannot be used without: kept by edit, missed by verify.
for key in general.architecture qwen3.block_count qwen3.context_length qwen3.attention.layer_norm_rms_epsilon \
    tokenizer.ggml.tokens; do
    run 1 edit "$work/m.gguf" -o "$work/x.gguf" --remove "$key"
    says "'$key'; add --force"
    absent "$work/x.gguf"
    run 0 edit "$work/m.gguf" -o "$work/without.gguf" --remove "$key" --force
    run 3 verify "$work/without.gguf"
    prints "key '$key' is missing"
done
run 0 edit "$work/m.gguf" -o "$work/without.gguf" --remove general.name --force
run 0 verify "$work/without.gguf"
head -c 2000 "$work/m.gguf" >"$work/cut.gguf"
run 3 verify "$work/cut.gguf"
[ "$(grep -o 'cut.gguf' "$work/out" | wc -l)" -eq "$(wc -l <"$work/out")" ] || fail "the name of the file stands twice"

# A folder that is not there, or takes nothing, is named before the work.
for command in "convert $demo" "quantize $demo --type Q8_0" "edit $work/m.gguf --set a=b" "merge $work/m.gguf" \
    "split $work/m.gguf --max-tensors 40" "imatrix merge $work/im.gguf" "imatrix $demo --text $text --ctx 64"; do
    # shellcheck disable=SC2086
    run 1 $command -o "$work/no/folder/x.gguf"
    says "folder '$work/no/folder'"
done
for command in "ladder $demo" "compare $demo $work/m.gguf"; do
    # shellcheck disable=SC2086
    run 1 $command --text "$text" --html "$work/no/folder/x.html"
    says "folder '$work/no/folder'"
    run 1 $command --text "$text" --html "$work"
    says "is a folder"
done
absent "$work/x.gguf"

# One line stays one line.
run 0 edit "$work/m.gguf" -o "$work/lines.gguf" --set "general.description=two
lines"
run 0 diff "$work/m.gguf" "$work/lines.gguf"
prints 'two\nlines'
run 0 merge "$work/m.gguf" -o "$work/one.gguf"
prints "46 tensors"
run 0 split "$work/m.gguf" -o "$work/s" --max-tensors 1 --dry-run
prints "would be 1 tensor,"

done_testing
