#!/usr/bin/env python3
"""Golden vectors for feature attention, the bidirectional GRU and selective feature attention, made with PyTorch.

    python3 scripts/feature_attention_reference.py            # writes tests/data/goldens_feature_attention.safetensors
    python3 scripts/feature_attention_reference.py --check    # makes them again and compares; exit 1 if they differ

Tensors are named OP.CASE.TENSOR, with TENSOR as on the command line of `siluette run`. The metadata entry `cases` is a
JSON list; each case gives its op, its parameters, and `module` if its weights are named as in the PyTorch module
(`dense_z.0.weight`, ...), with a batch norm that is still to be folded.

Everything is computed in float64 on inputs that are f32 numbers, and outputs are rounded to f32 once: linear layers,
batch norm and GRU by torch.nn, packed sequences by torch.nn.utils.rnn; the rest is written as the equations are. Texts
without a token, which PyTorch cannot pack, give zeros and keep their initial state. --check compares inputs bit for bit
and outputs to a few units in the last place, since the order of sums depends on the CPU.
"""

from __future__ import annotations

import argparse
import json
import sys
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import environment

environment.provide("requirements-torch.txt")

import numpy
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from goldens import load, same_bits, save

GOLDENS = Path(__file__).resolve().parent.parent / "tests" / "data" / "goldens_feature_attention.safetensors"
OUTPUTS = ("out", "h_n")
BATCH_NORM_EPS = 1e-6
RELATIVE_ERROR = 1e-6

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Case:
    op: str
    name: str
    tokens: int
    features: int  # of a token
    hidden: int  # feature_attention: after the reduction; else of a GRU's direction
    lengths: tuple[int, ...] | None = None
    batch: int = 3  # where there are no lengths
    layers: int = 1  # selective_feature_attention: branches
    initial: bool = False  # with h0
    biases: bool = True
    module: bool = False  # weights as in the PyTorch module, with a batch norm
    parameters: dict[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return f"{self.op}.{self.name}"

    @property
    def texts(self) -> int:
        return self.batch if self.lengths is None else len(self.lengths)


def case_list() -> list[Case]:
    attention = [
        Case("feature_attention", "tanh", 5, 12, 4, (5, 0, 3, 1)),
        Case("feature_attention", "without_tanh", 4, 9, 3, (2, 4), parameters={"tanh": "false"}),
        Case("feature_attention", "without_biases_or_lengths", 3, 17, 5, biases=False),
        Case("feature_attention", "batch_norm", 6, 10, 4, (6, 2), module=True),
    ]
    gru = [
        Case("bigru", "one_unit", 4, 3, 1, (4, 2, 1)),
        Case("bigru", "without_lengths", 5, 6, 5),
        Case("bigru", "without_biases", 3, 4, 5, (1, 3), biases=False),
        Case("bigru", "initial_state", 6, 4, 5, (6, 0, 3), initial=True),
        Case("bigru", "two_layers", 5, 7, 5, (2, 5, 0, 4), layers=2, initial=True),
        Case("bigru", "fifty_units", 7, 8, 50, (7, 4), initial=True),
        Case("bigru", "two_layers_of_one_unit", 3, 2, 1, layers=2),
    ]
    selective = []
    for stack_mode in ("output_chained", "state_chained"):
        for select in ("branch_softmax", "global_sum"):
            for branches in (1, 3):
                # The sum over the batch is over texts with tokens alone.
                lengths = (5, 2, 0) if select == "branch_softmax" else (5, 2, 3)
                parameters = {"stack_mode": stack_mode, "select": select}
                name = f"{stack_mode}_{select}_{branches}"
                selective.append(
                    Case("selective_feature_attention", name, 5, 7, 3, lengths, layers=branches, parameters=parameters)
                )
    parameters = {"stack_mode": "output_chained", "select": "branch_softmax"}
    selective.append(Case("selective_feature_attention", "without_lengths", 4, 5, 2, layers=2, parameters=parameters))
    return attention + gru + selective


class Random:
    """Normal f32 numbers from a seed that is the case's own, so that a new case changes no other."""

    def __init__(self, label: str) -> None:
        self.generator = numpy.random.Generator(numpy.random.PCG64(zlib.crc32(label.encode())))

    def normal(self, shape: tuple[int, ...], scale: float) -> Tensor:
        return torch.from_numpy(self.generator.standard_normal(shape) * scale).to(torch.float32)

    def linear(self, outputs: int, inputs: int) -> tuple[Tensor, Tensor]:
        return self.normal((outputs, inputs), 2.0 * inputs**-0.5), self.normal((outputs,), 0.5)


def valid_lengths(case: Case) -> list[int]:
    return [case.tokens] * case.texts if case.lengths is None else list(case.lengths)


def with_lengths(case: Case, tensors: Tensors) -> Tensors:
    if case.lengths is not None:
        tensors["lengths"] = torch.tensor(case.lengths, dtype=torch.int32)
    return tensors


def linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=torch.float64)
    layer.load_state_dict({"weight": weight} | ({} if bias is None else {"bias": bias}))
    return layer


def feature_attention(case: Case) -> Tensors:
    random = Random(case.label)
    x = random.normal((case.texts, case.tokens, case.features), 1.0)
    w1, b1 = random.linear(case.hidden, case.features)
    w2, b2 = random.linear(case.features, case.hidden)
    reduction = linear(w1, b1 if case.biases else None)
    excitation = nn.Sequential(linear(w2, b2 if case.biases else None))
    if case.module:
        tensors = {"dense_z.0.weight": w1, "dense_z.0.bias": b1, "dense_e.0.weight": w2, "dense_e.0.bias": b2}
        norm = nn.BatchNorm1d(case.features, eps=BATCH_NORM_EPS, dtype=torch.float64)
        statistics = {
            "weight": random.normal((case.features,), 1.0),
            "bias": random.normal((case.features,), 0.5),
            "running_mean": random.normal((case.features,), 0.5),
            "running_var": random.normal((case.features,), 1.0).square(),
        }
        norm.load_state_dict(statistics, strict=False)
        excitation.append(norm)
        tensors |= {f"dense_e.1.{name}": tensor for name, tensor in statistics.items()}
    else:
        tensors = {"w1": w1, "w2": w2} | ({"b1": b1, "b2": b2} if case.biases else {})
    excitation.eval()
    out = torch.zeros(x.shape, dtype=torch.float64)
    for text, length in enumerate(valid_lengths(case)):
        if length > 0:
            tokens = x[text, :length].double()
            reduced = reduction(tokens.mean(dim=0, keepdim=True))
            if case.parameters.get("tanh") != "false":
                reduced = reduced.tanh()
            out[text, :length] = tokens * torch.sigmoid(excitation(reduced))
    return with_lengths(case, tensors | {"x": x, "out": out})


def gru_weights(random: Random, inputs: int, hidden: int, biases: bool, suffix: str) -> Tensors:
    """The weights of one layer, named as torch.nn.GRU names them, with `suffix` in place of the layer's number."""
    tensors = {}
    for direction in ("", "_reverse"):
        for part, columns in (("ih", inputs), ("hh", hidden)):
            weight, bias = random.linear(3 * hidden, columns)
            tensors[f"weight_{part}{suffix}{direction}"] = weight
            if biases:
                tensors[f"bias_{part}{suffix}{direction}"] = bias
    return tensors


def run_gru(weights: Tensors, x: Tensor, lengths: list[int], h0: Tensor | None, layers: int) -> tuple[Tensor, Tensor]:
    """Output and final states of a bidirectional torch.nn.GRU; texts without a token keep their state."""
    hidden = weights["weight_hh_l0"].shape[1]
    biases = "bias_ih_l0" in weights
    gru = nn.GRU(x.shape[2], hidden, layers, biases, batch_first=True, bidirectional=True, dtype=torch.float64)
    gru.load_state_dict(weights)
    states = torch.zeros(2 * layers, x.shape[0], hidden, dtype=torch.float64) if h0 is None else h0.double().clone()
    out = torch.zeros(x.shape[0], x.shape[1], 2 * hidden, dtype=torch.float64)
    texts = [text for text, length in enumerate(lengths) if length > 0]
    if texts:
        valid = torch.tensor([lengths[text] for text in texts])
        packed = pack_padded_sequence(x[texts].double(), valid, batch_first=True, enforce_sorted=False)
        result, final = gru(packed, states[:, texts].contiguous())
        out[texts] = pad_packed_sequence(result, batch_first=True, total_length=x.shape[1])[0]
        states[:, texts] = final
    return out, states


def bigru(case: Case) -> Tensors:
    random = Random(case.label)
    x = random.normal((case.texts, case.tokens, case.features), 1.0)
    weights: Tensors = {}
    for layer in range(case.layers):
        inputs = case.features if layer == 0 else 2 * case.hidden
        weights |= gru_weights(random, inputs, case.hidden, case.biases, f"_l{layer}")
    h0 = random.normal((2 * case.layers, case.texts, case.hidden), 1.0) if case.initial else None
    out, h_n = run_gru(weights, x, valid_lengths(case), h0, case.layers)
    tensors = weights | {"x": x, "out": out, "h_n": h_n} | ({} if h0 is None else {"h0": h0})
    return with_lengths(case, tensors)


def selective_feature_attention(case: Case) -> Tensors:
    random = Random(case.label)
    lengths, middle, squeezed = valid_lengths(case), 2 * case.hidden, 4
    x = random.normal((case.texts, case.tokens, case.features), 1.0)
    tensors: Tensors = {"x": x}

    def layer(name: str, outputs: int, inputs: int) -> nn.Linear:
        weight, bias = random.linear(outputs, inputs)
        tensors[f"{name}_weight"], tensors[f"{name}_bias"] = weight, bias
        return linear(weight, bias)

    reduce, squeeze = layer("reduce", middle, case.features), layer("squeeze", squeezed, middle)
    selections = [layer(f"select{branch}", middle, squeezed) for branch in range(case.layers)]
    expand = layer("expand", case.features, middle)

    reduced = reduce(x.double())
    states, branches = None, []
    for branch in range(case.layers):
        weights = gru_weights(random, middle, case.hidden, True, "_l0")
        tensors |= {f"branch{branch}.{name.replace('_l0', '')}": tensor for name, tensor in weights.items()}
        if case.parameters["stack_mode"] == "state_chained":
            out, states = run_gru(weights, reduced, lengths, states, 1)
        else:
            out, _ = run_gru(weights, branches[-1] if branches else reduced, lengths, None, 1)
        branches.append(out)

    # [N, B, L, d1], and [N, B, d1].
    stacked = torch.stack(branches)
    gates = torch.zeros(case.layers, case.texts, middle, dtype=torch.float64)
    for text, length in enumerate(lengths):
        if length > 0:
            valid = stacked[:, text, :length]
            summary = valid.mean(dim=(0, 1)) + valid.amax(dim=(0, 1))
            z = squeeze(summary).tanh()
            gates[:, text] = torch.stack([selection(z).sigmoid() for selection in selections])
    weights_of_branches = gates.softmax(dim=0)
    if case.parameters["select"] == "global_sum":
        weights_of_branches = gates.exp() / gates.exp()[:, [length > 0 for length in lengths]].sum()
    out = expand((weights_of_branches[:, :, None, :] * stacked).sum(dim=0))
    for text, length in enumerate(lengths):
        out[text, length:] = 0.0
    return with_lengths(case, tensors | {"out": out})


OPERATIONS = {
    "feature_attention": feature_attention,
    "bigru": bigru,
    "selective_feature_attention": selective_feature_attention,
}


def make_all() -> tuple[Tensors, dict[str, str]]:
    tensors: Tensors = {}
    entries = []
    for case in case_list():
        entries.append({"op": case.op, "case": case.name, "parameters": case.parameters, "module": case.module})
        for name, tensor in OPERATIONS[case.op](case).items():
            if name in OUTPUTS:
                tensor = tensor.detach().to(torch.float32)
            if not torch.isfinite(tensor).all():
                raise SystemExit(f"{case.label}.{name} is not finite")
            tensors[f"{case.label}.{name}"] = tensor.contiguous()
    metadata = {
        "cases": json.dumps(entries, separators=(",", ":")),
        "made_by": f"scripts/{Path(__file__).name} with torch {torch.__version__.split('+')[0]}",
    }
    return tensors, metadata


def differences(path: Path) -> list[str]:
    """What is wrong with the file: one line for each tensor or metadata entry that is not as it would be made now."""
    stored, stored_metadata = load(path)
    made, metadata = make_all()
    found = [f"{name}: in one of both only" for name in sorted(made.keys() ^ stored.keys())]
    found += [f"metadata `{key}` differs" for key in ("cases",) if stored_metadata.get(key) != metadata[key]]
    for name in sorted(made.keys() & stored.keys()):
        got, wanted = stored[name], made[name]
        if name.rsplit(".", 1)[1] in OUTPUTS:
            scale = float(wanted.abs().max()) if wanted.numel() else 0.0
            if got.shape != wanted.shape or not bool(((got - wanted).abs() <= RELATIVE_ERROR * scale).all()):
                found.append(f"{name}: too far off")
        elif not same_bits(got, wanted):
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
