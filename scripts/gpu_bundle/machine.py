"""What this machine has: drivers, CUDA's toolkit, NVRTC. For the scripts beside it; Python 3.8 and nothing else."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
import sysconfig
from pathlib import Path

QUESTION_LIMIT_S = 60
DRIVER_NAMES = ("libcuda.so.1", "libcuda.so")
NVRTC_NAMES = ("libnvrtc.so", "libnvrtc.so.13", "libnvrtc.so.12")
GPU_FIELDS = (
    "name",
    "driver_version",
    "memory.total",
    "compute_cap",
    "clocks.max.sm",
    "clocks.max.memory",
    "power.limit",
)


def answer(command: list[str]) -> str | None:
    """The output of a short question to the machine, or nothing if it cannot be asked."""
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=QUESTION_LIMIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else None


def load_first(names: tuple[str, ...]) -> ctypes.CDLL:
    """The first of these libraries that the loader finds, or an OSError that says why none was."""
    reasons = []
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError as error:
            reasons.append(str(error))
    raise OSError("; ".join(reasons))


# ------------------------------------------------------------------------------------------------ CUDA's toolkit


def toolkit_folders() -> list[Path]:
    """Where CUDA's toolkit may lie: as the environment says, around the nvcc on the path, at its usual place."""
    named = [Path(os.environ[name]) for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    nvcc = shutil.which("nvcc")
    around = [Path(nvcc).resolve().parent.parent] if nvcc else []
    usual = [Path("/usr/local/cuda"), *sorted(Path("/usr/local").glob("cuda-*"), reverse=True)]
    return [folder for folder in [*named, *around, *usual] if folder.is_dir()]


def find_program(name: str) -> str | None:
    candidates = [folder / "bin" / name for folder in toolkit_folders()]
    return shutil.which(name) or next((str(path) for path in candidates if os.access(path, os.X_OK)), None)


def nvrtc_candidates() -> list[Path]:
    """NVRTC's library files in the toolkit and in the packages of this Python."""
    folders = [folder / "lib64" for folder in toolkit_folders()]
    packages = {Path(sysconfig.get_path(kind)) for kind in ("purelib", "platlib")}
    for package in sorted(packages):
        folders += sorted(package.glob("nvidia/*/lib"), reverse=True)
    files = [file for folder in folders for file in sorted(folder.glob("libnvrtc.so*"), reverse=True)]
    return [file for file in files if ".alt." not in file.name]


def load_nvrtc() -> tuple[ctypes.CDLL, Path | None]:
    """NVRTC, and the folder that it was found in where the loader does not look by itself; or an OSError."""
    try:
        return load_first(NVRTC_NAMES), None
    except OSError as error:
        reasons = [str(error)]
    for file in nvrtc_candidates():
        try:
            # NVRTC loads its built-in functions by name, from folders that may not be searched either.
            for builtins in sorted(file.parent.glob("libnvrtc-builtins.so*")):
                ctypes.CDLL(str(builtins))
            return ctypes.CDLL(str(file)), file.parent
        except OSError as error:
            reasons.append(str(error))
    raise OSError("; ".join(reasons))


# ------------------------------------------------------------------------------------------------ devices


def cuda_device_name() -> str | None:
    """The first device's name, from the driver that the steps use too."""
    try:
        driver = load_first(DRIVER_NAMES)
    except OSError:
        return None
    name = ctypes.create_string_buffer(256)
    known = driver.cuInit(0) == 0 and driver.cuDeviceGetName(name, len(name), 0) == 0
    return name.value.decode(errors="replace") if known else None


def why_no_cuda() -> str | None:
    try:
        driver = load_first(DRIVER_NAMES)
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


def processor() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), None)


def describe() -> dict:
    table = answer(["nvidia-smi", f"--query-gpu={','.join(GPU_FIELDS)}", "--format=csv,noheader"]) or ""
    nvcc = answer([find_program("nvcc") or "nvcc", "--version"])
    return {
        "cuda_device": cuda_device_name(),
        "gpus": [dict(zip(GPU_FIELDS, (value.strip() for value in line.split(",")))) for line in table.splitlines()],
        "nvcc": nvcc.splitlines()[-2].strip() if nvcc and len(nvcc.splitlines()) > 1 else nvcc,
        "system": platform.platform(),
        "python": platform.python_version(),
        "processor": processor(),
        "cores": os.cpu_count(),
    }
