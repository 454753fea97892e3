#!/usr/bin/env python3
"""What Hugging Face transformers generates greedily: tests/data/generation_*.json. Under masks, which transformers does
not know, what scripts/layerskip/model.py does.

What follows the model's name says what is changed: `30`, `50`, `50_even` the masks; `llama3` the rotary positions, which are
stretched as the file's `rope_scaling` says.

    python3 scripts/generation_goldens.py data/layerskip tests/data/generation_layerskip.json
    python3 scripts/generation_goldens.py models/smollm2 tests/data/generation_smollm2.json     # of scripts/smollm2.py
    python3 scripts/generation_goldens.py data/layerskip tests/data/generation_layerskip_50.json  # under masks_50
    python3 scripts/generation_goldens.py data/layerskip tests/data/generation_layerskip_llama3.json
    python3 scripts/generation_goldens.py --check data/layerskip tests/data/generation_layerskip.json

In float32 on one thread. Beside each prompt's tokens stands the smallest distance of a chosen token's logit from the second
best: tokens of another implementation may differ only where that is within its rounding errors.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import environment

if TYPE_CHECKING:
    import torch

PROMPTS = {
    "layerskip": [
        "It is a truth universally acknowledged, that",
        "She had been",
        "\"My dear,\" said Mr. Bennet, \"you",
        "In the morning they walked to the village, where",
    ],
    "smollm2": [
        "The capital of France is",
        "<|im_start|>user\nWhat is gravity?<|im_end|>\n<|im_start|>assistant\n",
        "def fibonacci(n):\n",
    ],
}
TOKENS = {"layerskip": 64, "smollm2": 32}
# Of a head of 32 features and theta 10,000, whose waves are 6 to 35,333 positions long, some are kept (up to 16
# positions), some blended and some stretched (from 64 on).
ROPE_SCALING = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def greedy_by_transformers(
    folder: Path, variant: str, prompt: torch.Tensor, count: int
) -> tuple[list[int], torch.Tensor]:
    """The tokens, and the logits `[tokens, vocabulary]` that they are the best of."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder)
    if variant == "llama3":
        config.rope_scaling = ROPE_SCALING
    model = AutoModelForCausalLM.from_pretrained(folder, config=config, dtype=torch.float32)
    output = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=count,
        do_sample=False,
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    return output.sequences[0, prompt.shape[1] :].tolist(), torch.cat(output.logits)


def greedy_under_masks(folder: Path, masks: Path, prompt: torch.Tensor, count: int) -> tuple[list[int], torch.Tensor]:
    """The same, of the whole weights under masks."""
    sys.path.insert(0, str(Path(__file__).parent / "layerskip"))
    import torch
    from model import Llama
    from prune import NAMES
    from safetensors.torch import load_file

    model = Llama.load(folder)
    stored = load_file(masks)
    of_layers = [
        [stored[f"layers.{layer}.{name}.mask"].float() for name in NAMES] for layer in range(model.config.layers)
    ]
    tokens, rows = prompt, []
    with torch.no_grad():
        for _ in range(count):
            *_, states = model.states(tokens, masks=of_layers)
            rows.append(model.logits(states[:, -1]))
            tokens = torch.cat((tokens, rows[-1].argmax(-1, keepdim=True)), dim=1)
            if tokens[0, -1] == 0:  # the end of a text
                break
    return tokens[0, prompt.shape[1] :].tolist(), torch.cat(rows)


def generate(folder: Path, kind: str) -> dict[str, Any]:
    import torch
    from tokenizers import Tokenizer

    torch.set_num_threads(1)
    model, _, variant = kind.partition("_")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    cases = []
    for text in PROMPTS[model]:
        prompt = torch.tensor([tokenizer.encode(text, add_special_tokens=False).ids])
        if variant[:1].isdigit():
            masks = folder / f"masks_{variant}.safetensors"
            tokens, logits = greedy_under_masks(folder, masks, prompt, TOKENS[model])
        else:
            tokens, logits = greedy_by_transformers(folder, variant, prompt, TOKENS[model])
        best_two = logits.topk(2).values
        margin = (best_two[:, 0] - best_two[:, 1]).min().item()
        case = {"prompt": text, "prompt_tokens": prompt[0].tolist(), "tokens": tokens}
        cases.append(case | {"smallest_margin": round(margin, 4)})
    made = {"model": kind, "cases": cases}
    return made | {"rope_scaling": ROPE_SCALING} if variant == "llama3" else made


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the model")
    parser.add_argument("file", type=Path, help="what to write, or to compare with")
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    options = parser.parse_args()
    environment.provide("requirements-torch.txt")
    kind = options.file.stem.removeprefix("generation_")
    model, _, variant = kind.partition("_")
    if model not in PROMPTS or not (variant in ("", "llama3") or variant[:1].isdigit()):
        parser.error(
            f"{options.file}: expected generation_{{{','.join(PROMPTS)}}}.json, "
            "or with _PERCENT[_even] or _llama3 behind the model's name"
        )
    made = generate(options.folder, kind)
    if not options.check:
        options.file.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return 0
    kept = json.loads(options.file.read_text(encoding="utf-8"))
    for case, expected in zip(made["cases"], kept["cases"], strict=True):
        if case["tokens"] != expected["tokens"]:
            print(f"other tokens for {case['prompt']!r}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
