#!/bin/sh
# Models that answer once for a text (embeddings, rerankers, reward models): convert, compare, ladder, and what refuses them.
. "$(dirname "$0")/lib.sh"

make=$bin/make_family
value() { sed -n "s/^ *\"$1\": \([^,]*\),*$/\1/p" "$work/out" | sed -n "${2:-1}p"; }
less() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a < b) }' || fail "$1 is not less than $2"; }

text=$work/text.txt
sed -n '1,60p' "$src/README.md" >"$text"
n_lines=$(grep -c '[^[:space:]]' "$text")

# Embeddings: the file is the folder, to the bit; a line is a text.
for pooling in last mean first; do
    model=$work/embedding-$pooling
    "$make" "embedding-$pooling" "$model" || fail "make_family"
    run 0 convert "$model" -o "$model.gguf" --quiet
    run 0 compare "$model" "$model.gguf" Q8_0 Q4_0 --text "$text" --ctx 64 --json
    json
    [ "$(value cosine_distance_max 1)" = 0 ] || fail "$pooling: the file differs from the folder"
    less 0 "$(value cosine_distance_mean 2)"
    less "$(value cosine_distance_mean 2)" "$(value cosine_distance_mean 3)"
    less "$(value cosine_distance_p95 3)" 1
    [ "$(value n_texts)" = "$n_lines" ] || fail "$pooling: $(value n_texts) texts, not $n_lines"
    [ "$(value kld_mean 3)" = null ] && [ "$(value perplexity 1)" = null ] && [ "$(value rank_kendall 3)" = null ] ||
        fail "$pooling: figures of other models"
    [ "$(value answer)" = '"embedding"' ] && [ "$(value pooling)" = "\"$pooling\"" ] || fail "$pooling: answer"
done
less 0 "$(value n_texts_cut)"
model=$work/embedding-last

# The table, the page, the ladder, the gates.
run 0 compare "$model" Q4_0 --text "$text" --ctx 64 --threads 1 --html "$work/page.html"
prints "mean cosine distance"
says "were cut"
cp "$work/out" "$work/one"
run 0 compare "$model" Q4_0 --text "$text" --ctx 64 --threads 3 --memory 4MiB
same "$work/out" "$work/one"
grep -q 'Mean cosine distance' "$work/page.html" || fail "the page lacks the distance"
grep -qE 'https?://|src=|url\(|>nan' "$work/page.html" && fail "the page reaches outside, or holds nan"
run 0 ladder "$model" --text "$text" --ctx 64 --types Q8_0,Q4_0 --json
[ "$(value type 2)" = '"Q4_0"' ] && less 0 "$(value cosine_distance_mean 2)"
run 0 compare "$model" Q4_0 --text "$text" --ctx 64 --dry-run --json
json
[ "$(value n_texts)" = "$n_lines" ] && [ "$(value cosine_distance_mean)" = null ] || fail "the plan"
run 0 compare "$model" Q4_0 --text "$text" --ctx 64 --dry-run
prints "through 2 models, $n_lines answers"
run 0 compare "$model" Q4_0 --text "$text" --max-cosine-distance 0.9
run 3 compare "$model" Q4_0 --text "$text" --max-cosine-distance 0.0000001
says "mean cosine distance"
run 1 compare "$model" Q4_0 --text "$text" --max-kld 1
says "--max-cosine-distance is for embedding models"
run 1 compare "$demo" Q4_0 --text "$text" --ctx 64 --max-score-rms 1
says "--max-score-rms for rerankers"
run 0 imatrix "$model" --text "$text" --ctx 64 -o "$work/imatrix.gguf" --json
[ "$(value perplexity)" = null ] || fail "perplexity without a language head"

# A folder whose pooling cannot be told says so, and what else of it is lost.
model=$work/embedding-mean
cp "$model/modules.json" "$work/modules.json"
lacks() { if grep -qF -e "$1" "$work/err"; then fail "standard error has: $1"; fi; }
run 0 convert "$model" -o "$work/m.gguf" --force
lacks "modules.json"
printf '%s' '[{"type": "a.Transformer", "path": ""}, {"type": "a.Pooling", "path": null}]' >"$model/modules.json"
run 0 convert "$model" -o "$work/m.gguf" --force
says "no pooling is written"
printf '%s' '[{"type": "a.Transformer", "path": ""}, {"type": "a.Dense", "path": "2_Dense"}]' >"$model/modules.json"
run 0 convert "$model" -o "$work/m.gguf" --force
says "no pooling is written"
says "module 'a.Dense' is not converted"
cp "$work/modules.json" "$model/modules.json"

# One text tells nothing about errors or orders.
head -n 1 "$text" >"$work/one.txt"
model=$work/embedding-last
run 0 compare "$model" Q4_0 --text "$work/one.txt" --html "$work/one.html" --force
prints "±-"
grep -qi nan "$work/out" "$work/one.html" && fail "nan in a report on one text"
run 0 compare "$model" Q4_0 --text "$work/one.txt" --json
[ "$(value cosine_distance_stderr)" = null ] || fail "an error from one text: $(value cosine_distance_stderr)"

# A score: records of JSON lines; a pair where the model has a prompt for it.
model=$work/score
"$make" score "$model" || fail "make_family"
run 0 convert "$model" -o "$model.gguf" --quiet
printf '%s\n' '{"t": "a first text"}' '{"t": "and a second, longer one"}' '' '{"t": "three"}' '{"t": "four"}' >"$work/t.jsonl"
run 0 compare "$model" "$model.gguf" Q8_0 Q4_0 --text "$work/t.jsonl" --jsonl t --json
[ "$(value n_texts)" = 4 ] || fail "$(value n_texts) records"
[ "$(value score_label)" = '"LABEL_0"' ] || fail "score_label: $(value score_label)"
[ "$(value score_delta_max 1)" = 0 ] && [ "$(value rank_kendall 1)" = 1 ] || fail "the file scores otherwise"
less "$(value score_delta_rms 2)" "$(value score_delta_rms 3)"
less 0 "$(value probability_delta_rms 3)"
run 0 compare "$model" Q4_0 --text "$work/t.jsonl" --jsonl t --chunks 2
prints "Spearman"
run 3 compare "$model" Q4_0 --text "$text" --max-score-rms 0.0000001
says "rms of the score differences"
printf '%s\n' '{"t": {"query": "what", "document": "that"}}' '{"t": {"query": "what", "document": "{query}"}}' >"$work/p.jsonl"
run 1 compare "$model" Q4_0 --text "$work/p.jsonl" --jsonl t
says "tokenizer.chat_template.rerank"
echo "# Qwen3-Reranker-0.6B" >"$model/README.md"
run 0 compare "$model" Q4_0 --text "$work/p.jsonl" --jsonl t --json
[ "$(value n_tokens)" -gt 100 ] || fail "the prompt was not put around the pair"
run 0 compare "$model" Q4_0 --text "$work/one.txt" --html "$work/one.html" --force
prints "±-"
prints " -        -"
grep -qi nan "$work/out" "$work/one.html" && fail "nan in a report on one text"

# A pair that is too long loses the end of its document, not the end of the prompt, at which the answer is read.
long=$(awk 'BEGIN { for (i = 0; i < 400; i++) printf "word%d é ", i }')
printf '{"t": {"query": "what", "document": "this %s"}}\n{"t": {"query": "what", "document": "that %s"}}\n' "$long" "$long" >"$work/long.jsonl"
run 1 compare "$model" Q4_0 --text "$work/long.jsonl" --jsonl t --ctx 32
says "and --ctx allows 32: give --ctx "
needed=$(sed -n 's/.*give --ctx \([0-9]*\) or more.*/\1/p' "$work/err")
run 1 compare "$model" Q4_0 --text "$work/long.jsonl" --jsonl t --ctx $((needed - 1))
says "line 1"
run 0 compare "$model" Q4_0 --text "$work/long.jsonl" --jsonl t --ctx "$needed" --json
[ "$(value n_texts_cut)" = 2 ] || fail "$(value n_texts_cut) pairs were cut"
run 0 compare "$model" Q4_0 --text "$work/long.jsonl" --jsonl t --ctx $((needed + 20)) --json
says "2 of 2 texts are longer than $((needed + 20)) tokens and were cut"
[ "$(value rank_kendall)" != null ] || fail "both documents have the same score"

# Reward models: two layers, under names of our own, with a warning; every step is scored.
for kind in reward stepreward; do
    model=$work/$kind
    "$make" "$kind" "$model" || fail "make_family"
    run 0 convert "$model" -o "$model.gguf"
    says "no score head for architecture qwen2"
    run 0 verify "$model.gguf"
    run 0 compare "$model" "$model.gguf" Q8_0 --text "$text" --ctx 64 --json
    [ "$(value score_delta_max 1)" = 0 ] || fail "$kind: the file scores otherwise"
    less 0 "$(value score_delta_rms 2)"
    run 1 perplexity "$model.gguf" --text "$text"
    says "no language head"
done
run 0 compare "$model" Q8_0 --text "$text" --ctx 64 --json
less 0 "$(value probability_delta_rms)" # two labels have a probability

# A score says which label it is of.
[ "$(value score_label)" = '"right"' ] || fail "score_label: $(value score_label)"
run 0 compare "$model" Q8_0 --text "$text" --ctx 64 --html "$work/label.html"
prints "as log-odds of the label 'right'"
grep -q "the label ‘right’" "$work/label.html" || fail "the page does not name the label"
run 0 compare "$work/embedding-last" Q8_0 --text "$text" --ctx 64 --json
[ "$(value score_label)" = null ] || fail "an embedding has a label"
run 1 compare "$work/embedding-last" "$work/score" --text "$text"
says "cannot be compared"
run 1 compare "$demo" "$work/embedding-last" --text "$text" --ctx 64
says "no language head"
run 1 perplexity "$work/embedding-last" --text "$text"
says "embedding"
run 1 allocate "$work/score" --text "$text" --target-bpw 5 -o "$work/plan.txt"
says "no language head"
absent "$work/plan.txt"
run 1 compare "$work/score" Q8_0 --text "$text" --stride 8
says "--stride"
done_testing
