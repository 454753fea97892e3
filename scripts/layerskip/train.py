"""Trains the LayerSkip model that the example runs, and writes it as a Hugging Face folder.

    python3 scripts/layerskip/train.py --out data/layerskip

Needs torch, tokenizers and safetensors, and apt-get for the text (corpus.py). The recipe is LayerSkip's for training from
scratch (arXiv 2404.16710, section 4.1): layer l is skipped with a chance that grows exponentially with depth and with
time, up to `LAYER_DROPOUT`; an early-exit loss with weights that grow with depth, on the last layer always and on the
others in turns, every `ROTATION`-th of them in a step. Seeded; an interrupted run goes on from its checkpoint.
"""

import argparse
import json
import math
import os
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from corpus import training_and_validation
from model import Config, Llama

SEED = 20240416
LAYER_DROPOUT = 0.1
EXIT_SCALE = 0.2
ROTATION = 4
DROPOUT = 0.1
LENGTH = 256
TEXTS = 16
LEARNING_RATE = 2e-3
WARM_UP = 100
WEIGHT_DECAY = 0.1
END_OF_TEXT = "<|endoftext|>"


def train_tokenizer(text, vocabulary):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text.split("\n\n"), trainer)
    return tokenizer


def growth(at, end):
    """From 0 to 1, exponentially."""
    return math.exp(at * math.log(2) / max(end, 1)) - 1


def skip_chances(config, step, steps):
    time_scale = growth(step, steps - 1)
    return [time_scale * growth(layer, config.layers - 1) * LAYER_DROPOUT for layer in range(config.layers)]


def exit_weights(config, step):
    """Of the losses of all exits in a step; they add up to 1."""
    last = config.layers - 1
    weights = [EXIT_SCALE * layer * (layer + 1) / 2 for layer in range(last)]
    weights = [weight if layer % ROTATION == step % ROTATION else 0.0 for layer, weight in enumerate(weights)]
    weights.append(last + EXIT_SCALE * last * (last - 1) / 2)
    return [weight / sum(weights) for weight in weights]


def batch(tokens, step):
    """The same for a step, whoever asks."""
    generator = torch.Generator().manual_seed(SEED + step)
    starts = torch.randint(len(tokens) - LENGTH - 1, (TEXTS,), generator=generator)
    return torch.stack([tokens[start : start + LENGTH + 1] for start in starts])


def loss_of(model, tokens, step, steps):
    inputs, targets = tokens[:, :-1], tokens[:, 1:].flatten()
    weights = exit_weights(model.config, step)
    loss = 0.0
    for weight, states in zip(weights, model.states(inputs, skip_chances(model.config, step, steps))):
        if weight > 0:
            loss = loss + weight * F.cross_entropy(model.logits(states).flatten(0, 1).float(), targets)
    return loss


def learning_rate(step, steps):
    if step < WARM_UP:
        return LEARNING_RATE * (step + 1) / WARM_UP
    return LEARNING_RATE * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * (step - WARM_UP) / max(steps - WARM_UP, 1))))


@torch.no_grad()
def evaluate(model, tokens):
    """For each exit, the loss a token, and how often its best token is the last layer's."""
    model.eval()
    count = (len(tokens) - 1) // LENGTH
    losses, agreements = [0.0] * model.config.layers, [0.0] * model.config.layers
    for start in range(0, count, TEXTS):
        rows = range(start, min(start + TEXTS, count))
        texts = torch.stack([tokens[row * LENGTH : row * LENGTH + LENGTH + 1] for row in rows])
        logits = [model.logits(states).float() for states in model.states(texts[:, :-1])]
        best = logits[-1].argmax(-1)
        for exit, of_exit in enumerate(logits):
            loss = F.cross_entropy(of_exit.flatten(0, 1), texts[:, 1:].flatten(), reduction="sum")
            losses[exit] += loss.item() / (count * LENGTH)
            agreements[exit] += (of_exit.argmax(-1) == best).sum().item() / (count * LENGTH)
    model.train()
    return losses, agreements


def optimizer_of(model):
    matrices = [parameter for parameter in model.parameters() if parameter.dim() == 2]
    vectors = [parameter for parameter in model.parameters() if parameter.dim() < 2]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(0.9, 0.95))


def train(model, tokens, validation, steps, checkpoint):
    optimizer = optimizer_of(model)
    first = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        if saved["steps"] != steps:
            raise SystemExit(f"{checkpoint} is of a run of {saved['steps']} steps: delete it, or give --steps {saved['steps']}")
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        first = saved["step"]
    started = time.monotonic()
    for step in range(first, steps):
        # Dropout depends on the step, too, so that a run that was interrupted takes the same way.
        torch.manual_seed(SEED + step)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(model, batch(tokens, step), step, steps)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % 50 == 0 or step + 1 == steps:
            rate = (step + 1 - first) * TEXTS * LENGTH / (time.monotonic() - started)
            print(f"step {step + 1} of {steps}, loss {loss.item():.3f}, {rate:.0f} tokens/s", flush=True)
            state = {"step": step + 1, "steps": steps, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save(state, checkpoint.with_suffix(".new"))
            os.replace(checkpoint.with_suffix(".new"), checkpoint)
        if (step + 1) % 300 == 0:
            losses, agreements = evaluate(model, validation)
            print("  losses", [round(x, 3) for x in losses], "agreement", [round(x, 3) for x in agreements], flush=True)


def export(folder, model, tokenizer, steps, losses, agreements):
    folder.mkdir(parents=True, exist_ok=True)
    save_file(model.tensors(), folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    (folder / "config.json").write_text(json.dumps(model.config.to_hugging_face(), indent=2) + "\n")
    report = {
        "steps": steps,
        "tokens": steps * TEXTS * LENGTH,
        "validation_loss_by_exit": [round(loss, 4) for loss in losses],
        "agreement_with_last_by_exit": [round(agreement, 4) for agreement in agreements],
    }
    (folder / "training.json").write_text(json.dumps(report, indent=2) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the model")
    parser.add_argument("--steps", type=int, default=2400, help=f"of {TEXTS * LENGTH} tokens each (default %(default)s)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(SEED)
    texts = training_and_validation()
    config = Config()
    tokenizer = train_tokenizer(texts[0], config.vocabulary)
    tokens, validation = (torch.tensor(tokenizer.encode(text).ids) for text in texts)
    model = Llama(config, DROPOUT)
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"{count} parameters, {len(tokens)} tokens to train on, {len(validation)} to validate", flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    checkpoint = options.out / "checkpoint.pt"
    train(model, tokens, validation, options.steps, checkpoint)
    export(options.out, model, tokenizer, options.steps, *evaluate(model, validation))
    checkpoint.unlink()


if __name__ == "__main__":
    main()
