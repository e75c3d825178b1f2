#!/usr/bin/env bash
# Compares a kernel configuration with the fragments: kconfig drops what its dependencies do not allow
# without a word, and the kernel would then lack it.
#
#   check.sh CONFIG        0: every line of the fragments holds, and every module is asked for; 1: not so
set -euo pipefail
export LC_ALL=C

config=${1:?usage: check.sh CONFIG}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[[ -s $config ]] || {
    echo "kernel check: no configuration in $config" >&2
    exit 1
}

awk '
    function complain(text) { print "kernel check: " text; bad++ }
    function place() { file = FILENAME; sub(/.*\//, "", file); return file ":" FNR }
    # Reads a line into symbol and wanted; false for comments and blank lines.
    function parse() {
        if (match($0, /^CONFIG_[A-Za-z0-9_]+=/)) {
            symbol = substr($0, 1, RLENGTH - 1); wanted = substr($0, RLENGTH + 1)
            return 1
        }
        if ($0 ~ /^# CONFIG_[A-Za-z0-9_]+ is not set$/) { symbol = $2; wanted = "n"; return 1 }
        return 0
    }
    NR == FNR { if (parse()) final[symbol] = wanted; next }
    parse() {
        asked++
        if (symbol in line) complain(place() ": " symbol " is also in " line[symbol])
        line[symbol] = place()
        if (wanted == "n" && $0 !~ /^#/) complain(place() ": write \"# " symbol " is not set\"")
        got = (symbol in final) ? final[symbol] : "n"
        if (got != wanted) complain(place() ": " symbol " is " got ", asked for " wanted)
        next
    }
    # What looks like a setting and is not one would be ignored by kconfig.
    /^[^#]/ || /^#[ \t]*CONFIG_[A-Za-z0-9_]+[ \t]*(=|is not)/ { complain(place() ": not a setting: " $0) }
    END {
        # A module nobody asked for is code that init could be told to load.
        for (symbol in final)
            if (final[symbol] == "m" && !(symbol in line)) complain("module without a line in a fragment: " symbol)
        if (!asked) complain("no fragments found")
        if (bad) exit 1
        print "kernel check: " asked " settings hold"
    }
' "$config" "$here"/fragments/*.config >&2
