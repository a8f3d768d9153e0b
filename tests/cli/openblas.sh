#!/bin/sh
# OpenBLAS is loaded by error feedback alone: nothing else needs it, and who lacks it is told before the work.
# Usage: openblas.sh KERF SOURCE_DIR BINARY_DIR
. "$(dirname "$0")/lib.sh"
! ldd "$kerf" | grep -i openblas || fail "the program starts with OpenBLAS"
n_checks=$((n_checks + 1))

# What stands in its place is no library.
mkdir "$work/lib"
for name in libopenblas.so.0 libopenblas.so.3 libopenblas.so; do
    echo "not a library" >"$work/lib/$name"
done
LD_LIBRARY_PATH=$work/lib
export LD_LIBRARY_PATH
run 0 quantize "$demo" -o "$work/plain.gguf" --type Q4_K
run 1 quantize "$demo" -o "$work/feedback.gguf" --type Q4_K --method feedback --text "$src/tests/data/prose.md" --ctx 64 \
    --chunks 2 --held-out 0
says "error feedback needs OpenBLAS, which cannot be loaded"
says "install it"
says "libopenblas.so.0" # of several that do not load, the first
absent "$work/feedback.gguf"
absent "$work/feedback.gguf.kerf-part"
done_testing
