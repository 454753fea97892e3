"""As much of the CUDA driver and NVRTC as running one kernel takes, through ctypes."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from ctypes import byref, c_char_p, c_int, c_size_t, c_uint, c_uint32, c_uint64, c_void_p
from pathlib import Path

import machine

COMPUTE_CAPABILITY_MAJOR, COMPUTE_CAPABILITY_MINOR = 75, 76  # CUdevice_attribute
TENSOR_MAP_UINT16 = 1  # CU_TENSOR_MAP_DATA_TYPE_UINT16
TENSOR_MAP_SWIZZLE_128B = 3  # CU_TENSOR_MAP_SWIZZLE_128B
TENSOR_MAP_BYTES, TENSOR_MAP_ALIGNMENT = 128, 64  # CUtensorMap
COMPILER_OPTIONS = ["-std=c++17"]
NVCC_LIMIT_S = 120


class Missing(Exception):
    """This machine lacks what is needed."""


class CudaError(Exception):
    """A call failed; it says which and how."""


class Driver:
    """The first device and its primary context."""

    def __init__(self) -> None:
        try:
            self.library = machine.load_first(machine.DRIVER_NAMES)
        except OSError as error:
            raise Missing(f"the NVIDIA driver could not be loaded: {error}") from error
        try:
            self.call("cuInit", 0)
            self.device = c_int(0)
            self.call("cuDeviceGet", byref(self.device), 0)
        except CudaError as error:
            raise Missing(f"no GPU that CUDA can use: {error}") from error

    def call(self, name: str, *arguments: object) -> None:
        try:
            function = getattr(self.library, name)
        except AttributeError:
            raise CudaError(f"{name}: the driver has no such function") from None
        result = function(*arguments)
        if result != 0:
            raise CudaError(f"{name}: {self.describe(result)}")

    def describe(self, result: int) -> str:
        words = []
        for name in ("cuGetErrorName", "cuGetErrorString"):
            text = c_char_p()
            if getattr(self.library, name)(result, byref(text)) == 0 and text.value:
                words.append(text.value.decode(errors="replace"))
        return ": ".join(words) or f"error {result}"

    def name(self) -> str:
        text = ctypes.create_string_buffer(256)
        self.call("cuDeviceGetName", text, len(text), self.device)
        return text.value.decode(errors="replace")

    def version(self) -> str:
        version = c_int(0)
        self.call("cuDriverGetVersion", byref(version))
        return f"{version.value // 1000}.{version.value % 1000 // 10}"

    def capability(self) -> int:
        """90 for 9.0."""
        major, minor = c_int(0), c_int(0)
        self.call("cuDeviceGetAttribute", byref(major), COMPUTE_CAPABILITY_MAJOR, self.device)
        self.call("cuDeviceGetAttribute", byref(minor), COMPUTE_CAPABILITY_MINOR, self.device)
        return major.value * 10 + minor.value

    def make_current(self) -> None:
        context = c_void_p()
        self.call("cuDevicePrimaryCtxRetain", byref(context), self.device)
        self.call("cuCtxSetCurrent", context)

    def function(self, cubin: bytes, name: str) -> c_void_p:
        module, function = c_void_p(), c_void_p()
        self.call("cuModuleLoadData", byref(module), c_char_p(cubin))
        self.call("cuModuleGetFunction", byref(function), module, name.encode())
        return function

    def upload(self, data: bytes) -> c_uint64:
        address = c_uint64(0)
        self.call("cuMemAlloc_v2", byref(address), c_size_t(len(data)))
        self.call("cuMemcpyHtoD_v2", address, data, c_size_t(len(data)))
        return address

    def download(self, address: c_uint64, count: int) -> bytes:
        data = ctypes.create_string_buffer(count)
        self.call("cuMemcpyDtoH_v2", data, address, c_size_t(count))
        return data.raw

    def launch_block(self, function: c_void_p, threads: int, dynamic_shared: int, parameters: list[int]) -> None:
        """One block; parameters are the host addresses of their values. Returns when it is done."""
        pointers = (c_void_p * len(parameters))(*parameters)
        geometry = [c_uint(value) for value in (1, 1, 1, threads, 1, 1, dynamic_shared)]
        self.call("cuLaunchKernel", function, *geometry, c_void_p(None), pointers, c_void_p(None))
        self.call("cuCtxSynchronize")

    def tensor_map(
        self, address: c_uint64, extent: tuple[int, int], row_bytes: int, box: tuple[int, int]
    ) -> AlignedBuffer:
        """A matrix of 16-bit elements, read through the 128-byte swizzle; zeros out of bounds."""
        result = AlignedBuffer(TENSOR_MAP_BYTES, TENSOR_MAP_ALIGNMENT)
        no_interleave, no_promotion, zeros_outside = 0, 0, 0
        self.call(
            "cuTensorMapEncodeTiled",
            c_void_p(result.address),
            TENSOR_MAP_UINT16,
            c_uint32(2),
            c_void_p(address.value),
            (c_uint64 * 2)(*extent),
            (c_uint64 * 1)(row_bytes),
            (c_uint32 * 2)(*box),
            (c_uint32 * 2)(1, 1),
            no_interleave,
            TENSOR_MAP_SWIZZLE_128B,
            no_promotion,
            zeros_outside,
        )
        return result


class AlignedBuffer:
    """Host memory at an aligned address."""

    def __init__(self, count: int, alignment: int) -> None:
        self.memory = ctypes.create_string_buffer(count + alignment)
        self.address = -(-ctypes.addressof(self.memory) // alignment) * alignment


# ------------------------------------------------------------------------------------------------ compilers


def architecture(capability: int) -> str:
    # wgmma and the rest of sm_90a exist on no other device.
    return "sm_90a" if capability == 90 else f"sm_{capability}"


def compile_cubin(source: Path, headers: Path, capability: int) -> tuple[bytes, str]:
    """Machine code of a CUDA file for a device, by NVRTC or else by nvcc, and the compiler's name."""
    try:
        nvrtc, _ = machine.load_nvrtc()
    except OSError as error:
        nvcc = machine.find_program("nvcc")
        if nvcc is None:
            raise Missing(f"no CUDA compiler: nvcc was not found, and NVRTC could not be loaded: {error}") from error
        return compile_with_nvcc(nvcc, source, headers, capability), f"nvcc ({nvcc})"
    return compile_with_nvrtc(nvrtc, source, headers, capability)


def compile_with_nvcc(nvcc: str, source: Path, headers: Path, capability: int) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernels.cubin"
        options = [*COMPILER_OPTIONS, "-cubin", f"-arch={architecture(capability)}", "-I", str(headers)]
        try:
            done = subprocess.run(
                [nvcc, *options, "-o", str(cubin), str(source)],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=NVCC_LIMIT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CudaError(f"nvcc: {error}") from error
        if done.returncode != 0 or not cubin.is_file():
            raise CudaError(f"nvcc: exit code {done.returncode}\n{done.stdout.decode(errors='replace')}")
        return cubin.read_bytes()


def compile_with_nvrtc(nvrtc: ctypes.CDLL, source: Path, headers: Path, capability: int) -> tuple[bytes, str]:
    def strings(values: list[bytes]) -> ctypes.Array:
        return (c_char_p * len(values))(*values)

    major, minor = c_int(0), c_int(0)
    nvrtc.nvrtcVersion(byref(major), byref(minor))
    compiler = f"NVRTC {major.value}.{minor.value}"
    nvrtc.nvrtcGetErrorString.restype = c_char_p

    def check(name: str, result: int, log: str = "") -> None:
        if result != 0:
            raise CudaError(f"{compiler}: {name}: {nvrtc.nvrtcGetErrorString(result).decode()}\n{log}".strip())

    files = sorted(headers.glob("*.cuh"))
    texts, names = [file.read_bytes() for file in files], [file.name.encode() for file in files]
    options = [option.encode() for option in [*COMPILER_OPTIONS, f"--gpu-architecture={architecture(capability)}"]]
    program = c_void_p()
    created = nvrtc.nvrtcCreateProgram(
        byref(program), source.read_bytes(), source.name.encode(), len(files), strings(texts), strings(names)
    )
    check("nvrtcCreateProgram", created)
    compiled = nvrtc.nvrtcCompileProgram(program, len(options), strings(options))
    check("nvrtcCompileProgram", compiled, nvrtc_output(nvrtc, program, "ProgramLog").decode(errors="replace"))
    cubin = nvrtc_output(nvrtc, program, "CUBIN")
    nvrtc.nvrtcDestroyProgram(byref(program))
    if not cubin:
        raise CudaError(f"{compiler}: no machine code for {architecture(capability)}")
    return cubin, compiler


def nvrtc_output(nvrtc: ctypes.CDLL, program: c_void_p, name: str) -> bytes:
    """What NVRTC gives out by size and content; empty if it has none."""
    size = c_size_t(0)
    if getattr(nvrtc, f"nvrtcGet{name}Size")(program, byref(size)) != 0 or size.value == 0:
        return b""
    content = ctypes.create_string_buffer(size.value)
    return content.raw if getattr(nvrtc, f"nvrtcGet{name}")(program, content) == 0 else b""
