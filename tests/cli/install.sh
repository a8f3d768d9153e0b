#!/bin/sh
# The installed library, used by programs from outside: through pkg-config, through the CMake package, shared and static,
# from C and from C++; what it exports, and every header on its own. Usage: install.sh KERF SOURCE_DIR BINARY_DIR (the latter being the folder of the tests).
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

# The rooms are static and libkerf is both, whatever BUILD_SHARED_LIBS says: tests link in either case.
for shared in OFF ON; do
    cmake -G "Unix Makefiles" -S "$src" -B "$work/linked" -DBUILD_SHARED_LIBS=$shared >"$work/out" 2>"$work/err" ||
        fail "configuring with BUILD_SHARED_LIBS=$shared"
    find "$work/linked" -name link.txt | sort | xargs cat >"$work/links-$shared"
done
[ -s "$work/links-ON" ] && cmp -s "$work/links-ON" "$work/links-OFF" || fail "BUILD_SHARED_LIBS changes what is linked"

root=$work/root
cmake --install "$build" --prefix "$root" >"$work/out" 2>"$work/err" || fail "cmake --install"
"$root/bin/kerf" --version >"$work/out" || fail "the installed program does not start"
[ "$(cat "$work/out")" = "$("$kerf" --version)" ] || fail "the installed program is another version"

for file in man/man1/kerf.1 man/man1/kerf-imatrix-merge.1 bash-completion/completions/kerf zsh/vendor-completions/_kerf \
    fish/vendor_completions.d/kerf.fish; do
    [ -s "$root/share/$file" ] || fail "share/$file is not installed"
done

# Names: those of the committed list, each with the prefix, in the shared library and in the archive.
library=$(find "$root" -name 'libkerf.so')
archive=$(find "$root" -name 'libkerf.a')
nm -D --defined-only "$library" | awk '{ print $3 }' | LC_ALL=C sort >"$work/exported"
diff "$src/tests/exports.txt" "$work/exported" >"$work/out" || fail "exported names are not those of tests/exports.txt"
nm -g --defined-only "$archive" | awk 'NF == 3 { print $3 }' | LC_ALL=C sort >"$work/exported"
diff "$src/tests/exports.txt" "$work/exported" >"$work/out" || fail "names of libkerf.a are not those of tests/exports.txt"
! grep -v '^kerf_' "$src/tests/exports.txt" || fail "a name without the prefix"
n_checks=$((n_checks + 2))
readelf -d "$library" >"$work/out"
prints "soname: [libkerf.so.0]"
! grep NEEDED "$work/out" | grep -vE 'lib(c|m|pthread)\.so|ld-linux' || fail "libkerf.so needs more than libc"

# Headers: these and no others, each alone, in both languages.
headers="base.h gguf.h quant.h"
[ "$(cd "$root/include/kerf" && echo *)" = "$headers" ] || fail "other headers are installed than $headers"
printf 'int main(void) { return 0; }\n' >"$work/one.cc"
cxx=${CXX:-c++}
command -v "$cxx" >/dev/null && "$cxx" "$work/one.cc" -o "$work/one" 2>/dev/null || cxx=
for header in $headers; do
    printf '#include <kerf/%s>\n' "$header" >"$work/one.c"
    "${CC:-cc}" -std=c11 -Wall -Wextra -Wpedantic -Werror -fsyntax-only -I "$root/include" "$work/one.c" 2>"$work/err" ||
        fail "$header does not stand alone"
    [ -z "$cxx" ] || "$cxx" -x c++ -std=c++11 -Wall -Wextra -Wpedantic -Werror -fsyntax-only -I "$root/include" \
        "$work/one.c" 2>"$work/err" || fail "$header is not C++"
done

# The examples, through pkg-config: with each compiler, against each library.
PKG_CONFIG_PATH=$(dirname "$(find "$root" -name kerf.pc)")
LD_LIBRARY_PATH=$(dirname "$library")
export PKG_CONFIG_PATH LD_LIBRARY_PATH
run 0 quantize "$demo" -o "$work/m.gguf" --type Q4_K_M
examples()
{
    "$work/quantize_rows" Q6_K >"$work/out" 2>"$work/err" || fail "$1: quantize_rows"
    prints "2048 weights as Q6_K take 1680 bytes, relative error 0.0"
    ! "$work/quantize_rows" Q6_X >"$work/out" 2>"$work/err" || fail "$1: a type that does not exist"
    "$work/list_tensors" "$work/m.gguf" >"$work/out" 2>"$work/err" || fail "$1: list_tensors"
    prints "architecture qwen3, "
    [ "$(grep -c '^blk\.0\.' "$work/out")" -eq 11 ] || fail "$1: tensors of the first layer"
    ! "$work/list_tensors" "$src/README.md" >"$work/out" 2>"$work/err" || fail "$1: a file that is no GGUF"
    says "README.md"
}
for compiler in "${CC:-cc}" $cxx; do
    flags=$(pkg-config --cflags --libs kerf) || fail "pkg-config does not find kerf"
    language=c
    [ "$compiler" = "$cxx" ] && language=c++
    for name in quantize_rows list_tensors; do
        # shellcheck disable=SC2086 # the flags are words
        "$compiler" -x $language -Wall -Wextra -Werror "$src/tests/examples/$name.c" -x none -o "$work/$name" $flags -lm \
            >"$work/out" 2>"$work/err" || fail "$compiler: $name by pkg-config"
    done
    ldd "$work/quantize_rows" | grep -q 'libkerf\.so\.0' || fail "$compiler: not linked to the shared library"
    examples "$compiler"
done
for name in quantize_rows list_tensors; do
    # shellcheck disable=SC2046 # the flags are words
    "${CC:-cc}" "$src/tests/examples/$name.c" -o "$work/$name" $(pkg-config --cflags kerf) "$archive" -lpthread -lm \
        >"$work/out" 2>"$work/err" || fail "$name with the archive"
done
! ldd "$work/quantize_rows" | grep -q libkerf || fail "linked to the shared library, not to the archive"
examples "the archive"

mkdir "$work/app"
cat >"$work/app/CMakeLists.txt" <<END
cmake_minimum_required(VERSION 3.16)
project(app C)
find_package(kerf REQUIRED)
add_executable(quantize_rows $src/tests/examples/quantize_rows.c)
target_link_libraries(quantize_rows PRIVATE kerf::kerf m)
add_executable(list_tensors $src/tests/examples/list_tensors.c)
target_link_libraries(list_tensors PRIVATE kerf::static)
END
cmake -S "$work/app" -B "$work/app/b" -DCMAKE_PREFIX_PATH="$root" >"$work/out" 2>"$work/err" || fail "find_package(kerf)"
cmake --build "$work/app/b" >"$work/out" 2>"$work/err" || fail "build by the CMake package"
cp "$work/app/b/quantize_rows" "$work/app/b/list_tensors" "$work"
examples "the CMake package"

# kerf.pc names the folders of the prefix that it is installed to.
for prefix in /usr /usr/local "$work/opt"; do
    for libdir in lib lib/x86_64-linux-gnu "$prefix/lib64"; do
        cmake -DCMAKE_INSTALL_PREFIX="$prefix" -DKERF_LIBDIR="$libdir" -DKERF_INCLUDEDIR=include -DKERF_VERSION=1.2.3 \
            -DKERF_PC_IN="$src/tools/install/kerf.pc.in" -DKERF_PC_OUT="$work/pc/kerf.pc" -P "$src/tools/install/write_pc.cmake" ||
            fail "writing kerf.pc"
        case "$libdir" in /*) want=$libdir ;; *) want=$prefix/$libdir ;; esac
        [ "$(PKG_CONFIG_PATH=$work/pc pkg-config --variable=libdir kerf)" = "$want" ] || fail "libdir for $prefix, $libdir"
        [ "$(PKG_CONFIG_PATH=$work/pc pkg-config --variable=includedir kerf)" = "$prefix/include" ] ||
            fail "includedir for $prefix"
        [ "$prefix" != /usr ] || [ -z "$(PKG_CONFIG_PATH=$work/pc pkg-config --cflags kerf | tr -d ' ')" ] ||
            fail "the system's own folder is asked for by -I"
        n_checks=$((n_checks + 1))
    done
done
echo "install: $n_checks checks"
