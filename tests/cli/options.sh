#!/bin/sh
# The frame of the program: overview, version, unknown commands, exit codes.
. "$(dirname "$0")/lib.sh"

run 0 --version
prints "kerf 0."
run 0 --help
prints "usage: kerf COMMAND"
run 2
says "usage: kerf COMMAND"
run 2 inspcet
says "unknown command 'inspcet'"

done_testing
