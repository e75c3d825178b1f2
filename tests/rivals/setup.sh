#!/usr/bin/env bash
# Fetches what the controller is compared with, through this machine's own apt and pip, into the cache:
# Slurm and munge unpacked (nothing is installed, no service is started), HyperQueue in a virtual
# environment. Prints where each is.
#
#   setup.sh slurm       -> the folder of unpacked packages
#   setup.sh hyperqueue  -> the folder of the virtual environment
set -euo pipefail
cache=${STILLMETAL_CACHE:-$HOME/.cache/stillmetal}/rivals
mkdir -p "$cache"

# What is half done is done anew: folders get their names when they are whole.
case ${1:?slurm or hyperqueue} in
slurm)
    packages=(slurmctld slurmd slurm-client munge)
    if ! apt-cache show slurmctld >/dev/null 2>&1; then
        apt-get update -qq >&2 || true
    fi
    version=$(apt-cache policy slurmctld | awk '/Candidate:/ {print $2}')
    if [[ -z $version || $version == '(none)' ]]; then
        echo "rivals: apt knows no package slurmctld: run apt-get update, or add Debian's main section" >&2
        exit 3
    fi
    root=$cache/slurm-$version
    if [[ ! -d $root ]]; then
        echo "rivals: fetching Slurm $version" >&2
        fresh=$(mktemp -d "$cache/slurm.XXXXXX")
        trap 'rm -rf "$fresh"' EXIT
        mkdir -p "$fresh/debs/partial" "$fresh/root"
        # what they need beyond what is installed here
        download() {
            apt-get install -y -qq --download-only --no-install-recommends --reinstall \
                -o Dir::Cache::archives="$fresh/debs" -o APT::Sandbox::User=root \
                -o Debug::NoLocking=1 "${packages[@]}" >&2
        }
        download || { apt-get update -qq >&2 && download; }
        for deb in "$fresh"/debs/*.deb; do
            dpkg-deb -x "$deb" "$fresh/root"
        done
        mv "$fresh/root" "$root"
    fi
    echo "$root"
    ;;
hyperqueue)
    version=0.27.0
    root=$cache/hyperqueue-$version
    if [[ ! -d $root ]]; then
        echo "rivals: fetching HyperQueue $version from PyPI" >&2
        trap 'rm -rf "$root.new"' EXIT
        rm -rf "$root.new"
        python3 -m venv "$root.new"
        "$root.new/bin/python" -m pip install --quiet --disable-pip-version-check "hyperqueue==$version" >&2
        mv "$root.new" "$root"
    fi
    echo "$root"
    ;;
*)
    echo "rivals: slurm or hyperqueue, not $1" >&2
    exit 2
    ;;
esac
