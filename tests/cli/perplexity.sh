#!/bin/sh
# kerf perplexity and kerf tokenize: figures that add up, ids and logits for others to check, wrong input.
. "$(dirname "$0")/lib.sh"

text=$work/text.txt
cat "$src/LICENSE" "$src/tests/golden/README.md" >"$text"

run 0 perplexity "$demo" --text "$text" --ctx 128 --json
prints '"perplexity":'
prints '"perplexity_stderr":'
prints '"partial": false'
cp "$work/out" "$work/a"
value() { sed -n "s/^ *\"$1\": \([^,]*\),*$/\1/p" "$2"; }

# The same figures from a file of ids, from gzip, standard input, other threads and memory.
run 0 tokenize "$demo" "$text" --json
tr -d '\n' <"$work/out" | sed 's/.*"ids": *\(\[[^]]*\]\).*/\1/' >"$work/ids.json"
run 0 perplexity "$demo" --ids "$work/ids.json" --ctx 128 --json --threads 3 --memory 20MiB
[ "$(value nll_mean "$work/out")" = "$(value nll_mean "$work/a")" ] || fail "ids, threads or memory change the figure"
run 0 perplexity "$demo" --ids "$work/ids.json" --ctx 128 --chunks 1 --json --isa ref
cp "$work/out" "$work/ref"
run 0 perplexity "$demo" --ids "$work/ids.json" --ctx 128 --chunks 1 --json --isa native
[ "$(value nll_mean "$work/out")" = "$(value nll_mean "$work/ref")" ] || fail "the kernels change the figure"
gzip -c "$text" >"$text.gz"
run 0 perplexity "$demo" --text "$text.gz" --ctx 128 --json
[ "$(value nll_mean "$work/out")" = "$(value nll_mean "$work/a")" ] || fail "gzip changes the figure"
"$kerf" perplexity "$demo" --text - --ctx 128 --json <"$text" >"$work/out" || fail "standard input"
[ "$(value nll_mean "$work/out")" = "$(value nll_mean "$work/a")" ] || fail "standard input changes the figure"

# Fewer windows, a stride, several texts.
run 0 perplexity "$demo" --text "$text" --ctx 128 --chunks 2
prints "2 of 128 tokens, 63 scored in each"
run 0 perplexity "$demo" --text "$text" --ctx 128 --stride 32 --chunks 3
prints "3 of 128 tokens (overlapping), 32 scored in each"
run 0 perplexity "$demo" --text "$text" --text "$text" --ctx 128 --json
[ "$(value n_chunks "$work/out")" -eq $((2 * $(value n_chunks "$work/a"))) ] || fail "two texts are not twice one"

# Logits: one row of the vocabulary for each position, the ids beside them.
echo '[5, 17, 300, 42, 7, 9]' >"$work/short.json"
run 0 perplexity "$demo" --ids "$work/short.json" --save-logits "$work/logits.f32"
[ "$(wc -c <"$work/logits.f32")" -eq $((6 * 4096 * 4)) ] || fail "size of the logits"
[ "$(tr -dc '0-9,' <"$work/logits.f32.json")" = "5,17,300,42,7,9" ] || fail "ids beside the logits"
run 1 perplexity "$demo" --ids "$work/short.json" --save-logits "$work/logits.f32"
says "--force"

# Pieces read back as the text.
printf 'Two words\n' >"$work/small.txt"
run 1 tokenize "$demo/tokenizer.json" "$work/small.txt"
says "tokenizer.json: a tokenizer alone is not a model; give its folder"
run 0 tokenize "$demo" "$work/small.txt" --pieces
prints "\\n'"
run 0 tokenize "$demo" "$work/small.txt"
printf '\357\273\277Two\r\nwords\r\n' >"$work/small.txt"
run 0 tokenize "$demo" "$work/small.txt"
says "begins with a byte order mark"
says "2 lines end with a carriage return"
# What stands in the records of --jsonl is judged as the same text would be.
i=0
while [ $((i += 1)) -le 20 ]; do
    printf '{"text": "<|im_start|>user\\r\\nHow long is a piece of string, and of what is it made, number %s?"}\n' $i
done >"$work/records.jsonl"
run 0 perplexity "$demo" --text "$work/records.jsonl" --jsonl text --ctx 32 --chunks 2
says "20 lines end with a carriage return"
says "the texts of 20 control tokens"

# What cannot be right.
run 2 perplexity "$demo"
says "--text"
run 2 perplexity "$demo" --text "$text" --ids "$work/ids.json"
run 2 perplexity "$demo" --text "$text" --ctx 1
run 2 perplexity "$demo" --text "$text" --ctx 64 --stride 64
run 1 perplexity "$demo" --text "$work/small.txt"
says "do not fill one window"
run 1 perplexity "$demo" --text "$work/none.txt"
says "none.txt"
echo '[1, 2, "three"]' >"$work/bad.json"
run 1 perplexity "$demo" --ids "$work/bad.json"
says "element 2"
echo '[1, 2, 4096, 3]' >"$work/bad.json"
run 1 perplexity "$demo" --ids "$work/bad.json"
says "4096"
printf 'GGUF' >"$work/broken.gguf"
run 1 perplexity "$work/broken.gguf" --text "$text"
says "broken.gguf"

# Text that is not UTF-8 is read with replacement characters, and said to be.
printf 'caf\351 and \360\237 and so on, and on.\n' | cat - "$text" >"$work/latin.txt"
run 0 tokenize "$demo" "$work/latin.txt"
says "latin.txt: 3 bytes are not UTF-8 (the first at offset 3)"
run 0 perplexity "$demo" --text "$work/latin.txt" --ctx 64 --chunks 1
says "latin.txt: 3 bytes are not UTF-8 (the first at offset 3)"
run 0 imatrix "$demo" --text "$work/latin.txt" --ctx 64 --chunks 1 -o "$work/latin.gguf"
says "latin.txt: 3 bytes are not UTF-8 (the first at offset 3)"
run 0 tokenize "$demo" "$text"
! grep -q UTF-8 "$work/err" || fail "a warning about UTF-8 without need"

# A GGUF or gzip file is refused as a text. What else is evidently none is named once, and used: its bytes are legal.
run 0 convert "$demo" -o "$work/model.gguf" --type Q8_0
head -c 20000 "$work/model.gguf" >"$work/head.gguf"
gzip -c "$text" >"$work/packed.txt"
{ printf 'PK\003\004'; cat "$src/tests/data/prose.md"; } >"$work/head.zip"
for command in perplexity compare ladder imatrix allocate tokenize; do
    case $command in
    compare) set -- compare "$demo" "$work/model.gguf" ;;
    imatrix) set -- imatrix "$demo" -o "$work/new.gguf" ;;
    allocate) set -- allocate "$demo" --target-bpw 5 -o "$work/new.plan" ;;
    *) set -- "$command" "$demo" ;;
    esac
    [ "$command" = tokenize ] || set -- "$@" --dry-run --text
    run 1 "$@" "$work/head.gguf"
    says "head.gguf: expected a text, found a GGUF file"
    run 1 "$@" "$work/packed.txt"
    says "packed.txt: expected a text, found a gzip file"
    run 0 "$@" "$work/head.zip"
    says "head.zip: this does not look like a text: it begins as a zip archive does"
    [ "$(grep -c 'warning.*head.zip' "$work/err")" -eq 1 ] || fail "$command: expected one warning"
done
{ printf 'A text.'; head -c 100 /dev/zero; cat "$text"; } >"$work/nul.txt"
run 0 perplexity "$demo" --text "$work/nul.txt" --dry-run
says "nul.txt: this does not look like a text: it has 100 NUL bytes among its first"
run 0 perplexity "$demo" --text "$text" --dry-run
! grep -q warning "$work/err" || fail "a warning about a text"
printf 'GGUF\003\000\000\000' >"$work/short.txt"
run 1 tokenize "$demo" "$work/short.txt"
printf 'GGUF is short' >"$work/short.txt"
run 0 tokenize "$demo" "$work/short.txt"
! grep -q warning "$work/err" || fail "a warning about a short string"

# A measurement that is stopped says what it has, marks it, and ends by the signal: no script takes it for done.
for _ in 1 2 3 4 5 6 7 8; do cat "$text" "$text" "$text" "$text"; done >"$work/four.txt"
for _ in 1 2 3 4 5 6 7 8; do cat "$work/four.txt" "$work/four.txt"; done >"$work/long.txt"
status=0
timeout --preserve-status -s INT 3 "$kerf" perplexity "$demo" --text "$work/long.txt" >"$work/out" 2>"$work/err" ||
    status=$?
[ "$status" -eq 130 ] || fail "a stopped perplexity ends with $status, expected 130"
if grep -q '^perplexity' "$work/out"; then prints "PARTIAL"; fi
done_testing
