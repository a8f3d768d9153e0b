#!/bin/sh
# --method feedback and best with an output or kept work that is there: the run knows its finished output at once, by the
# identity in it, refuses another run's, and drops nothing unasked.
. "$(dirname "$0")/lib.sh"

toy=$work/toy
"$bin/make_checkpoint" --arch qwen3 --layers 1 --vocab 300 "$toy" >/dev/null || fail "make_checkpoint"
cp "$src/README.md" "$work/text"
cp "$src/tests/data/prose.md" "$work/other"
text=$work/text
of() # METHOD NAME ARGS...: a run that writes $work/NAME
{
    method=$1 name=$2
    shift 2
    set -- quantize "$toy" -o "$work/$name" --method "$method" --ctx 32 --held-out 2 "$@"
    case " $* " in *" --type "*) ;; *) set -- "$@" --type Q3_K_M ;; esac
    case " $* " in *" --chunks "* | *" --hessian "*) ;; *) set -- "$@" --chunks 8 ;; esac
    case " $* " in *" --text "*) ;; *) set -- "$@" --text "$text" ;; esac
    "$kerf" "$@" >"$work/out" 2>"$work/err" </dev/null
    got=$?
}
ends() # STATUS of the last run
{
    [ "$got" -eq "$1" ] || fail "exit $got, expected $1"
    n_checks=$((n_checks + 1))
}
identity()
{
    "$kerf" inspect "$1" --key kerf.method.identity
}
key() # STRING of the object
{
    tr -d '\n' <"$work/out" | grep -q "$1" || fail "standard output lacks $1"
    n_checks=$((n_checks + 1))
}
# finished METHOD NAME ARGS...: known at once, nothing solved, nothing touched, nothing left
finished()
{
    touch -r "$work/$2" "$work/time"
    cp "$work/$2" "$work/copy"
    of "$@" --resume --dry-run
    ends 0
    says "is finished already"
    ! grep -q "would" "$work/out" || fail "the dry run would do what is done"
    of "$@" --resume --json
    ends 0
    json
    key '"resumed": "complete"'
    key '"method": null'
    says "is finished already"
    ! grep -q "importance" "$work/err" || fail "it speaks of an importance matrix that it does not have"
    same "$work/$2" "$work/copy"
    [ ! "$work/$2" -nt "$work/time" ] || fail "$2 was written again"
    [ ! -e "$work/$2.kerf-hessian" ] && [ ! -e "$work/$2.kerf-feedback" ] || fail "it was solved again"
}
refused()
{
    cp "$work/$2" "$work/copy"
    of "$@" --resume --json --dry-run
    ends 1
    cp "$work/err" "$work/dry-err"
    of "$@" --resume --json
    ends 1
    same "$work/err" "$work/dry-err"
    key '"code": "exists"'
    says "is not what this run would write"
    same "$work/$2" "$work/copy"
    [ ! -e "$work/$2.kerf-hessian" ] && [ ! -e "$work/$2.kerf-feedback" ] || fail "the work was done before it was refused"
}

run 0 hessian "$toy" --text "$text" -o "$work/h.gguf" --ctx 32 --chunks 8
of feedback f.gguf --resume
ends 0
[ "$(identity "$work/f.gguf" | wc -c)" -eq 65 ] || fail "the file carries no identity"
finished feedback f.gguf
finished feedback f.gguf --threads 1 --memory 300MiB
of best b.gguf --resume
ends 0
finished best b.gguf
[ "$(identity "$work/b.gguf")" != "$(identity "$work/f.gguf")" ] || fail "two methods have one identity"

# What decides about the bytes decides about the identity
refused best f.gguf
refused feedback b.gguf
refused feedback f.gguf --type Q4_K_M
refused feedback f.gguf --type Q3_K_S
refused feedback f.gguf --chunks 7
refused feedback f.gguf --held-out 3
refused feedback f.gguf --text "$work/other"
run 0 imatrix "$toy" --text "$work/other" -o "$work/im.gguf" --ctx 32 --chunks 4 --no-perplexity
refused feedback f.gguf --imatrix "$work/im.gguf"
run 0 edit "$work/f.gguf" -o "$work/renamed.gguf" --set general.name=another
refused feedback renamed.gguf # its header is not the one that would be written
run 0 edit "$work/f.gguf" -o "$work/unknown.gguf" --remove kerf.method.identity
refused feedback unknown.gguf
run 0 quantize "$toy" -o "$work/plain.gguf" --type Q3_K_M
refused feedback plain.gguf
head -c 20000 "$work/f.gguf" >"$work/cut.gguf"
refused feedback cut.gguf

# The blocks that are not solved are encoded again: an identity alone is not believed
cp "$work/f.gguf" "$work/poked.gguf"
offset=$("$kerf" inspect "$work/f.gguf" --json | tr -d '\n ' | sed 's/.*"name":"output_norm.weight"[^}]*"offset":\([0-9]*\).*/\1/')
printf '\377\377\377\377' | dd of="$work/poked.gguf" bs=1 seek="$((offset + 8))" conv=notrunc 2>/dev/null
! cmp -s "$work/f.gguf" "$work/poked.gguf" || fail "nothing was changed"
refused feedback poked.gguf

# Nor are solved blocks that are not those that were written
cp "$work/f.gguf" "$work/poked.gguf"
offset=$("$kerf" inspect "$work/f.gguf" --json | tr -d '\n ' | sed 's/.*"name":"blk.0.ffn_down.weight"[^}]*"offset":\([0-9]*\).*/\1/')
printf '\252\252\252\252' | dd of="$work/poked.gguf" bs=1 seek="$((offset + 8))" conv=notrunc 2>/dev/null
! cmp -s "$work/f.gguf" "$work/poked.gguf" || fail "nothing was changed"
of feedback poked.gguf --resume
ends 1
says "its blocks are no longer those that were written"

# A number of the configuration, which no weight tells of
cp "$toy/config.json" "$work/config.json"
sed 's/"rope_theta": *[0-9.]*/"rope_theta": 77777.0/' "$work/config.json" >"$toy/config.json"
! cmp -s "$toy/config.json" "$work/config.json" || fail "nothing was changed"
refused feedback f.gguf
of feedback other.gguf --hessian "$work/h.gguf"
ends 0
says "was collected with other weights or metadata"
cp "$work/config.json" "$toy/config.json"

# Weights of a later time
touch "$toy/model.safetensors"
of feedback f.gguf --resume
ends 1
says "later time of change"

# Hessians of a file; an importance matrix; a split set
run 0 hessian "$toy" --text "$text" -o "$work/h7.gguf" --ctx 32 --chunks 7
of feedback g.gguf --hessian "$work/h.gguf" --resume
ends 0
finished feedback g.gguf --hessian "$work/h.gguf"
refused feedback g.gguf --hessian "$work/h7.gguf"
cp "$work/h.gguf" "$work/n.gguf.kerf-hessian" # a name that Hessians of its own would have had
for turn in first second; do
    of feedback n.gguf --hessian "$work/n.gguf.kerf-hessian" --resume
    ends 0
    same "$work/n.gguf.kerf-hessian" "$work/h.gguf"
done
of feedback i.gguf --imatrix "$work/im.gguf" --resume
ends 0
finished feedback i.gguf --imatrix "$work/im.gguf"
refused feedback i.gguf
of feedback s.gguf --split-max-size 120kB --resume
ends 0
first=$(cd "$work" && ls s-00001-of-*.gguf)
[ -n "$first" ] || fail "no split set"
cp "$work/$first" "$work/copy"
of feedback s.gguf --split-max-size 120kB --resume --json
ends 0
key '"resumed": "complete"'
same "$work/$first" "$work/copy"

# What a stopped run kept is not dropped unasked
for ending in kerf-feedback kerf-hessian; do
    rm -f "$work"/k.gguf*
    [ $ending = kerf-feedback ] && echo "kerf-feedback 1" >"$work/k.gguf.$ending" || cp "$work/h.gguf" "$work/k.gguf.$ending"
    cp "$work/k.gguf.$ending" "$work/copy"
    of feedback k.gguf --json
    ends 1
    key '"code": "exists"'
    says "k.gguf.$ending: was kept by a stopped run of this output; --resume goes on from there, --force drops it"
    same "$work/k.gguf.$ending" "$work/copy"
    absent "$work/k.gguf"
    of feedback k.gguf --force
    ends 0
    [ ! -e "$work/k.gguf.$ending" ] || fail "$ending was left"
    same "$work/k.gguf" "$work/f.gguf"
done
rm "$work/k.gguf"
cp "$work/h.gguf" "$work/k.gguf.kerf-hessian"
of feedback k.gguf --resume
ends 0
says "the Hessians of a stopped run are reused"
same "$work/k.gguf" "$work/f.gguf"

# The same ids in other windows, since two texts end elsewhere than one, are another run's
head -c 100 "$text" >"$work/t1"
head -c 3000 "$work/other" >"$work/t2"
"$kerf" tokenize "$toy" "$work/t1" >"$work/i12" 2>/dev/null || fail "kerf tokenize"
{ echo && "$kerf" tokenize "$toy" "$work/t2"; } >>"$work/i12" 2>/dev/null || fail "kerf tokenize"
set -- quantize "$toy" --type Q3_K_M --ctx 32 --held-out 2
run 0 "$@" --method feedback --chunks 8 --ids "$work/i12" -o "$work/i.want"
run 0 hessian "$toy" --text "$work/t1" --text "$work/t2" -o "$work/h2.gguf" --ctx 32 --chunks 8
run 1 hessian "$toy" --ids "$work/i12" -o "$work/h2.gguf" --ctx 32 --chunks 8 --resume
says "is not what this run would write"
cp "$work/h2.gguf" "$work/j.gguf.kerf-hessian"
run 0 "$@" --method feedback --chunks 8 --ids "$work/i12" -o "$work/j.gguf" --resume
says "j.gguf.kerf-hessian: is of other windows of the text; collected again"
same "$work/j.gguf" "$work/i.want"

# Of an older file it is not known: a run takes it when it is told to, but goes on with none
run 0 edit "$work/h2.gguf" -o "$work/old.gguf" --remove kerf.hessian.windows_sha256
cp "$work/old.gguf" "$work/j.gguf.kerf-hessian"
run 0 "$@" --method feedback --chunks 8 --text "$work/t1" --text "$work/t2" -o "$work/j.gguf" --resume --force
says "does not say which windows it is of"
run 0 "$@" --method feedback --hessian "$work/old.gguf" -o "$work/j.gguf" --force

# What was corrected is of its windows, whatever the Hessians are of
mkdir "$work/c.gguf.kerf-part"
run 1 "$@" --method best --hessian "$work/h.gguf" --text "$work/t1" --text "$work/t2" -o "$work/c.gguf" --resume
[ -f "$work/c.gguf.kerf-feedback" ] || fail "nothing was kept"
rmdir "$work/c.gguf.kerf-part"
run 0 "$@" --method best --hessian "$work/h.gguf" --ids "$work/i12" -o "$work/c.gguf" --resume
says "c.gguf.kerf-feedback: was solved by a run with other"

# Killed behind its last step: what it could not remove any more goes
cp "$work/h.gguf" "$work/k.gguf.kerf-hessian"
echo "kerf-feedback 1" >"$work/k.gguf.kerf-feedback"
finished feedback k.gguf

# New blocks are not what the source says of its own
run 0 quantize "$work/f.gguf" -o "$work/again.gguf" --type Q2_K --allow-requantize
run 0 inspect "$work/again.gguf"
! grep -q "kerf.method" "$work/out" || fail "the plain encoder's file says it is error feedback's"

done_testing
