#!/bin/sh
# Every citation of a specification names a section that exists. Usage: check_citations.sh SOURCE_DIR.
#
# A citation reads "specification, DOCUMENT SECTIONS": "(specification, architectures 0.11)", "Specification: quantization
# 3.4 and 4.2", "specification, architectures 1 to 17, quantization 6.6". DOCUMENT.md stands in the room that it specifies;
# its sections are headings that begin with their number ("### 5.3 Tensors, 5.4 forward" holds two).
cd "$1" || exit 2
export LC_ALL=C
scratch=$(mktemp -d) || exit 2
trap 'rm -rf "$scratch"' EXIT
documents=$(find libquant formats calib -name '*.md' ! -name README.md)
names=$(echo "$documents" | sed 's|.*/||; s|\.md$||' | paste -s -d '|')

# "DOCUMENT SECTION", one a line.
for page in $documents; do
    grep -aE '^#+ ' "$page" | grep -oE '(^#+|,) [0-9]+(\.[0-9a-z]+)*' | sed -E "s|.* |$(basename "$page" .md) |"
done >"$scratch/sections"

# "FILE: specification, DOCUMENT SECTIONS": comments are read as running text.
number='[0-9]+(\.[0-9a-z]+)*'
numbers="$number((,| and| to) $number)*"
find libquant formats calib tools tests -name '*.[ch]' -o -name '*.sh' ! -name check_citations.sh -o -name README.md |
    xargs awk 'FNR == 1 { printf "\n%s: ", FILENAME } { sub(/^ *(\*|#|\/\/) /, ""); printf "%s ", $0 }' |
    sed -E 's/  +/ /g' >"$scratch/text"
citation="[Ss]pecification[,:]? (($names) |[0-9(])($numbers((,| and) ($names) $numbers)*)?"
while IFS= read -r line; do
    echo "$line" | grep -aoE "$citation" | sed "s|^|${line%%: *}: |"
done <<END >"$scratch/citations"
$(grep -aE "$citation" "$scratch/text")
END

awk -v sections="$scratch/sections" '
    BEGIN {
        while ((getline line < sections) > 0)
            known[line] = 1
    }
    {
        document = ""
        for (i = 3; i <= NF; i++) {
            word = $i
            sub(/,$/, "", word)
            if (word ~ /^[(0-9]/) {
                n++
                if (!((document " " word) in known)) {
                    print $0 ": there is no section " word (document ? " in " document ".md" : ": name the document")
                    bad = 1
                }
            } else if (word != "and" && word != "to")
                document = word
        }
    }
    END {
        if (n < 100) {
            print n " citations found: does the pattern still fit how they are written?"
            bad = 1
        }
        if (!bad)
            print "citations: " n ", and each names a section that exists"
        exit bad
    }' "$scratch/citations"
