#!/usr/bin/env python3
"""Slices of a real model's MLPs, with the real hidden states that enter them.

    python3 scripts/real_slice.py MODEL_DIR            # writes tests/data/smollm2_layer_*.safetensors
    python3 scripts/real_slice.py --check              # recomputes `out` from the stored tensors; exit 1 if one differs
    python3 scripts/real_slice.py --check MODEL_DIR    # compares the stored weights with the model's besides

MODEL_DIR is a folder that scripts/smollm2.py wrote.

One file a layer, its tensors named as `siluette run gated_mlp` names them: x (what enters the MLP's norm, for the first
tokens of a prompt), norm_weight, residual (equal to x, as in the model), gate_weight and up_weight (some rows),
down_weight (the same columns), all bf16; and out, f32, from a float64 computation with the roundings of
mlp_reference.py (keep_f32).

Layers: 0, where x is so small that eps counts, and 28, where the first token carries the model's massive activations
(x beyond 24,000, h beyond 2,000). Of the 1,536 rows, the block of 192 with the largest h is taken.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import environment

environment.provide("requirements-torch.txt")

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

import goldens
import mlp_reference
import smollm2

LAYERS = (0, 28)
ROWS_KEPT = 192
TOKENS_KEPT = 5
PROMPT = "<|im_start|>user\nWhy is the sky blue?<|im_end|>\n<|im_start|>assistant\n"
INPUTS = {"x", "norm_weight", "residual", "gate_weight", "up_weight", "down_weight"}


def slice_path(folder: Path, layer: int) -> Path:
    return folder / f"smollm2_layer_{layer:02}.safetensors"


def weight_slices(model_file: Path, layer: int, first: int) -> dict[str, Tensor]:
    """The MLP weights of a layer, cut to rows (of down: columns) first..first + ROWS_KEPT."""
    last = first + ROWS_KEPT
    prefix = f"model.layers.{layer}"
    with safe_open(model_file, framework="pt") as file:
        return {
            "norm_weight": file.get_tensor(f"{prefix}.post_attention_layernorm.weight"),
            "gate_weight": file.get_slice(f"{prefix}.mlp.gate_proj.weight")[first:last],
            "up_weight": file.get_slice(f"{prefix}.mlp.up_proj.weight")[first:last],
            "down_weight": file.get_slice(f"{prefix}.mlp.down_proj.weight")[:, first:last],
        }


def hidden_states(model_dir: Path) -> tuple[dict[int, tuple[Tensor, int]], float]:
    """For each layer: what enters its MLP's norm, and the first row of the block where h is largest; and eps."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    entering: dict[int, Tensor] = {}
    activated: dict[int, Tensor] = {}
    for layer in LAYERS:
        block = model.model.layers[layer]
        block.post_attention_layernorm.register_forward_pre_hook(
            lambda _, arguments, layer=layer: entering.__setitem__(layer, arguments[0][0])
        )
        block.mlp.down_proj.register_forward_pre_hook(
            lambda _, arguments, layer=layer: activated.__setitem__(layer, arguments[0][0])
        )
    with torch.no_grad():
        model(**tokenizer(PROMPT, return_tensors="pt"))
    states = {}
    for layer in LAYERS:
        largest = activated[layer][:TOKENS_KEPT].abs().amax(dim=0).argmax().item()
        states[layer] = (entering[layer][:TOKENS_KEPT], int(largest) // ROWS_KEPT * ROWS_KEPT)
    return states, model.config.rms_norm_eps


def write(model_dir: Path, folder: Path) -> None:
    states, eps = hidden_states(model_dir)
    for layer, (entering, first) in states.items():
        x = entering.to(torch.bfloat16)
        tensors = {"x": x, "residual": x.clone(), **weight_slices(model_dir / "model.safetensors", layer, first)}
        tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
        if any(tensor.dtype != torch.bfloat16 for tensor in tensors.values()):
            raise SystemExit(f"{model_dir} is not a bf16 model")
        out = mlp_reference.expected("gated_mlp", tensors, mlp_reference.KEEP_F32, eps)
        metadata = {
            "op": "gated_mlp",
            "eps": repr(eps),
            "rounding": mlp_reference.KEEP_F32,
            "source": smollm2.PROVENANCE,
            "licence": smollm2.LICENCE,
            "layer": str(layer),
            "ffn_rows": f"{first}..{first + ROWS_KEPT}",
            "prompt": PROMPT,
            "tokens": f"the first {TOKENS_KEPT}",
        }
        path = slice_path(folder, layer)
        goldens.save(path, tensors | {"out": out.to(torch.float32)}, metadata)
        print(f"{path}: |x| up to {x.abs().max():.0f}, |out| up to {out.abs().max():.0f}, {path.stat().st_size} bytes")


def differences(path: Path, layer: int, model_dir: Path | None) -> list[str]:
    try:
        stored, metadata = goldens.load(path)
    except (OSError, SafetensorError) as error:
        return [f"cannot be read: {error}"]
    if stored.keys() != INPUTS | {"out"} or metadata.get("layer") != str(layer):
        return [f"holds {sorted(stored)} of layer {metadata.get('layer')}"]
    tensors = {name: stored[name] for name in INPUTS}
    out = mlp_reference.expected("gated_mlp", tensors, metadata["rounding"], float(metadata["eps"]))
    found = []
    if not goldens.same_bits(stored["out"], out.to(torch.float32)):
        found.append("out: differs from what the stored inputs give")
    if not goldens.same_bits(stored["x"], stored["residual"]):
        found.append("residual: differs from x")
    if model_dir is not None:
        first = int(metadata["ffn_rows"].split("..")[0])
        for name, weight in weight_slices(model_dir / "model.safetensors", layer, first).items():
            if not goldens.same_bits(stored[name], weight):
                found.append(f"{name}: differs from the model's")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "model", type=Path, nargs="?", metavar="MODEL_DIR", help="a folder that smollm2.py wrote, in bf16"
    )
    parser.add_argument("--check", action="store_true", help="check the stored files instead of writing them")
    parser.add_argument(
        "--folder", type=Path, default=goldens.GOLDENS.parent, help="of the files (default: %(default)s)"
    )
    arguments = parser.parse_args()
    if arguments.model is None and not arguments.check:
        parser.error("MODEL_DIR is needed to write the slices")
    if arguments.model is not None and not (arguments.model / "model.safetensors").is_file():
        parser.error(f"{arguments.model} has no model.safetensors; scripts/smollm2.py makes such a folder")
    torch.set_num_threads(1)
    if not arguments.check:
        write(arguments.model, arguments.folder)
        return 0
    count = 0
    for layer in LAYERS:
        path = slice_path(arguments.folder, layer)
        for line in differences(path, layer, arguments.model):
            print(f"{path.name}: {line}", file=sys.stderr)
            count += 1
    print(f"{len(LAYERS)} slices, {count} differences")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
