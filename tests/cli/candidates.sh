#!/bin/sh
# Candidates on the fly: a plan and a recipe measure what kerf quantize writes with the same options.
. "$(dirname "$0")/lib.sh"

text=$work/text.txt
cat "$src/LICENSE" "$src/tests/golden/README.md" >"$text"
value() { sed -n "s/^ *\"$1\": \([^,]*\),*$/\1/p" "$work/out" | sed -n "$2p"; }
alike() # alike N M: candidates N and M have the same figures
{
    for key in kld_mean kld_max ppl_ratio delta_p_rms n_fallbacks; do
        [ "$(value $key "$1")" = "$(value $key "$2")" ] || fail "$key of candidates $1 and $2 differs"
    done
    for key in n_bytes bits_per_weight; do # the reference has these, too
        [ "$(value $key $(($1 + 1)))" = "$(value $key $(($2 + 1)))" ] || fail "$key of candidates $1 and $2 differs"
    done
}

printf 'blk\\.[01]\\..* Q6_K\n.* Q4_K\n' >"$work/my.plan"
printf '# kerf recipe 1\ntype Q4_K_M\ntensor-type ffn_down=Q8_0 # more\ntensor-type attn_=Q5_K\nembedding-type Q6_K\n' \
    >"$work/my.recipe"
run 0 quantize "$demo" -o "$work/plan.gguf" --plan "$work/my.plan"
run 0 quantize "$demo" -o "$work/recipe.gguf" --type Q4_K_M --tensor-type ffn_down=Q8_0 --tensor-type attn_=Q5_K \
    --embedding-type Q6_K
run 0 compare "$demo" "$work/plan.gguf" "plan:$work/my.plan" "$work/recipe.gguf" "recipe:$work/my.recipe" \
    --text "$text" --ctx 128 --chunks 3 --json
json
alike 1 2
alike 3 4
[ "$(value kld_mean 1)" != "$(value kld_mean 3)" ] || fail "the plan and the recipe are one"
prints "\"type\": \"plan:$work/my.plan\""

# A recipe may have a matrix of its own, or none where the command has one.
run 0 imatrix "$demo" --text "$text" --ctx 128 --chunks 2 -o "$work/im.gguf"
printf 'type Q2_K\nimatrix im.gguf\n' >"$work/with.recipe"
printf 'type Q2_K\nimatrix none\n' >"$work/without.recipe"
run 0 compare "$demo" Q2_K "recipe:$work/with.recipe" "recipe:$work/without.recipe" --imatrix "$work/im.gguf" \
    --text "$text" --ctx 128 --chunks 2 --json
alike 1 2
[ "$(value kld_mean 2)" != "$(value kld_mean 3)" ] || fail "the matrix of a recipe changes nothing"
[ "$(value imatrix 3)" = null ] && [ "$(value imatrix 2)" = "\"$work/im.gguf\"" ] || fail "imatrix of the candidates"

# Levels of a ladder.
run 0 ladder "$demo" --types "Q8_0,plan:$work/my.plan,recipe:$work/my.recipe" --text "$text" --ctx 128 --chunks 2 --json
[ "$(value type 2)" = "\"plan:$work/my.plan\"" ] && [ "$(value type 3)" = "\"recipe:$work/my.recipe\"" ] || fail "levels"

# A file of that very name comes first; what is wrong is told with its place; inputs stay.
cp "$work/plan.gguf" "$work/plan:x"
cd "$work"
run 0 compare "$demo" plan:x --text "$text" --ctx 128 --chunks 1
cd "$src"
run 2 compare "$demo" plan: --text "$text"
says "expected the name of a file after the colon"
run 2 ladder "$demo" --types Q8_0,recipe: --text "$text"
says "expected a file after the colon"
run 2 ladder "$demo" --types , --text "$text"
says "the list of types is empty"
run 2 compare "$demo" nonsense --text "$text"
says "there are also plan:FILE, recipe:FILE and kv:TYPE"
run 1 compare "$demo" "plan:$work/none.plan" --text "$text"
says "none.plan"
printf 'type Q4_K_M\ntensor-typ x=Q8_0\n' >"$work/bad.recipe"
run 1 compare "$demo" "recipe:$work/bad.recipe" --text "$text"
says "bad.recipe: line 2: 'tensor-typ' is not a word of a recipe"
cp "$work/my.recipe" "$work/before"
run 1 compare "$demo" "recipe:$work/my.recipe" --text "$text" --ctx 128 --chunks 1 --html "$work/my.recipe" --force
says "inputs are never replaced"
same "$work/my.recipe" "$work/before"
run 1 compare "$work/recipe.gguf" "plan:$work/my.plan" --text "$text" --ctx 128
says "--allow-requantize"

done_testing
