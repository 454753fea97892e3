#!/usr/bin/env python3
"""Holds the CUDA simulator to a real GPU: runs each instruction wrapper's fixed-input kernel and compares.

    python3 wrappers.py [--outputs FILE] [--dump DIR] [KERNEL ...]

tests/cuda_simulator/wrappers has the kernels, how to launch them (cases.txt) and what the simulator gave
(outputs.txt). They are compiled for the first device by NVRTC, or by nvcc if NVRTC cannot be loaded. Each kernel runs
in a process of its own, so that one that hangs or faults fails alone. One line a kernel:

    ok           its hash and first words are the simulator's
    FAILED       they are not, or it did not run
    unsupported  the device lacks the instruction

and a last line `N passed, N failed, N unsupported`. Exit: 0 if none failed and one passed, 1 if one failed or none
passed, 2 for bad usage or files, 3 if this machine has no driver, no device or no compiler. Needs Python 3.8 and
nothing else.
"""

from __future__ import annotations

import argparse
import ctypes
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import cuda_api

HERE = Path(__file__).resolve().parent
ROOT = HERE if (HERE / "kernels").is_dir() else HERE.parent.parent
WRAPPERS = ROOT / "tests/cuda_simulator/wrappers"
HEADERS = ROOT / "kernels/shared"

INPUT_WORDS = 8192
DYNAMIC_SHARED_BYTES = 32768
LISTED_WORDS = 64
WORD_BYTES = 4
KERNEL_LIMIT_S = 15
HOPPER = 90  # what cases.txt says of kernels that only sm_90a has

EXIT_FAILED, EXIT_BAD_FILES, EXIT_MISSING = 1, 2, 3


class BadFile(Exception):
    """A file is not as it should be."""


@dataclass(frozen=True)
class Case:
    kernel: str
    threads: int
    output_words: int
    capability: int
    takes_tensor_map: bool

    def why_unsupported(self, device: int) -> str | None:
        if self.capability == HOPPER and device != HOPPER:
            return f"needs sm_90a, the device has compute capability {device / 10}"
        if device < self.capability:
            return f"needs compute capability {self.capability / 10}, the device has {device / 10}"
        return None


@dataclass(frozen=True)
class Expected:
    hash: int
    first_words: tuple[int, ...]


def read(name: str) -> list[list[str]]:
    try:
        lines = (WRAPPERS / name).read_text().splitlines()
    except OSError as error:
        raise BadFile(str(error)) from error
    return [line.split() for line in lines if line and not line.startswith("#")]


def read_cases() -> dict[str, Case]:
    cases = {}
    for fields in read("cases.txt"):
        try:
            kernel, threads, words, capability, takes_map = fields
            cases[kernel] = Case(kernel, int(threads), int(words), int(capability), takes_map == "1")
        except ValueError as error:
            raise BadFile(f"cases.txt: {' '.join(fields)}: {error}") from error
    return cases


def read_expected() -> dict[str, Expected]:
    expected = {}
    for kernel, *numbers in read("outputs.txt"):
        try:
            hash_value, *words = (int(number, 16) for number in numbers)
        except ValueError as error:
            raise BadFile(f"outputs.txt: {kernel}: {error}") from error
        expected[kernel] = Expected(hash_value, tuple(words))
    return expected


def mix(i: int) -> int:
    x = (i * 0x9E3779B1 + 0x85EBCA6B) & 0xFFFFFFFF
    x ^= x >> 15
    x = x * 0x2C1B3C6D & 0xFFFFFFFF
    return x ^ x >> 12


def words_of(data: bytes) -> list[int]:
    return [int.from_bytes(data[i : i + WORD_BYTES], "little") for i in range(0, len(data), WORD_BYTES)]


def fnv1a(data: bytes) -> int:
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value


# ------------------------------------------------------------------------------------------------ one kernel


def run_here(case: Case, cubin: bytes) -> bytes:
    """The kernel's output; after an error this process's context is of no use any more."""
    driver = cuda_api.Driver()
    driver.make_current()
    function = driver.function(cubin, case.kernel)
    source = driver.upload(b"".join(mix(i).to_bytes(WORD_BYTES, "little") for i in range(INPUT_WORDS)))
    output_bytes = case.output_words * WORD_BYTES
    output = driver.upload(b"\xff" * output_bytes)
    parameters = [ctypes.addressof(source), ctypes.addressof(output)]
    if case.takes_tensor_map:
        tensor_map = driver.tensor_map(source, extent=(64, 64), row_bytes=128, box=(64, 32))
        parameters.append(tensor_map.address)
    driver.launch_block(function, case.threads, DYNAMIC_SHARED_BYTES, parameters)
    return driver.download(output, output_bytes)


def run_apart(case: Case, cubin: Path) -> tuple[bytes, str | None]:
    """The kernel's output from a process of its own, or what went wrong."""
    command = [sys.executable, str(HERE / "wrappers.py"), "--one", str(cubin), case.kernel]
    try:
        done = subprocess.run(command, capture_output=True, timeout=KERNEL_LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return b"", f"not done after {KERNEL_LIMIT_S} s"
    if done.returncode != 0:
        complaint = done.stderr.decode(errors="replace").strip().splitlines()
        return b"", complaint[-1] if complaint else f"exit code {done.returncode}"
    return done.stdout, None


def difference(case: Case, output: bytes, expected: Expected) -> str | None:
    if len(output) != case.output_words * WORD_BYTES:
        return f"{len(output)} bytes of output, expected {case.output_words * WORD_BYTES}"
    words = words_of(output[: LISTED_WORDS * WORD_BYTES])
    wrong = [i for i, (got, want) in enumerate(zip(words, expected.first_words)) if got != want]
    if wrong:
        first = wrong[0]
        return (
            f"{len(wrong)} of the first {len(words)} words differ; word {first} is {words[first]:08x}, "
            f"expected {expected.first_words[first]:08x}"
        )
    if len(words) != len(expected.first_words):
        return f"outputs.txt lists {len(expected.first_words)} words, expected {len(words)}"
    hash_value = fnv1a(output)
    if hash_value != expected.hash:
        return f"a word after the first {len(words)} differs: hash {hash_value:016x}, expected {expected.hash:016x}"
    return None


# ------------------------------------------------------------------------------------------------ all of them


def output_line(case: Case, output: bytes) -> str:
    """As in outputs.txt."""
    words = " ".join(f"{word:08x}" for word in words_of(output[: LISTED_WORDS * WORD_BYTES]))
    return f"{case.kernel} {fnv1a(output):016x} {words}\n"


def compare_all(cases: list[Case], cubin: Path, capability: int, arguments: argparse.Namespace) -> int:
    expected = read_expected()
    without = [case.kernel for case in cases if case.kernel not in expected]
    if without:
        raise BadFile(f"outputs.txt has no {', '.join(without)}")
    counts = {"ok": 0, "FAILED": 0, "unsupported": 0}
    lines = []
    for case in cases:
        verdict, reason = "unsupported", case.why_unsupported(capability)
        if reason is None:
            output, reason = run_apart(case, cubin)
            if reason is None:
                lines.append(output_line(case, output))
                reason = difference(case, output, expected[case.kernel])
                if reason and arguments.dump:
                    (arguments.dump / f"{case.kernel}.u32").write_bytes(output)
            verdict = "FAILED" if reason else "ok"
        counts[verdict] += 1
        print(f"{verdict:12} {case.kernel}{': ' + reason if reason else ''}", flush=True)
    if arguments.outputs:
        arguments.outputs.write_text("".join(lines))
    print(f"{counts['ok']} passed, {counts['FAILED']} failed, {counts['unsupported']} unsupported")
    return 0 if counts["ok"] and not counts["FAILED"] else EXIT_FAILED


def compile_and_compare(arguments: argparse.Namespace) -> int:
    cases = read_cases()
    unknown = [kernel for kernel in arguments.kernels if kernel not in cases]
    if unknown:
        raise BadFile(f"cases.txt has no {', '.join(unknown)}")
    chosen = [case for case in cases.values() if not arguments.kernels or case.kernel in arguments.kernels]
    driver = cuda_api.Driver()
    capability = driver.capability()
    source = WRAPPERS / "wrappers.cu"
    if not source.is_file() or not (HEADERS / "device.cuh").is_file():
        raise BadFile(f"{source} and {HEADERS / 'device.cuh'} must be there")
    cubin, compiler = cuda_api.compile_cubin(source, HEADERS, capability)
    target = cuda_api.architecture(capability)
    print(f"{driver.name()}, driver for CUDA {driver.version()}, {compiler}, {target}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "wrappers.cubin"
        file.write_bytes(cubin)
        return compare_all(chosen, file, capability, arguments)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kernels", nargs="*", metavar="KERNEL", help="only these (default: all)")
    parser.add_argument("--outputs", type=Path, metavar="FILE", help="write what this device gave, as in outputs.txt")
    parser.add_argument("--dump", type=Path, metavar="DIR", help="write the whole output of a kernel that differs here")
    parser.add_argument("--one", type=Path, metavar="CUBIN", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    try:
        if arguments.one:
            [kernel] = arguments.kernels
            sys.stdout.buffer.write(run_here(read_cases()[kernel], arguments.one.read_bytes()))
            return 0
        if arguments.dump:
            arguments.dump.mkdir(parents=True, exist_ok=True)
        return compile_and_compare(arguments)
    except cuda_api.Missing as error:
        return complain(error, EXIT_MISSING)
    except (BadFile, OSError) as error:
        return complain(error, EXIT_BAD_FILES)
    except cuda_api.CudaError as error:
        return complain(error, EXIT_FAILED)


def complain(error: Exception, code: int) -> int:
    print(f"wrappers.py: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
