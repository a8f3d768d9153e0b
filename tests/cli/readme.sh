#!/bin/sh
# The table of losses in README.md is what the program measures: sizes to the digit, perplexity within 0.02 % and
# divergence within 0.2 % (exponentials of the C library may differ in their last bit). Usage: readme.sh KERF SOURCE_DIR BINARY_DIR
. "$(dirname "$0")/lib.sh"
if grep -q '^KERF_SANITIZE:BOOL=ON' "$(dirname "$bin")/CMakeCache.txt"; then
    echo "readme: skipped, the plain build has measured it"
    exit 77
fi
run 0 ladder "$demo" --ctx 256 --text "$src/tests/data/prose.md" --quiet
awk '
function off(a, b, part) { return a - b > part * b || b - a > part * b }
FNR == NR {
    if ($1 ~ /^I?Q[0-9]/ && $3 == "MiB") {
        size[$1] = $2; bits[$1] = $4; ppl[$1] = $5
        for (i = 6; i <= NF; i++) if ($i ~ /^0\.[0-9][0-9][0-9][0-9][0-9][0-9]$/) { kld[$1] = $i; break }
        n++
    }
    next
}
/^\| I?Q[0-9]/ && / ± / {
    split($0, c, " *[|] *")
    t = c[2]; split(c[3], s, " "); split(c[8], k, " ")
    rows++
    if (s[1] != size[t] || off(c[4], bits[t], 0.002) || off(c[5], ppl[t], 0.0002) || (off(k[1], kld[t], 0.002) && off(k[1], kld[t], 0.0000015 / k[1]))) {
        print "README has " $0 ", measured " size[t], bits[t], ppl[t], kld[t]
        bad = 1
    }
}
END {
    if (n != 6 || rows != 6) { print n " levels measured, " rows " rows in the README, expected 6"; bad = 1 }
    exit bad
}' "$work/out" "$src/README.md" >"$work/err" || fail "the table in README.md is not what kerf ladder measures"
echo "readme: the table of losses holds"
