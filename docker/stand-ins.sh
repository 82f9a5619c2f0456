#!/usr/bin/env bash
# Makes local stand-ins for the images that docker/Dockerfile and docker-compose.yml name, for a machine that can
# build and run containers but reaches no image registry. Run as root on a Debian machine that may be thrown away.
#
# Takes everything from this machine's own package sources: apt's for the programs, pip's for the wheels. The stand-ins
# honour the variables, paths and arguments that the compose file uses, and nothing else that the real images offer.
#
#   docker/stand-ins.sh            all of it; what is there already is kept
#   docker/stand-ins.sh wheels     again only the wheels inside the Python image (after constraints.txt has changed)
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(dirname "$here")"
work="${EXPUNGE_STAND_INS:-/var/tmp/expunge-stand-ins}"
python="${PYTHON:-python3}"
suite="$(. /etc/os-release && echo "$VERSION_CODENAME")"
export BUILDAH_ISOLATION=chroot BUILDAH_FORMAT=docker

say() { printf '%s stand-ins: %s\n' "$(date +%H:%M:%S)" "$*"; }

install_tools() {
    local missing=()
    for tool in podman buildah runc catatonit debootstrap iptables; do
        command -v "$tool" >/dev/null || missing+=("$tool")
    done
    if ((${#missing[@]})); then
        say "installing ${missing[*]}"
        apt-get update -q
        apt-get install -q -y --no-install-recommends "${missing[@]}" netavark aardvark-dns
    fi
}

# Before podman's first call: its database remembers the storage driver. What the machine has of its own is kept.
configure() {
    mkdir -p /etc/containers
    for file in containers.conf storage.conf; do
        [[ -e "/etc/containers/$file" ]] || cp "$here/stand-ins/$file" "/etc/containers/$file"
    done
}

# The Debian mirror that apt itself is set up with.
mirror() {
    apt-get indextargets --format '$(SITE) $(RELEASE) $(COMPONENT)' "Created-By: Packages" |
        awk -v suite="$suite" '$2 == suite && $3 == "main" { print $1; exit }'
}

base() {
    podman image exists localhost/expunge-stand-in/debian && return
    say "debootstrap $suite (about two minutes)"
    rm -rf "$work/rootfs"
    mkdir -p "$work"
    debootstrap --variant=minbase \
        --include=python3,python3-venv,python3-pip,ca-certificates,postgresql,redis-server,prometheus \
        "$suite" "$work/rootfs" "$(mirror)" >"$work/debootstrap.log"
    rm -rf "$work"/rootfs/var/cache/apt/archives/*.deb
    # Trust what this machine trusts: its certificates may be its own.
    cp /etc/ssl/certs/ca-certificates.crt "$work/rootfs/etc/ssl/certs/ca-certificates.crt"
    ln -sf python3 "$work/rootfs/usr/bin/python"
    tar -C "$work/rootfs" -c . | podman import - localhost/expunge-stand-in/debian
    rm -rf "$work/rootfs"
}

# The wheels are inside the image, and its pip looks nowhere else, so that an image build needs no network.
python_image() {
    say "wheels of constraints.txt"
    mkdir -p "$work/wheels"
    "$python" -m pip download -q --only-binary=:all: -d "$work/wheels" -c "$root/constraints.txt" \
        "setuptools>=77" wheel pip $(sed -n 's/^\([A-Za-z0-9._-]*==[^ ;]*\).*/\1/p' "$root/constraints.txt")
    podman build -q -t python:3.11-slim -f "$here/stand-ins/python.Dockerfile" "$work/wheels"
}

podman_compose() {
    command -v podman-compose >/dev/null && return
    [[ -x "$work/compose/bin/podman-compose" ]] && return
    say "podman-compose"
    "$python" -m venv "$work/compose"
    "$work/compose/bin/python" -m pip install -q podman-compose==1.6.0
}

server_image() { # name, file
    podman build -q -t "$1" -f "$here/stand-ins/$2.Dockerfile" "$here/stand-ins"
}

install_tools
configure
case "${1:-all}" in
wheels) python_image ;;
all)
    podman_compose
    base
    python_image
    server_image postgres:16 postgres
    server_image valkey/valkey:8 valkey
    server_image prom/prometheus:v3.5.0 prometheus
    ;;
*)
    echo "usage: docker/stand-ins.sh [all|wheels]" >&2
    exit 2
    ;;
esac
say "done: $(podman images --format '{{.Repository}}:{{.Tag}}' | tr '\n' ' ')"
