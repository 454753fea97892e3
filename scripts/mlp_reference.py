"""The MLPs of `silu_mul`, `gated_mlp` and `silu_mlp` in float64, rounded exactly where the kernels round.

    n   = round(rms_norm(x, norm_weight, eps))                 x itself without a norm
    h   = round(silu(n Wg^T + bg) * (n Wu^T + bu))             silu_mlp: round(silu(n Wu^T + bu))
    out = residual + h Wd^T + bd                               not rounded

eps is an f32. `round` is one rounding, to nearest even, to the type of the activations. With `round_gate_up`, the two
projections and then silu of the first are rounded too, which is what unfused PyTorch code does in that type.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

KEEP_F32 = "keep_f32"
ROUND_GATE_UP = "round_gate_up"
ROUNDING_POINTS = {
    KEEP_F32: "n and h are rounded to the activation type; gate, up and out are not",
    ROUND_GATE_UP: "n, gate, up, silu(gate) and h are rounded to the activation type; out is not",
}


def round_once(value: Tensor, dtype: torch.dtype) -> Tensor:
    """A float64 tensor rounded to `dtype` once, to nearest even, returned as float64.

    torch converts float64 to a 16-bit type by way of float32, which rounds twice. Here the float32 is rounded to odd:
    truncated, its last bit set if anything was cut off, so that the second rounding sees on which side of a tie it is.
    """
    if dtype == torch.float64:
        return value
    nearest = value.to(torch.float32)
    if dtype == torch.float32:
        return nearest.to(torch.float64)
    bits = nearest.view(torch.int32)
    truncated = torch.where(nearest.double().abs() > value.abs(), bits - 1, bits)
    inexact = nearest.double() != value
    odd = torch.where(inexact, truncated | 1, truncated).view(torch.float32)
    return odd.to(dtype).to(torch.float64)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    eps_as_f32 = torch.tensor(eps, dtype=torch.float32).to(torch.float64)
    return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + eps_as_f32) * weight


def silu_mul(gate: Tensor, up: Tensor, rounding: str, dtype: torch.dtype) -> Tensor:
    """silu(gate) * up before its last rounding, which is the caller's."""
    if rounding == ROUND_GATE_UP:
        gate, up = round_once(gate, dtype), round_once(up, dtype)
        return round_once(functional.silu(gate), dtype) * up
    return functional.silu(gate) * up


def silu_only(up: Tensor, rounding: str, dtype: torch.dtype) -> Tensor:
    return functional.silu(round_once(up, dtype) if rounding == ROUND_GATE_UP else up)


def expected(op: str, tensors: Mapping[str, Tensor], rounding: str, eps: float | None) -> Tensor:
    """The float64 output of an op on named tensors in their storage types."""
    wide = {name: tensor.to(torch.float64) for name, tensor in tensors.items()}
    if op == "silu_mul":
        return silu_mul(wide["gate"], wide["up"], KEEP_F32, tensors["gate"].dtype)
    dtype = tensors["x"].dtype
    n = wide["x"]
    if "norm_weight" in wide:
        if eps is None:
            raise ValueError("a norm needs eps")
        n = round_once(rms_norm(n, wide["norm_weight"], eps), dtype)
    up = functional.linear(n, wide["up_weight"], wide.get("up_bias"))
    if op == "gated_mlp":
        gate = functional.linear(n, wide["gate_weight"], wide.get("gate_bias"))
        h = round_once(silu_mul(gate, up, rounding, dtype), dtype)
    else:
        h = round_once(silu_only(up, rounding, dtype), dtype)
    out = functional.linear(h, wide["down_weight"], wide.get("down_bias"))
    return out + wide["residual"] if "residual" in wide else out


def unfused(op: str, tensors: Mapping[str, Tensor], eps: float | None) -> Tensor:
    """What plain PyTorch code gives for an MLP, all of it in the storage type."""
    n = tensors["x"]
    if "norm_weight" in tensors:
        n = functional.rms_norm(n, n.shape[-1:], tensors["norm_weight"], eps)
    up = functional.linear(n, tensors["up_weight"], tensors.get("up_bias"))
    if op == "gated_mlp":
        gate = functional.linear(n, tensors["gate_weight"], tensors.get("gate_bias"))
        h = functional.silu(gate) * up
    else:
        h = functional.silu(up)
    out = functional.linear(h, tensors["down_weight"], tensors.get("down_bias"))
    return out + tensors["residual"] if "residual" in tensors else out
