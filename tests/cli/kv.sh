#!/bin/sh
# The cache of keys and values: candidates with one, --kv-type, what is refused.
. "$(dirname "$0")/lib.sh"

text=$src/tests/data/prose.md
cd "$work" || exit 1
measure="--text $text --ctx 128 --chunks 6"
value() { sed -n "s/^ *\"$1\": \([^,]*\),*$/\1/p" out | sed -n "${2:-1}p"; }
less() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a < b) }' || fail "$1 is not less than $2"; }

# Fewer bits lose more; weights and cache together lose more than either.
run 0 compare "$demo" kv:f16 kv:q8_0 kv:q5_1 kv:q4_0 Q4_K_M Q4_K_M+kv:q4_0 $measure --json
json
for i in 1 2 3; do less "$(value kld_mean $i)" "$(value kld_mean $((i + 1)))"; done
less "$(value kld_mean 4)" "$(value kld_mean 6)"
less "$(value kld_mean 5)" "$(value kld_mean 6)"
[ "$(value kv_type 1)" = null ] && [ "$(value kv_type 3)" = '"q8_0"' ] && [ "$(value kv_type 7)" = '"q4_0"' ] || fail "kv_type"
[ "$(value type 2)" = '"kv:q8_0"' ] && [ "$(value type 6)" = '"Q4_K_M+kv:q4_0"' ] || fail "the names of candidates"
[ "$(value n_bytes 2)" = "$(value n_bytes 1)" ] || fail "a cache has no bytes in a file"
both=$(value kld_mean 6)

# The same by --kv-type, of a file, in a ladder, whatever the threads and the memory.
run 0 quantize "$demo" -o q4.gguf --type Q4_K_M
run 0 compare "$demo" q4.gguf $measure --kv-type Q4_0 --threads 1 --memory 32MiB --json
[ "$(value kld_mean)" = "$both" ] || fail "--kv-type of a file is not +kv:"
run 0 compare "$demo" q4.gguf+kv:q4_0 $measure --json
[ "$(value kld_mean)" = "$both" ] || fail "a file with a cache"
run 0 compare "$demo" q4.gguf+kv:q4_0 $measure
prints "q4.gguf+kv:q4_0"
run 0 ladder "$demo" --types Q8_0,Q4_K_M+kv:q4_0,kv:q8_0/q4_0 $measure --json
[ "$(value kld_mean 2)" = "$both" ] || fail "a level with a cache"
prints '"kv_type": "q8_0,q4_0"'

# What --resume keeps is of one cache.
run 0 compare "$demo" q4.gguf $measure --resume --state kept --json
[ "$(value kld_mean)" != "$both" ] || fail "without a cache"
run 0 compare "$demo" q4.gguf+kv:q4_0 $measure --resume --state kept --json
[ "$(value kld_mean)" = "$both" ] || fail "--resume takes another cache's figures"
run 0 compare "$demo" --save-reference ref $measure
run 0 compare --reference ref q4.gguf+kv:q4_0 --json
less "$(value kld_mean)" "$(awk -v b="$both" 'BEGIN { print b * 1.01 }')"
less "$(awk -v b="$both" 'BEGIN { print b * 0.99 }')" "$(value kld_mean)"

# The only model of a command has the cache itself.
run 0 perplexity "$demo" $measure --json
plain=$(value nll_mean)
run 0 perplexity "$demo" $measure --kv-type q4_0,q8_0 --json
[ "$(value nll_mean)" != "$plain" ] || fail "perplexity --kv-type"
prints '"kv_type": "q4_0,q8_0"'
run 0 perplexity "$demo" $measure --kv-type f32 --json
[ "$(value nll_mean)" = "$plain" ] || fail "f32 is exact"
run 0 score "$demo" kv:q4_0 "$demo+kv:q8_0" --task "$src/tests/data/tasks/small.jsonl" --records r.jsonl
prints "kv:q4_0 chooses differently from demo-qwen3 in"
[ "$(sed 's/.*"log_lik/"log_lik/' r.jsonl | sort -u | wc -l)" -gt 40 ] || fail "the cache changes no log-likelihood"

# What cannot be right.
run 2 compare "$demo" kv:q3_0 $measure
says "'kv:q3_0': expected kv:TYPE or kv:KEYS/VALUES of f32|f16"
run 2 perplexity "$demo" $measure --kv-type q4_K
says "--kv-type 'q4_K': expected a type, or two with a comma between"
"$bin/make_family" granite small >/dev/null || fail "make_family"
echo '[5, 17, 30, 42, 7, 9]' >ids.json
run 1 perplexity small --ids ids.json --kv-type q8_0
says "keys of layer 0 have 16 entries a head, which blocks of 32 do not divide"
run 0 perplexity small --ids ids.json --kv-type bf16

# A cache of latents has no values of its own: a second type is said to decide nothing, and decides nothing.
"$bin/make_family" deepseek3 latents >/dev/null || fail "make_family"
idle() # COUNT ARGS...: so many warnings
{
    n=$1
    shift
    run 0 "$@"
    [ "$(grep -c "the second decides nothing" err)" -eq "$n" ] || fail "$*: not $n warnings"
}
idle 0 perplexity latents --ids ids.json --kv-type bf16 --json
bf16=$(value nll_mean)
idle 1 perplexity latents --ids ids.json --kv-type bf16,f16 --json
prints '"code": "option-idle"'
[ "$(value nll_mean)" = "$bf16" ] || fail "the type of values changes figures"
idle 1 compare latents kv:bf16/f16 kv:f16 --ids ids.json
idle 0 perplexity small --ids ids.json --kv-type bf16,f16
idle 1 fit latents --memory 64MiB --ctx 64 --kv-type f16,bf16
idle 0 fit latents --memory 64MiB --ctx 64 --kv-type f16
idle 0 fit small --memory 64MiB --ctx 64 --kv-type f16,bf16
done_testing
