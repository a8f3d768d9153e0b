#!/bin/sh
# The installed libraries, used by a program from outside: through pkg-config, through the CMake package, and every
# header on its own. Usage: install.sh KERF SOURCE_DIR BINARY_DIR (the latter being the folder of the tests).
. "$(dirname "$0")/lib.sh"
build=$(dirname "$bin")
if grep -q '^KERF_SANITIZE:BOOL=ON' "$build/CMakeCache.txt"; then
    echo "install: skipped, a sanitizer's runtime would have to be linked as well"
    exit 77
fi
# Who only builds the program needs no cmocka; who means to test is told.
cat >"$work/pkg-config" <<'END'
#!/bin/sh
case "$*" in *cmocka*) exit 1 ;; esac
exec pkg-config "$@"
END
chmod +x "$work/pkg-config"
cmake -S "$src" -B "$work/untested" -DPKG_CONFIG_EXECUTABLE="$work/pkg-config" >"$work/out" 2>"$work/err" ||
    fail "configuring without cmocka"
prints "The tests are not built: cmocka was not found"
! cmake -S "$src" -B "$work/untested" -DKERF_TESTS=REQUIRED >"$work/out" 2>"$work/err" ||
    fail "tests that are required are silently left out"
says "cmocka was not found"

root=$work/root
cmake --install "$build" --prefix "$root" >"$work/out" 2>"$work/err" || fail "cmake --install"
"$root/bin/kerf" --version >"$work/out" || fail "the installed program does not start"
[ "$(cat "$work/out")" = "$("$kerf" --version)" ] || fail "the installed program is another version"

mkdir "$work/app"
cat >"$work/app/core.c" <<'END'
#include <libquant/quant.h>
#include <math.h>
#include <stdio.h>
int main(void)
{
    float x[256], y[256], worst = 0;
    unsigned char block[256];
    struct err e = {0};
    for (int i = 0; i < 256; i++) x[i] = (float)(i - 128) / 128;
    uint64_t n = 0;
    if (!qtype_row_bytes(QTYPE_Q6_K, 256, &n)) return 1;
    if (quant_encode_rows(kern_native(), QTYPE_Q6_K, x, block, n, 1, 256, NULL, &e)) return 1;
    if (quant_decode_rows(kern_native(), QTYPE_Q6_K, block, n, y, 1, 256, &e)) return 1;
    for (int i = 0; i < 256; i++) worst = fmaxf(worst, fabsf(x[i] - y[i]));
    printf("%d bytes, worst %.4f\n", (int)n, worst);
    return worst < 0.05f ? 0 : 1;
}
END
cat >"$work/app/model.c" <<'END'
#include <formats/model/model.h>
#include <stdio.h>
int main(int argc, char **argv)
{
    struct err e = {0};
    struct model *m = NULL;
    if (argc != 2 || model_open(&m, argv[1], NULL, &e)) return fprintf(stderr, "%s\n", e.msg), 1;
    printf("%zu tensors\n", model_n_tensors(m));
    model_close(m);
    return 0;
}
END
cat >"$work/app/CMakeLists.txt" <<'END'
cmake_minimum_required(VERSION 3.16)
project(app C)
find_package(kerf REQUIRED COMPONENTS libquant formats)
add_executable(core core.c)
target_link_libraries(core PRIVATE kerf::libquant)
add_executable(model model.c)
target_link_libraries(model PRIVATE kerf::formats)
END

pc=$(find "$root" -name kerf.pc)
flags=$(PKG_CONFIG_PATH=$(dirname "$pc") pkg-config --cflags --libs kerf) || fail "pkg-config does not find kerf"
# shellcheck disable=SC2086 # the flags are words
"${CC:-cc}" -std=c11 "$work/app/core.c" -o "$work/core" $flags >"$work/out" 2>"$work/err" || fail "link by pkg-config"
"$work/core" >"$work/out" || fail "the program linked by pkg-config"
prints "210 bytes"

cmake -S "$work/app" -B "$work/app/b" -DCMAKE_PREFIX_PATH="$root" >"$work/out" 2>"$work/err" || fail "find_package(kerf)"
cmake --build "$work/app/b" >"$work/out" 2>"$work/err" || fail "build by the CMake package"
"$work/app/b/core" >"$work/out" || fail "the program linked by the CMake package"
prints "210 bytes"
"$work/app/b/model" "$demo" >"$work/out" 2>"$work/err" || fail "the program that opens a model"
prints "46 tensors"

find "$root/include/kerf" -name '*.h' | while read -r header; do
    printf '#include "%s"\n' "$header" >"$work/one.c"
    "${CC:-cc}" -std=c11 -Wall -Wextra -Werror -fsyntax-only -I "$root/include/kerf" "$work/one.c" 2>"$work/err" ||
        fail "${header#"$root"/include/kerf/} does not stand alone"
done || exit 1
echo "install: $n_checks checks"
