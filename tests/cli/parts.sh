#!/bin/sh
# Texts as they are used: answers of chats alone, mixtures with weights, figures by position; against the same windows
# scored in other ways.
. "$(dirname "$0")/lib.sh"

value() { sed -n "s/^ *\"$1\": \([^,]*\),*$/\1/p" "$work/out" | sed -n "$2p"; }
near() # near A B NAME: equal to 1e-9
{
    awk -v a="$1" -v b="$2" 'BEGIN { d = a / b - 1; exit !(d < 1e-9 && d > -1e-9) }' || fail "$3: $1 is not $2"
    n_checks=$((n_checks + 1))
}

# A mixture: the figure of each text is that of the text alone.
a=$src/LICENSE
b=$src/tests/golden/README.md
args="--ctx 64 --json"
run 0 perplexity "$demo" --text "$a" $args
nll_a=$(value nll_mean 1)
run 0 perplexity "$demo" --text "$b" $args
nll_b=$(value nll_mean 1)
run 0 compare "$demo" Q4_K_M --text "$b" $args
kld_b=$(value kld_mean 1)
run 0 compare "$demo" Q4_K_M --text "$a" $args
kld_a=$(value kld_mean 1)
run 0 compare "$demo" Q4_K_M --text "$a" --text "$b" --weights 3,1 $args
json
all=$work/all
cp "$work/out" "$all"
sed -n '/"by_text"/,/"by_position"/p' "$all" >"$work/out"
near "$(value nll_mean 1)" "$nll_a" "the first text"
near "$(value nll_mean 3)" "$nll_b" "the second text"
near "$(value kld_mean 2)" "$kld_a" "the candidate on the first text"
near "$(value kld_mean 4)" "$kld_b" "the candidate on the second text"
near "$(value nll_mean 5)" "$(awk -v a="$nll_a" -v b="$nll_b" 'BEGIN { printf "%.17g", 0.75 * a + 0.25 * b }')" "mean nll"
near "$(value kld_mean 6)" "$(awk -v a="$kld_a" -v b="$kld_b" 'BEGIN { printf "%.17g", 0.75 * a + 0.25 * b }')" "mean KLD"
near "$(value weight 1)" 0.75 "weight"
run 0 perplexity "$demo" --text "$a" --text "$b" --ctx 64 --weights 3,1
prints "weighted mean of the texts"
prints "LICENSE: "

# By position: the last depth is what is scored without asking, and the first ones begin with the window.
run 0 perplexity "$demo" --text "$a" --ctx 64 --json
plain=$(value nll_mean 1)
run 0 perplexity "$demo" --text "$a" --ctx 64 --json --by-position
json
near "$(value nll_mean 1)" "$plain" "the figure of the text"
[ "$(value first 1) $(value end 1) $(value first 6) $(value end 6)" = "0 2 32 64" ] || fail "depths"
sed -n '/"by_position"/,/"texts"/p' "$work/out" >"$work/depths"
cp "$work/depths" "$work/out"
near "$(value nll_mean 6)" "$plain" "the last depth"
# The second depth, positions 2 and 3 of a window, is what a window of five tokens scores.
run 0 perplexity "$demo" --text "$a" --ctx 64 --chunks 1 --json --by-position
sed -n '/"by_position"/,/"texts"/p' "$work/out" >"$work/depths"
run 0 perplexity "$demo" --text "$a" --ctx 5 --chunks 1 --json
short=$(value nll_mean 1)
cp "$work/depths" "$work/out"
near "$(value nll_mean 2)" "$short" "the second depth"

# Answers alone.
cat >"$work/chat.jsonl" <<'END'
{"m": [{"role": "user", "content": "What does a quantizer do with a weight?"}, {"role": "assistant", "content": "It rounds the weight to one of a few values and keeps a scale for a block of them."}]}
{"m": [{"role": "user", "content": "And the error?"}, {"role": "assistant", "content": "It is handed on to the columns behind."}, {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So that the sum stays what it was."}]}
END
run 0 compare "$demo" Q4_K_M --jsonl m --text "$work/chat.jsonl" --ctx 32 --answers-only --json
json
[ "$(value answers_only 1)" = true ] || fail "answers_only"
scored=$(value n_tokens_scored 1)
run 0 compare "$demo" Q4_K_M --jsonl m --text "$work/chat.jsonl" --ctx 32 --json
[ "$scored" -lt "$(value n_tokens_scored 1)" ] && [ "$scored" -gt 5 ] || fail "$scored tokens of answers"
run 0 perplexity "$demo" --jsonl m --text "$work/chat.jsonl" --ctx 32 --answers-only
prints "$scored scored, those of answers"

# What is refused.
run 2 perplexity "$demo" --text "$a" --answers-only
says "chats come from --jsonl"
run 2 perplexity "$demo" --text "$a" --weights 1,2
says "a number above 0 for each --text, of which there are 1"
run 2 perplexity "$demo" --text "$a" --text "$b" --weights 1,-2
says "--weights"
run 1 perplexity "$demo" --text "$a" --text "$b" --weights 1,2 --ctx 64 --chunks 1
says "nothing of it is scored"
printf '{"m": "no messages"}\n' >"$work/plain.jsonl"
run 1 perplexity "$demo" --jsonl m --text "$work/plain.jsonl" --ctx 4 --answers-only
says "line 1: expected messages in the field 'm'"

# A stored reference: answers, depths and texts are those of the direct comparison, also where the text is not given again.
near_kld() # near_kld A B NAME: a divergence from sketches
{
    awk -v a="$1" -v b="$2" 'BEGIN { d = a / b - 1; exit !(d < 2e-3 && d > -2e-3) }' || fail "$3: $1 is not $2"
    n_checks=$((n_checks + 1))
}
run 0 compare "$demo" Q4_K_M --save-reference "$work/chat.ref" --jsonl m --text "$work/chat.jsonl" --ctx 32 --answers-only --json
nll=$(value nll_mean 1) kld=$(value kld_mean 1)
run 0 convert "$demo" -o "$work/q4.gguf" --type Q4_K_M
run 0 compare --reference "$work/chat.ref" "$work/q4.gguf" --json
[ "$(value answers_only 1)" = true ] && [ "$(value n_tokens_scored 1)" = "$scored" ] || fail "stored answers"
near "$(value nll_mean 1)" "$nll" "the stored answers"
near_kld "$(value kld_mean 1)" "$kld" "the candidate on stored answers"
run 0 compare --reference "$work/chat.ref" "$work/q4.gguf" --jsonl m --text "$work/chat.jsonl" --answers-only --ctx 32
run 1 compare --reference "$work/chat.ref" "$work/q4.gguf" --text "$work/chat.jsonl" --ctx 32
says "was made of other tokens than this text gives"
run 1 compare --reference "$work/chat.ref" "$work/q4.gguf" --by-position
says "was made without --by-position"

run 0 compare "$demo" Q4_K_M --save-reference "$work/parts.ref" --text "$a" --text "$b" --ctx 64 --by-position --weights 3,1 --json
cp "$work/out" "$all"
run 0 compare --reference "$work/parts.ref" "$work/q4.gguf" --by-position --weights 3,1 --json
for part in by_text by_position; do
    sed -n "/\"$part\"/,/^  \]/p" "$all" >"$work/direct"
    sed -n "/\"$part\"/,/^  \]/p" "$work/out" >"$work/stored"
    [ "$(grep -c nll_mean "$work/direct")" -gt 3 ] || fail "$part is not there"
    grep 'nll_mean\|n_tokens\|first\|end\|weight' "$work/direct" >"$work/direct.exact"
    grep 'nll_mean\|n_tokens\|first\|end\|weight' "$work/stored" | cmp -s - "$work/direct.exact" || fail "$part is not that of the direct comparison"
    n_checks=$((n_checks + 2))
done
near_kld "$(value kld_mean 3)" "$(sed -n 's/^ *"kld_mean": \([^,]*\),*$/\1/p' "$all" | sed -n 3p)" "the candidate in a part"
run 1 compare --reference "$work/parts.ref" "$work/q4.gguf" --weights 3
says "a number above 0 for each text of $work/parts.ref, of which there are 2"
run 1 compare --reference "$work/parts.ref" "$work/q4.gguf" --answers-only
says "was made without --answers-only"

done_testing
