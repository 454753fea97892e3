#!/usr/bin/env bash
# Runs the kernels by cooperative matrices, which Debian bookworm's software Vulkan lacks: on the Mesa of the next release's
# backports. Its packages are extracted to the folder that the first argument names and nothing is installed from them; the
# test binary, the one that the suite builds, is run by their dynamic linker. Needs root, as mmdebstrap does.
set -euo pipefail
folder=${1:?usage: .ci/check-cooperative-matrices.sh FOLDER}
cd "$(dirname "$0")/.."
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
root=$folder/root
release=trixie
libraries=$root/usr/lib/x86_64-linux-gnu

extract() {
    command -v mmdebstrap >/dev/null || {
        apt-get update
        DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends mmdebstrap
    }
    # What the machine takes its own packages from, if a file says so.
    local uris
    uris=$(find /etc/apt -name '*.list' -o -name '*.sources' | xargs cat |
        sed -nE 's/^URIs: *([^ ]+).*/\1/p; s/^deb (\[[^]]*\] )?([^ ]+) .*/\2/p')
    local uri=${uris%%$'\n'*}
    local from="deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${uri:-http://deb.debian.org/debian}"
    rm -rf "$root" "$root.new"
    mmdebstrap --variant=extract --include="mesa-vulkan-drivers/$release-backports,libvulkan1" \
        "$release" "$root.new" "$from $release main" "$from $release-backports main"
    mv "$root.new" "$root"
}

[ -e "$libraries/libvulkan_lvp.so" ] || extract

sed -E "s|\"library_path\": *\"[^\"]*\"|\"library_path\": \"$libraries/libvulkan_lvp.so\"|" \
    "$root/usr/share/vulkan/icd.d/lvp_icd.json" >"$folder/lvp_icd.json"

# Vectors of 256 bits make subgroups of 8, the smallest that there are kernels for.
export WGPU_DEBUG=0 WGPU_BACKEND=vulkan LP_NATIVE_VECTOR_WIDTH=256
export VK_DRIVER_FILES=$folder/lvp_icd.json
export MESA_SHADER_CACHE_DIR=$folder/shader-cache
export SILUETTE_REQUIRE=wgpu,cooperative_matrices
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="$libraries/ld-linux-x86-64.so.2 --library-path $libraries"
# With the features of the tests, whose build it shares.
cargo test --features "${SILUETTE_FEATURES:-cli,candle}" --test suite -- wgpu_matrices
