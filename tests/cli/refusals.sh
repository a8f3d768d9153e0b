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

usage "expected a size, such as 4GiB, 512MiB or 5GB, found '2.6'" allocate "$demo" --text "$text" --target-size 2.6 \
    -o "$work/x"
usage "{--max-size SIZE | --max-tensors N}" split "$work/m.gguf" extra -o "$work/p"
usage "'Q4_K_N' is neither a file or folder nor a known type or mix; did you mean Q4_K_M?" compare "$demo" Q4_K_N \
    --text "$text"

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
usage "read, but not written" convert "$demo" --dry-run --tensor-type attn_q=I16

# Files of another kind.
run 1 inspect "$src/README.md"
says "not a file that this command reads"
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

# Files that git-lfs has not fetched.
printf 'version https://git-lfs.github.com/spec/v1\noid sha256:%064d\nsize 11422654\n' 1 >"$work/pointer"
cp "$work/pointer" "$work/pointer.gguf"
for file in config.json tokenizer.json model.safetensors; do
    rm -rf "$work/unfetched"
    cp -r "$demo" "$work/unfetched"
    cp "$work/pointer" "$work/unfetched/$file"
    run 1 convert "$work/unfetched" -o "$work/x.gguf"
    says "$file: this is a git-lfs pointer, not the file; fetch the real one with \`git lfs pull\`"
done
run 1 convert "$work/pointer.gguf" -o "$work/x.gguf"
says "pointer.gguf: this is a git-lfs pointer"

# The same, and what a server answered, wherever a file is read; a file of another kind as a plan.
printf '<!DOCTYPE html>\n<html><body>Entry not found, and more of this page</body></html>\n' >"$work/page.gguf"
for file in config.json tokenizer.json tokenizer_config.json model.safetensors; do
    rm -rf "$work/unfetched"
    cp -r "$demo" "$work/unfetched"
    cp "$work/page.gguf" "$work/unfetched/$file"
    run 1 convert "$work/unfetched" -o "$work/x.gguf"
    says "unfetched/$file: this is a web page (HTML), probably what a server answered"
done
run 1 inspect "$work/page.gguf"
says "page.gguf: this is a web page (HTML)"
for option in --imatrix --plan; do
    run 1 quantize "$work/m.gguf" -o "$work/x.gguf" --type Q4_0 "$option" "$work/page.gguf"
    says "page.gguf: this is a web page (HTML)"
    run 1 quantize "$work/m.gguf" -o "$work/x.gguf" --type Q4_0 "$option" "$work/pointer"
    says "pointer: this is a git-lfs pointer"
done
run 1 quantize "$work/m.gguf" -o "$work/x.gguf" --plan "$work/m.gguf"
says "m.gguf: this is a GGUF file, not a plan"
printf 'nothing Q4_0\n' >"$work/idle.plan"
run 0 quantize "$work/m.gguf" --dry-run --type Q8_0 --allow-requantize --plan "$work/idle.plan"
says "$work/idle.plan: the line of 'nothing' decided no tensor"

# A class that is not known: the whole sentence, whatever the number of those that are.
rm -rf "$work/other"
cp -r "$demo" "$work/other"
sed 's/Qwen3ForCausalLM/BloomForCausalLM/' "$demo/config.json" >"$work/other/config.json"
run 1 convert "$work/other" -o "$work/x.gguf"
says "class 'BloomForCausalLM' is not supported; the table of families in README.md names those that are"

# A damaged file of a folder is named once, with its folder.
for file in config.json tokenizer.json tokenizer_config.json hf_quant_config.json model.safetensors.index.json; do
    rm -rf "$work/broken"
    cp -r "$demo" "$work/broken"
    printf '{"a": [1,' >"$work/broken/$file"
    # an index counts where no model.safetensors stands beside it
    [ "$file" != model.safetensors.index.json ] || rm "$work/broken/model.safetensors"
    for folder in "$work/broken" "$work/broken/"; do
        run 1 convert "$folder" -o "$work/x.gguf"
        says "error: $work/broken/$file: not valid JSON"
        [ "$(grep -o "$work/broken" "$work/err" | wc -l)" -eq 1 ] || fail "the folder stands twice"
    done
done

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
run 0 edit "$work/m.gguf" -o "$work/tall.gguf" --set qwen3.block_count=4000000000
run 3 verify "$work/tall.gguf"
prints "block_count' is 4000000000"
# A block_count that does not fit the tensors is one finding, not one for each tensor.
run 0 edit "$work/m.gguf" -o "$work/more.gguf" --set qwen3.block_count=40
run 3 verify "$work/more.gguf"
prints "block_count' is 40, but 36 of these layers (the first is layer 4) have no tensors: 396 tensors are missing, 'blk.4.attn_norm.weight' among them"
prints ": 1 problem"
run 0 edit "$work/m.gguf" -o "$work/fewer.gguf" --set qwen3.block_count=2
run 3 verify "$work/fewer.gguf"
prints "block_count' is 2, but 22 tensors are of layers beyond that, 'blk.2."
prints ": 1 problem"
sed 's/blk\.1\./blk.7./g' "$work/m.gguf" >"$work/gap.gguf"
run 3 verify "$work/gap.gguf"
prints "block_count' is 4, but 11 tensors are of layers beyond that, 'blk.7."
prints "block_count' is 4, but 1 of these layers (the first is layer 1) has no tensors: 11 tensors are missing"
prints ": 2 problems"
# Nothing belongs behind the last tensor, in any part.
{ cat "$work/m.gguf" && printf 'more'; } >"$work/longer.gguf"
run 3 verify "$work/longer.gguf"
prints "longer.gguf: 4 trailing bytes after the last tensor, where the file should end"
run 0 split "$work/m.gguf" -o "$work/parts" --max-tensors 40
printf 'x' >>"$work/parts-00002-of-00002.gguf"
run 3 verify "$work/parts-00001-of-00002.gguf"
prints "1 trailing byte after the last tensor of $work/parts-00002-of-00002.gguf"
rm "$work"/parts-*
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

# Places that a file would replace, or that are none. A pipe stands for every device.
mkfifo "$work/pipe"
for command in "convert $demo" "quantize $demo --type Q8_0" "edit $work/m.gguf --set a=b" "merge $work/m.gguf"; do
    # shellcheck disable=SC2086
    run 1 $command -o "$work/pipe" --force
    says "is a device or a pipe"
    [ -p "$work/pipe" ] || fail "kerf $command replaced a pipe"
    run 1 $command -o -
    says "outputs go to files"
done
[ ! -e ./- ] || fail "a file '-' was written"
# A pipe where a file is expected: refused at once, not waited for.
for command in inspect verify hash "imatrix show" "convert -o $work/x.gguf"; do
    # shellcheck disable=SC2086
    timeout 20 "$kerf" $command "$work/pipe" >"$work/out" 2>"$work/err" </dev/null && fail "kerf $command took a pipe"
    [ $? -ne 124 ] || fail "kerf $command waits for a pipe"
    n_checks=$((n_checks + 1))
done

# Empty words, as an unset variable gives them.
usage "--output: expected FILE, found an empty text" convert "$demo" -o ""
usage "--text: expected FILE, found an empty text" perplexity "$demo" --text ""
usage "operand 1 is empty" inspect ""

# A file that is not there has one wording, whatever it was to be.
missing() # ARGS...
{
    run 1 "$@"
    says "$work/nope: no such file or folder"
}
missing inspect "$work/nope"
missing convert "$work/nope" -o "$work/x.gguf"
missing convert "$demo" -o "$work/x.gguf" --lora "$work/nope"
missing convert "$demo" -o "$work/x.gguf" --type Q4_K --imatrix "$work/nope"
missing convert "$demo" -o "$work/x.gguf" --plan "$work/nope"
missing convert "$demo" -o "$work/x.gguf" --type Q3_K --method feedback --hessian "$work/nope"
missing perplexity "$demo" --text "$work/nope"
missing perplexity "$demo" --ids "$work/nope"
missing compare --reference "$work/nope" "$demo"
missing score "$demo" --task "$work/nope"
missing tokenize "$demo" "$work/nope"
missing hash "$work/nope"
missing diff "$work/nope" "$demo"
missing imatrix show "$work/nope"
missing hessian merge "$work/nope" "$work/nope" -o "$work/x.gguf"
run 1 convert "$demo" -o "$work/nope/x.gguf"
says "cannot be written: there is no folder '$work/nope'"

# Folders and names.
mkdir "$work/plain"
run 1 convert "$work/plain" -o "$work/x.gguf"
says "plain/config.json: does not exist, so the folder is not a checkpoint"
run 1 inspect "$work/plain"
says "does not exist"
long=$work/$(printf '%0400d' 1)
run 1 verify "$long"
says "cannot open: File name too long"
ln -s turn "$work/turn"
run 1 verify "$work/turn"
says "cannot open: Too many levels"
cp -r "$demo" "$work/lost" # a cache whose blob is gone
rm "$work/lost/model.safetensors"
ln -s ../blobs/gone "$work/lost/model.safetensors"
run 1 convert "$work/lost" -o "$work/x.gguf"
says "model.safetensors: a link to a file that is not there"
if [ "$(id -u)" -ne 0 ]; then # root reads everything
    cp "$work/m.gguf" "$work/locked.gguf"
    chmod 000 "$work/locked.gguf"
    run 1 verify "$work/locked.gguf"
    says "Permission denied"
fi
printf '\377\376' >"$work/template"
run 1 edit "$work/m.gguf" -o "$work/x.gguf" --chat-template "$work/template"
says "not UTF-8"
: >"$work/empty.plan"
run 0 quantize "$demo" --dry-run --type Q8_0 --plan "$work/empty.plan"
says "empty.plan: the plan has no lines"
run 0 help imatrix merge
prints "usage: kerf imatrix merge A"

# One line stays one line.
run 0 edit "$work/m.gguf" -o "$work/lines.gguf" --set "general.description=two
lines"
run 0 diff "$work/m.gguf" "$work/lines.gguf"
prints 'two\nlines'
run 0 merge "$work/m.gguf" -o "$work/one.gguf"
prints "46 tensors"
run 0 split "$work/m.gguf" -o "$work/s" --max-tensors 1 --dry-run
prints "would be 1 tensor,"

# A file without a tensor that its family has makes another such file, and that is said.
LC_ALL=C sed 's/blk\.2\.ffn_up/blk.2.ffn_uq/' "$work/m.gguf" >"$work/cut.gguf"
run 3 verify "$work/cut.gguf"
run 0 quantize "$work/cut.gguf" -o "$work/cut-q8.gguf" --type Q8_0
says "the output will have them too"

done_testing
