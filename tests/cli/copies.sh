#!/bin/sh
# kerf edit, split, merge and hash.
. "$(dirname "$0")/lib.sh"

a=$work/a.gguf
run 0 convert "$demo" -o "$a" --type Q8_0
model_hash()
{
    "$kerf" hash "$1" --json | sed -n 's/^  "model": "\(.*\)",*$/\1/p'
}
content=$(model_hash "$a")
[ "${#content}" -eq 64 ] || fail "no hash"

# Split and merge: the same content, whatever the parts.
run 0 split "$a" -o "$work/p" --max-size 1500KiB --json
json
prints '"n_tensors": 46'
n=$(ls "$work"/p-*.gguf | wc -l)
[ "$n" -ge 3 ] || fail "expected at least three parts, found $n"
for f in "$work"/p-*.gguf; do
    [ "$(wc -c <"$f")" -le 1536000 ] || fail "$f is larger than asked"
done
first=$(ls "$work"/p-*.gguf | head -1)
last=$(ls "$work"/p-*.gguf | tail -1)
[ "$(model_hash "$first")" = "$content" ] || fail "splitting changed the content"
run 0 merge "$last" -o "$work/m.gguf"
run 0 merge "$work"/p-0*.gguf -o "$work/all.gguf" # as a shell names them
same "$work/m.gguf" "$work/all.gguf"
run 2 merge "$last" "$a" -o "$work/x.gguf"
says "is no part of the set"
cat "$work"/p-0*.gguf >"$work/joined.gguf"
run 1 inspect "$work/joined.gguf"
says "'kerf merge' joins them"
[ "$(model_hash "$work/m.gguf")" = "$content" ] || fail "merging changed the content"
! grep -q "is one file" "$work/err" || fail "a set is said to be one file"
run 0 merge "$a" -o "$work/copy.gguf"
says "a.gguf is one file, not a part of several: the output is a copy of it"
same "$a" "$work/copy.gguf"
run 0 diff "$a" "$work/m.gguf" --exit-code
run 0 split "$a" -o "$work/t" --max-tensors 20 --dry-run
prints "would be"
[ -z "$(ls "$work"/t-* 2>/dev/null)" ] || fail "a dry run wrote files"
run 1 merge "$first" -o "$work/m.gguf"
says "exists already"
rm "$last"
run 1 merge "$first" -o "$work/n.gguf"
absent "$work/n.gguf"
run 0 split "$a" -o "$work/one" --max-size 1GB # one part is not an older set beside itself
[ -e "$work/one-00001-of-00001.gguf" ] || fail "no part"
! grep -q warning "$work/err" || fail "a warning about the set it has just written"
run 0 convert "$demo" -o "$work/single.gguf" --type Q8_0 --split-max-size 1GB
! grep -q "older set" "$work/err" || fail "a warning about the set it has just written"
run 2 split "$a" -o "$work/p"
run 2 split "$a" --max-size 1MiB

# Edit: types are kept or stated, tensors stay.
run 0 edit "$a" -o "$work/e.gguf" --set "general.name=A new name" --set qwen3.context_length=1024 \
    --set "my.list:u16[]=1,2,3" --remove general.size_label
prints "qwen3.context_length: 512 -> 1024"
prints "general.name: Demo Qwen3 -> A new name"
prints "my.list (new, u16[3]) = [1, 2, 3]"
[ ! -s "$work/err" ] || fail "a key that resembles none is remarked on"
run 0 edit "$a" -o "$work/dry.gguf" --dry-run --set general.nmae=x
prints "general.nmae (new, string) = x"
says "'general.nmae' is a new key; did you mean 'general.name'?"
run 0 edit "$a" -o "$work/dry.gguf" --dry-run --set general.tags=code,chat
prints "general.tags (new, string[2]) = [code, chat]"
[ ! -s "$work/err" ] || fail "a known key is remarked on"
run 0 inspect "$work/e.gguf" --json
json
prints '"general.name": "A new name"'
prints '"qwen3.context_length": 1024'
! grep -q size_label "$work/out" || fail "the key is still there"
[ "$(model_hash "$work/e.gguf")" != "$content" ] || fail "the hash does not see the metadata"
run 0 diff "$a" "$work/e.gguf"
prints "46 of 46 tensors are the same"
run 0 edit "$work/e.gguf" -o "$work/e.gguf" --force --remove my.list --set qwen3.context_length=512 \
    --set "general.name=Demo Qwen3" --set general.size_label=4.2M
[ "$(model_hash "$work/e.gguf")" = "$content" ] || fail "edits taken back do not give the old content"
printf '{{ messages }}' >"$work/template"
ln -s e.gguf "$work/soft.gguf"
run 1 edit "$work/e.gguf" -o "$work/soft.gguf" --force --set a=b
says "inputs are never replaced"
run 0 edit "$a" -o "$work/c.gguf" --chat-template "$work/template"
run 0 inspect "$work/c.gguf"
prints "{{ messages }}"
run 2 edit "$a" -o "$work/x.gguf" --set qwen3.context_length=many
says "expected a u32, found 'many'"
run 1 edit "$a" -o "$work/x.gguf" --remove no.such.key
run 1 edit "$a" -o "$work/x.gguf" --chat-template "$work/none"
run 2 edit "$a" -o "$work/x.gguf"
absent "$work/x.gguf"

# Hashes do not depend on threads, and are of the bytes.
run 0 hash "$a" --threads 1
cp "$work/out" "$work/one"
run 0 hash "$a" --threads 6
same "$work/out" "$work/one"
prints "token_embd.weight"
run 1 hash "$demo/model.safetensors"
# Several files: a line each, all of them although one cannot be read; a list in JSON.
run 1 hash "$a" "$work/nothing.gguf" "$work/m.gguf"
says "nothing.gguf"
[ "$(cut -c 67- "$work/out")" = "$(printf '%s\n' "$a" "$work/m.gguf")" ] || fail "not a line of each file"
grep -q "^$content  $work/m.gguf" "$work/out" || fail "the hash of one file of several"
run 1 hash "$a" "$work/nothing.gguf" --json
json
prints '"files": ['
prints '"code": "io"'
grep -q "\"model\": \"$content\"" "$work/out" || fail "the hash of one file of several in JSON"
run 1 hash "$work/nothing.gguf" --json
! grep -q '"files"' "$work/out" || fail "a list for one file"

# Layers left out: the others keep their bytes under new numbers, and the model still runs.
run 0 edit "$a" -o "$work/short.gguf" --drop-layers 1-2
prints "24 tensors"
run 0 verify "$work/short.gguf"
run 0 perplexity "$work/short.gguf" --text "$src/tests/data/prose.md" --ctx 64 --chunks 1
run 2 edit "$a" -o "$work/shorter.gguf" --drop-layers 2-4
says "layer 4 cannot be dropped, the layers are 0 to 3"
echo "*: 1" >"$work/drop.txt"
run 2 edit "$a" -o "$work/shorter.gguf" --drop-experts "$work/drop.txt"
says "has no experts to drop"
absent "$work/shorter.gguf"

# A file of an architecture that is not known here: all that needs no forward pass.
run 0 convert "$demo" -o "$work/known.gguf"
run 0 edit "$work/known.gguf" -o "$work/unknown.gguf" --set general.architecture=newarch --force
run 0 inspect "$work/unknown.gguf"
prints newarch
run 0 hash "$work/unknown.gguf"
run 0 verify "$work/unknown.gguf"
run 0 quantize "$work/unknown.gguf" -o "$work/unknown-q.gguf" --type Q4_K_M
run 0 edit "$work/unknown-q.gguf" -o "$work/unknown-e.gguf" --set general.name=x
run 0 split "$work/unknown.gguf" -o "$work/unknown-s" --max-size 3MB
run 0 merge "$work/unknown-s-00001-of-00004.gguf" -o "$work/unknown-m.gguf"
run 0 diff "$work/unknown.gguf" "$work/unknown-m.gguf" --exit-code
printf 'hello world' >"$work/hello.txt"
run 0 tokenize "$work/known.gguf" "$work/hello.txt"
cp "$work/out" "$work/ids"
run 0 tokenize "$work/unknown-q.gguf" "$work/hello.txt"
same "$work/out" "$work/ids"
run 1 perplexity "$work/unknown.gguf" --text "$work/hello.txt"
says "no forward pass for architecture 'newarch'"

done_testing
