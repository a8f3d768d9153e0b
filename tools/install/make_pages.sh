#!/bin/sh
# make_pages.sh FOLDER KERF...: man pages and completion of shells, as the program makes them from its option tables, below
# FOLDER as they are installed below share. Part of the build.
set -eu
folder=$1
shift
rm -rf "$folder"
mkdir -p "$folder/man/man1" "$folder/bash-completion/completions" "$folder/zsh/vendor-completions" \
    "$folder/fish/vendor_completions.d"
"$@" --help=man >"$folder/man/man1/kerf.1"
"$@" --help=commands | while read -r name; do
    # shellcheck disable=SC2086 # "imatrix merge" is two words
    "$@" $name --help=man >"$folder/man/man1/kerf-$(echo "$name" | tr ' ' -).1"
done
"$@" --help=bash >"$folder/bash-completion/completions/kerf"
"$@" --help=zsh >"$folder/zsh/vendor-completions/_kerf"
"$@" --help=fish >"$folder/fish/vendor_completions.d/kerf.fish"
touch "$folder/made"
