#!/bin/sh
# The frame of the program: overview, version, unknown commands, exit codes.
. "$(dirname "$0")/lib.sh"

run 0 --version
prints "kerf 0."
run 0 --help
prints "usage: kerf COMMAND"
cp "$work/out" "$work/overview"
run 2
same "$work/err" "$work/overview" # wrong usage, but what there is stands on the screen
run 2 inspcet
says "unknown command 'inspcet'"
says "did you mean 'inspect'?"
run 2 foo
! grep -q "did you mean" "$work/err" || fail "a suggestion that shares one letter of three"
run 2 imatrix sho x
says "did you mean 'show'?"
run 1 imatrix nowhere --text x -o "$work/x.gguf"
says "nowhere: no such file or folder"

# What other tools take, and slips with one answer, are told as they are written here.
run 2 quantize in.gguf out.gguf Q4_K_M
says "as llama-quantize takes it; here: kerf quantize in.gguf -o out.gguf --type Q4_K_M"
run 2 quantize in.gguf Q4_K_M
says "here: kerf quantize in.gguf -o OUT.gguf --type Q4_K_M"
run 2 quantize in.gguf out.gguf
says "unexpected operand 'out.gguf'"
run 2 quantize -m in.gguf -o out.gguf
says "here it is the operand MODEL, with no option in front of it"
run 2 split in.gguf -o out --split-max-size 1GiB
says "unknown option --split-max-size; did you mean --max-size?"
run 2 quantize in.gguf -o out.gguf --max-size 1GiB
says "unknown option --max-size; did you mean --split-max-size?"
run 2 quantize in.gguf -o=out.gguf --type Q8_0
says "write -o out.gguf or --output=out.gguf"
run 2 compare Q4_K_M "$demo" --text "$src/LICENSE"
says "the first operand is the reference, a model, found the type 'Q4_K_M'"
run 1 tokenize "$demo" "Hello world"
says "Hello world: no such file or folder; TEXT is a file"
run 2 --json inspect "$demo"
says "--json: options stand behind the command: kerf inspect --json ..."
prints '"code": "usage"'
run 2 --quiet
says "--quiet: options stand behind the command: kerf COMMAND --quiet ..."
run 2 convert "$demo" -o "$work/x.gguf" --type Q4_K_M -ngl 99
says "unknown option -ngl, as llama.cpp calls it; here it is not needed"
run 1 convert no-such-org/No-Such-0.6B -o "$work/x.gguf"
says "kerf does not download: huggingface-cli download no-such-org/No-Such-0.6B --local-dir No-Such-0.6B"
run 1 convert "$work/No-Such-0.6B" -o "$work/x.gguf"
! grep -q huggingface "$work/err" || fail "a path is taken for a name of the hub"
run 1 convert no-such-folder/x.gguf -o "$work/x.gguf"
! grep -q huggingface "$work/err" || fail "a file is taken for a name of the hub"

run 0 help inspect
prints "usage: kerf inspect PATH"
prints "Shared options:"
run 0 inspect --help
prints "(default: 1GiB)"
prints "Examples:"
prints "  kerf inspect model.gguf"

# Of the shared options a command lists those that it has a use for, and refuses the others.
! grep -q -e '--force' "$work/out" || fail "inspect lists --force, and writes nothing"
run 2 inspect "$demo" --force
says "kerf inspect: --force: this command has no use for it"
run 2 fit "$demo" --memory 1GiB --threads=2
says "--threads: this command has no use for it; leave it out"
run 2 tokenize "$demo" --memry 1GiB
! grep -q "did you mean --memory" "$work/err" || fail "an option is proposed that would be refused"

# A word that old scripts say is taken, and not listed; the rules of our own that it named are none.
run 0 quantize "$demo" -o "$work/x.gguf" --type Q8_0 --dry-run --recipe llama.cpp
run 2 quantize "$demo" -o "$work/x.gguf" --type Q8_0 --dry-run --recipe kerf
run 0 quantize --help
! grep -q -e '--recipe' "$work/out" || fail "--help lists an option that does nothing"
run 2 inspect
says "found 0"
run 2 inspect a b
says "unexpected operand 'b'"
run 2 inspect a --jsn
says "did you mean --json?"
run 2 inspect a --json=yes
says "takes no value"
run 2 inspect a -x
says "unknown option -x"

# Options and operands in any order; -- ends options.
cp "$demo/model.safetensors" "$work/--json"
run 0 inspect --json "$demo/model.safetensors" -q
prints '"format": "safetensors"'
(cd "$work" && "$kerf" inspect -- --json >out 2>err) || fail "-- does not end options"
grep -q '^--json: safetensors' "$work/out" || fail "-- does not end options"

# A lost result is a failure; one that its reader does not want any more ends the run as it would any tool.
if [ -w /dev/full ]; then
    got=0
    "$kerf" inspect "$demo" >/dev/full 2>"$work/err" || got=$?
    [ "$got" -eq 1 ] || fail "full disk on standard output: exit $got"
    says "cannot write standard output"
fi
if command -v mkfifo >/dev/null; then
    mkfifo "$work/pipe"
    # The reader comes and goes before the program starts: whatever fits into the pipe would not fail otherwise.
    (
        exec 3>"$work/pipe"
        while [ ! -e "$work/reader-gone" ]; do sleep 0.05; done
        "$kerf" inspect "$demo" --json >&3 2>"$work/err"
        echo $? >"$work/status"
    ) &
    : <"$work/pipe"
    : >"$work/reader-gone"
    wait
    [ "$(cat "$work/status")" -eq 141 ] || fail "closed pipe: exit $(cat "$work/status")"
    [ ! -s "$work/err" ] || fail "closed pipe: not quiet"
fi

done_testing
