"""The steps of a run, in the order of their worth, and what makes each of them good."""

from __future__ import annotations

import json
import os
import re
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

import machine

BACKENDS = ("cuda", "wgpu", "cpu")
SANITIZED_OPERATION = "gated_mlp"  # a sanitizer slows kernels a hundredfold: one operation with all kinds of kernels
SANITIZER_FOUND_ERRORS = 86
SCRIPT_MISSES_SOMETHING = 3  # exit code of wrappers.py and peers.py
# Tests about this repository's own files, and tests that start the tool from where cargo built it.
TESTS_OF_THE_SOURCE_TREE = ("readme::", "tool::")

# Of its standard output, into its entry: what is wrong although it exited 0.
Judge = Callable[[Path, dict], "str | None"]


def any_output(_stdout: Path, _entry: dict) -> str | None:
    return None


@dataclass
class Step:
    name: str
    command: list[str]
    limit_s: int
    missing: str | None = None  # why it cannot run here
    judge: Judge = any_output
    environment: dict[str, str] = field(default_factory=dict)
    says_missing: int | None = None  # an exit code that means: this machine lacks something


@dataclass
class Bundle:
    """The folder that pack_gpu_bundle.sh made."""

    folder: Path
    benches: list[str]

    @property
    def tool(self) -> str:
        return str(self.folder / "siluette")


# ------------------------------------------------------------------------------------------------ judges


def is_json(stdout: Path, _entry: dict) -> str | None:
    try:
        json.loads(stdout.read_text())
    except (OSError, ValueError) as error:
        return f"{stdout.name} is not JSON: {error}"
    return None


def wrote_json(path: Path) -> Judge:
    def judge(_stdout: Path, entry: dict) -> str | None:
        entry["json"] = path.name
        return is_json(path, entry) if path.is_file() else f"{path.name} was not written"

    return judge


def verified(stdout: Path, entry: dict) -> str | None:
    """Holds `siluette verify --json` to its word: cases ran, and none of them failed."""
    try:
        report = json.loads(stdout.read_text())
        counts = Counter(result["status"] for result in report["results"])
    except (ValueError, KeyError, TypeError) as error:
        return f"{stdout.name} is not the JSON of verify: {error!r}"
    entry["device"] = report.get("device")
    entry["counts"] = dict(counts)
    if counts["fail"]:
        return f"{counts['fail']} cases failed"
    return None if counts["pass"] else "no case ran"


def sanitized(log: Path) -> Judge:
    def judge(stdout: Path, entry: dict) -> str | None:
        if not log.is_file():
            return "the sanitizer wrote no log"
        entry["log"] = log.name
        summary = [line for line in log.read_text(errors="replace").splitlines() if "SUMMARY" in line]
        found = None
        if entry["exit_code"] == SANITIZER_FOUND_ERRORS:
            found = f"the sanitizer found errors: {' '.join(summary)}"
        return "; ".join(filter(None, (found, verified(stdout, entry)))) or None

    return judge


def tests_passed(stdout: Path, entry: dict) -> str | None:
    """Of Rust's test harness: tests ran, and none of them failed."""
    output = stdout.read_text(errors="replace")
    result = re.search(r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored", output, re.MULTILINE)
    if not result:
        return "the tests did not come to their end"
    passed, failed, ignored = (int(number) for number in result.groups())
    entry["counts"] = {"pass": passed, "fail": failed, "ignored": ignored}
    entry["said"] = re.findall(r"^(?:\S+ \(.*\): \d+ of \d+ cases pass|NOT RUN: .*)$", output, re.MULTILINE)
    if failed:
        return f"{failed} tests failed"
    return None if passed else "no test ran"


def wrappers_agree(stdout: Path, entry: dict) -> str | None:
    lines = stdout.read_text(errors="replace").splitlines()
    result = re.match(r"(\d+) passed, (\d+) failed, (\d+) unsupported$", lines[-1]) if lines else None
    if not result:
        return "it did not come to its end"
    passed, failed, unsupported = (int(number) for number in result.groups())
    entry["device"] = lines[0]
    entry["counts"] = {"pass": passed, "fail": failed, "unsupported": unsupported}
    first = next((line.split(None, 1)[1] for line in lines if line.startswith("FAILED ")), "")
    return f"{failed} kernels failed: {first}" if failed else None


# ------------------------------------------------------------------------------------------------ steps


def required(backend: str) -> dict[str, str]:
    """Found devices must be used: with this, a program fails where it would otherwise report them as missing."""
    return {"SILUETTE_REQUIRE": backend}


def script(bundle: Bundle, name: str, *arguments: str) -> list[str]:
    return [sys.executable, str(bundle.folder / name), *arguments]


def wrappers(bundle: Bundle, out: Path, missing: dict) -> Step:
    command = script(bundle, "wrappers.py", "--outputs", str(out / "wrappers.txt"), "--dump", str(out / "wrappers"))
    return Step("wrappers", command, 150, missing["cuda"], wrappers_agree, says_missing=SCRIPT_MISSES_SOMETHING)


def verify(bundle: Bundle, missing: dict, backend: str) -> Step:
    command = [bundle.tool, "verify", "--backend", backend, "--json"]
    return Step(f"verify_{backend}", command, 150, missing[backend], verified, required(backend))


def suite(bundle: Bundle, missing: dict, backend: str, *also: str) -> Step:
    """The tests with the backend's name in theirs, and others that open every backend there is."""
    skipped = [word for name in TESTS_OF_THE_SOURCE_TREE for word in ("--skip", name)]
    command = [str(bundle.folder / "suite"), backend, *also, "--show-output", *skipped]
    environment = required(backend)
    if backend != "wgpu":
        # A Vulkan driver that is slow, or not good, is for suite_wgpu to meet.
        environment.update({"VK_DRIVER_FILES": os.devnull, "VK_ICD_FILENAMES": os.devnull})
    return Step(f"suite_{backend}", command, 150, missing[backend], tests_passed, environment)


def sanitize(bundle: Bundle, out: Path, missing: dict, kind: str, limit_s: int) -> Step:
    sanitizer = machine.find_program("compute-sanitizer")
    why = missing["cuda"] or (None if sanitizer else "compute-sanitizer was not found")
    command = [str(sanitizer), "--tool", kind, "--error-exitcode", str(SANITIZER_FOUND_ERRORS)]
    log = out / f"sanitize_{kind}.log"
    command += ["--log-file", str(log)]
    command += [bundle.tool, "verify", "--backend", "cuda", "--op", SANITIZED_OPERATION, "--json"]
    return Step(f"sanitize_{kind}", command, limit_s, why, sanitized(log), required("cuda"))


def bench(bundle: Bundle, out: Path, missing: dict, backend: str) -> Step:
    file = out / f"bench_{backend}.json"
    command = [bundle.tool, "bench", "--backend", backend, "--json", str(file)]
    command += ["--plot", str(out / f"bench_{backend}.svg")]
    return Step(f"bench_{backend}", command, 150, missing[backend], wrote_json(file), required(backend))


def peers(bundle: Bundle, out: Path, missing: dict) -> Step:
    file = out / "peers.json"
    command = script(bundle, "peers.py", "--json", str(file))
    return Step("peers", command, 120, missing["cuda"], wrote_json(file), says_missing=SCRIPT_MISSES_SOMETHING)


def criterion(bundle: Bundle, out: Path, name: str) -> Step:
    command = [str(bundle.folder / "benches" / name), "--bench", "--noplot"]
    command += ["--warm-up-time", "0.5", "--measurement-time", "1", "--sample-size", "10"]
    return Step(f"criterion_{name}", command, 120, environment={"CRITERION_HOME": str(out / "criterion")})


def make_steps(bundle: Bundle, out: Path, missing: dict[str, str | None]) -> list[Step]:
    """`missing` has for each backend why this machine does not have it, or nothing."""
    return [
        Step("info", [bundle.tool, "info", "--json"], 60, None, is_json),
        wrappers(bundle, out, missing),
        verify(bundle, missing, "cuda"),
        suite(bundle, missing, "cuda", "goldens::", "properties::"),
        sanitize(bundle, out, missing, "memcheck", 120),
        bench(bundle, out, missing, "cuda"),
        peers(bundle, out, missing),
        verify(bundle, missing, "cpu"),
        verify(bundle, missing, "wgpu"),
        suite(bundle, missing, "wgpu", "goldens::"),
        sanitize(bundle, out, missing, "racecheck", 90),
        sanitize(bundle, out, missing, "synccheck", 60),
        sanitize(bundle, out, missing, "initcheck", 60),
        bench(bundle, out, missing, "wgpu"),
        bench(bundle, out, missing, "cpu"),
        *[criterion(bundle, out, name) for name in bundle.benches],
    ]
