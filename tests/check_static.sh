#!/bin/sh
# The format of the code and a static analysis. Findings and layouts depend on the version of the tools, so each runs
# in the version that the project is held to (Debian 12), and is said to be left out with another.
# Usage: check_static.sh, from anywhere. Fails on the first finding.
cd "$(dirname "$0")/.." || exit 2
bad=0
files=$(git ls-files '*.c' '*.h' 2>/dev/null || find libquant formats calib tools tests -name '*.[ch]')

if clang-format --version 2>/dev/null | grep -q 'version 14\.'; then
    # shellcheck disable=SC2086 # names without blanks
    clang-format --dry-run -Werror $files || bad=1
else
    echo "format: left out, clang-format 14 is not here"
fi

if cppcheck --version 2>/dev/null | grep -qx 'Cppcheck 2\.10'; then
    cppcheck -q -j "$(nproc)" --std=c11 --enable=warning --suppressions-list=tests/cppcheck.txt \
        --error-exitcode=1 -I. libquant formats calib tools || bad=1
else
    echo "static analysis: left out, cppcheck 2.10 is not here"
fi
[ "$bad" -eq 0 ] && echo "format and static analysis: nothing found"
exit "$bad"
