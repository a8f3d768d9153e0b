#!/bin/sh
# What people and batch scripts meet: texts with traps, options by other names, tables, progress, outputs that two runs
# want, files in the way, runs that are told to stop.
. "$(dirname "$0")/lib.sh"

text=$src/tests/data/prose.md
cd "$work" || exit 1
run 0 convert "$demo" -o m.gguf

# Texts that are read as they stand, and say so; a plain one says nothing.
{ printf '\357\273\277'; cat "$text"; } >bom.txt
sed 's/$/\r/' "$text" >crlf.txt
{ for i in 1 2 3 4; do printf '<|im_start|>user\nHow long is step %d?<|im_end|>\n' $i; done; cat "$text"; } >chat.txt
measure="--ctx 64 --chunks 1"
run 0 perplexity m.gguf --text "$text" $measure --strict
[ ! -s err ] || fail "a word about a plain text"
run 3 perplexity m.gguf --text bom.txt $measure --strict
says "bom.txt: begins with a byte order mark"
run 3 perplexity m.gguf --text bom.txt $measure --strict --quiet
[ "$(cat err)" = "kerf: 1 warning (text-bom), --strict: exit code 3" ] || fail "exit code 3 without its one line"
run 0 perplexity m.gguf --text crlf.txt $measure
says "crlf.txt: $(wc -l <"$text") lines end with a carriage return"
run 0 imatrix m.gguf --text chat.txt $measure -o chat.gguf --json
says "chat.txt: the texts of 8 control tokens"
prints '"code": "text-control-tokens"'
run 0 perplexity m.gguf --text chat.txt $measure --parse-special --strict

# Rules of types: a list in one option is refused, a file of llama-quantize's is a plan.
run 2 quantize m.gguf -o r.gguf --type Q4_K_M --tensor-type ffn_down=Q8_0,attn_v=Q6_K
says "is a list of rules; give the option once for each"
printf 'ffn_down=q8_0\nattn_v=Q6_K attn_q=Q5_K\n' >rules.txt
run 0 quantize m.gguf -o r.gguf --type Q4_K_M --plan rules.txt
run 0 quantize m.gguf -o s.gguf --type Q4_K_M --tensor-type ffn_down=Q8_0 --tensor-type attn_v=Q6_K --tensor-type attn_q=Q5_K
run 0 diff r.gguf s.gguf
run 0 inspect r.gguf --tensors 'ffn_down|attn_q\.'
[ "$(grep -c '^  blk' out)" -eq 8 ] || fail "inspect --tensors does not choose"
[ "$(grep '^  blk' out | grep -cE 'ffn_down.* Q8_0|attn_q.* Q5_K')" -eq 8 ] || fail "the rules were not taken"
run 1 inspect r.gguf --tensors '('
says "--tensors"
printf 'ffn_down=Q8_0 attn_v\n' >rules.txt
run 1 quantize m.gguf -o t.gguf --type Q4_K_M --plan rules.txt
says "rules.txt: line 1: 'attn_v' is not of the form REGEX=TYPE"

# Options that decide nothing, types that are for other models.
run 0 quantize m.gguf -o t.gguf --type Q4_K_M --leave-output
says "--leave-output: the model has no output.weight"
# --output-type is for the embedding then, as in llama.cpp, unless another option or a plain type decides that.
run 0 quantize m.gguf --dry-run --type Q4_K_M --output-type Q8_0
! grep -q "output-type" err || fail "an option that decided is said to be idle"
run 0 quantize m.gguf --dry-run --type Q4_K_M --output-type Q8_0 --embedding-type Q6_K --json
json
prints '"option-idle"'
prints "--output-type: the model has no output.weight, its embedding is the head"
run 0 quantize m.gguf --dry-run --type BF16 --output-type Q8_0
says "--output-type: the model has no output.weight"
run 0 quantize m.gguf -o t.gguf --type TQ2_0 --force
says "have more than the three values of TQ2_0"
says "more tensors; --verbose lists them)"

# Experts are counted once, though each has three matrices.
"$bin/make_family" qwen3moe experts >/dev/null || fail "make_family"
run 0 imatrix experts --text "$text" --ctx 8 --chunks 1 -o e.gguf --json
per_layer=$(grep -A4 'ffn_gate_exps' out | sed -n 's/.*"starved_experts": \([0-9]*\).*/\1/p' | awk '{ n += $1 } END { print n }')
run 0 imatrix experts --text "$text" --ctx 8 --chunks 1 -o e.gguf --force
prints "$per_layer expert"

# A finished output, asked for again.
run 0 quantize m.gguf -o done.gguf --type Q8_0 --resume --json --strict
prints '"resumed": null'
run 0 quantize m.gguf -o done.gguf --type Q8_0 --resume --json --strict
prints '"resumed": "complete"'
says "is finished already"

# Tables fit 80 columns, and their columns stay apart.
run 0 ladder m.gguf --types Q8_0,Q2_K --text "$text" $measure
awk '{ n = length($0); gsub(/[\200-\277]/, ""); if (length($0) > 80) exit 1 }' out || fail "a line of more than 80 columns"
cp m.gguf a-candidate-whose-name-is-longer-than-its-column.gguf
run 0 compare m.gguf a-candidate-whose-name-is-longer-than-its-column.gguf --text "$text" $measure
prints "a-candidate-whose-name-is-longer-than-its-column.gguf"

# Names of llama.cpp's options.
while read -r command option name; do
    run 2 $command "$option"
    says "$name"
done <<LIST
perplexity -f --text
perplexity -c --ctx
perplexity --ctx-size --ctx
imatrix --in-file kerf
imatrix --output-frequency --save-every
quantize --output-tensor-type --output-type
quantize --token-embedding-type --embedding-type
quantize --leave-output-tensor --leave-output
quantize --tensor-type-file --plan
quantize --keep-split --split-max-size
convert --outtype --type
fit -ctk --kv-type
LIST

# Progress without a terminal: nothing for short work, a plain line on request alone after 30 seconds.
run 0 quantize m.gguf -o p.gguf --type Q8_0 --progress lines
[ ! -s err ] || fail "progress of short work"
run 0 quantize m.gguf -o p.gguf --type Q8_0 --progress bar --force
grep -q 'writing' err || fail "no bar"
run 0 quantize m.gguf -o p.gguf --type Q8_0 --progress off --force
[ ! -s err ] || fail "progress that was switched off"
run 0 hessian m.gguf --text "$text" $measure -o h.gguf --progress bar
grep -q 'collecting .* of [0-9]* layers' err || fail "a bar that does not count layers"
run 2 quantize m.gguf -o p.gguf --type Q8_0 --progress dots
says "auto|bar|lines|off"

# edit IN -o IN.
cp m.gguf own.gguf
run 1 edit own.gguf -o own.gguf --set general.name=x
says "add --force to change it in place"
same m.gguf own.gguf
run 0 edit own.gguf -o own.gguf --set general.name=x --force
run 0 inspect own.gguf
prints "general.name"

# Outputs that are inputs, or each other.
cp "$text" template.jinja
run 1 edit m.gguf -o template.jinja --chat-template template.jinja --force
says "is the same file as the input"
same "$text" template.jinja
run 1 allocate m.gguf --text "$text" $measure --target-bpw 5 -o x.txt --table ./x.txt
says "two outputs of this run are this file"
run 1 allocate m.gguf --text "$text" $measure --target-bpw 5 -o x.txt --html x.txt
says "two outputs of this run are this file"
[ ! -e x.txt ] && [ ! -e x.txt.kerf-lock ] || fail "left behind"

# Two runs for one output: the second is refused at once, the first is not disturbed.
long="imatrix m.gguf --text $text --ctx 256 --threads 1 --isa ref -o both.gguf"
"$kerf" $long >first 2>&1 &
pid=$!
tries=0
while [ ! -e both.gguf.kerf-lock ] && kill -0 $pid 2>/dev/null && [ $tries -lt 200 ]; do
    sleep 0.05
    tries=$((tries + 1))
done
if kill -0 $pid 2>/dev/null; then
    run 1 imatrix m.gguf --text "$text" $measure -o both.gguf
    says "both.gguf: another run is about to write this file"
    run 1 hessian m.gguf --text "$text" $measure -o both.gguf
    says "both.gguf: another run is about to write this file"
    run 1 best m.gguf --text "$text" --target-bpw 5 -o both.gguf
    says "both.gguf: another run is about to write this file"
    run 1 quantize m.gguf --type Q3_K_M --method feedback --text "$text" -o both.gguf
    says "both.gguf: another run is about to write this file"
fi
kill -TERM $pid 2>/dev/null
wait $pid
[ ! -e both.gguf.kerf-lock ] || fail "the lock was left behind"

# A stranger at the temporary name.
echo "my notes" >n.gguf.kerf-part
run 1 quantize m.gguf -o n.gguf --type Q8_0
says "n.gguf.kerf-part: is in the way"
[ "$(cat n.gguf.kerf-part)" = "my notes" ] || fail "a stranger's file was written to"
[ "$(wc -c <n.gguf.kerf-part)" -eq 9 ] || fail "a stranger's file was made longer"
run 1 quantize m.gguf -o n.gguf --type Q8_0 --resume
[ "$(wc -c <n.gguf.kerf-part)" -eq 9 ] || fail "a stranger's file was made longer with --resume"
[ "$(cat n.gguf.kerf-part)" = "my notes" ] || fail "somebody's file was removed"
head -c 1000 m.gguf >n.gguf.kerf-part # what a killed run leaves
run 0 quantize m.gguf -o n.gguf --type Q8_0
[ ! -e n.gguf.kerf-part ] || fail "left behind"

# Told to stop, a run ends within two seconds, whatever it is in.
"$bin/make_checkpoint" --layers 2 --hidden 512 --heads 8 --kv-heads 8 --ffn 512 --vocab 320 --context 16384 wide >/dev/null ||
    fail "make_checkpoint"
for i in 1 2 3 4 5 6 7 8; do cat "$text"; done >long.txt
"$kerf" perplexity wide --text long.txt --ctx 16384 --chunks 1 --threads 1 --isa ref >stopped 2>&1 &
pid=$!
sleep 2
if kill -INT $pid 2>/dev/null || kill -TERM $pid 2>/dev/null; then
    kill -TERM $pid 2>/dev/null # an interrupt is ignored in the background of some shells
    begin=$(date +%s)
    wait $pid
    [ $(($(date +%s) - begin)) -le 4 ] || fail "a run did not end within two seconds"
fi

done_testing
