#!/usr/bin/env bash
# Builds the image without a registry: on a base made from Debian's packages, with buildah in a chroot.
#
#     deploy/build-local-image.sh [DIRECTORY]
#
# For machines, such as CI, that reach only a Debian mirror and a package index. Elsewhere use
# `docker build -t headwater:0.2.0 .`. Needs root, buildah and mmdebstrap (both are Debian packages). The machine's Python
# must have the version of Debian's, for its wheels.
#
# DIRECTORY (default: build/image) keeps base images, wheels and buildah's storage for the next run. It has the image
# localhost/headwater:VERSION, and its root file system in DIRECTORY/rootfs.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=${1:-$root/build/image}
suite=bookworm
version=$(sed -n 's/^VERSION: Final = "\(.*\)"/\1/p' "$root/sse/version.py")
python=${PYTHON:-python3}
mkdir -p "$work"
work=$(cd "$work" && pwd)

for program in buildah mmdebstrap; do
    command -v "$program" >/dev/null || { echo "needs the program $program: apt-get install $program" >&2; exit 3; }
done

# vfs and chroot need neither overlayfs nor namespaces, which a sandbox may lack.
buildah=(buildah --storage-driver vfs --root "$work/storage" --runroot "$work/run")

# The machine's own package sources, in either format.
sources=()
for file in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list; do
    if [ -s "$file" ]; then sources=("$file"); break; fi
done

# libstdc++6 is for greenlet. Images with apt have it, and so the usual Python images.
base() { # name, further packages
    [ -s "$work/$1.tar" ] || {
        echo "== $1: from Debian's packages" >&2
        mmdebstrap --quiet --format=tar --mode=root --variant=essential --include="python3,ca-certificates,libstdc++6${2:+,$2}" \
            --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
            --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
            "$suite" "$work/$1.part" "${sources[@]}" >&2
        mv "$work/$1.part" "$work/$1.tar"
    }
    if ! "${buildah[@]}" inspect --type image "localhost/$1" >/dev/null 2>&1; then
        container=$("${buildah[@]}" from --isolation chroot scratch)
        "${buildah[@]}" add --quiet "$container" "$work/$1.tar" / >/dev/null
        "${buildah[@]}" config --env PATH=/usr/local/bin:/usr/bin:/bin "$container"
        "${buildah[@]}" commit --quiet --rm "$container" "localhost/$1" >/dev/null
    fi
}
base headwater-base ""
base headwater-build-base python3-venv

if ! cmp -s "$root/requirements.txt" "$work/wheels/requirements.txt"; then
    echo "== wheels" >&2
    rm -rf --one-file-system "$work/wheels"
    mkdir "$work/wheels"
    # The same Python version as the image, so that markers such as python_full_version < "3.11.3" give the same result.
    "$python" -m pip download --quiet --quiet --only-binary :all: --dest "$work/wheels" --requirement "$root/requirements.txt"
    # redis needs it for Debian's 3.11.2: asyncio has its own time-out only from 3.11.3 on.
    "$python" -m pip download --quiet --quiet --only-binary :all: --no-deps --dest "$work/wheels" async-timeout==5.0.1
    cp "$root/requirements.txt" "$work/wheels/"
fi

echo "== image" >&2
"${buildah[@]}" bud --isolation chroot --quiet --layers=false \
    --build-arg BASE=localhost/headwater-base --build-arg BUILD_BASE=localhost/headwater-build-base \
    --build-arg VERSION="$version" --build-arg REVISION="$(git -C "$root" rev-parse HEAD 2>/dev/null || echo unknown)" \
    --build-arg PIP_NO_INDEX=1 --build-arg PIP_FIND_LINKS=/wheels --volume "$work/wheels:/wheels:ro" \
    --tag "localhost/headwater:$version" --file "$root/Dockerfile" "$root" >/dev/null

container=$("${buildah[@]}" from --isolation chroot "localhost/headwater:$version")
trap '"${buildah[@]}" rm "$container" >/dev/null' EXIT
mounted=$("${buildah[@]}" mount "$container")
# Never across a mount: somebody who ran the last one by hand may have left /proc in it.
rm -rf --one-file-system "$work/rootfs"
cp -a "$mounted" "$work/rootfs"
"${buildah[@]}" inspect --type image "localhost/headwater:$version" >"$work/image.json"
echo "localhost/headwater:$version: $(du -sm "$work/rootfs" | cut -f1) MB unpacked, of which" \
    "$(du -sm --total "$work/rootfs/opt" "$work/rootfs/app" "$work/rootfs/data" | tail -n 1 | cut -f1) MB are ours"
