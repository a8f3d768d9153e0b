#!/bin/sh
# What --json prints is what tools/JSON.md lists: every command in its forms is run, and no key of its object is missing there.
. "$(dirname "$0")/lib.sh"

page=$src/tools/JSON.md
cd "$work" || exit 1

# listed COMMAND...: keys of the sections of these commands and of all of them, one a line.
listed()
{
    awk -v want="every command|$(echo "$*" | sed 's/,/|/g')" '
        BEGIN { n = split(want, names, "|") }
        /^## / {
            inside = 0
            m = split(substr($0, 4), heads, ", ")
            for (i = 1; i <= n; i++)
                for (k = 1; k <= m; k++)
                    inside = inside || names[i] == heads[k]
        }
        inside && /^\| `/ {
            split($0, cells, "|")
            while (match(cells[2], /`[^`]*`/)) {
                print substr(cells[2], RSTART + 1, RLENGTH - 2)
                cells[2] = substr(cells[2], RSTART + RLENGTH)
            }
        }' "$page" | sort -u
}

# Keys of the object on standard input, with the way to them: of each line its depth is known by its brackets.
paths()
{
    awk '
        function way(key,    i, text) {
            for (i = 1; i <= depth; i++)
                text = text name[i] (list[i] ? "[]" : "") (i < depth && name[i] != "" || key != "" && name[i] != "" ? "." : "")
            return text key
        }
        {
            line = $0
            sub(/^ */, "", line)
            key = ""
            if (match(line, /^"([^"\\]|\\.)*": /)) {
                key = substr(line, 2, RLENGTH - 4)
                line = substr(line, RLENGTH + 1)
                print way(key)
            }
            if (line ~ /^[{[]$/) { depth++; name[depth] = key; list[depth] = line == "[" }
            else if (line ~ /^[]}],?$/) depth--
        }' | sed 's/\[\]\[\]/[]/g' | sort -u
}

# holds SECTIONS STATUS ARGS...: the run prints one object, whose keys are listed; SECTIONS are separated by commas.
holds()
{
    sections=$1
    shift
    run "$@" --json
    json
    listed "$sections" >known
    grep -q . known || fail "no keys are listed for $sections"
    paths <out >found
    grep -q '^warnings$' found || fail "kerf $*: no object"
    awk 'NR == FNR { known[$0] = 1; for (k = $0; sub(/[.[][^.[]*$/, "", k) || 0; ) above[k] = 1; next }
        { key = $0; ok = key in known || key in above
          for (k = key; !ok && sub(/[.][^.]*$/, "", k); ) ok = (k ".*") in known
          if (!ok) print }' known found >missing
    [ ! -s missing ] || fail "kerf $*: tools/JSON.md does not list $(tr '\n' ' ' <missing)"
    n_checks=$((n_checks + 1))
}

# The test sees what it is to see.
printf '{\n  "a": 1,\n  "b": [\n    {\n      "c": [1, 2],\n      "d": {\n        "e": null\n      }\n    }\n  ]\n}\n' | paths >found
[ "$(tr '\n' ' ' <found)" = "a b b[].c b[].d b[].d.e " ] || fail "paths: $(tr '\n' ' ' <found)"

text="--text t.txt --ctx 32 --chunks 2"
head -c 6000 "$src/tests/data/prose.md" >t.txt
head -c 3000 "$src/LICENSE" >u.txt
holds convert 0 convert "$demo" -o m.gguf
holds convert 0 convert "$demo" --dry-run
holds quantize 0 quantize m.gguf -o q.gguf --type Q4_K_M
holds inspect 0 inspect m.gguf
holds inspect 0 inspect "$demo" --stats
holds inspect 0 inspect m.gguf --key 'general.*'
holds verify 0 verify m.gguf
holds verify 1 verify m.gguf nothing.gguf
holds hash 0 hash m.gguf
holds hash 1 hash m.gguf nothing.gguf
holds diff 0 diff m.gguf q.gguf
holds tokenize 0 tokenize "$demo" t.txt --pieces
holds fit 0 fit "$demo" --memory 1GiB
holds fit 0 fit m.gguf q.gguf --memory 1GiB
holds edit 0 edit q.gguf -o e.gguf --set general.name=x
holds split 0 split q.gguf -o s --max-tensors 30
holds merge 0 merge s-00001-of-00002.gguf -o w.gguf
holds imatrix 0 imatrix m.gguf $text -o i.gguf
holds imatrix 0 imatrix m.gguf $text -o j.gguf --dry-run
holds "imatrix merge" 0 imatrix merge i.gguf i.gguf -o j.gguf
holds "imatrix convert" 0 imatrix convert i.gguf -o i.dat
holds "imatrix show" 0 imatrix show i.gguf
holds hessian 0 hessian m.gguf $text -o h.gguf
holds "hessian merge" 0 hessian merge h.gguf h.gguf -o h2.gguf
holds quantize 0 quantize m.gguf -o f.gguf --type Q3_K_M --method feedback --hessian h.gguf
head -c 400 t.txt >v.txt # texts of a few windows, all of which count
head -c 400 u.txt >w.txt
holds perplexity 0 perplexity m.gguf --text v.txt --text w.txt --ctx 16 --weights 1,2 --by-position
holds perplexity 0 perplexity m.gguf $text --dry-run
holds "compare,perplexity" 3 compare m.gguf q.gguf Q2_K $text --by-position --max-kld 0.000001
holds "compare,perplexity" 0 compare m.gguf Q2_K $text --profile
holds "ladder,perplexity" 0 ladder m.gguf $text --types Q8_0,Q4_K_M
printf '{"context": "a b", "choices": ["c", "d"], "answer": 0}\n{"text": "a word"}\n' >task.jsonl
holds score 0 score m.gguf q.gguf --task task.jsonl
holds score 0 score m.gguf --task task.jsonl --dry-run
holds allocate 0 allocate m.gguf $text --target-bpw 5 -o a.plan
holds allocate 0 allocate m.gguf $text --target-bpw 5 --dry-run
holds quantize 0 quantize m.gguf -o p.gguf --plan a.plan
holds "best,compare,perplexity" 0 best m.gguf --text t.txt --ctx 32 --chunks 4 --target-bpw 5 -o best.gguf
holds "best,compare,perplexity" 0 best m.gguf --text t.txt --ctx 32 --target-bpw 5 -o other.gguf --dry-run
holds "every command" 1 inspect nothing.gguf
holds "every command" 2 inspect

# What no run above shows: every key that the sources write stands somewhere in the page.
if [ -d "$src/calib" ]; then
    listed "$(sed -n 's/^## //p' "$page" | tr '\n' ',' | sed 's/, */,/g')" | tr '.' '\n' | sed 's/\[\]//g' | sort -u >words
    grep -rhoE 'jw_key[a-z_]*\([^"()]*"[a-z0-9_]+"' "$src/tools" "$src/calib/report/report"*.c --include=*.c |
        sed 's/.*"\(.*\)"/\1/' | sort -u >written
    # of other files than the object: records of score, ids beside logits, chunk_* and array inside metadata
    for word in $(comm -23 written words | grep -vxE 'place|kind|right|choice|array|n|chunk_size|chunk_count'); do
        fail "tools/JSON.md does not list '$word', which the sources write"
    done
fi
done_testing
