#!/bin/sh
# kerf compare and kerf ladder: a mix on the fly is the quantized file, gates, the page.
. "$(dirname "$0")/lib.sh"

text=$work/text.txt
cat "$src/LICENSE" "$src/tests/golden/README.md" >"$text"
run 0 quantize "$demo" -o "$work/q4.gguf" --type Q4_K_M
value() { sed -n "s/^ *\"$1\": \([^,]*\),*$/\1/p" "$work/out" | sed -n "$2p"; }

# The model against itself, the mix by name, and the file of that mix.
run 0 compare "$demo" "$demo" Q4_K_M "$work/q4.gguf" --text "$text" --ctx 128 --json
# Which files these are: of each its hash, of types encoded on the way none.
[ "$(grep -c '"model_sha256": "[0-9a-f]\{64\}"' "$work/out")" -eq 3 ] || fail "not a hash of each of three models"
[ "$(grep -c '"model_sha256": null' "$work/out")" -eq 1 ] || fail "a hash of what is no file"
[ "$(value kld_mean 1)" = 0 ] || fail "a model diverges from itself"
[ "$(value top1_agreement 1)" = 1 ] || fail "a model disagrees with itself"
for key in kld_mean kld_p99 perplexity ppl_ratio delta_p_rms bits_per_weight; do
    n=2
    case $key in perplexity | bits_per_weight) n=3 ;; esac # the reference has these, too
    [ "$(value $key $n)" = "$(value $key $((n + 1)))" ] || fail "$key: the mix is not its file"
done
[ "$(value n_bytes 3)" -eq "$(wc -c <"$work/q4.gguf")" ] || fail "size of the mix $(value n_bytes 3) is not that of its file"
[ "$(value n_bytes 4)" -eq "$(wc -c <"$work/q4.gguf")" ] || fail "size of the file"
for key in reference candidates path n_bytes perplexity_stderr ppl_ratio_stderr kld_stderr kld_median kld_p90 kld_p95 \
    kld_p999 kld_max top1_agreement_stderr delta_p_mean; do
    prints "\"$key\":"
done
sed -n 's/^ *"kld_windows": \[\(.*\)\],$/\1/p' "$work/out" | sed -n 2p |
    awk -F, -v mean="$(value kld_mean 2)" '{ for (i = 1; i <= NF; i++) sum += $i; d = sum / NF - mean
        exit !(NF > 1 && d < 1e-9 && d > -1e-9) }' || fail "the means of the windows do not give the mean"

# A token that is another text: told without what would steer a terminal, and of whole characters.
space=$(printf '\304\240') # as the vocabulary writes it
LC_ALL=C sed -E "s/($space){64}/$(printf '\033[2Jx')$(printf "$space%.0s" $(seq 61))y/" "$work/q4.gguf" >"$work/token.gguf"
run 0 compare "$demo" "$work/token.gguf" --text "$text" --ctx 128 --chunks 1
says "the first is 3087 ('?[2Jx$(printf "$space%.0s" $(seq 17))', there '$(printf "$space%.0s" $(seq 20))')"
! grep -q "$(printf '\033')" "$work/err" || fail "a token's text steers the terminal"

# Gates: exit code 3 and the reason.
run 0 compare "$demo" "$work/q4.gguf" --text "$text" --ctx 128 --max-kld 1 --max-ppl-ratio 2 --min-top1 0.5
run 3 compare "$demo" "$work/q4.gguf" --text "$text" --ctx 128 --max-kld 0.000001
says "mean KLD"
run 3 compare "$demo" "$work/q4.gguf" --text "$text" --ctx 128 --max-ppl-ratio 0.5
run 3 compare "$demo" "$work/q4.gguf" --text "$text" --ctx 128 --min-top1 0.9999
says "top-1"

# The same in JSON, for each candidate.
run 3 compare "$demo" "$demo" "$work/q4.gguf" --text "$text" --ctx 128 --json --max-kld 0.000001 --min-top1 0.5
json
[ "$(value gate 1) $(value limit 1) $(value found 1) $(value met 1)" = '"max-kld" 1e-06 0 true' ] || fail "first gate"
[ "$(value gate 4) $(value limit 4) $(value met 4)" = '"min-top1" 0.5 true' ] || fail "fourth gate"
[ "$(value found 3) $(value met 3)" = "$(value kld_mean 2) false" ] || fail "third gate"
[ "$(value gates_met 1)" = false ] || fail "gates_met"
run 0 compare "$demo" "$demo" --text "$text" --ctx 128 --json --max-kld 1 --dry-run
[ "$(value found 1) $(value met 1) $(value gates_met 1)" = "null null null" ] || fail "gates of a dry run"
run 0 compare "$demo" "$demo" --text "$text" --ctx 128 --chunks 1 --json
[ "$(value gates_met 1)" = null ] || fail "gates_met without gates"
prints '"gates": []'

# Candidates of one file name are told apart, in the table and on the page, which has the gates.
mkdir "$work/one" "$work/two"
ln -s ../q4.gguf "$work/one/m.gguf"
ln -s ../q4.gguf "$work/two/m.gguf"
run 3 compare "$demo" "$work/one/m.gguf" "$work/two/m.gguf" Q8_0 --text "$text" --ctx 128 --chunks 1 --max-kld 0.000001 \
    --html "$work/gates.html"
grep -q '^one/m\.gguf ' "$work/out" && grep -q '^two/m\.gguf ' "$work/out" || fail "the table does not tell two files apart"
[ "$(grep -c '<td>one/m.gguf</td>' "$work/gates.html")" -eq 2 ] || fail "the page lacks a name in its figures or gates"
grep -q '<td>at most 1e-06</td>.*not met' "$work/gates.html" || fail "the page lacks the gate"
# The page has the command as it was given: options in front, a candidate with a cache.
run 0 compare --ctx 64 --chunks 1 --text "$text" "$demo" Q4_0+kv:q8_0 --by-position --html "$work/command.html"
grep -qF "<code>kerf compare --ctx 64 --chunks 1 --text $text $demo Q4_0+kv:q8_0 --by-position --html $work/command.html</code>" \
    "$work/command.html" || fail "the page has another command"
grep -q ' of 64 tokens, [1-9][0-9]* predictions scored</dd>' "$work/command.html" || fail "the page counts other predictions"

# The ladder, and its page.
run 0 ladder "$demo" --text "$text" --ctx 128 --chunks 4 --types q8_0,Q2_K --json --html "$work/page.html"
[ "$(value type 1)" = '"Q8_0"' ] && [ "$(value type 2)" = '"Q2_K"' ] || fail "types of the ladder"
for part in '<!doctype html>' '</html>' '<svg' 'Q2_K' 'prefers-color-scheme:dark' 'Token ids'; do
    grep -qF -e "$part" "$work/page.html" || fail "the page lacks $part"
done
grep -qE 'https?://|src=|url\(' "$work/page.html" && fail "the page reaches outside"
for part in 'download="kerf.csv"' 'download="kerf.json"' '@media print' 'class="small"' 'class="tag name"\|class="name tag"'; do
    grep -q -e "$part" "$work/page.html" || fail "the page lacks $part"
done
if command -v python3 >/dev/null 2>&1; then
    python3 -c 'import re, sys, urllib.parse as u
print(u.unquote(re.search("data:application/json;charset=utf-8,([^\"]*)", sys.stdin.read()).group(1)))' <"$work/page.html" >"$work/out"
    json
    prints '"kld_mean"'
fi
# Twenty candidates, several of a size: each name once beside its point, and once in the list of spreads, for each width.
run 0 ladder "$demo" --text "$text" --ctx 64 --chunks 2 --html "$work/many.html" --types \
    Q8_0,Q6_K,Q5_K_M,Q5_K_S,Q5_0,Q5_1,Q4_K_M,Q4_K_S,Q4_0,Q4_1,IQ4_NL,IQ4_XS,Q3_K_L,Q3_K_M,Q3_K_S,Q2_K,kv:q8_0,kv:q4_0
[ "$(grep -c 'class="name tag"' "$work/many.html")" -eq 36 ] || fail "18 names of points in two charts"
grep -o 'class="name tag" x="[0-9.]*" y="[0-9.]*"' "$work/many.html" | sort | uniq -d | grep -q . && fail "two names in one place"
cp "$work/out" "$work/ladder"
run 0 compare "$demo" Q8_0 Q2_K --text "$text" --ctx 128 --chunks 4 --json --activations q8
[ "$(value kld_mean 1)" != "$(sed -n 's/^ *"kld_mean": \([^,]*\),*$/\1/p' "$work/ladder" | head -1)" ] ||
    fail "8-bit activations change nothing"
run 1 ladder "$demo" --text "$text" --ctx 128 --types Q8_0 --html "$work/page.html"
says "--force"

# A model may have any name: sizes are planned without one.
mkdir "$work/names"
cp "$work/q4.gguf" "$work/names/kerf-ladder.gguf"
cp "$work/q4.gguf" "$work/names/kerf-plan.gguf"
cd "$work/names"
run 0 ladder kerf-ladder.gguf --text "$text" --ctx 128 --chunks 1 --types Q8_0 --allow-requantize
run 0 compare "$demo" kerf-plan.gguf --text "$text" --ctx 128 --chunks 1
cd "$src"

# What cannot be right.
run 2 ladder "$demo" --text "$text" --types Q4_K_M,MXFP4
says "MXFP4 is a type for single tensors"
run 2 ladder "$demo" --text "$text" --types Q4_K_M,Q9_X
says "Q9_X"
run 2 compare "$demo" --text "$text"
run 1 compare "$demo" "$work/none.gguf" --text "$text"
says "none.gguf"
run 1 ladder "$work/q4.gguf" --text "$text" --types Q2_K
says "--allow-requantize"
run 1 ladder "$demo" --text "$text" --types IQ1_S
says "becomes IQ1_S, which needs an importance matrix (--imatrix)"
run 1 compare "$demo" IQ1_S --text "$text"
says "becomes IQ1_S, which needs an importance matrix (--imatrix)"
run 2 compare "$demo" NVFP4 --text "$text"
says "--tensor-type"
run 0 ladder "$work/q4.gguf" --text "$text" --types Q2_K --allow-requantize --ctx 128 --chunks 2

# Models whose ids mean other texts, or that have another number of them; a file that does not say how text is split.
"$bin/make_checkpoint" --layers 1 --hidden 64 --heads 2 --kv-heads 2 --head-dim 32 --ffn 64 --vocab 320 "$work/small" >/dev/null ||
    fail "make_checkpoint"
run 1 compare "$demo" "$work/small" --text "$text" --ctx 64 --chunks 1
says "small: its vocabulary is of 320 tokens, that of $demo of 4096"
run 0 convert "$demo" -o "$work/own.gguf" --type Q8_0
sed 's/"Ġthe"/"Ġeht"/g' "$demo/tokenizer.json" >"$work/tokenizer.json"
cp -r "$demo" "$work/other"
cp "$work/tokenizer.json" "$work/other/tokenizer.json"
run 0 compare "$work/own.gguf" "$work/other" --text "$text" --ctx 64 --chunks 1
says "other: 1 tokens are other texts than in $work/own.gguf"
run 0 compare "$work/own.gguf" "$demo" --text "$text" --ctx 64 --chunks 1 --strict
run 0 edit "$work/own.gguf" -o "$work/nameless.gguf" --remove tokenizer.ggml.pre --force
for command in "perplexity $work/nameless.gguf --text $text --ctx 64 --chunks 1" "tokenize $work/nameless.gguf $text" \
    "imatrix $work/nameless.gguf --text $text --ctx 64 --chunks 1 -o $work/nameless.im.gguf"; do
    run 0 $command
    says "nameless.gguf: key 'tokenizer.ggml.pre' is missing"
done

# A page does not take the place of what it is about.
cp "$text" "$work/input.txt"
run 1 compare "$demo" Q8_0 --text "$work/input.txt" --ctx 64 --chunks 1 --html "$work/input.txt" --force
says "inputs are never replaced"
run 1 ladder "$demo" --text "$work/input.txt" --ctx 64 --chunks 1 --html "$work/input.txt" --force
says "inputs are never replaced"
# The ids that go with saved logits are an output as well: FILE.json may be an input.
cp -r "$demo" "$work/own"
cp "$work/own/config.json" "$work/config.before"
run 1 perplexity "$work/own" --text "$work/input.txt" --ctx 64 --chunks 1 --save-logits "$work/own/config" --force
says "config.json: is the same file as the input"
cmp -s "$work/own/config.json" "$work/config.before" || fail "the checkpoint's configuration was touched"
printf '[1, 2, 3, 4, 5, 6, 7, 8]' >"$work/own.json"
run 1 perplexity "$demo" --ids "$work/own.json" --ctx 4 --save-logits "$work/own" --force
[ "$(cat "$work/own.json")" = '[1, 2, 3, 4, 5, 6, 7, 8]' ] || fail "the ids were touched"
run 1 perplexity "$demo" --text "$work/input.txt" --ctx 64 --chunks 1 --save-logits "$work/input.txt" --force
says "inputs are never replaced"
same "$work/input.txt" "$text"

done_testing
