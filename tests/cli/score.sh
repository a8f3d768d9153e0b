#!/bin/sh
# kerf score: accuracies, flips and differences, forms of tasks, the records' own file, what is refused.
. "$(dirname "$0")/lib.sh"

tasks=$src/tests/data/tasks
cd "$work" || exit 1
value() { sed -n "s/^ *\"$1\": \([^,]*\),*$/\1/p" out | sed -n "${2:-1}p"; }

# One model: a table of at most 80 columns, and the same figures in JSON, whatever the threads and the memory.
run 0 score "$demo" --task "$tasks/small.jsonl"
prints "17 records (12 multiple choice, 3 short answers, 2 texts)"
[ "$(awk '{ gsub(/±/, "+"); if (length > 80) n++ } END { print n + 0 }' out)" -eq 0 ] || fail "a line is too wide"
run 0 score "$demo" --task "$tasks/small.jsonl" --json --records one.jsonl --threads 1
json
[ "$(value n_records)" = 17 ] && [ "$(value flips)" = null ] && [ "$(value p_value)" = null ] || fail "figures of one model"
[ "$(value metric)" = '"acc"' ] || fail "the usual metric of a mixed task"
[ "$(wc -l <one.jsonl)" -eq 17 ] || fail "one line for each record"
run 0 score "$demo" --task "$tasks/small.jsonl" --records other.jsonl --threads 3 --memory 1MiB --isa native
same one.jsonl other.jsonl
run 1 score "$demo" --task "$tasks/small.jsonl" --records one.jsonl
says "--force"

# The forms of llama-perplexity hold the same records: only what is usual of them differs.
run 0 score "$demo" --task "$tasks/continue.jsonl" --metric acc_token --records a.jsonl --json
a=$(value accuracy)
run 0 score "$demo" --task "$tasks/continue.hellaswag.txt" --metric acc_token --json
[ "$(value accuracy)" = "$a" ] || fail "the form of HellaSwag changes the accuracy"
run 0 score "$demo" --task "$tasks/continue.bin" --form multiple-choice --metric acc_token --json
[ "$(value accuracy)" = "$a" ] || fail "the binary form changes the accuracy"
run 0 score "$demo" --task "$tasks/winogrande.csv" --limit 3 --json
[ "$(value n_records)" = 3 ] || fail "--limit"

# Several: the second is compared with the first, a mix is the file that quantize writes.
run 0 quantize "$demo" -o q2.gguf --type Q2_K
run 0 score "$demo" q2.gguf Q2_K "$demo" --task "$tasks/continue.jsonl" --metric acc_token --json --records many.jsonl
json
[ "$(wc -l <many.jsonl)" -eq $((4 * 39)) ] || fail "one line for each record and model"
for key in accuracy flips gained lost changed difference difference_stderr p_value acc_norm; do
    [ "$(value $key 2)" = "$(value $key 3)" ] || fail "$key: the mix is not the file"
done
[ "$(value changed 2)" -gt 0 ] || fail "Q2_K changes no answer"
[ "$(value flips 4)" = 0 ] && [ "$(value changed 4)" = 0 ] && [ "$(value p_value 4)" = 1 ] || fail "a model differs from itself"
[ "$(value flips 2)" -eq $(($(value gained 2) + $(value lost 2))) ] || fail "flips are not gains and losses"
run 0 score "$demo" q2.gguf --task "$tasks/continue.jsonl"
prints "chooses differently from demo-qwen3 in"

# As a page, with the data in it.
run 0 score "$demo" Q2_K --task "$tasks/small.jsonl" --html page.html --dry-run
absent page.html
run 0 score "$demo" Q2_K --task "$tasks/small.jsonl" --html page.html
for mark in "small.jsonl" 'download="scores.csv"' 'download="scores.json"' "Q2_K: " "McNemar"; do
    grep -qF "$mark" page.html || fail "the page lacks: $mark"
done
run 1 score "$demo" --task "$tasks/small.jsonl" --html page.html
says "--force"

# Messages and a chat template.
echo '{"messages": [{"role": "user", "content": "Is water wet?"}], "choices": ["Yes", "No"], "answer": "Yes"}' >chat.jsonl
run 1 score "$demo" --task chat.jsonl
says "chat.jsonl: line 1: the record holds messages: give --chat"
run 0 edit q2.gguf -o plain.gguf --remove tokenizer.chat_template
run 1 score plain.gguf --task chat.jsonl --chat
says "has no chat template"
run 0 score "$demo" --task chat.jsonl --chat --json
[ "$(value n_choice)" = 1 ] && [ "$(value chat)" = true ] || fail "a chat record"

# One text has no standard error.
echo '{"text": "One text, and no other."}' >one-text.jsonl
run 0 score "$demo" Q2_K --task one-text.jsonl
! grep -q "nan" "$work/out" || fail "a standard error of one text"

# What would be done; what cannot be right.
run 0 score "$demo" Q4_K_M --task "$tasks/small.jsonl" --dry-run --json
[ "$(value accuracy 2)" = null ] && [ "$(value n_tokens 2)" -gt 100 ] || fail "--dry-run"
run 2 score "$demo"
says "--task is missing"
run 2 score "$demo" --task "$tasks/small.jsonl" --metric f1
run 1 score "$demo" --task "$demo/config.json"
says "line 1"
run 1 score "$demo" --task "$tasks/continue.bin" --form hellaswag
says "zero byte"
run 1 score "$demo" --task "$tasks/small.jsonl" --ctx 2
says "more than the context of 2"
run 0 score "$demo" --task "$tasks/continue.jsonl" --ctx 40 --json
prints '"code": "text-cut"'
"$bin/make_family" embedding-last embedding >/dev/null || fail "make_family"
run 1 score embedding --task "$tasks/small.jsonl"
says "embedding"
done_testing
