#!/usr/bin/env python3
"""Golden vectors for the fused SiLU MLPs, made with PyTorch.

    python3 scripts/goldens.py            # writes tests/data/goldens_silu_mlp.safetensors
    python3 scripts/goldens.py --check    # makes them again and compares with the file; exit 1 if they differ

Tensors are named OP.CASE.TENSOR, with TENSOR as on the command line of `siluette run` (x, gate_weight, ..., out).
The metadata entry `cases` is a JSON list; each case gives its op, shape, types, rounding and eps.

`out` is f32: a float64 computation with the roundings of mlp_reference.py, its last step not rounded to the storage
type. Cases with round_gate_up also hold `torch_out`, what unfused PyTorch gives in the storage type. --check compares
everything bit for bit but `torch_out`, whose summation order depends on the CPU: that must be near `out`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import environment

environment.provide("requirements-torch.txt")

import numpy
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

import mlp_reference
from mlp_reference import KEEP_F32, ROUND_GATE_UP

GOLDENS = Path(__file__).resolve().parent.parent / "tests" / "data" / "goldens_silu_mlp.safetensors"
DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
EPS = 1e-5
# torch_out has up to four roundings more than out (n, gate, up, the sum): NMSE of a few squared units in the last place.
UNITS_OFF = 4.0


@dataclass(frozen=True)
class Case:
    op: str
    name: str
    rows: int
    ffn: int
    hidden: int = 0  # silu_mul has none
    activation: str = "f32"
    weight: str = "f32"
    rounding: str = KEEP_F32
    biases: bool = False
    norm: bool = False
    residual: bool = False
    scale: float = 1.0  # of the activations

    @property
    def label(self) -> str:
        return f"{self.op}.{self.name}"


def case_list() -> list[Case]:
    cases = []
    types = [("f32", "f32", KEEP_F32)]
    types += [(dtype, dtype, rounding) for dtype in ("f16", "bf16") for rounding in (KEEP_F32, ROUND_GATE_UP)]
    for activation, weight, rounding in types:
        both: dict[str, Any] = {"activation": activation, "weight": weight, "rounding": rounding}
        suffix = activation if rounding == KEEP_F32 else f"{activation}_{rounding}"
        if rounding == KEEP_F32:  # silu_mul has nothing to round before its result
            cases.append(Case("silu_mul", f"odd_{suffix}", rows=3, ffn=33, scale=4.0, **both))
            cases.append(Case("silu_mul", f"large_{suffix}", rows=2, ffn=65, scale=1e4, **both))
            cases.append(Case("silu_mul", f"edges_{suffix}", rows=1, ffn=0, **both))
        for op in ("gated_mlp", "silu_mlp"):
            options: dict[str, Any] = {"norm": True, "residual": True}
            cases += [
                Case(op, f"one_{suffix}", rows=1, hidden=1, ffn=1, **both),
                Case(op, f"plain_{suffix}", rows=1, hidden=33, ffn=19, **both),
                Case(op, f"norm_residual_{suffix}", rows=5, hidden=24, ffn=17, **options, **both),
                Case(op, f"all_{suffix}", rows=3, hidden=17, ffn=40, biases=True, **options, **both),
                Case(op, f"large_{suffix}", rows=2, hidden=16, ffn=24, scale=1e4, **both),
                Case(op, f"large_norm_{suffix}", rows=1, hidden=16, ffn=24, scale=1e4, **options, **both),
            ]
            if rounding == KEEP_F32 and activation != "f32":
                cases.append(Case(op, f"aligned_{suffix}", rows=2, hidden=40, ffn=32, **both))
    for weight in ("f16", "bf16"):
        for op in ("gated_mlp", "silu_mlp"):
            options = {"biases": True, "norm": True, "residual": True}
            name = f"all_f32_with_{weight}_weights"
            cases.append(Case(op, name, rows=3, hidden=17, ffn=40, activation="f32", weight=weight, **options))
    return cases


def edge_values(dtype: torch.dtype) -> Tensor:
    """Gates at which silu goes wrong when it is written carelessly."""
    limits = torch.finfo(dtype)
    values = [0.0, limits.smallest_normal, limits.smallest_normal / 4, 1.0, 20.0, 88.0, 89.0, 104.0, 1e4, limits.max]
    positive = torch.tensor(values, dtype=torch.float64)
    return torch.cat([positive, -positive]).to(dtype).reshape(1, -1)


def inputs(case: Case) -> dict[str, Tensor]:
    """The tensors of a case: normal numbers from a seed that is the case's own, so that a new case changes no other."""
    random = numpy.random.Generator(numpy.random.PCG64(zlib.crc32(case.label.encode())))
    activation, weight = DTYPES[case.activation], DTYPES[case.weight]

    def normal(shape: tuple[int, ...], scale: float, dtype: torch.dtype) -> Tensor:
        return torch.from_numpy(random.standard_normal(shape) * scale).to(dtype)

    if case.op == "silu_mul":
        if case.ffn == 0:
            gate = edge_values(activation)
            # At most 1: the largest gates stay representable.
            return {"gate": gate, "up": torch.linspace(-1.0, 1.0, gate.numel()).to(activation).reshape(gate.shape)}
        # f16 ends at 65504: there, only the gate is large.
        up_scale = 0.5 if case.activation == "f16" else case.scale
        shape = (case.rows, case.ffn)
        return {"gate": normal(shape, case.scale, activation), "up": normal(shape, up_scale, activation)}

    # Projections as large as x itself, or, where their product would leave f16, such that it stays below 65504.
    projection = 1.0 if case.norm else case.scale
    if case.activation == "f16":
        projection = min(projection, 50.0)
    into = projection / (1.0 if case.norm else case.scale) / case.hidden**0.5
    tensors = {"x": normal((case.rows, case.hidden), case.scale, activation)}
    if case.op == "gated_mlp":
        tensors["gate_weight"] = normal((case.ffn, case.hidden), into, weight)
    tensors["up_weight"] = normal((case.ffn, case.hidden), into, weight)
    tensors["down_weight"] = normal((case.hidden, case.ffn), case.ffn**-0.5, weight)
    if case.biases:
        if case.op == "gated_mlp":
            tensors["gate_bias"] = normal((case.ffn,), 0.5, weight)
        tensors["up_bias"] = normal((case.ffn,), 0.5, weight)
        tensors["down_bias"] = normal((case.hidden,), 0.5, weight)
    if case.norm:
        tensors["norm_weight"] = (normal((case.hidden,), 0.25, torch.float64) + 1.0).to(weight)
    if case.residual:
        tensors["residual"] = normal((case.rows, case.hidden), case.scale, activation)
    return tensors


def make(case: Case) -> tuple[dict[str, Tensor], dict[str, object]]:
    """A case's tensors, outputs among them, and its entry in the metadata."""
    tensors = inputs(case)
    eps = EPS if case.norm else None
    out = mlp_reference.expected(case.op, tensors, case.rounding, eps)
    made = tensors | {"out": out.to(torch.float32)}
    if out.abs().max() > torch.finfo(DTYPES[case.activation]).max:
        raise SystemExit(f"{case.label}: the output does not fit {case.activation}")
    if case.rounding == ROUND_GATE_UP:
        made["torch_out"] = mlp_reference.unfused(case.op, tensors, eps)
        distance = nmse(made["torch_out"], out)
        limit = (UNITS_OFF * torch.finfo(DTYPES[case.activation]).eps) ** 2
        if not distance <= limit:
            raise SystemExit(f"{case.label}: PyTorch's own result is {distance:.2e} (NMSE) off, expected {limit:.2e}")
    entry: dict[str, object] = {
        "op": case.op,
        "case": case.name,
        "rows": case.rows,
        "hidden": case.hidden or None,
        "ffn": next(iter(tensors.values())).shape[1] if case.op == "silu_mul" else case.ffn,
        "activation_dtype": case.activation,
        "weight_dtype": None if case.op == "silu_mul" else case.weight,
        "rounding": case.rounding,
        "eps": eps,
    }
    return made, entry


def nmse(got: Tensor, wanted: Tensor) -> float:
    error = (got.to(torch.float64) - wanted.to(torch.float64)).square().sum()
    return float(error / wanted.to(torch.float64).square().sum())


def make_all() -> tuple[dict[str, Tensor], dict[str, str]]:
    tensors: dict[str, Tensor] = {}
    entries = []
    for case in case_list():
        made, entry = make(case)
        entries.append(entry)
        for name, tensor in made.items():
            if not torch.isfinite(tensor).all():
                raise SystemExit(f"{case.label}.{name} is not finite")
            tensors[f"{case.label}.{name}"] = tensor.contiguous()
    metadata = {
        "cases": json.dumps(entries, separators=(",", ":")),
        "rounding": json.dumps(mlp_reference.ROUNDING_POINTS),
        "made_by": f"scripts/goldens.py with torch {torch.__version__.split('+')[0]}",
    }
    return tensors, metadata


def save(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Writes a safetensors file, the same bytes for the same content."""
    content = safetensors.torch.save(tensors, metadata)
    # The library writes metadata in an order of the moment: put it into one that stays.
    header_end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:header_end])
    header["__metadata__"] = dict(sorted(metadata.items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as unfinished:
        unfinished.write(len(text).to_bytes(8, "little") + text + content[header_end:])
    os.chmod(unfinished.name, 0o644)
    os.replace(unfinished.name, path)


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}


def same_bits(left: Tensor, right: Tensor) -> bool:
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    return torch.equal(left.contiguous().view(torch.uint8), right.contiguous().view(torch.uint8))


def differences(path: Path) -> list[str]:
    """What is wrong with the file: one line for each tensor or metadata entry that is not as it would be made now."""
    try:
        stored, stored_metadata = load(path)
    except (OSError, SafetensorError) as error:
        return [f"cannot be read: {error}"]
    made, metadata = make_all()
    found = [f"{name}: not in the file" for name in sorted(made.keys() - stored.keys())]
    found += [f"{name}: in the file, but no case makes it" for name in sorted(stored.keys() - made.keys())]
    found += [f"metadata `{key}` differs" for key in metadata if stored_metadata.get(key) != metadata[key]]
    for name in sorted(made.keys() & stored.keys()):
        if name.endswith(".torch_out"):
            wanted = made[name.removesuffix("torch_out") + "out"]
            limit = (UNITS_OFF * torch.finfo(made[name].dtype).eps) ** 2
            comparable = stored[name].shape == wanted.shape and stored[name].dtype == made[name].dtype
            if not (comparable and nmse(stored[name], wanted) <= limit):
                found.append(f"{name}: too far from out")
        elif not same_bits(stored[name], made[name]):
            found.append(f"{name}: differs")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the file instead of writing it")
    parser.add_argument("--file", type=Path, default=GOLDENS, help="the file (default: %(default)s)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.check:
        found = differences(arguments.file)
        for line in found:
            print(f"{arguments.file.name}: {line}", file=sys.stderr)
        print(f"{arguments.file.name}: {len(case_list())} cases, {len(found)} differences")
        return 1 if found else 0
    tensors, metadata = make_all()
    save(arguments.file, tensors, metadata)
    print(f"{arguments.file}: {len(case_list())} cases, {len(tensors)} tensors, {arguments.file.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
