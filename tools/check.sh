#!/bin/sh
# Install what testing needs, build twice (plain with warnings as errors, and with sanitizers), run every test.
# May be run again at any time. Environment: KERF_BUILD (default: build in the source folder), CC.
set -eu
cd "$(dirname "$0")/.."
. tools/packages.sh
kerf_install_packages test
build=${KERF_BUILD:-build}
jobs=$(nproc)

cmake -S . -B "$build" -DCMAKE_BUILD_TYPE=Release -DKERF_WERROR=ON -DKERF_TESTS=REQUIRED >/dev/null
cmake --build "$build" -j "$jobs"
ctest --test-dir "$build" --no-tests=error --output-on-failure -j "$jobs"

cmake -S . -B "$build-asan" -DCMAKE_BUILD_TYPE=RelWithDebInfo -DKERF_WERROR=ON -DKERF_SANITIZE=ON -DKERF_TESTS=REQUIRED >/dev/null
cmake --build "$build-asan" -j "$jobs"
ctest --test-dir "$build-asan" --no-tests=error --output-on-failure -j "$jobs"

n=$(ctest --test-dir "$build" -N | sed -n 's/^Total Tests: //p')
# What a test leaves out for want of data is said, lest a green line claims more than was looked at.
left_out=$(sed -n 's/^\[  SKIPPED \] \([0-9]*\) test(s).*/\1/p' "$build/Testing/Temporary/LastTest.log" |
    awk '{ n += $1 } END { print n + 0 }')
note=
[ "$left_out" -eq 0 ] || note="; $left_out cases left out, their data (../shared) is not here"
echo "check: $n tests passed, plain and under AddressSanitizer and UBSan$note"
