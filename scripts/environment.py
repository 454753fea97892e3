"""The Python packages that the scripts here need, at the versions that the requirements files pin.

A script calls `provide("requirements.txt")` before it imports any of them. If the running Python already has every
pin, nothing happens; if not, pip installs them once, into a folder of their own under `cache_directory()`, and
the running Python's own packages stay as they are.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
OLDEST_PYTHON = (3, 11)


def cache_directory() -> Path:
    """`$SILUETTE_CACHE`, or the user's cache folder."""
    chosen = os.environ.get("SILUETTE_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "siluette"


def pins(requirements: Path) -> dict[str, str]:
    """Package names and versions of a requirements file, those of the files it includes among them."""
    found: dict[str, str] = {}
    for line in requirements.read_text().splitlines():
        line = line.split("#")[0].strip()
        if line.startswith("-r "):
            found |= pins(requirements.parent / line[3:].strip())
        elif line:
            name, _, version = line.partition("==")
            if not version:
                raise SystemExit(f"{requirements}: `{line}` pins no version (expected NAME==VERSION)")
            found[name.strip()] = version.strip()
    return found


def missing(wanted: dict[str, str]) -> list[str]:
    """The pins that the running Python does not meet. A local part (2.9.1+cpu) does not count as a difference."""
    unmet = []
    for name, version in wanted.items():
        try:
            installed = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            unmet.append(f"{name}=={version}")
            continue
        if re.sub(r"\+.*", "", installed) != version:
            unmet.append(f"{name}=={version}")
    return unmet


def provide(requirements_name: str) -> None:
    """Makes the packages of a requirements file importable, by installing them if that is what it takes."""
    if sys.version_info < OLDEST_PYTHON:
        raise SystemExit(
            f"Python {'.'.join(map(str, OLDEST_PYTHON))} or later is needed, this is {sys.version.split()[0]}"
        )
    wanted = pins(HERE / requirements_name)
    if not missing(wanted):
        return
    identity = repr((sorted(wanted.items()), sys.version_info[:2], sys.platform))
    folder = cache_directory() / f"python-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
    if not folder.is_dir():
        install(HERE / requirements_name, folder)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    unmet = missing(wanted)
    if unmet:
        raise SystemExit(f"{folder} lacks {', '.join(unmet)}; remove that folder and run again")


def install(requirements: Path, folder: Path) -> None:
    """Installs into a folder beside the final one, then renames it: an interrupted install leaves no half of one."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix="unfinished-", dir=folder.parent))
    print(f"installing {requirements.name} into {folder}", file=sys.stderr)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(unfinished), "-r", str(requirements)]
    try:
        if subprocess.run(command, stdout=sys.stderr, check=False).returncode != 0:
            raise SystemExit(f"pip could not install {requirements}; the command was: {' '.join(command)}")
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
