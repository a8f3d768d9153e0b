#!/bin/sh
# Damaged inputs: a clear message that names the place, exit 1, nothing written.
. "$(dirname "$0")/lib.sh"

out=$work/out.gguf

# refuse TEXT MODEL: convert fails, says so, leaves nothing.
refuse()
{
    run 1 convert "$2" -o "$out"
    says "$1"
    absent "$out"
}

# copy NAME: a fresh two-shard checkpoint to damage.
"$bin/make_checkpoint" --shards 2 "$work/toy" >/dev/null || fail "make_checkpoint"
fresh()
{
    rm -rf "$work/bad"
    cp -r "$work/toy" "$work/bad"
}

fresh
rm "$work/bad/model-00002-of-00002.safetensors"
refuse "model-00002-of-00002.safetensors" "$work/bad"

fresh
size=$(wc -c <"$work/bad/model-00002-of-00002.safetensors")
head -c $((size - 100)) "$work/toy/model-00002-of-00002.safetensors" >"$work/bad/model-00002-of-00002.safetensors"
refuse "model-00002-of-00002.safetensors" "$work/bad"

if [ "$(id -u)" -ne 0 ]; then # root reads everything
    fresh
    chmod 000 "$work/bad/model-00001-of-00002.safetensors"
    refuse "Permission denied" "$work/bad"
fi

fresh
rm "$work/bad/config.json"
refuse "config.json" "$work/bad"

fresh
sed 's/"hidden_size": 256/"hidden_size": 512/' "$work/toy/config.json" >"$work/bad/config.json"
refuse "expected" "$work/bad"

fresh
sed 's/"Qwen[A-Za-z0-9]*ForCausalLM"/"HyperLM9ForCausalLM"/; s/"model_type": "[^"]*"/"model_type": "hyper9"/' \
    "$work/toy/config.json" >"$work/bad/config.json"
refuse "HyperLM9ForCausalLM" "$work/bad"

fresh
sed -i 's/q_proj/x_proj/g' "$work/bad/model-00001-of-00002.safetensors" "$work/bad/model.safetensors.index.json"
refuse "x_proj" "$work/bad"

fresh
echo '{' >"$work/bad/config.json"
refuse "config.json" "$work/bad"

# Every malformed folder and file that the readers know, through the program: never a crash.
for bad in "$src"/tests/data/bad/checkpoint/* "$src"/tests/data/bad/gguf/*; do
    for command in inspect verify convert; do
        got=0
        set -- "$command" "$bad"
        [ "$command" = convert ] && set -- "$@" -o "$out"
        "$kerf" "$@" >"$work/out" 2>"$work/err" || got=$?
        [ "$got" -le 3 ] || fail "kerf $*: exit $got"
        [ "$got" -ne 1 ] || [ -s "$work/err" ] || fail "kerf $*: failed without a word"
        rm -f "$out"
        n_checks=$((n_checks + 1))
    done
done

# Cut GGUF files: refused by convert, looked at by inspect, told by verify.
run 0 convert "$demo" -o "$work/whole.gguf" --type Q8_0
for n in 0 3 20 4000 200000 1000000; do
    head -c "$n" "$work/whole.gguf" >"$work/cut.gguf"
    refuse "cut.gguf" "$work/cut.gguf"
    run 3 verify "$work/cut.gguf"
done
run 0 inspect "$work/cut.gguf"
says "missing"

# A split set without one of its parts.
run 0 convert "$demo" -o "$work/set.gguf" --split-max-size 3MiB
mv "$work/set-00002-of-00003.gguf" "$work/away"
refuse "set-00002-of-00003.gguf" "$work/set-00001-of-00003.gguf"
mv "$work/away" "$work/set-00002-of-00003.gguf"

# Planning needs no weights; converting does.
fresh
rm "$work"/bad/model-*.safetensors
run 0 convert "$work/bad" --type Q4_K_M --dry-run
run 1 convert "$work/bad" -o "$out"
absent "$out"

# An input that shrinks while it is read: an error that says so, or a run that was faster.
"$bin/make_checkpoint" --arch llama --layers 3 --hidden 512 --heads 8 --kv-heads 4 --ffn 1024 --vocab 2048 \
    "$work/shrink" >/dev/null || fail "make_checkpoint"
"$kerf" convert "$work/shrink" -o "$out" --type Q3_K_M --isa ref --threads 1 >"$work/out" 2>"$work/err" &
pid=$!
sleep 0.1
: >"$work/shrink/model.safetensors"
got=0
wait "$pid" || got=$?
case $got in
0) rm "$out" ;;
1) grep -qE 'became shorter|model\.safetensors' "$work/err" || fail "shrinking input: wrong message" ;;
*) fail "shrinking input: exit $got" ;;
esac
absent "$out"

# A NaN in the weights: verify finds it, quantize refuses it.
cp -r "$demo" "$work/nan"
size=$(wc -c <"$work/nan/model.safetensors")
chmod u+w "$work/nan/model.safetensors"
printf '\377\177' | dd of="$work/nan/model.safetensors" bs=1 seek=$((size - 2)) conv=notrunc 2>/dev/null
run 3 verify "$work/nan"
prints "found NaN"
refuse "found NaN" "$work/nan"
printf '\200\377' | dd of="$work/nan/model.safetensors" bs=1 seek=$((size - 2)) conv=notrunc 2>/dev/null
run 3 verify "$work/nan"
prints "found Inf"

# verify: shapes against the architecture, missing tensors.
run 0 verify "$work/whole.gguf" --json
json
prints '"valid": true'
sed 's/blk\.1\.attn_q\.weight/blk.1.attn_z.weight/' "$work/whole.gguf" >"$work/renamed.gguf"
run 3 verify "$work/renamed.gguf"
prints "tensor 'blk.1.attn_q.weight' is missing"
prints "tensor 'blk.1.attn_z.weight': architecture qwen3 has no tensor of this name"
run 1 verify "$work/nothing.gguf"
# Several: each is told, and the exit code is the worst.
cp "$work/whole.gguf" "$work/sound.gguf"
run 3 verify "$work/renamed.gguf" "$work/sound.gguf"
prints "sound.gguf: valid: 46 tensors"
prints "renamed.gguf: "
run 1 verify "$work/renamed.gguf" "$work/nothing.gguf" "$work/sound.gguf"
says "nothing.gguf"
prints "sound.gguf: valid: 46 tensors"
run 1 verify "$work/renamed.gguf" "$work/nothing.gguf" "$work/sound.gguf" --json
json
[ "$(grep '"valid": ' "$work/out" | tr -d ' ,\n')" = '"valid":false"valid":false"valid":null"valid":true' ] || fail "what is valid"
prints '"files": ['
prints '"code": "io"'
run 0 verify "$work/sound.gguf" --json
! grep -q '"files"' "$work/out" || fail "a list for one file"
# A model without vocabulary is sound, and said to lack it.
keys=$("$kerf" inspect "$work/sound.gguf" --json | sed -n 's/^    "\(tokenizer\.[^"]*\)".*/--remove \1/p')
run 0 edit "$work/sound.gguf" -o "$work/mute.gguf" --force $keys
run 0 verify "$work/mute.gguf" --json
prints '"code": "no-vocabulary"'
prints '"valid": true'
run 3 verify "$work/mute.gguf" --strict

# A full disk: an error and nothing left. Needs a small file system, so only where one may be mounted.
small=$work/small
mkdir "$small"
run 0 imatrix "$demo" --text "$src/LICENSE" --ctx 64 --chunks 2 -o "$work/im.gguf"
if mount -t tmpfs -o size=4m tmpfs "$small" 2>/dev/null; then
    trap 'umount "$small"; rm -rf "$work"' EXIT
    # full TEXT ARGS...: fails, says so, leaves nothing
    full()
    {
        expected=$1
        shift
        run 1 "$@"
        says "$expected"
        says "$small/"
        [ -z "$(ls "$small" | grep -v '^filling$')" ] || fail "kerf $*: left $(ls "$small") on the full disk"
    }
    full "are free on this file system" convert "$demo" -o "$small/out.gguf"
    full "are free on this file system" convert "$demo" -o "$small/out.gguf" --resume
    full "are free on this file system" convert "$demo" -o "$small/out.gguf" --split-max-size 3MiB
    full "are free on this file system" quantize "$work/whole.gguf" -o "$small/out.gguf" --type BF16 --allow-requantize
    full "are free on this file system" split "$work/whole.gguf" -o "$small/out" --max-size 1500KiB
    full "are free on this file system" merge "$work/whole.gguf" -o "$small/out.gguf"
    full "are free on this file system" edit "$work/whole.gguf" -o "$small/out.gguf" --set a=b
    dd if=/dev/zero of="$small/filling" bs=4096 2>/dev/null || true
    full "space" imatrix "$demo" --text "$src/LICENSE" --ctx 64 --chunks 2 -o "$small/im.gguf"
    full "space" imatrix merge "$work/im.gguf" "$work/im.gguf" -o "$small/im.dat"
    full "space" allocate "$demo" --text "$src/LICENSE" --ctx 64 --chunks 1 --target-bpw 5 -o "$small/plan"
    full "space" perplexity "$demo" --text "$src/LICENSE" --ctx 64 --chunks 1 --save-logits "$small/l"
    full "space" compare "$demo" Q8_0 --text "$src/LICENSE" --ctx 64 --chunks 1 --html "$small/r.html"
    umount "$small"
    trap 'rm -rf "$work"' EXIT
else
    echo "skipped: full disks, no file system may be mounted here"
fi

done_testing
