"""A small Llama in PyTorch, with exits: what LayerSkip trains (arXiv 2404.16710) and Hugging Face names."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn


@dataclass(frozen=True)
class Config:
    vocabulary: int = 4096
    hidden: int = 192
    ffn: int = 704
    layers: int = 8
    heads: int = 6
    key_value_heads: int = 2
    context: int = 512
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5

    @property
    def head(self):
        return self.hidden // self.heads

    @classmethod
    def from_hugging_face(cls, config):
        plain = config["model_type"] == "llama" and config["hidden_act"] == "silu" and not config.get("rope_scaling")
        if not plain or not config["tie_word_embeddings"] or config.get("attention_bias") or config.get("mlp_bias"):
            raise SystemExit("expected a Llama with a tied head, without biases and without rope scaling")
        return cls(
            vocabulary=config["vocab_size"],
            hidden=config["hidden_size"],
            ffn=config["intermediate_size"],
            layers=config["num_hidden_layers"],
            heads=config["num_attention_heads"],
            key_value_heads=config["num_key_value_heads"],
            context=config["max_position_embeddings"],
            rope_theta=config["rope_theta"],
            norm_eps=config["rms_norm_eps"],
        )

    def to_hugging_face(self):
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": self.vocabulary,
            "hidden_size": self.hidden,
            "intermediate_size": self.ffn,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.key_value_heads,
            "head_dim": self.head,
            "max_position_embeddings": self.context,
            "rope_theta": self.rope_theta,
            "rope_scaling": None,
            "rms_norm_eps": self.norm_eps,
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "tie_word_embeddings": True,
            "bos_token_id": 0,
            "eos_token_id": 0,
            "torch_dtype": "bfloat16",
        }


class RmsNorm(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(config.hidden))
        self.eps = config.norm_eps

    def forward(self, x):
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


def rotated(x, cosine, sine):
    """Rotary embedding by halves, as Hugging Face lays it out. x [B, heads, T, head]."""
    first, second = x.chunk(2, dim=-1)
    return x * cosine + torch.cat((-second, first), dim=-1) * sine


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.head = config.head
        inner, shared = config.heads * config.head, config.key_value_heads * config.head
        self.q_proj = nn.Linear(config.hidden, inner, bias=False)
        self.k_proj = nn.Linear(config.hidden, shared, bias=False)
        self.v_proj = nn.Linear(config.hidden, shared, bias=False)
        self.o_proj = nn.Linear(inner, config.hidden, bias=False)

    def forward(self, x, cosine, sine):
        q, k, v = (
            product(x).unflatten(-1, (-1, self.head)).transpose(1, 2)
            for product in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = rotated(q, cosine, sine), rotated(k, cosine, sine)
        groups = q.shape[1] // k.shape[1]
        k, v = (tensor.repeat_interleave(groups, dim=1) for tensor in (k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(mixed.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden, config.ffn, bias=False)
        self.up_proj = nn.Linear(config.hidden, config.ffn, bias=False)
        self.down_proj = nn.Linear(config.ffn, config.hidden, bias=False)

    def forward(self, x, keep_neurons=1.0):
        return self.down_proj(keep_neurons * F.silu(self.gate_proj(x)) * self.up_proj(x))


UNPRUNED = (1.0, 1.0, 1.0, 1.0, 1.0)


class Layer(nn.Module):
    def __init__(self, config, dropout):
        super().__init__()
        self.input_layernorm = RmsNorm(config)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RmsNorm(config)
        self.mlp = Mlp(config)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, cosine, sine, keep, masks=UNPRUNED):
        """`keep [B, 1, 1]` is 0 for the texts that skip this layer; `masks` are DISP-LLM's S1 to S5."""
        read, written, mlp_read, neurons, mlp_written = masks
        attended = self.self_attn(read * self.input_layernorm(x), cosine, sine)
        x = x + keep * written * self.dropout(attended)
        mlp = self.mlp(mlp_read * self.post_attention_layernorm(x), neurons)
        return x + keep * mlp_written * self.dropout(mlp)


class Llama(nn.Module):
    def __init__(self, config, dropout=0.0):
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocabulary, config.hidden)
        self.layers = nn.ModuleList(Layer(config, dropout) for _ in range(config.layers))
        self.norm = RmsNorm(config)
        self.initialise()

    def initialise(self):
        residual = 0.02 / (2 * self.config.layers) ** 0.5
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=residual if name.endswith(("o_proj.weight", "down_proj.weight")) else 0.02)

    def rotation(self, length):
        half = torch.arange(0, self.config.head, 2) / self.config.head
        angles = torch.arange(length)[:, None] * self.config.rope_theta**-half
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos(), angles.sin()

    @classmethod
    def load(cls, folder):
        model = cls(Config.from_hugging_face(json.loads((Path(folder) / "config.json").read_text())))
        tensors = load_file(Path(folder) / "model.safetensors")
        model.load_state_dict({name.removeprefix("model."): tensor.float() for name, tensor in tensors.items()})
        return model.eval()

    def states(self, tokens, skip=None, masks=None):
        """The states after each layer, without the final norm.

        `skip [layers]` is a layer's chance to be skipped; `masks` has five for each layer.
        """
        x = self.embed_tokens(tokens)
        cosine, sine = self.rotation(tokens.shape[1])
        for index, layer in enumerate(self.layers):
            keep = 1.0
            if skip is not None and skip[index] > 0:
                keep = (torch.rand(len(tokens), 1, 1) >= skip[index]).to(x.dtype)
            x = layer(x, cosine, sine, keep, UNPRUNED if masks is None else masks[index])
            yield x

    def logits(self, states):
        """All exits share the norm and the head, which is the embedding."""
        return F.linear(self.norm(states), self.embed_tokens.weight)

    def tensors(self):
        """In bf16, by Hugging Face's names."""
        return {f"model.{name}": tensor.to(torch.bfloat16).contiguous() for name, tensor in self.state_dict().items()}
