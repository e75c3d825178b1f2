#!/usr/bin/env bash
# Builds the Debian package of the agent for ordinary hosts, from the static binaries of `make agent`.
#
#   build.sh --agent FILE --gate FILE --out DIR      writes DIR/stillmetal-agent_VERSION_amd64.deb
#
# Same inputs, same bytes: every time in it is SOURCE_DATE_EPOCH, or else the start of 2026.
set -euo pipefail
export LC_ALL=C
umask 022
here=$(cd "$(dirname "$0")" && pwd)
top=$here/../..
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-1767225600}

agent='' gate='' out=''
while (($#)); do
    case $1 in
    --agent) agent=$2; shift 2 ;;
    --gate) gate=$2; shift 2 ;;
    --out) out=$2; shift 2 ;;
    *) sed -n '4p' "$0" >&2; exit 2 ;;
    esac
done
[[ -f $agent && -f $gate && -n $out ]] || { sed -n '4p' "$0" >&2; exit 2; }
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' "$top/Cargo.toml")
[[ -n $version ]] || { echo "deb: Cargo.toml names no version" >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
doc=$root/usr/share/doc/stillmetal-agent
install -D -m 0755 "$agent" "$root/usr/bin/stillmetal-agent"
install -D -m 0755 "$gate" "$root/usr/lib/stillmetal/gate"
# the engine's runtime `stillmetal` is the agent by another name
ln -s ../../bin/stillmetal-agent "$root/usr/lib/stillmetal/runc"
install -D -m 0644 "$here/stillmetal-agent.service" "$root/usr/lib/systemd/system/stillmetal-agent.service"
install -D -m 0644 "$here/agent.env" "$root/etc/stillmetal/agent.env"
install -D -m 0644 "$top/docs/host.md" "$doc/host.md"
cat >"$work/copyright" <<TEXT
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: Stillmetal

Files: *
Copyright: The Stillmetal authors
License: Apache-2.0

License: Apache-2.0
 On Debian systems, the text of the Apache License 2.0 is in
 /usr/share/common-licenses/Apache-2.0.
TEXT
install -D -m 0644 "$work/copyright" "$doc/copyright"
date=$(date -u -R -d "@$SOURCE_DATE_EPOCH")
printf 'stillmetal-agent (%s) unstable; urgency=medium\n\n  * See CHANGELOG.md of the project.\n\n -- Stillmetal <root@localhost>  %s\n' \
    "$version" "$date" | gzip -9n >"$doc/changelog.gz"
chmod 0644 "$doc/changelog.gz"

install -d "$root/DEBIAN"
install -m 0755 "$here"/{postinst,prerm,postrm} "$root/DEBIAN/"
echo /etc/stillmetal/agent.env >"$root/DEBIAN/conffiles"
cat >"$root/DEBIAN/control" <<TEXT
Package: stillmetal-agent
Version: $version
Architecture: amd64
Maintainer: Stillmetal <root@localhost>
Installed-Size: $(du -sk --apparent-size "$root" | cut -f1)
Recommends: docker.io | docker-ce
Section: admin
Priority: optional
Description: node of the Stillmetal benchmark lab, on an ordinary host
 The agent dials a controller and runs its jobs as containers of the host's own
 engine. Where the host has isolated CPUs it measures how quiet each run was and
 certifies it; elsewhere it takes jobs that accept an unproven result.
 .
 It starts when it is configured: see /etc/stillmetal/agent.env.
TEXT
(cd "$root" && find . -type f -not -path './DEBIAN/*' -printf '%P\0' | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
mkdir -p "$out"
dpkg-deb --root-owner-group -Zxz -z2 --build "$root" "$work/package.deb" >/dev/null
mv "$work/package.deb" "$out/stillmetal-agent_${version}_amd64.deb"
echo "$out/stillmetal-agent_${version}_amd64.deb"
