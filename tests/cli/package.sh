#!/bin/sh
# The Debian packages: what is in them, what they depend on, and that program and library run from a root into which nothing
# else was unpacked. Usage: package.sh KERF SOURCE_DIR BINARY_DIR (the latter being the folder of the tests).
. "$(dirname "$0")/lib.sh"
build=$(dirname "$bin")
for tool in cpack dpkg-deb dpkg-shlibdeps; do
    command -v $tool >/dev/null || { echo "package: skipped, $tool is not here" && exit 77; }
done
if grep -q '^KERF_\(SANITIZE\|TSAN\):BOOL=ON' "$build/CMakeCache.txt"; then
    echo "package: skipped, nobody packs a build with a sanitizer"
    exit 77
fi
cpack -G DEB --config "$build/CPackConfig.cmake" -B "$work/packages" >"$work/out" 2>"$work/err" || fail "cpack"
version=$("$kerf" --version | sed 's/kerf //')
architecture=$(dpkg --print-architecture)
field() # PACKAGE FIELD
{
    dpkg-deb -f "$work/packages/$1_${version}_$architecture.deb" "$2"
}
depends() # PACKAGE PATTERN...: each is among its dependencies
{
    package=$1
    shift
    for pattern; do
        field "$package" Depends | grep -qE "(^|, )$pattern" || fail "$package does not depend on $pattern: $(field "$package" Depends)"
        n_checks=$((n_checks + 1))
    done
}
depends kerf libc6 libcjson1 libnettle8 libopenblas0 libpcre2-8-0 libutf8proc[0-9] libyaml-0-2 zlib1g
depends libkerf0 libc6
depends libkerf-dev "libkerf0 \(= $version\)"
! field libkerf0 Depends | grep -E 'cjson|pcre2|utf8proc|yaml|zlib' || fail "the library depends on more than the C library"
! field kerf Depends | grep libkerf || fail "the program depends on the library"
[ "$(field libkerf0 Section)" = libs ] || fail "section of libkerf0"

root=$work/root
for package in kerf libkerf0 libkerf-dev; do
    dpkg-deb -x "$work/packages/${package}_${version}_$architecture.deb" "$work/$package" || fail "unpacking $package"
    [ -s "$work/$package/usr/share/doc/$package/copyright" ] || fail "$package has no copyright file"
    [ -z "$(find "$work/$package" -type f ! -path "$work/$package/usr/*")" ] || fail "files of $package outside of /usr"
done

# dpkg installs them into a root of its own, where it knows of nothing but the libraries they ask for, and refuses them where
# these are missing. Their scripts want a shell there, and a root user; without one the packages are only unpacked.
install_package() # NAME...
{
    set -- $(for name; do echo "$work/packages/${name}_${version}_$architecture.deb"; done)
    PATH=$PATH:/usr/sbin:/sbin dpkg --force-unsafe-io --root="$root" --log="$work/dpkg.log" -i "$@" >"$work/out" 2>"$work/err"
}
with_libraries() # PROGRAM...: to the same places of the root, with the libraries they load
{
    for file in "$@" $(ldd "$@" 2>/dev/null | grep -oE '/[^ ]+[^ :]'); do
        mkdir -p "$root$(dirname "$file")"
        cp -L "$file" "$root$file"
    done
}
empty_root()
{
    rm -rf "$root"
    mkdir -p "$root/etc" "$root/var/lib/dpkg/info" "$root/var/lib/dpkg/updates"
    : >"$root/var/lib/dpkg/status"
    with_libraries /bin/sh /sbin/ldconfig
}
if [ "$(id -u)" -eq 0 ] && command -v chroot >/dev/null; then
    empty_root
    ! install_package kerf || fail "dpkg -i kerf without its libraries"
    grep -q 'dependency problems' "$work/err" || fail "dpkg does not say what kerf lacks"
    empty_root
    for name in $(for package in kerf libkerf0; do field $package Depends; done | tr ',' '\n' | sed 's/^ *//; s/ .*//' | sort -u); do
        dpkg-query -s "$name:$architecture" >>"$root/var/lib/dpkg/status" || fail "$name is not installed here"
        echo >>"$root/var/lib/dpkg/status"
    done
    ! install_package libkerf-dev || fail "dpkg -i libkerf-dev without libkerf0"
    install_package libkerf0 kerf libkerf-dev || fail "dpkg -i"
    [ "$(dpkg-query --admindir="$root/var/lib/dpkg" -W -f '${Status} ' kerf libkerf0 libkerf-dev)" = \
        "install ok installed install ok installed install ok installed " ] || fail "the packages are not installed"
    n_checks=$((n_checks + 5))
else
    mkdir -p "$root"
    for package in kerf libkerf0 libkerf-dev; do cp -r "$work/$package/." "$root"; done
fi
for file in usr/bin/kerf usr/share/man/man1/kerf-quantize.1 usr/share/bash-completion/completions/kerf; do
    [ -f "$work/kerf/$file" ] || fail "kerf lacks $file"
done
[ -z "$(find "$work/libkerf0" -name '*.h' -o -name '*.a' -o -name 'libkerf.so')" ] || fail "libkerf0 has development files"
[ -L "$(find "$work/libkerf0" -name 'libkerf.so.0')" ] || fail "libkerf0 lacks libkerf.so.0"
[ "$(cd "$work/libkerf-dev/usr/include/kerf" && echo *)" = "base.h gguf.h quant.h" ] || fail "headers of libkerf-dev"
! dpkg-deb -e "$work/packages/libkerf0_${version}_$architecture.deb" "$work/control" || [ -s "$work/control/shlibs" ] ||
    fail "libkerf0 does not tell others how to depend on it"
n_checks=$((n_checks + 8))

# In a root of its own where that may be done, with the system's C library; else from where it was unpacked.
kerf=$root/usr/bin/kerf
ldd "$kerf" | grep -q 'not found' && fail "a library of the program is missing"
run 0 --version
prints "kerf $version"
run 0 convert "$demo" -o "$work/m.gguf" --type Q4_K_M
run 0 verify "$work/m.gguf"
if [ "$(id -u)" -eq 0 ] && command -v chroot >/dev/null; then
    for library in $(ldd "$kerf" | grep -oE '/[^ ]+'); do
        mkdir -p "$root$(dirname "$library")"
        cp -L "$library" "$root$library"
    done
    cp -r "$demo" "$root/"
    chroot "$root" /usr/bin/kerf convert /demo-qwen3 -o /out.gguf --type Q4_K_M >"$work/out" 2>"$work/err" ||
        fail "the program in a root of its own"
    cmp -s "$root/out.gguf" "$work/m.gguf" || fail "the program writes other bytes in a root of its own"
    n_checks=$((n_checks + 2))
fi

# The development files, as a compiler finds them below another root.
libdir=$(dirname "$(find "$root" -name 'libkerf.so.0')")
PKG_CONFIG_PATH=$libdir/pkgconfig
PKG_CONFIG_SYSROOT_DIR=$root
LD_LIBRARY_PATH=$libdir
export PKG_CONFIG_PATH PKG_CONFIG_SYSROOT_DIR LD_LIBRARY_PATH
[ "$(env -u PKG_CONFIG_SYSROOT_DIR pkg-config --variable=prefix kerf)" = /usr ] || fail "kerf.pc of the package"
# shellcheck disable=SC2046 # the flags are words
"${CC:-cc}" "$src/tests/examples/list_tensors.c" -o "$work/list_tensors" -I "$root/usr/include" \
    $(pkg-config --cflags --libs kerf) >"$work/out" 2>"$work/err" || fail "a program with the packages"
"$work/list_tensors" "$work/m.gguf" >"$work/out" 2>"$work/err" || fail "a program linked to the packaged library"
prints "architecture qwen3, "
done_testing
