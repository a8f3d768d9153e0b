# packages.sh - installs the Debian/Ubuntu packages that are missing; sourced by quickstart.sh and check.sh.

KERF_PACKAGES_BUILD="gcc libc6-dev make cmake pkg-config zlib1g-dev libcjson-dev libpcre2-dev libutf8proc-dev libyaml-dev libopenblas-dev nettle-dev"
KERF_PACKAGES_TEST="libcmocka-dev"
KERF_PACKAGES_ALL="clang libclang-rt-14-dev clang-format cppcheck"

# kerf_install_packages build|test|all
kerf_install_packages()
{
    wanted=$KERF_PACKAGES_BUILD
    [ "$1" = test ] && wanted="$wanted $KERF_PACKAGES_TEST"
    [ "$1" = all ] && wanted=$KERF_PACKAGES_ALL
    missing=
    for p in $wanted; do
        dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'install ok installed' || missing="$missing $p"
    done
    [ -n "$missing" ] || return 0
    echo "installing:$missing" >&2
    run=
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || { echo "need root or sudo to install:$missing" >&2; return 1; }
        run=sudo
    fi
    $run env DEBIAN_FRONTEND=noninteractive apt-get update -qq >&2
    # shellcheck disable=SC2086 # a list of words
    $run env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >&2
}
