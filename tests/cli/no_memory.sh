#!/bin/sh
# Allocations refused one at a time, and all from one on: a command ends with exit code 1 and a message that says
# memory, without an output; or, where it could do without, with 0 and the bytes of a run that had all.
# REFUSE_MOST=N tries so many places of each command (default 10; 1000000: all, which takes minutes).
. "$(dirname "$0")/lib.sh"

most=${REFUSE_MOST:-10}
keeps=no # whether a command that fails leaves what its next run goes on from
loaded=  # libraries that are there before the first allocation counts
n_last=6 # places at the end that are all tried
for refuse in "$bin/librefuse_alloc.so" "$bin/refuse_alloc.so"; do
    [ -e "$refuse" ] && break
done
export OPENBLAS_NUM_THREADS=1 ASAN_OPTIONS="verify_asan_link_order=0:detect_leaks=0:$ASAN_OPTIONS"

"$bin/make_family" qwen3moe "$work/m" || fail "make_family"
head -c 3000 "$src/tests/data/prose.md" >"$work/t.txt"
cd "$work" || exit 1
some="--text t.txt --ctx 16 --chunks 2"
run 0 convert m -o b.gguf
run 0 convert m -o q.gguf --type Q8_0
run 0 imatrix b.gguf $some -o i.gguf
run 0 hessian b.gguf $some -o h.gguf
run 0 split b.gguf -o s --max-tensors 30
"$bin/make_adapter" patterns lora base || fail "make_adapter"
"$bin/make_tower" qwen25vl v || fail "make_tower"
printf '{"context": "a b", "choices": ["c", "d"], "answer": 0}\n' >task.jsonl

# once WHERE ARGS...: run the command so, its output is x.gguf (of a page, without what tells of times); sets got.
once()
{
    where=$1
    shift
    rm -rf x.* x-*
    got=0
    LD_PRELOAD="$refuse $loaded" REFUSE_AT=$where REFUSE_COUNT=$work/count "$kerf" "$@" >out 2>err </dev/null || got=$?
    set -- x-*.gguf
    [ ! -e "$1" ] || cat "$@" >x.gguf # the parts of a set
    [ ! -e x.html ] ||
        sed 's/\(tokens_per_second\|seconds\)%22:[0-9.e+-]*/\1/g; s/[0-9.]* seconds</seconds</' x.html >x.gguf
}

# goes_on ARGS...: what a command kept serves its next run, which gives the same bytes and leaves nothing beside them.
goes_on()
{
    "$kerf" "$@" >out 2>err </dev/null || fail "$what: the run after it: exit $?"
    cmp -s x.gguf ref || fail "$what: the run after it: other bytes"
    for part in *.kerf-part*; do
        [ ! -e "$part" ] || fail "$what: the run after it leaves $part"
    done
}

# judge ARGS...: of the run before, by its exit code.
judge()
{
    # The sanitizer's own runtime gives up where its request is the one refused (pthread_getattr_np of a new thread).
    if grep -q 'AddressSanitizer: CHECK failed: sanitizer_' err; then
        rm -f ./*.kerf-part*
        return
    fi
    what="refusal $where of 'kerf $*'"
    case $got in
    0) [ ! -e ref ] || cmp -s x.gguf ref || fail "$what: exit 0, other bytes" ;;
    1)
        [ ! -e x.gguf ] || fail "$what: exit 1, and an output"
        grep -q memory err || fail "$what: exit 1, no word of memory"
        for part in *.kerf-part; do
            [ ! -e "$part" ] || [ "$keeps" = yes ] || fail "$what: exit 1, and a part of an output"
        done
        [ "$keeps" = no ] || goes_on "$@"
        ;;
    *) fail "$what: exit $got" ;;
    esac
    n_checks=$((n_checks + 1))
}

# refused ARGS...: places at the beginning and the end, where most differ, and evenly between them.
refused()
{
    rm -f ref
    once 0 "$@"
    [ "$got" = 0 ] || fail "kerf $*: exit $got"
    [ -s count ] && n=$(cat count) || n=0
    [ "$n" -gt 0 ] || { echo "allocations of this build cannot be refused"; exit 77; }
    [ ! -e x.gguf ] || mv x.gguf ref
    k=1
    while [ "$k" -le "$n" ]; do
        for where in "$k" "$k-"; do
            once "$where" "$@"
            judge "$@"
        done
        if [ "$k" -lt 4 ] || [ "$k" -gt $((n - n_last)) ] || [ "$n" -le "$most" ]; then
            k=$((k + 1))
        else
            k=$((k + 1 + n / most))
        fi
    done
}

refused convert m -o x.gguf --type Q4_K_M --imatrix i.gguf --threads 1
refused quantize b.gguf -o x.gguf --type Q4_0 --tensor-type ffn=Q8_0 --threads 1 --json
loaded=libopenblas.so.0 # the Fortran library beside it ends the program where it is refused memory while it loads
refused quantize b.gguf -o x.gguf --type Q4_0 --method feedback --hessian h.gguf --threads 1
loaded=
refused imatrix b.gguf $some -o x.gguf --threads 1
refused imatrix merge i.gguf i.gguf -o x.gguf
refused imatrix show i.gguf
refused hessian b.gguf $some -o x.gguf --threads 1
refused edit b.gguf -o x.gguf --set general.name=x --remove general.type
refused split b.gguf -o x --max-tensors 30
refused convert base --lora lora -o x.gguf --type Q8_0 --threads 1
refused convert lora --base base -o x.gguf --threads 1
refused convert v --mmproj -o x.gguf --threads 1
refused hessian merge h.gguf h.gguf -o x.gguf
refused merge s-00001-of-00002.gguf -o x.gguf
refused perplexity b.gguf $some --threads 1
refused compare b.gguf q.gguf Q4_0 $some --threads 1 --json
refused ladder b.gguf $some --types Q8_0,Q4_0 --threads 1
refused allocate b.gguf --imatrix i.gguf $some --target-bpw 8.5 -o x.gguf --threads 1
refused score b.gguf --task task.jsonl --threads 1
refused fit m --memory 1GiB
refused fit b.gguf q.gguf --memory 1GiB --json
refused inspect b.gguf --stats --threads 1
refused inspect b.gguf --key 'general.*' --key tokenizer.ggml.tokens --json --threads 1
refused tokenize b.gguf t.txt
refused verify b.gguf q.gguf --threads 1 --json
refused diff b.gguf q.gguf --threads 1
refused hash b.gguf q.gguf --threads 1
loaded=libopenblas.so.0 keeps=yes n_last=2 all=$most most=$(((most + 2) / 3)) # long runs, and one more after each
refused best b.gguf --text t.txt --ctx 16 --chunks 4 --target-bpw 9 -o x.gguf --threads 1
loaded='' keeps=no most=$all

n_last=24 # the page grows in these
refused compare b.gguf q.gguf Q4_0 $some --threads 1 --html x.html

done_testing
