#!/usr/bin/env bash
# Builds the node's kernel from Debian's kernel source and the fragments beside this script.
#
#   build.sh [--out DIR] [--jobs N]     kernel, config and modules into DIR (default: build/ of the repository)
#   build.sh --hash                     print the hash of the inputs, build nothing
#   build.sh --relock                   write the version that the mirror offers now to source.lock
#
# Outputs: stillmetal-kernel, stillmetal-kernel.config, stillmetal-modules.tar, and, only when the mirror
# no longer has the pinned source, off-lock (which package, which version was wanted, which was used).
# The result is kept in ${STILLMETAL_CACHE:-~/.cache/stillmetal}/kernel/HASH, where HASH covers source,
# fragments, these scripts and the compiler; a second run copies it.
#
# Needs (Debian packages): gcc make binutils flex bison bc libelf-dev libssl-dev cpio zstd xz-utils kmod
#   rsync perl tar dpkg apt gawk|mawk util-linux coreutils findutils debian-archive-keyring
set -euo pipefail
export LC_ALL=C

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository=$(dirname "$here")
apt_trixie=$repository/image/apt-trixie.sh
cache=${STILLMETAL_CACHE:-${HOME:?}/.cache/stillmetal}
store=$cache/kernel
out=$repository/build
jobs=$(nproc)
action=build

say() { echo "kernel: $*"; }
die() {
    echo "kernel: $*" >&2
    exit 1
}

while (($#)); do
    case $1 in
    --out) out=${2:?--out wants a directory}; shift ;;
    --jobs) jobs=${2:?--jobs wants a number}; shift ;;
    --hash) action=hash ;;
    --relock) action=relock ;;
    *) die "unknown argument $1; see the top of build.sh" ;;
    esac
    shift
done

locked() { # KEY
    sed -n "s/^$1=//p" "$here/source.lock"
}

offered() { # FIELD of the source package in the archive now
    "$apt_trixie" show "$package" | sed -n "s/^$1: //p"
}

# Everything that changes the result, comments aside. Not the directory, the user or the time: they must not.
inputs_hash() { # SHA256 of the source package
    {
        echo "source $1"
        gcc --version | head -n 1
        ld --version | head -n 1
        zstd --version # packs the bzImage
        grep -vE '^ *(#|$)' "$here/build.sh"
        cat "$here"/fragments/*.config | grep -E '^(CONFIG_|# CONFIG_[A-Za-z0-9_]+ is not set$)' | sort
    } | sha256sum | cut -c 1-16
}

copy_out() { # HASH
    local from=$store/$1
    mkdir -p "$out"
    # Copied beside and renamed: a running QEMU keeps the file it opened.
    local pair
    for pair in bzImage:stillmetal-kernel config:stillmetal-kernel.config modules.tar:stillmetal-modules.tar; do
        cp --reflink=auto "$from/${pair%%:*}" "$out/.${pair##*:}.part"
        mv "$out/.${pair##*:}.part" "$out/${pair##*:}"
    done
    if [[ -n $off_lock ]]; then
        echo "$off_lock" >"$out/off-lock"
    elif [[ -f $out/off-lock ]]; then
        # Only our line: the image's packages may have theirs in the same file.
        sed -i "/^$package /d" "$out/off-lock"
        [[ -s $out/off-lock ]] || rm "$out/off-lock"
    fi
    say "$(stat -c %s "$out/stillmetal-kernel") bytes: $out/stillmetal-kernel"
}

use_cached() {
    say "cached $hash"
    "$here/check.sh" "$store/$hash/config" # the check may have become stricter since
    copy_out "$hash"
    exit 0
}

package=$(locked package)
version=$(locked version)
sha256=$(locked sha256)
[[ -n $package && -n $version && $sha256 =~ ^[0-9a-f]{64}$ ]] || die "source.lock is damaged: package, version or sha256 missing"
off_lock=''

if [[ $action == relock ]]; then
    "$apt_trixie" update --force
    new_version=$(offered Version)
    new_sha256=$(offered SHA256)
    [[ -n $new_version && $new_sha256 =~ ^[0-9a-f]{64}$ ]] || die "the archive does not offer $package"
    sed -i "s/^version=.*/version=$new_version/; s/^sha256=.*/sha256=$new_sha256/" "$here/source.lock"
    say "locked $package $version → $new_version"
    exit 0
fi

hash=$(inputs_hash "$sha256")
if [[ $action == hash ]]; then
    echo "$hash"
    exit 0
fi

mkdir -p "$store"
exec 8>"$store/lock"
flock 8 # one build at a time; the second one finds the first one's result
if [[ -f $store/$hash/bzImage ]]; then
    use_cached
fi

work=''
make_pid=''
cleanup() {
    # The compiler's own process group: an interrupted build leaves nothing running and nothing on disk.
    [[ -z $make_pid ]] || kill -- "-$make_pid" 2>/dev/null || true
    [[ -z $work ]] || rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
find "$store" -maxdepth 1 -name 'tmp.*' -mmin +1440 -exec rm -rf {} + # of builds that were killed
work=$(mktemp -d "$store/tmp.XXXXXX")

# 1. The source: pinned, or what the mirror has instead, said aloud.
say "fetching $package $version"
status=0
"$apt_trixie" fetch "$package=$version@$sha256" "$work" || status=$?
if [[ $status == 4 ]]; then
    got_version=$(offered Version)
    sha256=$(offered SHA256)
    [[ -n $got_version ]] || die "the archive offers no $package at all"
    echo "kernel: WARNING: the mirror no longer has $package $version; building $got_version instead (off-lock)." >&2
    echo "kernel: WARNING: \`kernel-config/build.sh --relock\` makes that the pinned version." >&2
    off_lock="$package wanted $version got $got_version"
    hash=$(inputs_hash "$sha256")
    [[ ! -f $store/$hash/bzImage ]] || use_cached
    "$apt_trixie" fetch "$package=$got_version@$sha256" "$work"
elif [[ $status != 0 ]]; then
    die "cannot fetch $package $version"
fi

say "unpacking"
dpkg-deb -x "$work"/*.deb "$work/deb"
archive=$(find "$work/deb/usr/src" -name 'linux-source-*.tar.xz')
# The time inside the package stands for the time of the build, wherever and whenever that is.
epoch=$(stat -c %Y "$archive")
mkdir "$work/linux"
tar -C "$work/linux" --strip-components=1 --exclude='*/Documentation/*/*' --exclude='*/boot/dts/*' -xf "$archive"
rm -rf "$work/deb" "$work"/*.deb

# A clean environment: no variable of the caller (CFLAGS, ARCH, MAKEFLAGS…) reaches the build, and tools
# that only some machines have (pahole, rustc, clang) leave no trace in the configuration.
kernel_make() {
    env -i PATH="$PATH" HOME="$work" LC_ALL=C TZ=UTC \
        SOURCE_DATE_EPOCH="$epoch" \
        KBUILD_BUILD_TIMESTAMP="$(date -u -d "@$epoch" '+%Y-%m-%d %H:%M:%S UTC')" \
        KBUILD_BUILD_VERSION=1 KBUILD_BUILD_USER=build KBUILD_BUILD_HOST=stillmetal \
        KCONFIG_WARN_UNKNOWN_SYMBOLS=1 \
        make -C "$work/linux" ARCH=x86 PAHOLE=no-pahole RUSTC=no-rustc BINDGEN=no-bindgen \
        KCFLAGS="-fmacro-prefix-map=$work/linux/= -fdebug-prefix-map=$work/linux/=" \
        KAFLAGS="-fdebug-prefix-map=$work/linux/=" "$@"
}

# 2. The configuration: kernel defaults, overridden by the fragments; then the check that it came out so.
cat "$here"/fragments/*.config >"$work/fragments"
kernel_make -s KCONFIG_ALLCONFIG="$work/fragments" alldefconfig >"$work/config.log" 2>&1 || {
    cat "$work/config.log" >&2
    die "the fragments are not a configuration"
}
if grep -i 'unknown symbol\|invalid\|warning:' "$work/config.log" >&2; then
    die "kconfig does not understand the fragments"
fi
"$here/check.sh" "$work/linux/.config"

# 3. The compilation, with a line of progress every few seconds.
started=$SECONDS
set -m # own process group, for cleanup
kernel_make -j "$jobs" bzImage modules >"$work/build.log" 2>&1 &
make_pid=$!
set +m
reported=$SECONDS
while kill -0 "$make_pid" 2>/dev/null; do
    sleep 1
    if ((SECONDS - reported >= 5)); then
        reported=$SECONDS
        say "compiling $(grep -cE '^  (CC|AS)' "$work/build.log" || true) objects…"
    fi
done
status=0
wait "$make_pid" || status=$?
make_pid=''
if ((status != 0)); then
    cp "$work/build.log" "$store/failed.log"
    grep -n -m 5 -B 2 -A 8 -E 'error:|Error [0-9]' "$store/failed.log" >&2 || tail -n 30 "$store/failed.log" >&2
    die "compilation failed; the whole log is $store/failed.log"
fi
say "compiled in $((SECONDS - started)) s"

# 4. The modules, only with the files that a loader by name reads.
kernel_make -s INSTALL_MOD_PATH="$work/modules" INSTALL_MOD_STRIP=1 modules_install >>"$work/build.log" 2>&1 ||
    { tail -n 20 "$work/build.log" >&2; die "modules_install failed"; }
find "$work/modules/lib/modules" -mindepth 2 -maxdepth 2 \
    ! -name kernel ! -name modules.dep ! -name modules.builtin -exec rm -rf {} +

result=$work/result
mkdir "$result"
cp "$work/linux/arch/x86/boot/bzImage" "$result/bzImage"
cp "$work/linux/.config" "$result/config"
cp "$work/linux/System.map" "$result/System.map"
tar -C "$work/modules" --format=ustar --sort=name --owner=0 --group=0 --numeric-owner \
    --mode='u=rwX,go=rX' --mtime="@$epoch" -cf "$result/modules.tar" lib
printf 'package=%s\nversion=%s\nsha256=%s\ncompiler=%s\n' \
    "$package" "${got_version:-$version}" "$sha256" "$(gcc --version | head -n 1)" >"$result/inputs"

# 5. Into place in one step: an interrupted build never looks finished.
rm -rf "${store:?}/$hash"
mv "$result" "$store/$hash"
say "built $hash"
copy_out "$hash"
