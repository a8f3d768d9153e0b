#!/bin/sh
# Towers of multimodal checkpoints: --mmproj, --with-mmproj, what a plain conversion says of them, and the commands
# that take their files.
. "$(dirname "$0")/lib.sh"

cd "$work"
make_tower=$bin/make_tower
for name in qwen25vl qwen3omni qwen2audio; do
    "$make_tower" $name $name || fail "make_tower $name"
done

# one line says that there is a second file, and how to get it
run 0 convert qwen25vl -o text.gguf --no-vocab
says "the vision and audio towers are a second file: kerf convert qwen25vl --mmproj -o mmproj.gguf"
run 0 convert qwen25vl --mmproj -o tower.gguf
prints "tower.gguf: BF16"
if grep -q "second file" "$work/err"; then fail "the towers' own conversion speaks of a second file"; fi

# both in one pass are the same two files
mkdir both
run 0 convert qwen25vl --with-mmproj --no-vocab -o both/q.gguf --json
json
prints '"output": "both/mmproj-q.gguf"'
same tower.gguf both/mmproj-q.gguf
same text.gguf both/q.gguf
run 0 convert qwen25vl --with-mmproj --no-vocab -o both/q8.gguf --type Q8_0 --mmproj-type F16
prints "both/mmproj-q8.gguf: F16"
run 0 convert qwen25vl --mmproj -o f16.gguf --type F16
same f16.gguf both/mmproj-q8.gguf

# an output that stands is not touched, and neither is written
run 1 convert qwen25vl --with-mmproj --no-vocab -o both/q.gguf
says "both/mmproj-q.gguf"
mv both/q.gguf both/q.old
rm both/mmproj-q.gguf
run 0 convert qwen25vl --with-mmproj -o both/q.gguf --dry-run
prints "both/mmproj-q.gguf: would be BF16"
absent both/mmproj-q.gguf

# types, and the commands that take such a file
run 0 convert qwen3omni --mmproj -o omni.gguf --type Q8_0
says "refuses to load the two from one file"
for file in tower.gguf f16.gguf omni.gguf; do
    run 0 verify $file
    prints "valid"
    run 0 inspect $file
    prints "clip"
    run 0 hash $file
done
run 0 quantize f16.gguf -o q8.gguf --type Q8_0
run 0 diff f16.gguf q8.gguf
run 0 verify q8.gguf
run 0 edit f16.gguf -o named.gguf --set general.name=Tower
run 0 diff f16.gguf named.gguf
prints "1 metadata key differs"
run 0 edit f16.gguf -o damaged.gguf --set clip.vision.block_count=5
run 3 verify damaged.gguf
prints "tensor 'v.blk.4.ln1.weight' is missing"
run 0 edit f16.gguf -o damaged.gguf --set clip.vision.block_count=3 --force
run 3 verify damaged.gguf
prints "the keys count no such layer"
run 0 edit f16.gguf -o damaged.gguf --remove clip.vision.embedding_length --force
run 3 verify damaged.gguf
prints "clip.vision.embedding_length"

# refusals
run 2 convert qwen25vl --mmproj --with-mmproj -o x.gguf
says "give one of them"
run 2 convert qwen25vl --mmproj -o x.gguf --mmproj-type F16
says "with --mmproj give --type"
run 1 convert "$demo" --mmproj -o x.gguf
says "the model has no towers"
run 1 convert "$demo" --with-mmproj -o x.gguf
run 1 convert f16.gguf --mmproj -o x.gguf
says "a GGUF file has no other towers"
absent x.gguf
rm qwen2audio/preprocessor_config.json
run 0 convert qwen2audio --mmproj -o audio.gguf
run 0 verify audio.gguf
rm qwen25vl/preprocessor_config.json
run 0 convert qwen25vl --mmproj -o tower2.gguf
says "neither preprocessor_config.json nor processor_config.json"

# a talker is a text model that is converted, not run
"$make_tower" qwen3tts speech
mkdir tts
run 0 convert speech --with-mmproj --no-vocab -o tts/t.gguf
says "llama.cpp loads talkers of 3072 codes alone"
for file in tts/t.gguf tts/mmproj-t.gguf; do
    run 0 verify $file
    run 0 inspect $file
    run 0 hash $file
done
run 0 convert speech --no-vocab -o tts/t7.gguf --threads 7 --memory 64MiB
same tts/t.gguf tts/t7.gguf
run 0 convert speech --no-vocab -o tts/ref.gguf --threads 1 --isa ref
same tts/t.gguf tts/ref.gguf
run 0 quantize tts/t.gguf -o tts/q8.gguf --type Q8_0
run 0 verify tts/q8.gguf
run 0 diff tts/t.gguf tts/q8.gguf
run 0 edit tts/t.gguf -o tts/named.gguf --set general.name=Talker
run 0 verify tts/named.gguf
run 1 perplexity tts/t.gguf --text "$src/LICENSE"
says "no text can be run through architecture 'qwen3tts'"

done_testing
