#!/bin/sh
# From a fresh Debian or Ubuntu to a measured quantization in one command: install the packages that are missing,
# build, convert the bundled demo checkpoint to Q4_K_M and print its quality ladder. May be run again at any time.
# Environment: KERF_BUILD (default: build in the source folder).
set -eu
cd "$(dirname "$0")/.."
. tools/packages.sh
kerf_install_packages build
build=${KERF_BUILD:-build}

cmake -S . -B "$build" -DCMAKE_BUILD_TYPE=Release -DKERF_TESTS=OFF >/dev/null
cmake --build "$build" -j "$(nproc)" >&2
kerf=$build/kerf
demo=tests/data/demo-qwen3
out=$build/demo-Q4_K_M.gguf

echo "kerf convert $demo -o $out --type Q4_K_M"
"$kerf" convert "$demo" -o "$out" --type Q4_K_M --force
"$kerf" verify "$out"

# The text is the project's own documentation as it once stood, prose of the kind the demo model was trained on.
text=tests/data/prose.md
echo "kerf ladder $demo --ctx 256 --text $text --html $build/demo-ladder.html"
"$kerf" ladder "$demo" --ctx 256 --text "$text" --html "$build/demo-ladder.html" --force
echo "quickstart: $demo converted to $out, its ladder measured on the documentation and drawn in $build/demo-ladder.html"
