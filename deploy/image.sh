#!/usr/bin/env bash
# The image, made so that the same commit gives the same bytes: build KIND, twice KIND, or base.
set -euo pipefail
cd "$(dirname "$0")/.."
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH

# Docker's own builder writes neither of these two forms; this one is made once.
builder=penstock-image

# No attestations: they hold the moment of the build. Times of layers and files become SOURCE_DATE_EPOCH.
build() { # KIND, output, more arguments
    docker buildx inspect "$builder" >/dev/null 2>&1 || docker buildx create --name "$builder" --driver docker-container >/dev/null
    docker buildx build --builder "$builder" --file deploy/Dockerfile --target "$1" --build-arg SOURCE_DATE_EPOCH \
        --provenance=false --sbom=false --output "$2,rewrite-timestamp=true" "${@:3}" .
}

digest() { # of an image in the OCI layout
    tar -xOf "$1" index.json | sed -n 's/.*"digest": *"\(sha256:[0-9a-f]\{64\}\)".*/\1/p' | head -1
}

case "${1:-}" in
build)
    build "$2" "type=docker,name=penstock:$2"
    ;;
twice)
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    for turn in first second; do
        build "$2" "type=oci,dest=$folder/$turn.tar" --no-cache
    done
    first=$(digest "$folder/first.tar") second=$(digest "$folder/second.tar")
    [[ -n "$first" && "$first" = "$second" ]] || { echo "two builds differ: $first and $second" >&2; exit 1; }
    echo "both builds are $first"
    ;;
base)
    name=$(sed -n 's/^ARG BASE=\([^@]*\)@.*/\1/p' deploy/Dockerfile)
    found=$(docker buildx imagetools inspect "$name" --format '{{.Manifest.Digest}}')
    [[ "$found" =~ ^sha256:[0-9a-f]{64}$ ]] || { echo "no digest of $name: $found" >&2; exit 1; }
    sed -i "s|^ARG BASE=.*|ARG BASE=$name@$found|" deploy/Dockerfile
    echo "the base is $name@$found; change the date beside it, too"
    ;;
*)
    echo "deploy/image.sh build cpu|gpu, twice cpu|gpu, or base" >&2
    exit 2
    ;;
esac
