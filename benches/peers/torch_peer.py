"""PyTorch's part in the comparison: a coprocess that this package starts with `--torch PYTHON`; `coprocess.py` has the protocol.

`torch` multiplies by weights as a checkpoint has them. `torch_prepacked` has them in the layout that the library asks for, for
this very number of rows: MKL's for f32, oneDNN's for the others, as `torch.compile` with frozen weights chooses too.

Weights are normal random numbers, as many layers as the other contestants have. A GRU's layers are one, and warm.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from coprocess import WEIGHT_SCALE, Call, Coprocess, matrices, own_answers, result_shape, threads

answers = own_answers()

try:
    import torch
except ImportError:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
    from environment import provide

    provide("requirements-torch.txt")
    import torch

import torch.nn.functional as F

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
Linear = Callable[[torch.Tensor], torch.Tensor]


def plain(weight: torch.Tensor) -> Linear:
    """The product with a weight as it is."""
    return lambda x: F.linear(x, weight)


def prepacked(weight: torch.Tensor, rows: int) -> Linear:
    """The product with a weight in the library's own layout for that many rows."""
    if weight.dtype == torch.float32 and torch.backends.mkl.is_available():
        packed = torch.ops.mkl._mkl_reorder_linear_weight(weight, rows)
        return lambda x: torch.ops.mkl._mkl_linear(x, packed, weight, None, rows)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
    return lambda x: torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")


def can_prepack(dtype: torch.dtype) -> bool:
    """Whether this processor has a prepacked product of that type."""
    if not torch.backends.mkldnn.is_available():
        return dtype == torch.float32 and torch.backends.mkl.is_available()
    if dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    if dtype == torch.float16:
        return torch.ops.mkldnn._is_mkldnn_fp16_supported()
    return True


class Case:
    """One operation on one shape, by every contestant that has it."""

    def __init__(self, op: str, dtype: str, dimensions: dict[str, int], weights: Weights):
        self.op = op
        self.dtype = DTYPES[dtype]
        self.dimensions = dimensions
        self.rows = dimensions["rows"]
        self.calls: dict[str, Call] = {}
        if op == "bigru":
            self.calls["torch"] = self.gru()
        else:
            layers = weights.of(op, self.dtype, dimensions)
            makers = {"torch": plain}
            if can_prepack(self.dtype):
                makers["torch_prepacked"] = lambda weight: prepacked(weight, self.rows)
            for name, maker in makers.items():
                self.calls[name] = self.compose([[maker(weight) for weight in layer] for layer in layers])
        self.check()

    def compose(self, layers: list[list[Linear]]) -> Call:
        """The operation on those products."""
        hidden = self.dimensions["hidden"]
        x = torch.randn(self.rows, hidden, dtype=self.dtype)

        def mlp(x: torch.Tensor, layer: int) -> torch.Tensor:
            gate, up, down = layers[layer]
            return down(F.silu(gate(x)) * up(x))

        if self.op == "gated_mlp":
            return lambda layer: mlp(x, layer)
        if self.op == "exit_head":
            return lambda layer: layers[layer][0](x).argmax(-1)
        # Every second feature read, the first half written.
        read, written, out = torch.arange(0, hidden, 2), torch.arange(hidden // 2), x.clone()
        return lambda layer: out.index_add_(1, written, mlp(x.index_select(1, read), layer))

    def gru(self) -> Call:
        """One layer, both directions."""
        size = self.dimensions
        gru = torch.nn.GRU(size["input"], size["hidden"], bidirectional=True, batch_first=True).eval()
        x = torch.randn(size["texts"], self.rows, size["input"])
        return lambda _layer: gru(x)[0]

    def check(self) -> None:
        """Runs each contestant once: its shape, and that it gives numbers."""
        expected = result_shape(self.op, self.dimensions)
        for name, call in self.calls.items():
            result = call(0)
            if tuple(result.shape) != expected or not result.isfinite().all():
                raise ValueError(f"{name} {self.op}: {tuple(result.shape)}, expected finite {expected}")

    def wake(self) -> None:
        """As for the other contestants."""
        torch.empty(1 << 16).fill_(0)


class Weights:
    """Plain weights of the last shape: they serve all its numbers of rows."""

    def __init__(self) -> None:
        self.drop()

    def drop(self) -> None:
        """Frees them."""
        self.key: tuple = ()
        self.layers: list[list[torch.Tensor]] = []

    def of(self, op: str, dtype: torch.dtype, dimensions: dict[str, int]) -> list[list[torch.Tensor]]:
        """Each layer's matrices, as `nn.Linear` has them."""
        key = (op, dtype, *((name, size) for name, size in dimensions.items() if name != "rows"))
        if key != self.key:
            self.layers = []
            shapes = matrices(op, dimensions)
            self.layers = [[self.draw(shape, dtype) for shape in shapes] for _ in range(dimensions["layers"])]
            self.key = key
        return self.layers

    @staticmethod
    def draw(shape: tuple[int, int], dtype: torch.dtype) -> torch.Tensor:
        """Normal random numbers."""
        return torch.empty(shape, dtype=dtype).normal_(std=WEIGHT_SCALE)


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(threads())
    weights = Weights()
    peer = Coprocess(lambda op, dtype, sizes: Case(op, dtype, sizes, weights), weights.drop)
    with torch.inference_mode():
        peer.serve(answers, {"torch": torch.__version__}, torch.get_num_threads())


if __name__ == "__main__":
    main()
