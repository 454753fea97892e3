#!/usr/bin/env python3
"""Runs a GPU bundle on a machine with a GPU and brings back one report. Needs Python 3.8 and nothing else.

    python3 run.py --out results                    # everything that this machine can run
    python3 run.py --out results --require cuda     # and failing if CUDA is missing
    python3 run.py --out results --only info,verify_cuda

A bundle is the folder that pack_gpu_bundle.sh makes; this file lies in it, beside `siluette`. Steps:

    info               siluette info --json
    compile_NAME       nvcc, for this device, on wrappers/NAME.cu
    wrappers_NAME      that program: it exits 0, and what the wrapped instructions gave is its stdout
    verify_BACKEND     siluette verify --backend BACKEND --json
    sanitize_TOOL      compute-sanitizer over a short verify: memcheck, racecheck, initcheck, synccheck
    bench_BACKEND      siluette bench --backend BACKEND --json FILE

--out gets STEP.stdout and STEP.stderr of each, the JSON that it wrote, and report.json: device, driver, toolkit,
commit, and for each step its command, status and time. A step is `pass`, `fail` or `missing` (this machine lacks what
it needs, and the report says what). Exit: 0 if nothing failed, 1 if a step failed, 2 if the bundle itself is not whole.
"""

from __future__ import annotations

import argparse
import ctypes
import datetime
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

BUNDLE = Path(__file__).resolve().parent
TOOL = BUNDLE / "siluette"
SANITIZERS = ("memcheck", "racecheck", "initcheck", "synccheck")
SANITIZED_OPERATION = "gated_mlp"  # a sanitizer slows kernels a hundredfold: one operation with all kinds of kernels
SANITIZER_FOUND_ERRORS = 86
BACKENDS = ("cuda", "wgpu")
QUESTION_LIMIT_S = 60


@dataclass
class Step:
    name: str
    command: list[str]
    limit_s: int
    missing: str | None  # why it cannot run here
    judge: Callable[[Path, dict], str | None]  # of its stdout, into its entry: what is wrong although it exited 0
    environment: dict[str, str]


def answer(command: list[str]) -> str | None:
    """The output of a short question to the machine, or nothing if it cannot be asked."""
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=QUESTION_LIMIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else None


def why_no_cuda() -> str | None:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return f"no NVIDIA driver: {error}"
    status = driver.cuInit(0)
    if status != 0:
        return f"no GPU that CUDA can use: cuInit returned {status}"
    count = ctypes.c_int(0)
    driver.cuDeviceGetCount(ctypes.byref(count))
    return None if count.value > 0 else "no GPU: cuDeviceGetCount gave 0"


class VulkanInstanceCreateInfo(ctypes.Structure):
    _fields_ = [
        ("structure_type", ctypes.c_int32),
        ("next", ctypes.c_void_p),
        ("flags", ctypes.c_uint32),
        ("application", ctypes.c_void_p),
        ("layer_count", ctypes.c_uint32),
        ("layers", ctypes.c_void_p),
        ("extension_count", ctypes.c_uint32),
        ("extensions", ctypes.c_void_p),
    ]


def why_no_wgpu() -> str | None:
    try:
        loader = ctypes.CDLL("libvulkan.so.1")
    except OSError as error:
        return f"no Vulkan loader: {error}"
    instance, count = ctypes.c_void_p(), ctypes.c_uint32(0)
    status = loader.vkCreateInstance(ctypes.byref(VulkanInstanceCreateInfo(1)), None, ctypes.byref(instance))
    if status != 0:
        return f"no Vulkan driver: vkCreateInstance returned {status}"
    loader.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), None)
    loader.vkDestroyInstance(instance, None)
    return None if count.value > 0 else "no Vulkan device: vkEnumeratePhysicalDevices gave 0"


def describe_machine() -> dict:
    fields = [
        "name",
        "driver_version",
        "memory.total",
        "compute_cap",
        "clocks.max.sm",
        "clocks.max.memory",
        "power.limit",
    ]
    table = answer(["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]) or ""
    nvcc = answer([find_nvcc() or "nvcc", "--version"])
    return {
        "gpus": [dict(zip(fields, (value.strip() for value in line.split(",")))) for line in table.splitlines()],
        "nvcc": nvcc.splitlines()[-2].strip() if nvcc and len(nvcc.splitlines()) > 1 else nvcc,
        "system": platform.platform(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
    }


def find_nvcc() -> str | None:
    beside_toolkit = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "bin" / "nvcc"
    return shutil.which("nvcc") or (str(beside_toolkit) if beside_toolkit.is_file() else None)


def find_sanitizer() -> str | None:
    beside_toolkit = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "bin" / "compute-sanitizer"
    return shutil.which("compute-sanitizer") or (str(beside_toolkit) if beside_toolkit.is_file() else None)


def any_output(_stdout: Path, _entry: dict) -> str | None:
    return None


def is_json(stdout: Path, entry: dict) -> str | None:
    try:
        json.loads(stdout.read_text())
    except ValueError as error:
        return f"{stdout.name} is not JSON: {error}"
    return None


def wrote_json(path: Path) -> Callable[[Path, dict], str | None]:
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


def make_steps(out: Path, missing: dict[str, str | None], machine: dict) -> list[Step]:
    tool = str(TOOL)
    steps = [Step("info", [tool, "info", "--json"], 120, None, is_json, {})]

    nvcc = find_nvcc()
    capability = machine["gpus"][0]["compute_cap"].replace(".", "") if machine["gpus"] else ""
    architecture = "90a" if capability == "90" else capability
    for source in sorted(BUNDLE.glob("wrappers/*.cu")):
        why = (
            missing["cuda"]
            or (None if nvcc else "nvcc was not found")
            or (None if capability else "nvidia-smi names no GPU")
        )
        program = out / f"wrappers_{source.stem}.program"
        compile_command = [str(nvcc), f"-arch=sm_{architecture}", "-std=c++17", "-I", str(BUNDLE / "kernels")]
        compile_command += ["-o", str(program), str(source)]
        steps.append(Step(f"compile_{source.stem}", compile_command, 300, why, any_output, {}))
        steps.append(Step(f"wrappers_{source.stem}", [str(program)], 120, why, any_output, {}))

    for backend in BACKENDS:
        # Found devices must be used: with this, the tool fails where it would otherwise report them as missing.
        required = {"SILUETTE_REQUIRE": backend}
        command = [tool, "verify", "--backend", backend, "--json"]
        steps.append(Step(f"verify_{backend}", command, 1200, missing[backend], verified, required))

    sanitizer = find_sanitizer()
    for kind in SANITIZERS:
        why = missing["cuda"] or (None if sanitizer else "compute-sanitizer was not found")
        command = [str(sanitizer), "--tool", kind, "--error-exitcode", str(SANITIZER_FOUND_ERRORS)]
        command += ["--log-file", str(out / f"sanitize_{kind}.log")]
        command += [tool, "verify", "--backend", "cuda", "--op", SANITIZED_OPERATION, "--json"]
        steps.append(Step(f"sanitize_{kind}", command, 1200, why, verified, {"SILUETTE_REQUIRE": "cuda"}))

    for backend in BACKENDS:
        file = out / f"bench_{backend}.json"
        command = [tool, "bench", "--backend", backend, "--json", str(file)]
        required = {"SILUETTE_REQUIRE": backend}
        steps.append(Step(f"bench_{backend}", command, 1800, missing[backend], wrote_json(file), required))
    return steps


def without_folders(command: list[str], out: Path) -> list[str]:
    """A command as it may be published: this machine's folders are nobody's business."""
    return [part.replace(str(out), "OUT").replace(str(BUNDLE), ".") for part in command]


def run_step(step: Step, out: Path, longest_s: int) -> dict:
    entry: dict = {"step": step.name, "command": without_folders(step.command, out)}
    if step.missing:
        return {**entry, "status": "missing", "reason": step.missing}
    limit_s = min(step.limit_s, longest_s)
    stdout, stderr = out / f"{step.name}.stdout", out / f"{step.name}.stderr"
    started = time.monotonic()
    try:
        with stdout.open("wb") as to_stdout, stderr.open("wb") as to_stderr:
            process = subprocess.Popen(
                step.command,
                stdin=subprocess.DEVNULL,
                stdout=to_stdout,
                stderr=to_stderr,
                env={**os.environ, **step.environment},
                cwd=BUNDLE,
                start_new_session=True,
            )
            try:
                code = process.wait(limit_s)
                wrong = f"exit code {code}" if code != 0 else None
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                code, wrong = None, f"not done after {limit_s} s"
    except OSError as error:
        return {**entry, "status": "fail", "reason": f"could not be started: {error}"}
    entry.update(exit_code=code, seconds=round(time.monotonic() - started, 3), stdout=stdout.name, stderr=stderr.name)
    # The output says more than the exit code: it is read even if that is not 0.
    also_wrong = step.judge(stdout, entry)
    reason = "; ".join(filter(None, (wrong, also_wrong)))
    return {**entry, "status": "fail", "reason": reason} if reason else {**entry, "status": "pass"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where logs and report.json go")
    parser.add_argument(
        "--only", help="steps to run, with commas between them; a step's family (verify, sanitize) counts"
    )
    parser.add_argument("--require", default="", help="backends that must not be missing: cuda, wgpu or cuda,wgpu")
    parser.add_argument(
        "--limit", type=int, default=3600, metavar="SECONDS", help="no step may take longer (default: none does)"
    )
    arguments = parser.parse_args()
    required = {backend for backend in arguments.require.split(",") if backend}
    if required - set(BACKENDS):
        parser.error(f"--require takes {', '.join(BACKENDS)}")
    try:
        bundle = json.loads((BUNDLE / "bundle.json").read_text())
        commit = bundle["commit"]
    except (OSError, ValueError, KeyError) as error:
        print(f"run.py: {BUNDLE} is not a whole bundle: bundle.json: {error!r}", file=sys.stderr)
        return 2
    if not os.access(TOOL, os.X_OK):
        print(f"run.py: {BUNDLE} is not a whole bundle: {TOOL} is not an executable", file=sys.stderr)
        return 2

    out = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        parser.error(f"--out: {out} is not empty; results of two runs are not to be mixed")
    missing = {"cuda": why_no_cuda(), "wgpu": why_no_wgpu()}
    machine = describe_machine()
    steps = make_steps(out, missing, machine)
    if arguments.only is not None:
        chosen = set(arguments.only.split(","))
        known = {step.name for step in steps} | {step.name.split("_")[0] for step in steps}
        if chosen - known:
            parser.error(
                f"--only: no step is called {', '.join(sorted(chosen - known))}; there are {', '.join(sorted(known))}"
            )
        steps = [step for step in steps if step.name in chosen or step.name.split("_")[0] in chosen]

    report = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "options": [f"{name}={value}" for name, value in sorted(vars(arguments).items()) if name != "out" and value],
        "commit": commit,
        "bundle": bundle,
        "machine": machine,
        "missing": {name: why for name, why in missing.items() if why},
        "steps": [],
    }
    for step in steps:
        entry = run_step(step, out, arguments.limit)
        report["steps"].append(entry)
        print(f"{entry['status']:8} {step.name:20} {entry.get('reason', '')}".rstrip(), flush=True)
        # Written after each step: what was learnt stays even if the machine goes away.
        unfinished = out / "report.json.unfinished"
        unfinished.write_text(json.dumps(report, indent=2) + "\n")
        os.replace(unfinished, out / "report.json")

    lacking = sorted(required & report["missing"].keys())
    for backend in lacking:
        print(f"run.py: {backend} is required but missing: {missing[backend]}", file=sys.stderr)
    counts = Counter(entry["status"] for entry in report["steps"])
    print(f"{counts['pass']} passed, {counts['fail']} failed, {counts['missing']} missing: {out / 'report.json'}")
    return 1 if counts["fail"] or lacking else 0


if __name__ == "__main__":
    sys.exit(main())
