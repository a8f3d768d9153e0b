#!/bin/sh
# width.sh KERF SOURCE BUILD - what people read fits into 80 columns: help and tables. (Checksum files and JSON have a form
# of their own.)
. "$(dirname "$0")/lib.sh"

demo=$src/tests/data/demo-qwen3
text=$src/README.md

# The last standard output has no line beyond 80 characters.
narrow() {
    wide=$(LC_ALL=C sed 's/[^ -~]\{2,3\}/x/g' <"$work/out" | LC_ALL=C awk 'length($0) > 80 { print length($0) ": " $0; exit }')
    [ -z "$wide" ] || fail "$1: a line of $wide"
}

run 0 --help
narrow --help
for command in convert quantize imatrix hessian perplexity compare ladder allocate best inspect verify diff edit split merge \
    hash fit tokenize; do
    run 0 $command --help
    narrow "$command --help"
done
for command in "imatrix merge" "imatrix show" "imatrix convert" "hessian merge"; do
    run 0 $command --help
    narrow "$command --help"
done

cd "$work" || exit 1
ln -s "$text" text.md && text=text.md # a short name, however long that of the checkout is
run 0 convert "$demo" -o a.gguf --type BF16
run 0 quantize a.gguf -o b.gguf --type Q4_K_M
run 0 inspect a.gguf
narrow inspect
prints "token_embd.weight"
run 0 inspect a.gguf --stats
narrow "inspect --stats"
prints "zeros"
run 0 inspect "$demo"
run 0 diff a.gguf b.gguf --verbose
narrow diff
prints "% of rms"
run 0 verify a.gguf
narrow verify
run 0 imatrix a.gguf --text "$text" --ctx 64 --chunks 2 -o im.gguf
narrow imatrix
run 0 imatrix show im.gguf
narrow "imatrix show"
prints "entropy%"
run 0 compare a.gguf b.gguf --text "$text" --ctx 64 --chunks 2
narrow compare
run 0 ladder a.gguf --text "$text" --ctx 64 --chunks 2 --types Q8_0,Q4_K_M
narrow ladder
run 0 fit a.gguf --memory 20MiB --ctx 512
narrow fit
done_testing
