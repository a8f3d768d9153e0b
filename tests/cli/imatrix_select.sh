#!/bin/sh
# Calibration that is steered: windows from the middle on, entries by name, every expert shown every token; and tensors
# that are encoded without the matrix.
. "$(dirname "$0")/lib.sh"

value() { sed -n "s/^ *\"$1\": \([^,]*\),*$/\1/p" "$work/out" | sed -n "$2p"; }
text=$work/text.txt
cat "$src/LICENSE" "$src/tests/golden/README.md" >"$text"

# Windows 0 and 1, and from 2 on: merged they are the whole.
run 0 imatrix "$demo" --text "$text" --ctx 64 --chunks 5 -o "$work/all.gguf"
run 0 imatrix "$demo" --text "$text" --ctx 64 --chunks 2 -o "$work/head.gguf"
run 0 imatrix "$demo" --text "$text" --ctx 64 --chunks 3 --from-chunk 2 -o "$work/tail.gguf" --json
[ "$(value n_chunks 1)" = 3 ] || fail "--chunks counts from --from-chunk on"
run 0 imatrix merge "$work/head.gguf" "$work/tail.gguf" -o "$work/merged.gguf"
run 0 quantize "$demo" -o "$work/a.gguf" --type Q2_K --imatrix "$work/all.gguf"
run 0 quantize "$demo" -o "$work/b.gguf" --type Q2_K --imatrix "$work/merged.gguf"
run 0 hash "$work/a.gguf" --json
hash=$(value sha256 1)
run 0 hash "$work/b.gguf" --json
[ -n "$hash" ] && [ "$(value sha256 1)" = "$hash" ] || fail "two parts of a text are not the whole"
run 1 imatrix "$demo" --text "$text" --ctx 64 --chunks 2 --from-chunk 100000 -o "$work/x.gguf"
says "--from-chunk 100000: the text has"
absent "$work/x.gguf"

# Entries by name.
run 0 imatrix show "$work/all.gguf" --json
n=$(grep -c "\"name\":" "$work/out")
run 0 imatrix "$demo" --text "$text" --ctx 64 --chunks 2 --include 'blk\.0\.' --exclude ffn_down -o "$work/some.gguf" --json
some=$(grep -c "\"name\":" "$work/out")
[ "$some" -gt 0 ] && [ "$some" -lt "$n" ] || fail "$some of $n entries"
grep -q '"name": "blk.0.attn_q.weight"' "$work/out" || fail "--include"
grep -q 'ffn_down\|"blk.1' "$work/out" && fail "--exclude"
run 1 imatrix "$demo" --text "$text" --ctx 64 --include '(' -o "$work/x.gguf"
run 1 imatrix "$demo" --text "$text" --ctx 64 --chunks 1 --include nothing -o "$work/x.gguf"
says "leave no entry"

# Tensors without the matrix have the bytes of a run without one, the others those of a run with it.
run 0 quantize "$demo" -o "$work/plain.gguf" --type Q2_K
run 0 quantize "$demo" -o "$work/mixed.gguf" --type Q2_K --imatrix "$work/all.gguf" --imatrix-exclude ffn_
tensor() { run 0 hash "$1" --json && sed -n "/\"name\": \"$2\"/,/}/s/^ *\"sha256\": //p" "$work/out" | head -1; }
for t in blk.1.ffn_up.weight blk.1.attn_q.weight; do
    a=$(tensor "$work/a.gguf" $t)
    plain=$(tensor "$work/plain.gguf" $t)
    mixed=$(tensor "$work/mixed.gguf" $t)
    [ -n "$a" ] && [ "$a" != "$plain" ] || fail "$t: the matrix changes nothing"
    case $t in *ffn*) want=$plain ;; *) want=$a ;; esac
    [ "$mixed" = "$want" ] || fail "$t: not the bytes that were asked for"
done
run 1 quantize "$demo" -o "$work/x.gguf" --type Q2_K --imatrix "$work/all.gguf" --imatrix-exclude .
says "leaves no entry"
run 2 quantize "$demo" -o "$work/x.gguf" --type Q2_K --imatrix-exclude ffn_
says "--imatrix-exclude"

# Every expert sees every token: none is starved, counts are equal, and the model computes what it did.
"$bin/make_family" qwen3moe "$work/moe" >/dev/null || fail "make_family"
run 0 imatrix "$work/moe" --text "$text" --ctx 32 --chunks 2 -o "$work/chosen.gguf" --json
ppl=$(value perplexity 1)
run 0 imatrix "$work/moe" --text "$text" --ctx 32 --chunks 2 --all-experts -o "$work/every.gguf" --json
[ "$(value perplexity 1)" = "$ppl" ] || fail "--all-experts changes what the model computes"
for k in $(sed -n 's/^ *"starved_experts": \([0-9]*\).*/\1/p' "$work/out"); do
    [ "$k" = 0 ] || fail "an expert is starved"
done
run 0 imatrix show "$work/every.gguf"
prints "every expert was shown every token"
awk '/^blk.0.ffn_gate_inp/ { one = $2 } /^blk.0.ffn_gate_exps/ { all = $2 }
    END { d = all / (8 * one) - 1; exit !(one > 0 && d < 1e-5 && d > -1e-5) }' "$work/out" ||
    fail "eight experts have not seen eight times what the router saw"
run 0 imatrix show "$work/chosen.gguf" --json
[ "$(value all_experts 1)" = false ] || fail "all_experts of a plain one"
run 0 imatrix "$work/moe" --text "$text" --ctx 32 --chunks 2 --all-experts -o "$work/again.gguf" --threads 1 --memory 16MiB
same "$work/every.gguf" "$work/again.gguf"
run 0 imatrix merge "$work/every.gguf" "$work/chosen.gguf" -o "$work/both.gguf"
run 0 imatrix show "$work/both.gguf" --json
[ "$(value all_experts 1)" = true ] || fail "all_experts is lost by merging"

# By the router's weight: the weights of a token's experts add up to one, so that each has an eighth of the tokens on average
# (counts of a file are whole).
run 0 imatrix "$work/moe" --text "$text" --ctx 32 --chunks 2 --all-experts --expert-weights router -o "$work/router.gguf" --json
[ "$(value perplexity 1)" = "$ppl" ] || fail "--expert-weights changes what the model computes"
run 0 imatrix show "$work/router.gguf"
prints "every expert was shown every token, which counts by the router's weight"
run 0 imatrix show "$work/router.gguf" --json
[ "$(value by_router 1)" = true ] || fail "by_router"
awk '/"name"/ { gate = /ffn_gate_exps/ } gate && /"tokens_mean"/ { gsub(/[",]/, ""); n++; if ($2 < 7.5 || $2 > 8.5) bad = 1 }
    END { exit !(n == 3) || bad }' "$work/out" || fail "weights of the router do not add up to the tokens"
run 0 imatrix "$work/moe" --text "$text" --ctx 32 --chunks 2 --all-experts --expert-weights router -o "$work/again.gguf" \
    --threads 1 --memory 16MiB --force
same "$work/router.gguf" "$work/again.gguf"
run 0 imatrix "$work/moe" --text "$text" --ctx 32 --chunks 2 --all-experts --expert-weights plain -o "$work/again.gguf" --force
same "$work/every.gguf" "$work/again.gguf"
run 2 imatrix "$work/moe" --text "$text" --expert-weights router -o "$work/x.gguf"
says "--expert-weights: says how tokens count with --all-experts"

done_testing
