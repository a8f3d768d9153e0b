#!/bin/sh
# Importance matrices that do not fit: told by every command that uses them, with the name of the file.
. "$(dirname "$0")/lib.sh"

text=$src/tests/data/prose.md
measure="--text $text --ctx 64 --chunks 1"
cd "$work" || exit 1
"$bin/make_checkpoint" --layers 2 --hidden 256 --heads 4 --kv-heads 2 --head-dim 64 --ffn 256 --vocab 320 --seed 3 toy >/dev/null ||
    fail "make_checkpoint"
"$bin/make_checkpoint" --layers 2 --hidden 256 --heads 4 --kv-heads 2 --head-dim 64 --ffn 256 --vocab 320 --seed 4 sister >/dev/null ||
    fail "make_checkpoint"
"$bin/make_checkpoint" --layers 4 --hidden 256 --heads 4 --kv-heads 2 --head-dim 64 --ffn 256 --vocab 320 --seed 3 tall >/dev/null ||
    fail "make_checkpoint"
for m in toy sister tall; do
    run 0 imatrix $m --text "$text" --ctx 64 --chunks 2 -o $m.gguf
done

# Its own matrix: not a word, from the folder and from every file of the model.
run 0 convert toy -o toy-bf16.gguf
run 0 convert toy -o toy-q8.gguf --type Q8_0
for m in toy toy-bf16.gguf; do
    run 0 quantize $m -o x.gguf --type Q4_K_M --imatrix toy.gguf --force --strict
    [ ! -s err ] || fail "a word about its own matrix"
done
run 0 quantize toy-q8.gguf -o x.gguf --type Q4_K_M --imatrix toy.gguf --force --strict --allow-requantize
[ ! -s err ] || fail "a word about its own matrix on its quantized form"
run 0 imatrix toy-q8.gguf --text "$text" --ctx 64 --chunks 2 -o q8.gguf
run 0 quantize toy -o x.gguf --type Q4_K_M --imatrix q8.gguf --force --strict
[ ! -s err ] || fail "a word about the matrix of its quantized form"

# another MATRIX TEXT...: all commands say so.
another()
{
    matrix=$1
    shift
    for command in "quantize toy -o x.gguf --type Q4_K_M --force" "compare toy Q4_K_M $measure" \
        "ladder toy --types Q4_K_M $measure" \
        "allocate toy $measure --target-bpw 5 --probes Q4_K --types Q4_K,Q8_0 -o plan.txt --force"; do
        run 0 $command --imatrix "$matrix"
        for words in "$@"; do
            says "$matrix: $words"
        done
        run 3 $command --imatrix "$matrix" --strict -q
    done
}
another sister.gguf "was collected on another model than toy"
another tall.gguf "14 of its 28 entries name no tensor of this model" "was collected on another model than toy"
run 0 quantize tall -o y.gguf --type Q4_K_M --imatrix toy.gguf
says "toy.gguf: no entry for 1"

# Half of the layers, also where types are chosen from the whole menu, some of which need no importance.
run 0 imatrix toy --text "$text" --ctx 64 --chunks 2 --exclude 'blk\.1\.' -o half.gguf
for command in "quantize toy -o x.gguf --type Q4_K_M --force" "compare toy Q4_K_M $measure" \
    "ladder toy --types Q4_K_M $measure" "allocate toy $measure --target-bpw 5 -o plan.txt --force"; do
    run 0 $command --imatrix half.gguf
    says "half.gguf: no entry for"
    says "blk.1.ffn_up.weight"
done

# Merged from two models, and what a merge can know of files without the key.
run 0 imatrix merge toy.gguf sister.gguf -o both.gguf
says "sister.gguf: was collected on another model than toy.gguf"
another both.gguf "was merged from matrices of different models"
run 0 imatrix merge both.gguf toy.gguf -o again.gguf
run 0 quantize toy -o x.gguf --type Q4_K_M --imatrix again.gguf --force
says "again.gguf: was merged from matrices of different models"
run 0 imatrix merge toy.gguf q8.gguf -o same.gguf --strict
run 0 quantize toy -o x.gguf --type Q4_K_M --imatrix same.gguf --force --strict
for m in toy tall; do
    run 0 imatrix convert $m.gguf -o $m.dat
done
run 0 imatrix merge toy.dat tall.dat -o dat.dat
says "tall.dat: 14 of its 28 entries and 14 of the 14 before are in both"

# A matrix of names that fit nothing is an error that names the file, of allocate too.
sed 's/blk\./xyz./g' toy.dat >none.dat
for command in "quantize toy -o z.gguf --type Q4_K_M" "compare toy Q4_K_M $measure" \
    "allocate toy $measure --target-bpw 5 -o z.txt"; do
    run 1 $command --imatrix none.dat --json
    says "none.dat: none of its 14 entries names a tensor of this model"
    prints '"file": "none.dat"'
done


done_testing
