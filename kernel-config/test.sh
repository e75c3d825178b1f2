#!/usr/bin/env bash
# Tests of check.sh and image/apt-trixie.sh that need neither network nor a compilation.
set -euo pipefail
export LC_ALL=C

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
apt_trixie=$(dirname "$here")/image/apt-trixie.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

expect() { # NAME WANTED-STATUS TEXT COMMAND...
    local name=$1 wanted=$2 text=$3 status=0 output
    shift 3
    output=$("$@" 2>&1) || status=$?
    if [[ $status == "$wanted" && $output == *"$text"* ]]; then
        echo "ok   $name"
    else
        echo "FAIL $name: status $status (wanted $wanted), output: $output"
        failures=$((failures + 1))
    fi
}

# A copy of the check with fragments of our own.
mkdir -p "$work/kernel/fragments"
cp "$here/check.sh" "$work/kernel/"
fragment=$work/kernel/fragments/10-test.config
config=$work/config
check=$work/kernel/check.sh

printf '# why\nCONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=m\nCONFIG_S="x y"\n' >"$fragment"
printf 'CONFIG_A=y\nCONFIG_C=m\nCONFIG_S="x y"\nCONFIG_OTHER=y\n' >"$config"
expect "a configuration that agrees" 0 "4 settings hold" "$check" "$config"
printf 'CONFIG_C=m\nCONFIG_S="x y"\n' >"$config"
expect "a dropped setting, with file and line" 1 "10-test.config:2: CONFIG_A is n, asked for y" "$check" "$config"
printf 'CONFIG_A=y\nCONFIG_B=y\nCONFIG_C=m\nCONFIG_S="x y"\n' >"$config"
expect "a setting that came back" 1 "10-test.config:3: CONFIG_B is y, asked for n" "$check" "$config"
printf 'CONFIG_A=y\nCONFIG_C=y\nCONFIG_S="x"\n' >"$config"
expect "module became built in" 1 "CONFIG_C is y, asked for m" "$check" "$config"
expect "another text" 1 'CONFIG_S is "x", asked for "x y"' "$check" "$config"
printf 'CONFIG_A=y\nCONFIG_C=m\nCONFIG_S="x y"\nCONFIG_D=m\n' >"$config"
expect "a module nobody asked for" 1 "module without a line in a fragment: CONFIG_D" "$check" "$config"
printf 'CONFIG_A=y\n' >"$config"
printf 'CONFIG_A=y\nCONFIG_A=y\n' >"$fragment"
expect "a symbol twice" 1 "is also in 10-test.config:1" "$check" "$config"
printf 'CONFIG_A=y\nCONFIG_B=n\n' >"$fragment"
expect "=n" 1 'write "# CONFIG_B is not set"' "$check" "$config"
printf 'CONFIG_A=y\n CONFIG_B=y\n' >"$fragment"
expect "an indented setting" 1 "not a setting" "$check" "$config"
printf 'CONFIG_A=y\n# CONFIG_B=y\n' >"$fragment"
expect "a setting in a comment" 1 "not a setting" "$check" "$config"
expect "no configuration" 1 "no configuration" "$check" "$work/absent"

# Which mirror is taken from which kind of sources.
etc=$work/apt
sources() { # prints what apt-trixie.sh made of $etc
    STILLMETAL_CACHE=$work/cache STILLMETAL_APT_ETC=$etc DEBIAN_KEYRING=/dev/null "$apt_trixie" conf >/dev/null &&
        grep -E '^(URIs|Suites)' "$work/cache/apt-trixie/debian.sources" | tr '\n' ' '
}
fresh() {
    rm -rf "$etc"
    mkdir -p "$etc/sources.list.d"
}
unset DEBIAN_MIRROR DEBIAN_SECURITY_MIRROR
fresh
expect "no sources at all" 3 "DEBIAN_MIRROR" sources
fresh
printf 'deb http://other.invalid/tools stable-x main\ndeb [arch=amd64 signed-by=/k] http://m.invalid/debian/ bookworm main contrib\ndeb http://s.invalid/sec bookworm-security main\n' >"$etc/sources.list"
expect "one-line format" 0 "URIs: http://m.invalid/debian Suites: trixie trixie-updates URIs: http://s.invalid/sec Suites: trixie-security" sources
fresh
printf '# note\nTypes: deb deb-src\nURIs: http://m.invalid/debian http://n.invalid/debian\nSuites: trixie trixie-updates\nComponents:\n main\n\nTypes: deb\nURIs: http://s.invalid/sec\nSuites: trixie-security\nComponents: main\n' >"$etc/sources.list.d/debian.sources"
expect "deb822 format, security apart" 0 "URIs: http://m.invalid/debian Suites: trixie trixie-updates URIs: http://s.invalid/sec" sources
fresh
printf 'Enabled: no\nTypes: deb\nURIs: http://off.invalid/debian\nSuites: trixie\nComponents: main\n\nTypes: deb\nURIs: http://m.invalid/debian\nSuites: trixie\nComponents: main\n' >"$etc/sources.list.d/debian.sources"
expect "a disabled stanza; no security" 0 "URIs: http://m.invalid/debian Suites: trixie trixie-updates " sources
fresh
expect "DEBIAN_MIRROR alone" 0 "URIs: http://e.invalid/debian Suites: trixie trixie-updates " \
    env DEBIAN_MIRROR=http://e.invalid/debian bash -c "$(declare -f sources); etc='$etc' work='$work' apt_trixie='$apt_trixie' sources"
expect "wrong use" 2 "fetch wants PKG=VERSION" env STILLMETAL_CACHE="$work/cache" DEBIAN_MIRROR=http://e.invalid/debian DEBIAN_KEYRING=/dev/null "$apt_trixie" fetch nonsense "$work/debs"

# A pinned package that is in the cache needs no mirror.
printf 'content' >"$work/x.deb"
sum=$(sha256sum <"$work/x.deb" | cut -d ' ' -f 1)
mkdir -p "$work/cache/debs/names"
cp "$work/x.deb" "$work/cache/debs/$sum.deb"
echo "$sum amd64" >"$work/cache/debs/names/tool_1%3a2"
offline() { STILLMETAL_CACHE=$work/cache DEBIAN_MIRROR=http://e.invalid/debian DEBIAN_KEYRING=/dev/null "$apt_trixie" fetch "tool=1:2@$sum" "$work/debs" && cat "$work/debs/tool_1%3a2_amd64.deb"; }
expect "from the cache, offline" 0 "content" offline

((failures == 0)) || exit 1
