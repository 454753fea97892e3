"""What the coprocesses of this package have in common: one question a line on stdin, one answer a line on stdout.

    prepare OP DTYPE hidden=N ffn=N rows=N layers=N     ok CONTESTANT...
    run CONTESTANT LAYER                                SECONDS
    drop                                                ok

or `error MESSAGE`; before all of them a greeting, `threads=N` and each library's `name=version`. Behind the operation's name stand
the dimensions that it has: `hidden` and `ffn`, `vocabulary` or `input` (then also `texts`), and `rows`, which for a GRU are the
tokens of a text. An operation that nobody here has is answered by `ok` alone. The clock runs in the coprocess, around the call
alone.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

# Standard deviations that keep results near 1.
WEIGHT_SCALE = 0.03
# Threads that wait for work in a loop have given up after this long.
SETTLING_SECONDS = 0.002

Call = Callable[[int], Any]


class Case(Protocol):
    """One operation on one shape."""

    # By contestant: what it does with a layer.
    calls: dict[str, Call]

    def wake(self) -> None:
        """Wakes the threads, as it is done for the other contestants."""


def threads() -> int:
    """How many each library may use."""
    return int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)


def own_answers():
    """Stdout for the answers alone: what libraries print on their own goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return answers


def matrices(op: str, dimensions: dict[str, int]) -> list[tuple[int, int]]:
    """The shapes of a layer's matrices."""
    hidden = dimensions["hidden"]
    if op == "exit_head":
        return [(dimensions["vocabulary"], hidden)]
    features = hidden // 2 if op == "pruned_gated_mlp" else hidden
    ffn = dimensions["ffn"]
    return [(ffn, features), (ffn, features), (features, ffn)]


def result_shape(op: str, dimensions: dict[str, int]) -> tuple[int, ...]:
    """That of each result, texts first."""
    rows, hidden = dimensions["rows"], dimensions["hidden"]
    if op == "bigru":
        return (dimensions["texts"], rows, 2 * hidden)
    return (rows,) if op == "exit_head" else (rows, hidden)


class Coprocess:
    """What the lines ask for. `prepare(op, dtype, dimensions)` makes a case, `drop` frees what outlives one."""

    def __init__(self, prepare: Callable[[str, str, dict[str, int]], Case], drop: Callable[[], None]):
        self.prepare = prepare
        self.drop = drop
        self.case: Case | None = None

    def answer(self, line: str) -> str:
        """The answer to one line."""
        command, *words = line.split()
        if command == "prepare":
            self.case = None
            op, dtype, *dimensions = words
            sizes = {name: int(size) for name, size in (word.split("=") for word in dimensions)}
            self.case = self.prepare(op, dtype, sizes)
            return " ".join(["ok", *self.case.calls])
        if command == "run" and self.case:
            return repr(self.run(words[0], int(words[1])))
        if command == "drop":
            self.case = None
            self.drop()
            return "ok"
        return f"error {command}: no such command, or nothing prepared"

    def run(self, name: str, layer: int) -> float:
        """Seconds of one call."""
        call = self.case.calls[name]
        self.case.wake()
        start = time.perf_counter()
        call(layer)
        seconds = time.perf_counter() - start
        time.sleep(SETTLING_SECONDS)
        return seconds

    def serve(self, answers, versions: dict[str, str], count: int) -> None:
        """Answers until there are no more questions. `versions` are of libraries that use `count` threads."""
        named = [f"{name}={version}" for name, version in versions.items()]
        print(f"threads={count}", *named, file=answers)
        for line in sys.stdin:
            try:
                answer = self.answer(line)
            except (RuntimeError, ValueError, KeyError) as error:
                answer = "error " + " ".join(str(error).split())
            print(answer, file=answers)
