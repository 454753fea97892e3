"""PyTorch's part in the comparison: a coprocess that this package starts with `--torch PYTHON` and asks for one call at a time.

A line comes in, a line goes out:

    prepare OP DTYPE hidden=N ffn=N rows=N layers=N     ok CONTESTANT...
    run CONTESTANT LAYER                                SECONDS
    drop                                                ok

or `error MESSAGE`. Behind the operation's name stand the dimensions that it has: `hidden` and `ffn`, `vocabulary` or `input`
(then also `texts`), and `rows`, which for a GRU are the tokens of a text. The clock runs in here, around the call alone.

`torch` multiplies by weights as a checkpoint has them. `torch_prepacked` has them in the layout that the library asks for, for
this very number of rows: MKL's for f32, oneDNN's for the others, as `torch.compile` with frozen weights chooses too.

Weights are normal random numbers, as many layers as the other contestants have. A GRU's layers are one, and warm.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

# What prints on its own must not get between the answers.
answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)

try:
    import torch
except ImportError:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
    from environment import provide

    provide("requirements-torch.txt")
    import torch

import torch.nn.functional as F

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
# Standard deviations that keep results near 1.
WEIGHT_SCALE = 0.03
# Threads that wait for work in a loop have given up after this long.
SETTLING_SECONDS = 0.002

Linear = Callable[[torch.Tensor], torch.Tensor]
Call = Callable[[int], torch.Tensor]


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

    def expected_shape(self) -> tuple[int, ...]:
        """That of each result."""
        hidden = self.dimensions["hidden"]
        if self.op == "bigru":
            return (self.dimensions["texts"], self.rows, 2 * hidden)
        return (self.rows,) if self.op == "exit_head" else (self.rows, hidden)

    def check(self) -> None:
        """Runs each contestant once: its shape, and that it gives numbers."""
        for name, call in self.calls.items():
            result = call(0)
            if tuple(result.shape) != self.expected_shape() or not result.isfinite().all():
                raise ValueError(f"{name} {self.op}: {tuple(result.shape)}, expected finite {self.expected_shape()}")

    def run(self, name: str, layer: int) -> float:
        """Seconds of one call."""
        call = self.calls[name]
        # Wakes the threads, as it is done for the other contestants.
        torch.empty(1 << 16).fill_(0)
        start = time.perf_counter()
        call(layer)
        seconds = time.perf_counter() - start
        time.sleep(SETTLING_SECONDS)
        return seconds


class Weights:
    """Plain weights of the last shape: they serve all its numbers of rows."""

    def __init__(self) -> None:
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


def matrices(op: str, dimensions: dict[str, int]) -> list[tuple[int, int]]:
    """The shapes of a layer's matrices."""
    hidden = dimensions["hidden"]
    if op == "exit_head":
        return [(dimensions["vocabulary"], hidden)]
    features = hidden // 2 if op == "pruned_gated_mlp" else hidden
    ffn = dimensions["ffn"]
    return [(ffn, features), (ffn, features), (features, ffn)]


class Peer:
    """What the lines ask for."""

    def __init__(self) -> None:
        self.weights = Weights()
        self.case: Case | None = None

    def answer(self, line: str) -> str:
        """The answer to one line."""
        command, *words = line.split()
        if command == "prepare":
            self.case = None
            op, dtype, *dimensions = words
            sizes = {name: int(size) for name, size in (word.split("=") for word in dimensions)}
            self.case = Case(op, dtype, sizes, self.weights)
            return " ".join(["ok", *self.case.calls])
        if command == "run" and self.case:
            return repr(self.case.run(words[0], int(words[1])))
        if command == "drop":
            self.case, self.weights = None, Weights()
            return "ok"
        return f"error {command}: no such command, or nothing prepared"


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1))
    peer = Peer()
    with torch.inference_mode():
        print(f"torch {torch.__version__} {torch.get_num_threads()}", file=answers)
        for line in sys.stdin:
            try:
                answer = peer.answer(line)
            except (RuntimeError, ValueError, KeyError) as error:
                answer = "error " + " ".join(str(error).split())
            print(answer, file=answers)


if __name__ == "__main__":
    main()
