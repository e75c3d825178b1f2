#!/usr/bin/env bash
# Builds the opponent of `make bench`: what a user would put together instead of Stillmetal. Debian
# trixie with systemd, docker.io and Debian's cloud kernel, held in RAM like ours (one initramfs),
# Docker's API on 2376 with mutual TLS from our test credentials.
#
#   build.sh --out DIR --engine-tls DIR      DIR of ca.pem, cert.pem, key.pem for dockerd
#
# Writes DIR/baseline-kernel and DIR/baseline-initrd.img. The unpacked system is cached by the hash
# of this script and of the packages' versions; only the credentials are added anew.
set -euo pipefail
export LC_ALL=C
here=$(cd "$(dirname "$0")" && pwd)
apt_trixie="$here/../../image/apt-trixie.sh"
cache=${STILLMETAL_CACHE:-$HOME/.cache/stillmetal}/baseline

out='' tls=''
while (($#)); do
    case $1 in
    --out) out=$2; shift 2 ;;
    --engine-tls) tls=$2; shift 2 ;;
    *) sed -n '6p' "$0" >&2; exit 2 ;;
    esac
done
[[ -n $out && -f $tls/key.pem ]] || { sed -n '6p' "$0" >&2; exit 2; }

include=systemd,systemd-sysv,dbus,udev,kmod,iproute2,iptables,ca-certificates,docker.io,linux-image-cloud-amd64
"$apt_trixie" update
versions=$("$apt_trixie" show docker.io systemd linux-image-cloud-amd64 containerd runc | grep ^Version)
hash=$( (cat "$0"; echo "$versions") | sha256sum | cut -c1-16)
root=$cache/$hash
if [[ ! -f $root/initrd.zst ]]; then
    echo "baseline: building Debian trixie + docker.io (about two minutes)" >&2
    mkdir -p "$cache"
    work=$(mktemp -d "$cache/tmp.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    sources=$(dirname "$("$apt_trixie" conf)")/debian.sources
    mmdebstrap --quiet --variant=minbase --include="$include" \
        --aptopt='APT::Install-Recommends "false"' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --customize-hook='cp "$1"/boot/vmlinuz-* "'"$work"'/kernel"' \
        --customize-hook='rm -rf "$1"/boot/* "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*' \
        --customize-hook='ln -sf sbin/init "$1/init"' \
        --customize-hook='echo baseline > "$1/etc/hostname"' \
        --customize-hook='printf "[Match]\nName=en* eth*\n[Network]\nDHCP=ipv4\n" > "$1/etc/systemd/network/10-dhcp.network"' \
        --customize-hook='chroot "$1" systemctl -q enable systemd-networkd docker' \
        --customize-hook='chroot "$1" systemctl -q mask systemd-networkd-wait-online apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer fstrim.timer' \
        --customize-hook='mkdir -p "$1/etc/systemd/system/docker.service.d" "$1/etc/docker/tls"' \
        --customize-hook='upload "'"$here"'/docker.conf" /etc/systemd/system/docker.service.d/bench.conf' \
        trixie "$work/root.tar" "$sources" >&2
    mkdir "$work/root"
    tar -C "$work/root" -xf "$work/root.tar"
    (cd "$work/root" && find . -print0 | sort -z | cpio --quiet -0 -o -H newc -R 0:0) |
        zstd -q -3 -T2 -o "$work/initrd.zst"
    rm -rf "$work/root" "$work/root.tar"
    mv "$work" "$root"
    trap - EXIT
fi

# the kernel takes several archives in a row, each compressed or not; a plain one at a multiple of four
extra=$(mktemp -d)
trap 'rm -rf "$extra"' EXIT
mkdir -p "$extra/etc/docker/tls" "$out"
cp "$tls"/{ca,cert,key}.pem "$extra/etc/docker/tls/"
(cd "$extra" && find . -mindepth 1 -print0 | sort -z | cpio --quiet -0 -o -H newc -R 0:0) >"$extra.cpio"
cp "$root/initrd.zst" "$out/baseline-initrd.img"
truncate -s %4 "$out/baseline-initrd.img"
cat "$extra.cpio" >>"$out/baseline-initrd.img"
rm -f "$extra.cpio"
cp "$root/kernel" "$out/baseline-kernel"
echo "baseline: $out/baseline-kernel $out/baseline-initrd.img ($(stat -c %s "$root/initrd.zst") bytes before credentials)" >&2
