"""PyTorch's time for the bidirectional GRU that this package measures: `python3 torch_gru.py [--threads N]`.

32 texts of one length, one layer, f32, in inference mode; medians of 15 calls behind three to warm up. PyTorch cannot take
turns with a Rust program: run both on a quiet machine, one behind the other.
"""

import argparse
import os
import statistics
import time

import torch

TEXTS, CALLS = 32, 15


def seconds(tokens: int, features: int, hidden: int) -> float:
    """The median time of a call."""
    gru = torch.nn.GRU(features, hidden, bidirectional=True, batch_first=True).eval()
    x = torch.randn(TEXTS, tokens, features)
    times = []
    with torch.inference_mode():
        for _ in range(3 + CALLS):
            start = time.perf_counter()
            gru(x)
            times.append(time.perf_counter() - start)
    return statistics.median(times[3:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads (default: all)")
    torch.set_num_threads(parser.parse_args().threads)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    print("| hidden/input | tokens | torch.nn.GRU |\n|---|---:|---:|")
    for hidden in (50, 150, 300):
        for tokens in (32, 64):
            print(f"| {hidden}/300 | {tokens} | {seconds(tokens, 300, hidden) * 1e3:.3f} ms |")


if __name__ == "__main__":
    main()
