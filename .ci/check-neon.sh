#!/usr/bin/env bash
# Runs the tests of the CPU kernels on NEON, emulated: the unit tests, and one conformance case in seven, which meets all
# their kinds. Needs root where the emulator or the linker is missing, and rustup.
set -euo pipefail
cd "$(dirname "$0")/.."
target=aarch64-unknown-linux-gnu

missing=()
command -v qemu-aarch64 >/dev/null || missing+=(qemu-user)
command -v aarch64-linux-gnu-gcc >/dev/null || missing+=(gcc-aarch64-linux-gnu libc6-dev-arm64-cross)
if [ ${#missing[@]} -gt 0 ]; then
    apt-get update
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "${missing[@]}"
fi
rustup target add "$target"

# The emulator needs no simulator of GPUs, whose libraries are the host's.
unset LD_LIBRARY_PATH
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu"
export RUSTFLAGS="--deny warnings"
cargo test --target "$target" --lib
SILUETTE_CASES=1/7 cargo test --target "$target" --test suite -- conformance::cpu
