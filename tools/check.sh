#!/bin/sh
# Install what testing needs, build, run every test: plain with warnings as errors, then under AddressSanitizer and
# UBSan. With --all, which continuous integration runs, first the format of the code and a static analysis, and last
# a build by clang with its tests and ThreadSanitizer over the pool, the pipelines and products.
# May be run again at any time. Environment: KERF_BUILD (default: build in the source folder), CC.
set -eu
cd "$(dirname "$0")/.."
all=no
case ${1-} in
--all) all=yes ;;
'') ;;
*) echo "usage: sh tools/check.sh [--all]" >&2 && exit 2 ;;
esac
. tools/packages.sh
kerf_install_packages test
[ "$all" = no ] || kerf_install_packages all
build=${KERF_BUILD:-build}
jobs=$(nproc)

# check FOLDER TESTS CMAKE-OPTIONS...: build there (with $targets only those), and run the tests whose names match.
targets=
check()
{
    folder=$1 tests=$2
    shift 2
    cmake -S . -B "$folder" -DKERF_WERROR=ON -DKERF_TESTS=REQUIRED "$@" >/dev/null
    # shellcheck disable=SC2086 # a list of words
    cmake --build "$folder" -j "$jobs" ${targets:+--target $targets} >"$folder/build.log" 2>&1 || { tail -n 60 "$folder/build.log" >&2 && exit 1; }
    ctest --test-dir "$folder" --no-tests=error --output-on-failure -j "$jobs" -R "$tests"
}

shown="plain and under AddressSanitizer and UBSan"
[ "$all" = no ] || sh tests/check_static.sh
check "$build" . -DCMAKE_BUILD_TYPE=Release
check "$build-asan" . -DCMAKE_BUILD_TYPE=RelWithDebInfo -DKERF_SANITIZE=ON
if [ "$all" = yes ]; then
    # What differs between compilers is the code of kernels and loops, not the scripts of the command line.
    check "$build-clang" '^(libquant|diff|formats|calib)/' -DCMAKE_BUILD_TYPE=Release -DCMAKE_C_COMPILER=clang
    targets="libquant_test_base formats_test_rewrite formats_test_rewrite_resume calib_test_gemm calib_test_weights"
    TSAN_OPTIONS=halt_on_error=1 check "$build-tsan" '/test_(base|rewrite|rewrite_resume|gemm|weights)$' \
        -DCMAKE_BUILD_TYPE=RelWithDebInfo -DKERF_TSAN=ON
    shown="$shown, those of the libraries with clang, too, and those of threads under ThreadSanitizer"
fi

n=$(ctest --test-dir "$build" -N | sed -n 's/^Total Tests: //p')
# What a test leaves out for want of data is said, lest a green line claims more than was looked at.
left_out=$(sed -n 's/^\[  SKIPPED \] \([0-9]*\) test(s).*/\1/p' "$build/Testing/Temporary/LastTest.log" |
    awk '{ n += $1 } END { print n + 0 }')
note=
[ "$left_out" -eq 0 ] || note="; $left_out cases left out, their data (../shared) is not here"
echo "check: $n tests passed, $shown$note"
