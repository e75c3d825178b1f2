#!/usr/bin/env bash
# Reads Debian trixie packages through this machine's own mirror, whatever release it runs itself.
#
#   apt-trixie.sh update [--force]             refresh the signed indices, at most once a day
#   apt-trixie.sh show PKG[=VERSION]...        Package/Version/SHA256/Size/Filename of the candidate, one stanza each
#   apt-trixie.sh fetch PKG=VERSION[@SHA256]... DIR
#                                              put the .debs into DIR (named PKG_VERSION_ARCH.deb, epoch as %3a)
#   apt-trixie.sh conf                         print the path of the apt configuration, for `apt-cache -c "$(…)" …`
#
# Exit codes: 0 done · 1 failed · 2 wrong use · 3 no Debian archive is configured here
#             4 a version is no longer offered (the others are fetched; one line per missing one on stderr)
#             5 the archive offers that version with another content than @SHA256
#
# The mirror comes from this machine's apt sources: the first entry of a Debian release with component
# `main`, and the first `-security` entry (left out when none is configured). DEBIAN_MIRROR and
# DEBIAN_SECURITY_MIRROR override them. apt's state is our own, so root is not needed and the
# machine's package state is not touched. Every .deb is kept by its sha256 under
# ${STILLMETAL_CACHE:-~/.cache/stillmetal}/debs, and a known content is never downloaded twice.
#
# Needs (Debian packages): apt dpkg gawk|mawk debian-archive-keyring util-linux coreutils
set -euo pipefail
export LC_ALL=C

readonly release=trixie
readonly cache=${STILLMETAL_CACHE:-${HOME:?}/.cache/stillmetal}
readonly keyring=${DEBIAN_KEYRING:-/usr/share/keyrings/debian-archive-keyring.gpg}
readonly refresh_seconds=86400
readonly state=$cache/apt-$release
readonly debs=$cache/debs
readonly apt_root=${STILLMETAL_APT_ETC:-/etc/apt} # tests read another directory

fail() { # CODE MESSAGE
    echo "apt-trixie: $2" >&2
    exit "$1"
}

# Prints "main URI" and "security URI", each the first of its kind in the machine's sources.
configured_archives() {
    local files=()
    [[ -f $apt_root/sources.list ]] && files+=("$apt_root/sources.list")
    local file
    for file in "$apt_root"/sources.list.d/*.sources "$apt_root"/sources.list.d/*.list; do
        [[ -f $file ]] && files+=("$file")
    done
    ((${#files[@]})) || return 0
    awk '
        function offer(uri, suites, components,    n, list, i) {
            if ((" " components " ") !~ / main /) return
            n = split(suites, list, " ")
            for (i = 1; i <= n; i++) {
                if (list[i] ~ /^(bullseye|bookworm|trixie|forky|duke|sid|(old)*stable|testing|unstable)$/) emit("main", uri)
                if (list[i] ~ /^[a-z]+(-security|\/updates)$/) emit("security", uri)
            }
        }
        function emit(kind, uri) { sub(/\/+$/, "", uri); if (!(kind in seen)) { seen[kind] = 1; print kind, uri } }
        function stanza(    first) {
            split(field["uris"], first, " ")
            if (field["types"] ~ /(^| )deb( |$)/ && field["enabled"] !~ /^(no|false|0)$/)
                offer(first[1], field["suites"], field["components"])
            delete field; last = ""
        }
        FNR == 1 { stanza() }
        /^[ \t]*#/ { next }
        FILENAME ~ /\.sources$/ {
            if ($0 ~ /^[ \t]*$/) { stanza(); next }
            if ($0 ~ /^[ \t]/) { if (last != "") field[last] = field[last] " " $0; next }
            last = tolower($0); sub(/:.*/, "", last)
            value = $0; sub(/^[^:]*:[ \t]*/, "", value); field[last] = value
            next
        }
        $1 == "deb" {
            line = $0; sub(/^deb[ \t]+(\[[^]]*\][ \t]*)?/, "", line)
            count = split(line, word, /[ \t]+/); rest = ""
            for (i = 3; i <= count; i++) rest = rest " " word[i]
            offer(word[1], word[2], rest)
        }
        END { stanza() }
    ' "${files[@]}"
}

# Writes our sources and apt configuration; changes nothing when they already say the same.
configure() {
    local archives main security
    archives=$(configured_archives)
    main=${DEBIAN_MIRROR:-$(sed -n 's/^main //p' <<<"$archives")}
    security=${DEBIAN_SECURITY_MIRROR:-$(sed -n 's/^security //p' <<<"$archives")}
    [[ -n $main ]] || fail 3 "no Debian archive in $apt_root; set DEBIAN_MIRROR to the URI of one"
    [[ -r $keyring ]] || fail 3 "keyring $keyring is missing; install debian-archive-keyring or set DEBIAN_KEYRING"

    mkdir -p "$state"/{lists/partial,archives/partial} "$debs/names"
    {
        printf 'Types: deb\nURIs: %s\nSuites: %s %s-updates\nComponents: main\nSigned-By: %s\n' \
            "$main" "$release" "$release" "$keyring"
        if [[ -n $security ]]; then
            printf '\nTypes: deb\nURIs: %s\nSuites: %s-security\nComponents: main\nSigned-By: %s\n' \
                "$security" "$release" "$keyring"
        fi
    } >"$state/sources.new"
    # Other sources make the old indices meaningless: drop the stamp so that they are read again.
    if ! cmp -s "$state/sources.new" "$state/debian.sources"; then
        rm -f "$state/updated"
        mv "$state/sources.new" "$state/debian.sources"
    else
        rm "$state/sources.new"
    fi
    : >"$state/status"
    cat >"$state/apt.conf.new" <<CONF
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear APT::Architectures;
#clear DPkg::Post-Invoke;
APT::Architecture "amd64";
APT::Architectures { "amd64"; };
APT::Sandbox::User "$(id -un)";
APT::Get::List-Cleanup "true";
Acquire::Languages "none";
Acquire::Retries "3";
Dir::Etc::SourceList "$state/debian.sources";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State "$state";
Dir::State::Lists "$state/lists/";
Dir::State::status "$state/status";
Dir::State::extended_states "$state/extended_states";
Dir::Cache "$state";
Dir::Cache::archives "$state/archives/";
Dir::Cache::pkgcache "$state/pkgcache.bin";
Dir::Cache::srcpkgcache "$state/srcpkgcache.bin";
CONF
    mv "$state/apt.conf.new" "$state/apt.conf"
}

indices_are_fresh() {
    [[ -f $state/updated ]] || return 1
    local age=$(($(date +%s) - $(stat -c %Y "$state/updated")))
    ((age >= 0 && age < refresh_seconds))
}

update() { # [--force]
    [[ ${1:-} == --force ]] || ! indices_are_fresh || return 0
    if apt-get -c "$state/apt.conf" -qq update >&2; then
        touch "$state/updated"
    elif [[ -f $state/updated ]]; then
        echo "apt-trixie: cannot reach the mirror; going on with the indices of $(date -r "$state/updated" +%F)" >&2
    else
        fail 1 "apt-get update failed; is the configured mirror reachable?"
    fi
}

# One stanza of the index: for PKG its candidate, for PKG=VERSION that version; empty if not offered.
record() { # PKG[=VERSION]
    local wanted=$1
    if [[ $wanted != *=* ]]; then
        local candidate
        candidate=$(apt-cache -c "$state/apt.conf" policy "$wanted" | sed -n 's/^  Candidate: //p')
        [[ -n $candidate && $candidate != '(none)' ]] || return 0
        wanted+=" $candidate"
    fi
    # `apt-cache show PKG=VERSION` may print several archives' stanzas of one version: the first will do.
    apt-cache -c "$state/apt.conf" show "${wanted/ /=}" 2>/dev/null | awk '/^$/ { exit } { print }' || true
}

value() { # FIELD < stanza
    sed -n "s/^$1: //p"
}

show() { # PKG[=VERSION]...
    local package stanza status=0
    for package; do
        stanza=$(record "$package")
        if [[ -z $stanza ]]; then
            echo "apt-trixie: not offered: $package" >&2
            status=4
            continue
        fi
        local field
        for field in Package Version Architecture SHA256 Size Filename; do
            printf '%s: %s\n' "$field" "$(value "$field" <<<"$stanza")"
        done
        echo
    done
    return "$status"
}

# Places a cached .deb; a hard link would let the user of DIR change the cache, so it is a copy.
place() { # SHA256 FILENAME DIR
    cp --reflink=auto "$debs/$1.deb" "$3/.$2.part"
    mv "$3/.$2.part" "$3/$2"
}

cached() { # SHA256: true when the cache holds it, unharmed
    [[ -f $debs/$1.deb ]] || return 1
    [[ $(sha256sum <"$debs/$1.deb") == "$1  -" ]] && return 0
    rm -f "$debs/$1.deb"
    return 1
}

fetch_one() { # PKG=VERSION[@SHA256] DIR
    local spec=${1%@*} wanted_sha='' dir=$2
    [[ $1 == *@* ]] && wanted_sha=${1##*@}
    local package=${spec%%=*} version=${spec#*=} name_file stanza sha arch
    name_file="$debs/names/${package}_${version//:/%3a}"

    # Known content needs neither network nor indices: a locked build works offline.
    if [[ -f $name_file ]]; then
        read -r sha arch <"$name_file"
        if [[ -z $wanted_sha || $wanted_sha == "$sha" ]] && cached "$sha"; then
            place "$sha" "${package}_${version//:/%3a}_$arch.deb" "$dir"
            return 0
        fi
    fi

    update
    stanza=$(record "$spec")
    if [[ -z $stanza ]]; then
        echo "apt-trixie: no longer offered: $spec" >&2
        return 4
    fi
    sha=$(value SHA256 <<<"$stanza")
    arch=$(value Architecture <<<"$stanza")
    if [[ -n $wanted_sha && $wanted_sha != "$sha" ]]; then
        echo "apt-trixie: $spec has sha256 $sha in the archive, the lock wants $wanted_sha" >&2
        return 5
    fi
    if ! cached "$sha"; then
        local part
        part=$(mktemp -d "$state/archives/fetch.XXXXXX")
        # apt itself checks the file against the signed index.
        if ! (cd "$part" && apt-get -c "$state/apt.conf" -qq download "$package:$arch=$version" >&2); then
            rm -rf "$part"
            echo "apt-trixie: download of $spec failed" >&2
            return 1
        fi
        mv "$part"/*.deb "$debs/$sha.deb"
        rm -rf "$part"
        cached "$sha" || { echo "apt-trixie: $spec arrived damaged" >&2; return 1; }
    fi
    printf '%s %s\n' "$sha" "$arch" >"$name_file.part.$$"
    mv "$name_file.part.$$" "$name_file"
    place "$sha" "${package}_${version//:/%3a}_$arch.deb" "$dir"
}

fetch() { # SPEC... DIR
    local dir=${*: -1} spec status=0 code
    mkdir -p "$dir"
    for spec in "${@:1:$#-1}"; do
        [[ $spec == ?*=?* ]] || fail 2 "fetch wants PKG=VERSION, got: $spec"
        code=0
        fetch_one "$spec" "$dir" || code=$?
        case $code in
        0) ;;
        4) [[ $status == 0 ]] && status=4 ;;
        *) return "$code" ;;
        esac
    done
    return "$status"
}

usage() {
    sed -n '4,8p' "$0" >&2
    exit 2
}

command=${1:-}
(($#)) && shift
case $command in
update | show | fetch | conf) ;;
*) usage ;;
esac
mkdir -p "$state"
exec 9>"$state/lock"
flock 9 # two builds share the indices and the cache
configure
case $command in
update) update "$@" ;;
show)
    (($#)) || usage
    update
    show "$@"
    ;;
fetch)
    (($# >= 2)) || usage
    fetch "$@"
    ;;
conf) echo "$state/apt.conf" ;;
esac
