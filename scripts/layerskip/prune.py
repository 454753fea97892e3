"""Chooses what a Llama's layers read, write and compute when a share of their weights is left out: DISP-LLM's
S1 to S5.

    python3 scripts/layerskip/prune.py data/layerskip --pruned 0.5     # writes masks_50.safetensors and masks_50.json
    python3 scripts/layerskip/prune.py data/layerskip --pruned 0.5 --even     # masks_50_even: all sets shrink alike

Needs torch, tokenizers and safetensors, and apt-get for the text (corpus.py). The folder is a Hugging Face Llama's with a
tied head. Weights are not changed and nothing is trained.

The score of a feature or neuron is the diagonal of the empirical Fisher information of its mask: the mean over texts of
(dL/dm)^2 at m = 1, half of which estimates how much the loss grows without it (arXiv 2204.09656, section 4.1). In
`ROUNDS` rounds, those of the lowest score for each weight that goes with them are left out, over all layers and sets, and
the rest is scored anew under the masks so far. With `--even`, every set of every layer keeps the same share of its entries,
those of the highest score: worse, but what is read shrinks as well as what is computed.
"""

import argparse
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import Tokenizer

from corpus import training_and_validation
from model import Llama

SEED = 20240416
LENGTH = 256
TEXTS = 8
CALIBRATION = 64
VALIDATION = 96
ROUNDS = 5
NAMES = ["attention_in", "attention_out", "mlp_in", "mlp_mid", "mlp_out"]
# Widths that vector units like; the last features of a set that are rounded away are those of the lowest score.
MULTIPLE = 8


def costs(config, counts):
    """Weights that one entry of each of a layer's sets carries."""
    inner = config.heads * config.head
    read = inner + 2 * config.key_value_heads * config.head
    _, _, mlp_read, neurons, mlp_written = counts
    return [read, inner, 2 * neurons, 2 * mlp_read + mlp_written, neurons]


def weights_left(config, counts):
    """Of one layer."""
    read, written, mlp_read, neurons, mlp_written = counts
    inner = config.heads * config.head
    attention = (inner + 2 * config.key_value_heads * config.head) * read + inner * written
    return attention + neurons * (2 * mlp_read + mlp_written)


def loss_of(model, tokens, masks):
    """The mean loss a token, for each text."""
    *_, states = model.states(tokens[:, :-1], masks=masks)
    logits = model.logits(states)
    losses = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
    return losses.view(len(tokens), -1).mean(1)


def scores(model, texts, masks):
    """As `masks`."""
    sums = [[torch.zeros_like(mask) for mask in layer] for layer in masks]
    for batch in texts.split(TEXTS):
        # A mask for each text, so that one backward pass gives each text's gradient.
        own = [[mask.expand(len(batch), 1, -1).clone().requires_grad_() for mask in layer] for layer in masks]
        loss_of(model, batch, own).sum().backward()
        for layer, own_layer in zip(sums, own):
            for total, mask in zip(layer, own_layer):
                total += mask.grad.square().sum((0, 1))
    return [[total / len(texts) for total in layer] for layer in sums]


def thinned(config, masks, scored, target):
    """Leaves out entries until no more than `target` weights are left."""
    counts = [[int(mask.sum()) for mask in layer] for layer in masks]
    entries = []
    for layer, (own_masks, own_scores) in enumerate(zip(masks, scored)):
        for kind, cost in enumerate(costs(config, counts[layer])):
            for place in own_masks[kind].nonzero().flatten().tolist():
                entries.append((own_scores[kind][place].item() / cost, layer, kind, place))
    entries.sort()
    masks = [[mask.clone() for mask in layer] for layer in masks]
    left = sum(weights_left(config, layer) for layer in counts)
    for _, layer, kind, place in entries:
        if left <= target:
            break
        before = weights_left(config, counts[layer])
        masks[layer][kind][place] = 0
        counts[layer][kind] -= 1
        left += weights_left(config, counts[layer]) - before
    return masks


def evenly_thinned(config, masks, scored, target):
    """Leaves the same share of every set, so that about `target` weights are left."""
    widths = [mask.numel() for mask in masks[0]]
    attention = weights_left(config, [widths[0], widths[1], 0, 0, 0])
    mlp = weights_left(config, widths) - attention
    # attention * share + mlp * share^2 = target of a layer: a layer's attention is cut on one side, its MLP on both.
    share = ((attention**2 + 4 * mlp * target / config.layers) ** 0.5 - attention) / (2 * mlp)
    result = []
    for layer, own_scores in zip(masks, scored):
        row = []
        for mask, score in zip(layer, own_scores):
            best = torch.argsort(score.where(mask > 0, -1.0), descending=True, stable=True)[: round(share * len(mask))]
            row.append(torch.zeros_like(mask).index_fill(0, best, 1.0))
        result.append(row)
    return result


def rounded(masks, scored):
    """Sizes to the nearest multiple; where they grow, the best of what was left out comes back."""
    result = []
    for layer, own_scores in zip(masks, scored):
        row = []
        for mask, score in zip(layer, own_scores):
            size = min(int(mask.sum() / MULTIPLE + 0.5) * MULTIPLE, len(mask))
            order = torch.argsort(score + mask * (1 + score.max()), descending=True, stable=True)
            row.append(torch.zeros_like(mask).index_fill(0, order[:size], 1.0))
        result.append(row)
    return result


def choose(model, texts, share, thin):
    config = model.config
    width, inner_width = config.hidden, config.ffn
    masks = [[torch.ones(n) for n in (width, width, width, inner_width, width)] for _ in range(config.layers)]
    dense = config.layers * weights_left(config, [width, width, width, inner_width, width])
    for step in range(1, ROUNDS + 1):
        scored = scores(model, texts, masks)
        masks = thin(config, masks, scored, dense * share ** (step / ROUNDS))
    # What is left out now has no gradient to come back by: the scores of the last round are still those before it.
    masks = rounded(masks, scored)
    left = sum(weights_left(config, [int(mask.sum()) for mask in layer]) for layer in masks)
    return masks, left / dense


@torch.no_grad()
def evaluate(model, texts, masks):
    return sum(loss_of(model, batch, masks).sum().item() for batch in texts.split(TEXTS)) / len(texts)


def cut(tokenizer, text, count):
    """Up to `count` texts of LENGTH + 1 tokens, spread over the whole."""
    tokens = torch.tensor(tokenizer.encode(text).ids)
    count = min(count, (len(tokens) - 1) // LENGTH)
    starts = torch.linspace(0, len(tokens) - LENGTH - 1, count).long().tolist()
    return torch.stack([tokens[start : start + LENGTH + 1] for start in starts])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the model")
    parser.add_argument("--pruned", type=float, required=True, help="share of the layers' weights that is left out")
    parser.add_argument("--even", action="store_true", help="leave the same share of every set of every layer")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    if not 0 < options.pruned < 1:
        parser.error("--pruned: expected more than 0 and less than 1")
    torch.set_num_threads(options.threads)
    torch.manual_seed(SEED)
    model = Llama.load(options.folder).requires_grad_(False)
    tokenizer = Tokenizer.from_file(str(options.folder / "tokenizer.json"))
    training, validation = training_and_validation()
    calibration, validation = cut(tokenizer, training, CALIBRATION), cut(tokenizer, validation, VALIDATION)
    masks, share = choose(model, calibration, 1 - options.pruned, evenly_thinned if options.even else thinned)
    report = {
        "score": "empirical Fisher information of the mask" + ("" if options.even else ", for each weight"),
        "share_of_layer_weights_left": round(share, 4),
        "validation_loss": round(evaluate(model, validation, masks), 4),
        "validation_loss_dense": round(evaluate(model, validation, None), 4),
        "sizes": {name: [int(layer[kind].sum()) for layer in masks] for kind, name in enumerate(NAMES)},
    }
    name = f"masks_{round(100 * options.pruned)}" + ("_even" if options.even else "")
    tensors = {
        f"layers.{index}.{NAMES[kind]}.mask": mask.to(torch.uint8)
        for index, layer in enumerate(masks)
        for kind, mask in enumerate(layer)
    }
    save_file(tensors, options.folder / f"{name}.safetensors")
    (options.folder / f"{name}.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
