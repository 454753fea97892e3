#!/usr/bin/env python3
"""Times the gated MLP as PyTorch and cuBLAS do it, to hold `siluette bench` against. Needs PyTorch with CUDA.

    python3 peers.py --json FILE

    out = (silu(x Wg^T) * (x Wu^T)) Wd^T    in bf16, nn.Linear layouts, normal-random data

`separate` is what a model written in PyTorch does: three cuBLAS products and two elementwise kernels. `stacked` has
gate and up in one product. A CUDA graph holds a row of calls, so that launches cost little; a time is the median over
replays, by device events, of one call. `cold`: calls take turns on copies of the weights, together more than twice the
L2 cache; `hot`: always the same, where they fit in it. `copy` and `product` are what the device reaches at most: a
copy's bytes, read and written, and a large cuBLAS product's operations a second. The file's fields are those of
`siluette bench --json`.

Exit: 0, 2 for bad usage, 3 if there is no PyTorch or no CUDA device.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
from functools import partial
from pathlib import Path
from typing import Callable

SHAPES = ((576, 1536), (2048, 8192), (4096, 11008), (4096, 14336))  # hidden, ffn
ROWS = (1, 8, 16, 64, 512, 4096)
GRAPH_CALLS = 16  # at least, in a graph
MEASURE_MS = 120  # for one figure
RUNS = (5, 200)  # at least, at most
ELEMENT_BYTES = 2
COPY_BYTES = 1 << 30
PRODUCT_SIZE = 8192
EXIT_MISSING = 3


class Missing(Exception):
    """This machine lacks what is needed."""


try:
    import torch
    from torch.nn import functional
except ImportError as import_error:
    torch, why_no_torch = None, str(import_error)


# ------------------------------------------------------------------------------------------------ measuring


def milliseconds(work: Callable[[], object]) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    work()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def sample_ms(work: Callable[[], object]) -> list[float]:
    """As many runs as fit in the time for one figure."""
    work()
    torch.cuda.synchronize()
    least, most = RUNS
    count = min(most, max(least, int(MEASURE_MS / max(milliseconds(work), 1e-3))))
    return [milliseconds(work) for _ in range(count)]


def captured(calls: list[Callable[[], object]]) -> Callable[[], object]:
    """The calls as one CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    # cuBLAS chooses its kernels and takes its workspace now: neither can be done while a graph is captured.
    with torch.cuda.stream(stream):
        for call in calls[:3]:
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    return graph.replay


def time_calls(calls: list[Callable[[], object]]) -> dict:
    """One call, in a graph that holds all of them as often as it takes; the fields are those of `siluette bench`."""
    calls = calls * math.ceil(GRAPH_CALLS / len(calls))
    seconds = [sample * 1e-3 / len(calls) for sample in sample_ms(captured(calls))]
    return {"median_seconds": statistics.median(seconds), "min_seconds": min(seconds), "samples": len(seconds)}


# ------------------------------------------------------------------------------------------------ the gated MLP


def random(rows: int, columns: int) -> torch.Tensor:
    return torch.randn(rows, columns, device="cuda", dtype=torch.bfloat16) / math.sqrt(columns)


def separate(x: torch.Tensor, weights: list[torch.Tensor]) -> torch.Tensor:
    gate, up, down = weights
    return functional.linear(functional.silu(functional.linear(x, gate)) * functional.linear(x, up), down)


def stacked(x: torch.Tensor, weights: list[torch.Tensor]) -> torch.Tensor:
    gate_up, down = weights
    gate, up = functional.linear(x, gate_up).chunk(2, dim=-1)
    return functional.linear(functional.silu(gate) * up, down)


def weight_copies(variant: Callable, hidden: int, ffn: int, count: int) -> list[list[torch.Tensor]]:
    shapes = [(ffn, hidden)] * 2 if variant is separate else [(2 * ffn, hidden)]
    return [[random(*shape) for shape in [*shapes, (hidden, ffn)]] for _ in range(count)]


def measure_shape(hidden: int, ffn: int, l2_bytes: int) -> list[dict]:
    results = []
    weight_bytes = 3 * hidden * ffn * ELEMENT_BYTES
    for variant in (separate, stacked):
        copies = weight_copies(variant, hidden, ffn, 2 * l2_bytes // weight_bytes + 1)
        for rows in ROWS:
            x = random(rows, hidden) * math.sqrt(hidden)
            calls = [partial(variant, x, weights) for weights in copies]
            results.append(
                {
                    "op": "gated_mlp",
                    "peer": f"torch {variant.__name__}",
                    "dtype": "bf16",
                    "case": f"rows={rows} hidden={hidden} ffn={ffn}",
                    "cold_bytes": weight_bytes * len(copies),
                    "cold": time_calls(calls),
                    "hot": time_calls(calls[:1]) if weight_bytes <= l2_bytes else None,
                }
            )
    return results


# ------------------------------------------------------------------------------------------------ the device


def copy_bandwidth() -> float:
    """Bytes read and written a second."""
    source = torch.randint(0, 255, (COPY_BYTES,), device="cuda", dtype=torch.uint8)
    target = torch.empty_like(source)
    return 2 * COPY_BYTES / (statistics.median(sample_ms(lambda: target.copy_(source))) * 1e-3)


def product_rate() -> float:
    """Operations a second."""
    a, b = random(PRODUCT_SIZE, PRODUCT_SIZE), random(PRODUCT_SIZE, PRODUCT_SIZE)
    return 2 * PRODUCT_SIZE**3 / (statistics.median(sample_ms(lambda: a @ b)) * 1e-3)


def measure() -> dict:
    if torch is None:
        raise Missing(f"PyTorch could not be imported: {why_no_torch}")
    if not torch.cuda.is_available():
        raise Missing("PyTorch finds no CUDA device")
    properties = torch.cuda.get_device_properties(0)
    torch.manual_seed(1)
    with torch.inference_mode():
        report = {
            "device": properties.name,
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "l2_bytes": properties.L2_cache_size,
            "copy_bytes_per_second": copy_bandwidth(),
            "product_flops_per_second": product_rate(),
            "results": [],
        }
        for hidden, ffn in SHAPES:
            report["results"] += measure_shape(hidden, ffn, properties.L2_cache_size)
            torch.cuda.empty_cache()
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, metavar="FILE", help="where the figures go")
    arguments = parser.parse_args()
    try:
        report = measure()
    except Missing as error:
        print(f"peers.py: {error}", file=sys.stderr)
        return EXIT_MISSING
    unfinished = arguments.json.with_name(arguments.json.name + ".unfinished")
    unfinished.write_text(json.dumps(report, indent=2) + "\n")
    os.replace(unfinished, arguments.json)
    print(f"{report['device']}: copy {report['copy_bytes_per_second'] / 1e12:.2f} TB/s", end=", ")
    print(f"product {report['product_flops_per_second'] / 1e12:.0f} TFLOP/s")
    for result in report["results"]:
        times = [f"{kind} {result[kind]['median_seconds'] * 1e6:9.2f} us" for kind in ("cold", "hot") if result[kind]]
        print(f"{result['case']:36} {result['peer']:16} {'  '.join(times)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
