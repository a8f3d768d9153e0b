#!/bin/sh
# A run killed at any moment leaves nothing under the output's name, and resuming ends in identical bytes.
# KERF_KILLS: number of kills (default 3).
. "$(dirname "$0")/lib.sh"

kills=${KERF_KILLS:-3}
toy=$work/toy
"$bin/make_checkpoint" --arch qwen3 --layers 3 --hidden 512 --heads 8 --kv-heads 4 --ffn 1024 --vocab 2048 --shards 2 \
    "$toy" >/dev/null || fail "make_checkpoint"
set -- --type Q3_K_M --threads 2 --isa ref

now()
{
    date +%s%N
}
begin=$(now)
run 0 convert "$toy" -o "$work/want.gguf" "$@"
whole=$((($(now) - begin) / 1000000)) # milliseconds

# start_and_kill SIGNAL PERMILLE ARGS...: stop a run after this part of its usual time.
start_and_kill()
{
    signal=$1
    pause=$((whole * $2 / 1000))
    shift 2
    "$kerf" convert "$toy" -o "$work/out.gguf" "$@" >"$work/out" 2>"$work/err" &
    pid=$!
    sleep "$(printf '%d.%03d' $((pause / 1000)) $((pause % 1000)))"
    kill "-$signal" "$pid" 2>/dev/null || true
    status=0
    wait "$pid" 2>/dev/null || status=$?
}

i=0
resumed=0
while [ "$i" -lt "$kills" ]; do
    i=$((i + 1))
    part=$(((i * 379 + $$) % 1000))
    start_and_kill KILL "$part" "$@"
    if [ "$status" -eq 0 ]; then # it was faster
        same "$work/out.gguf" "$work/want.gguf"
        rm "$work/out.gguf"
        continue
    fi
    if [ -e "$work/out.gguf" ]; then # killed between the rename and its report
        same "$work/out.gguf" "$work/want.gguf"
        rm -f "$work"/out.gguf*
        continue
    fi
    if [ $((i % 3)) -eq 0 ]; then # killed twice, resumed once
        start_and_kill KILL "$part" "$@" --resume
        if [ -e "$work/out.gguf" ]; then
            same "$work/out.gguf" "$work/want.gguf"
            rm -f "$work"/out.gguf*
            continue
        fi
    fi
    if [ $((i % 4)) -eq 1 ]; then # without --resume what was left is discarded
        run 0 convert "$toy" -o "$work/out.gguf" "$@"
    else
        run 0 convert "$toy" -o "$work/out.gguf" "$@" --resume
        grep -q 'started' "$work/err" || resumed=$((resumed + 1))
    fi
    same "$work/out.gguf" "$work/want.gguf"
    rm "$work/out.gguf"
    absent "$work/out.gguf"
done

# Asked to stop, a run cleans up and ends by the signal; with --resume it keeps what is done.
start_and_kill TERM 400 "$@"
if [ "$status" -ne 0 ] && [ ! -e "$work/out.gguf" ]; then
    [ "$status" -eq 143 ] || fail "SIGTERM: exit $status"
    [ ! -s "$work/err" ] || says "kerf: stopped on request, nothing is kept; a run with --resume keeps" # empty: before it began
    absent "$work/out.gguf"
fi
rm -f "$work/out.gguf"
start_and_kill TERM 500 "$@" --resume
if [ "$status" -ne 0 ] && [ ! -e "$work/out.gguf" ]; then
    kept=$(sed -n 's/^kerf: stopped on request: \([0-9]* of [0-9]* tensors\) are done and kept in .*/\1/p' "$work/err")
    run 0 convert "$toy" -o "$work/out.gguf" "$@" --resume
    [ -z "$kept" ] || says "kerf: continued after $kept"
    same "$work/out.gguf" "$work/want.gguf"
fi

# A split set is resumed as a whole.
"$kerf" convert "$toy" -o "$work/set.gguf" "$@" --split-max-size 3MiB >/dev/null 2>&1 &
pid=$!
sleep "$(printf '%d.%03d' $((whole * 7 / 10000)) $((whole * 7 / 10 % 1000)))"
kill -KILL "$pid" 2>/dev/null || true
if ! wait "$pid" 2>/dev/null && [ -z "$(ls "$work"/set-*.gguf 2>/dev/null)" ]; then
    run 0 convert "$toy" -o "$work/set.gguf" "$@" --split-max-size 3MiB --resume
fi
first=$(ls "$work"/set-00001-of-*.gguf)
run 0 merge "$first" -o "$work/merged.gguf"
run 0 diff "$work/merged.gguf" "$work/want.gguf" --exit-code
[ -z "$(ls "$work"/set*kerf-part* 2>/dev/null)" ] || fail "temporary parts were left behind"

# Two runs at one output: the second is refused, the first goes on.
rm -f "$work/out.gguf"
"$kerf" convert "$toy" -o "$work/out.gguf" "$@" >/dev/null 2>&1 &
pid=$!
sleep "$(printf '0.%03d' $((whole / 4 % 1000)))"
if kill -0 "$pid" 2>/dev/null && [ ! -e "$work/out.gguf" ]; then
    got=0
    "$kerf" convert "$toy" -o "$work/out.gguf" "$@" >"$work/out" 2>"$work/err" || got=$?
    if [ "$got" -ne 0 ]; then # it may also have ended in the meantime
        grep -qE 'another process is writing|exists already' "$work/err" || fail "second run: wrong message"
    fi
fi
wait "$pid" || true
same "$work/out.gguf" "$work/want.gguf"

echo "resumed: $resumed of $kills"
done_testing
