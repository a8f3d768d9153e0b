#!/bin/sh
# resume_eval.sh KERF SOURCE BUILD - compare --resume, killed twenty times: each time when another part has just been kept, or
# a random moment after it, so that every kill meets a run at work, whatever the machine. Then the same command to its end must
# give the figures of a run that nobody touched, to the bit.
. "$(dirname "$0")/../cli/lib.sh"

n_wanted=20
text=$src/tests/data/prose.md
figures() { grep -vE '"(seconds|tokens_per_second)":' "$1" >"$2"; }
parts() { find kerf-scores -name '*.scores' 2>/dev/null | wc -l; }

cd "$work" || exit 1
run 0 quantize "$demo" -o q4.gguf --type Q4_K_M
set -- compare "$demo" q4.gguf kv:q8_0 kv:q4_0 Q8_0 Q6_K Q5_K_M Q5_K_S Q5_1 Q5_0 Q4_K_M Q4_K_S Q4_1 Q4_0 IQ4_XS IQ4_NL Q3_K_L \
    Q3_K_M Q3_K_S Q2_K TQ2_0 TQ1_0 Q8_0+kv:q4_0 --text "$text" --ctx 256 --chunks 12 --json --progress off --threads 1
run 0 "$@"
figures out unbroken

n_kills=0
while [ $n_kills -lt $n_wanted ]; do
    before=$(parts)
    "$kerf" "$@" --resume >killed.out 2>killed.err </dev/null &
    pid=$!
    while [ "$(parts)" -le "$before" ] && kill -0 $pid 2>/dev/null; do sleep 0.05; done
    sleep "0.0$(od -An -N1 -tu1 /dev/urandom | tr -d " ")" # up to a tenth of a second
    kill -9 $pid 2>/dev/null || fail "the run ended after $n_kills kills: there are too few candidates"
    wait $pid 2>/dev/null && fail "the run ended after $n_kills kills: there are too few candidates"
    n_kills=$((n_kills + 1))
    echo "kill $n_kills: $(parts) parts are kept"
done
run 0 "$@" --resume
figures out resumed
same unbroken resumed
echo "ok: $n_kills kills, the figures of an unbroken run"
