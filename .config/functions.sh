#!/usr/bin/env bash
# Writes functions.txt anew: what the program calls when it starts, runs scripts, serves, and changes a database.
# Needs valgrind and nm, and takes as long as a release build. Worth it when `lakeops bench` shows that a run's memory
# has grown: another compiler names its functions anew, and so do other versions of dependencies.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo rustc --locked --release --bin lakeops -- -C strip=none
program=$(realpath "${CARGO_TARGET_DIR:-target}/release/lakeops")
traces=$(mktemp -d)
trap 'rm -rf "$traces"' EXIT

# The benchmark starts the program for most of this. Its own work comes last.
valgrind --quiet --tool=callgrind --demangle=no --callgrind-out-file="$traces/%p" \
    --trace-children=yes --trace-children-skip='*/postgres,*/initdb,*/pg_*,*/sh' \
    "$program" bench --starts 1 --steps 200 --runs 20 --changes 40 \
    --items 0 --settled 0 --dag 0 --files 0 --events 0
mapfile -t processes < <(cd "$traces" && printf '%s\n' * | sort -n)
cd "$traces"
sed -nE "s/^c?fn=\([0-9]+\) ([^ ']+)('[0-9]+)?$/\1/p" "${processes[@]:1}" "${processes[0]}" |
    awk 'NR == FNR { own[$1]; next } ($0 in own) && !seen[$0]++' \
        <(nm --format=just-symbols --defined-only "$program") - > "$OLDPWD/.config/functions.txt"
