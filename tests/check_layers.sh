#!/bin/sh
# The arrows of the house: libquant/base <- libquant <- formats <- calib <- tools, and each outside library in its own
# room.
# Usage: check_layers.sh SOURCE_DIR. Fails when an include runs up, or a library is included outside its room.
cd "$1" || exit 2
bad=0
deny() { # folder, pattern of forbidden includes, why
    hits=$(grep -rnE "^[[:space:]]*#[[:space:]]*include[[:space:]]*[<\"]($2)" "$1" --include='*.c' --include='*.h')
    if [ -n "$hits" ]; then
        printf '%s\n%s\n' "$3:" "$hits"
        bad=1
    fi
}
deny libquant/base '(\.\.|libquant|formats|calib|tools)/' 'libquant/base includes its own headers only, by their bare names'
deny libquant '(formats|calib|tools)/' 'libquant must not include from the rooms above it'
deny libquant 'kerf/gguf' 'the public face of a room is included by that room only'
for room in calib tools; do
    deny "$room" 'kerf/' 'the rooms use each other by their own headers'
done
deny formats '(calib|tools)/' 'formats must not include from the rooms above it'
deny calib 'tools/' 'calib must not include from tools'
deny libquant '(cjson/|zlib|pcre2|utf8proc|yaml)' 'libquant uses no outside library'
deny calib '(cjson/|zlib|pcre2|utf8proc|yaml)' 'zlib, cJSON, PCRE2, utf8proc and libyaml live in formats'
deny tools '(cjson/|zlib|pcre2|utf8proc|yaml)' 'outside libraries live in formats'
for room in calib/model calib/eval tools; do
    deny "$room" '(calib/compute/)?(cpu|gemm)\.h' 'what computes is reached through the table (calib/compute/compute.h)'
done
hits=$(grep -rl '<nettle/' libquant formats calib tools --include='*.[ch]')
[ "$hits" = libquant/base/sha256.c ] || { echo "nettle is for libquant/base/sha256.c alone, and is included by: $hits" && bad=1; }
for room in libquant formats calib tools; do
    deny "$room" '(cblas|openblas)' 'products have the same bits on all processors (calib/compute/gemm.h)'
done
blas=$(grep -rlE '(\b|")(dpotrf_|dtrtri_|openblas_|cblas_)' libquant formats calib tools --include='*.c' --include='*.h' |
    grep -v '^calib/feedback/lapack.c$')
if [ -n "$blas" ]; then
    printf 'OpenBLAS is for calib/feedback/lapack.c alone:\n%s\n' "$blas"
    bad=1
fi
[ "$bad" -eq 0 ] && echo "layers: every include runs down"
exit "$bad"
