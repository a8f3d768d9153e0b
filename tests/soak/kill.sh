#!/bin/sh
# Many SIGKILLs at random moments of long runs: whatever the moment, a reader finds nothing, the whole older output, or
# the whole new one; only documented leftovers stand beside it; and the next run ends in identical bytes.
#
# Takes minutes and some 5 GB of disk: run by hand, `ninja soak-kill`.
# KERF_KILLS (default 50), KERF_MODEL (options of make_checkpoint, default "--preset qwen3-0.6b"), TMPDIR (where the
# files go).
. "$(dirname "$0")/../cli/lib.sh"

kills=${KERF_KILLS:-50}
model=${KERF_MODEL:---preset qwen3-0.6b}
ckpt=$work/ckpt
out=$work/to/out # every run writes below here
mkdir "$work/to"
# shellcheck disable=SC2086 # options
"$bin/make_checkpoint" $model --shards 3 "$ckpt" >/dev/null || fail "make_checkpoint"
run 0 convert "$ckpt" -o "$work/bf16.gguf"

total_bytes=$(wc -c <"$work/bf16.gguf")

now()
{
    date +%s%N
}

# A random number below $1.
random()
{
    n=$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')
    echo $((n % $1))
}

# content: one hash over what a reader finds at the output's name: "" when there is none.
content()
{
    case $layout in
    single) [ ! -e "$out.gguf" ] || sha256sum <"$out.gguf" ;;
    split)
        first=$(ls "$out"-00001-of-*.gguf 2>/dev/null) || return 0
        cat "${first%%-00001-of-*}"-*-of-"${first##*-of-}" | sha256sum
        ;;
    esac
}

# command_line: sets "$@" of the caller by way of $cmd; the same for every run of a mode and layout.
command_line()
{
    case $mode in
    convert) cmd="convert $ckpt -o $out.gguf --type Q8_0" size=$((total_bytes / 5)) ;;
    quantize) cmd="quantize $work/bf16.gguf -o $out.gguf --type Q4_K_M" size=$((total_bytes / 8)) ;;
    esac
    [ "$layout" = single ] || cmd="$cmd --split-max-size $size"
}

# What the outputs must be, and how long they take.
for mode in convert quantize; do
    for layout in single split; do
        command_line
        begin=$(now)
        # shellcheck disable=SC2086 # a command and its options
        run 0 $cmd
        eval "ms_${mode}_$layout=$((($(now) - begin) / 1000000))"
        eval "want_${mode}_$layout='$(content)'"
        [ -n "$(content)" ] || fail "no output"
        mkdir "$work/$mode.$layout" # kept, to stand as the older output of the other mode
        mv "$work/to/"* "$work/$mode.$layout/"
    done
done

# One of them must be able to replace the other: the names are the same.
[ "$(ls "$work/convert.split")" = "$(ls "$work/quantize.split")" ] || fail "sets of different numbers of parts"
n_parts=$(ls "$work/convert.split" | wc -l)
[ "$n_parts" -ge 3 ] || fail "$n_parts parts are too few"

killed=0 nothing=0 older=0 newer=0 resumed=0 through=0 decile=
i=0
while [ "$killed" -lt "$kills" ] && [ "$i" -lt $((3 * kills)) ]; do
    case $((i % 2)) in 0) mode=convert other=quantize ;; *) mode=quantize other=convert ;; esac
    case $((i / 2 % 2)) in 0) layout=single ;; *) layout=split ;; esac
    case $((i / 4 % 2)) in 0) resume=--resume ;; *) resume= ;; esac
    case $((i / 8 % 2)) in 0) force= ;; *) force=--force ;; esac
    i=$((i + 1))
    command_line
    eval "ms=\$ms_${mode}_$layout right=\$want_${mode}_$layout was=\$want_${other}_$layout"
    rm -rf "$work/to"
    mkdir "$work/to"
    if [ -n "$force" ]; then # an older output stands there
        ln "$work/$other.$layout/"* "$work/to/"
    else
        was=
    fi
    part=$(random 1000)
    [ "$(random 3)" -ne 0 ] || part=$((900 + $(random 200))) # more of them where files get their names
    pause=$((ms * part / 1000))
    # shellcheck disable=SC2086
    "$kerf" $cmd $resume $force >"$work/out" 2>"$work/err" &
    pid=$!
    sleep "$(printf '%d.%03d' $((pause / 1000)) $((pause % 1000)))"
    kill -KILL "$pid" 2>/dev/null || true
    status=0
    wait "$pid" 2>/dev/null || status=$?
    if [ "$status" -eq 0 ]; then
        through=$((through + 1))
        eval "ms_${mode}_$layout=$((ms * 3 / 4))" # the machine is faster now
    else
        [ "$status" -eq 137 ] || fail "kerf $cmd: exit $status"
        killed=$((killed + 1))
        decile="$decile $((part / 100))"
    fi

    found=$(content)
    case $found in
    "$right") newer=$((newer + 1)) ;;
    "") nothing=$((nothing + 1)) ;;
    "$was") older=$((older + 1)) ;;
    *) fail "kerf $cmd $resume $force, killed after $pause ms: a mix stands at the output's name: $(ls "$work/to")" ;;
    esac
    [ -n "$was" ] || [ -z "$found" ] || [ "$found" = "$right" ] || fail "something stands at the output's name"
    for f in "$work/to"/*; do
        case $f in
        *.gguf | *.gguf.kerf-part | *.gguf.kerf-part.journal | *.gguf.kerf-part.journal.new | *.gguf.kerf-old | "$work/to/*") ;;
        *) fail "an undocumented file: $f" ;;
        esac
    done

    # The next run: with or without --resume, whatever the first one was.
    again=--resume
    [ "$(random 3)" -ne 0 ] || again=
    if [ "$found" != "$right" ] || [ -n "$force" ]; then
        begin=$(now)
        # shellcheck disable=SC2086
        run 0 $cmd $again $force
        [ -n "$again" ] || eval "ms_${mode}_$layout=$((($(now) - begin) / 1000000))"
        if [ -n "$again" ] && [ "$found" != "$right" ] && ! grep -q started "$work/err"; then
            resumed=$((resumed + 1))
        fi
    elif [ -n "$again" ]; then
        # shellcheck disable=SC2086
        run 0 $cmd $again
        says "is finished already"
    fi
    [ "$(content)" = "$right" ] ||
        fail "kerf $cmd $again: other bytes than an unbroken run ($(content), expected $right, found $found; killed after $pause ms)"
    for f in "$work/to"/*; do
        case $f in
        *.gguf) ;;
        *.journal) [ "$found$again$force" = "$right" ] || fail "left behind: $f" ;; # no run came after the kill
        *) fail "left behind: $f" ;;
        esac
    done
    n_checks=$((n_checks + 4))
done
echo "$killed of $i runs killed ($through came through); found after the kill: nothing $nothing, the older output $older," \
    "the new one $newer; resumed $resumed; tenths of the run at which they were killed:$decile"
done_testing
