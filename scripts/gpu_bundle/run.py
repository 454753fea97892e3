#!/usr/bin/env python3
"""Runs a GPU bundle on a machine with a GPU and brings back one report. Needs Python 3.8 and nothing else.

    python3 run.py --out results                    # everything that this machine can run, in ten minutes
    python3 run.py --out results --require cuda     # and failing if CUDA is missing
    python3 run.py --out results --only peers,sanitize_racecheck    # these, into the same report

A bundle is the folder that pack_gpu_bundle.sh makes; this file lies in it, beside `siluette`. Steps, in their order:

    info               siluette info --json
    wrappers           wrappers.py: each instruction wrapper's fixed-input kernel, against the simulator's answers
    verify_BACKEND     siluette verify --backend BACKEND --json          (cuda, wgpu, cpu)
    suite_BACKEND      the conformance tests that use BACKEND            (cuda, wgpu)
    sanitize_TOOL      compute-sanitizer over a short verify             (memcheck, racecheck, synccheck, initcheck)
    bench_BACKEND      siluette bench --backend BACKEND --json FILE
    peers              peers.py: the same products by PyTorch and cuBLAS, and the device's bandwidth
    criterion_NAME     a criterion bench

--out gets STEP.stdout and STEP.stderr of each, the JSON that it wrote, and report.json: device, driver, toolkit,
commit, and for each step its command, status and time. A step is `pass`, `fail`, `missing` (this machine lacks what
it needs, and the report says what) or `not run` (--budget was spent; the last line says how to catch up).
Exit: 0 if nothing failed, 1 if a step failed or a required backend is missing, 2 if the bundle is not whole.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import machine
import steps as bundle_steps
from steps import BACKENDS, Bundle, Step

FOLDER = Path(__file__).resolve().parent
LEAST_STEP_S = 5  # not worth starting a step for less


class NotWhole(Exception):
    """The bundle, or the report to be continued, is not as it should be."""


# ------------------------------------------------------------------------------------------------ one step


def without_folders(command: list[str], out: Path) -> list[str]:
    """A command as it may be published: this machine's folders are nobody's business."""
    return [
        part.replace(str(out), "OUT").replace(str(FOLDER), ".").replace(sys.executable, "python3") for part in command
    ]


def execute(step: Step, out: Path, limit_s: float, environment: dict[str, str]) -> tuple[int | None, str | None]:
    """The exit code, and what is wrong."""
    with (out / f"{step.name}.stdout").open("wb") as stdout, (out / f"{step.name}.stderr").open("wb") as stderr:
        process = subprocess.Popen(
            step.command,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env={**os.environ, **environment, **step.environment},
            cwd=FOLDER,
            start_new_session=True,
        )
        try:
            code = process.wait(limit_s)
            return code, None if code == 0 else f"exit code {code}"
        except subprocess.TimeoutExpired:
            return None, f"not done after {limit_s:.0f} s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def run_step(step: Step, out: Path, limit_s: float, environment: dict[str, str]) -> dict:
    entry: dict = {"step": step.name, "command": without_folders(step.command, out)}
    if step.missing:
        return {**entry, "status": "missing", "reason": step.missing}
    if limit_s < LEAST_STEP_S:
        return {**entry, "status": "not run", "reason": "no time left"}
    started = time.monotonic()
    try:
        code, wrong = execute(step, out, limit_s, environment)
    except OSError as error:
        return {**entry, "status": "fail", "reason": f"could not be started: {error}"}
    stdout, stderr = out / f"{step.name}.stdout", out / f"{step.name}.stderr"
    entry.update(exit_code=code, seconds=round(time.monotonic() - started, 3), stdout=stdout.name, stderr=stderr.name)
    if code is not None and code == step.says_missing:
        return {**entry, "status": "missing", "reason": last_line(stderr)}
    # The output says more than the exit code: it is read even if that is not 0.
    also_wrong = step.judge(stdout, entry)
    reason = "; ".join(filter(None, (wrong, also_wrong)))
    return {**entry, "status": "fail", "reason": reason} if reason else {**entry, "status": "pass"}


def last_line(file: Path) -> str:
    lines = file.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it did not say what"


# ------------------------------------------------------------------------------------------------ the report


def read_bundle() -> tuple[Bundle, dict]:
    try:
        facts = json.loads((FOLDER / "bundle.json").read_text())
        facts["commit"]
    except (OSError, ValueError, KeyError) as error:
        raise NotWhole(f"{FOLDER} is not a whole bundle: bundle.json: {error!r}") from error
    for program in (FOLDER / "siluette", FOLDER / "suite"):
        if not os.access(program, os.X_OK):
            raise NotWhole(f"{FOLDER} is not a whole bundle: {program} is not an executable")
    benches = sorted(path.name for path in FOLDER.glob("benches/*") if os.access(path, os.X_OK))
    return Bundle(FOLDER, benches), facts


def earlier_steps(file: Path, facts: dict, described: dict) -> list[dict]:
    """Those of a report that is to be continued; only one of this bundle on this machine may be."""
    if not file.exists():
        return []
    try:
        earlier = json.loads(file.read_text())
        same = (earlier["bundle"], earlier["machine"]) == (facts, described)
        entries = earlier["steps"]
    except (OSError, ValueError, KeyError) as error:
        raise NotWhole(f"--out: {file} is not a report: {error!r}") from error
    if not same:
        raise NotWhole(f"--out: {file} is of another bundle or machine; results are not to be mixed")
    return entries


def choose(steps: list[Step], only: str | None) -> list[Step]:
    if only is None:
        return steps
    chosen = set(only.split(","))
    families = {step.name.split("_")[0] for step in steps}
    unknown = chosen - families - {step.name for step in steps}
    if unknown:
        known = ", ".join(sorted(families | {step.name for step in steps}))
        raise NotWhole(f"--only: no step is called {', '.join(sorted(unknown))}; there are {known}")
    return [step for step in steps if step.name in chosen or step.name.split("_")[0] in chosen]


def steps_environment(cache: str) -> dict[str, str]:
    """What the bundle's programs need to find, and a cache of compiled kernels of their own."""
    environment = {"XDG_CACHE_HOME": cache, "SILUETTE_TEST_DATA": str(FOLDER / "tests/data")}
    try:
        _, folder = machine.load_nvrtc()
    except OSError:
        return environment  # the steps that need it say so themselves
    if folder:
        earlier = os.environ.get("LD_LIBRARY_PATH")
        environment["LD_LIBRARY_PATH"] = f"{earlier}:{folder}" if earlier else str(folder)
    return environment


def write_report(file: Path, report: dict) -> None:
    unfinished = file.with_name(file.name + ".unfinished")
    unfinished.write_text(json.dumps(report, indent=2) + "\n")
    os.replace(unfinished, file)


def run_all(arguments: argparse.Namespace) -> int:
    started = time.monotonic()
    bundle, facts = read_bundle()
    out = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    missing = {"cuda": machine.why_no_cuda(), "wgpu": machine.why_no_wgpu(), "cpu": None}
    described = machine.describe()
    file = out / "report.json"
    entries = {entry["step"]: entry for entry in earlier_steps(file, facts, described)}
    if not entries and any(out.iterdir()):
        raise NotWhole(f"--out: {out} is not empty and has no report.json; results are not to be mixed")
    all_steps = bundle_steps.make_steps(bundle, out, missing)
    chosen = choose(all_steps, arguments.only)

    ran = []
    with tempfile.TemporaryDirectory() as cache:
        environment = {**steps_environment(cache), "SILUETTE_COMMIT": facts["commit"]}
        for step in chosen:
            left_s = arguments.budget - (time.monotonic() - started)
            entry = run_step(step, out, min(left_s, step.limit_s * arguments.patience), environment)
            ran.append(entry)
            entries[step.name] = entry
            seconds = f"{entry['seconds']:.1f} s" if "seconds" in entry else ""
            print(f"{entry['status']:8} {step.name:20} {seconds:>8}  {entry.get('reason', '')}".rstrip(), flush=True)
            # Written after each step: what was learnt stays even if the machine goes away.
            report = {
                "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
                "commit": facts["commit"],
                "bundle": facts,
                "machine": described,
                "missing": {name: why for name, why in missing.items() if why},
                "steps": [entries[step.name] for step in all_steps if step.name in entries],
            }
            write_report(file, report)
    return conclude(ran, file, missing, {backend for backend in arguments.require.split(",") if backend})


def conclude(ran: list[dict], file: Path, missing: dict, required: set[str]) -> int:
    lacking = sorted(backend for backend in required if missing[backend])
    for backend in lacking:
        print(f"run.py: {backend} is required but missing: {missing[backend]}", file=sys.stderr)
    counts = Counter(entry["status"] for entry in ran)
    print(f"{counts['pass']} passed, {counts['fail']} failed, {counts['missing']} missing: {file}")
    late = [entry["step"] for entry in ran if entry["status"] == "not run"]
    if late:
        print(f"{len(late)} not run for lack of time: --only {','.join(late)}")
    return 1 if counts["fail"] or lacking else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where logs and report.json go")
    parser.add_argument(
        "--only", help="steps to run, with commas between them; a step's family (verify, sanitize) counts"
    )
    parser.add_argument("--require", default="", help="backends that must not be missing: cuda, wgpu or cuda,wgpu")
    parser.add_argument(
        "--budget", type=float, default=570, metavar="SECONDS", help="for all steps together (default: %(default)s)"
    )
    parser.add_argument(
        "--patience", type=float, default=1, metavar="FACTOR", help="for each step's own limit, on a slow device"
    )
    arguments = parser.parse_args()
    if {backend for backend in arguments.require.split(",") if backend} - set(BACKENDS):
        parser.error(f"--require takes {', '.join(BACKENDS)}")
    try:
        return run_all(arguments)
    except NotWhole as error:
        print(f"run.py: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
