"""LoRA adapters (arXiv 2106.09685) as checkpoints: what is combined is the products, not their factors.

A low-rank adapter adds ``s B A`` to a weight. Combining the A's and the B's of several adapters apart would be bilinear
in the coefficients, and impossible for different ranks. The combination of the adapted *models* is linear: where the
coefficients sum to one it is the base weight plus ``sum of alpha_i s_i B_i A_i``, which is one product of the factors
laid side by side, ``[alpha_1 s_1 B_1, alpha_2 s_2 B_2, ...] @ [A_1; A_2; ...]``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor

from searchlib.errors import InvalidSettings

__all__ = ["LoraAdapter", "LoraProduct", "combine_products", "is_lora", "lora_tensors"]

_FACTOR = re.compile(
    r"(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<side>[AB])(?:\.(?!(?:weight|bias)$)\w+)?(?:\.weight)?"
)
_PREFIX = "base_model.model."


@final
@dataclass(frozen=True, eq=False)
class LoraAdapter:
    """The state dict of a LoRA adapter of peft with its settings, as a source of a checkpoint.

    Arguments:
        state: tensors by peft's names (``peft.get_peft_model_state_dict(model)``, or the part of
            ``model.state_dict()`` that belongs to one adapter).
        config: the fields of its ``LoraConfig``; ``lora_alpha`` is what is needed, ``use_rslora``, ``alpha_pattern``
            and ``fan_in_fan_out`` are read where they are.

    Example:
        >>> state = {"lin.lora_A.weight": torch.ones(1, 3), "lin.lora_B.weight": torch.ones(2, 1)}
        >>> LoraAdapter(state, {"lora_alpha": 4}).config["lora_alpha"]
        4
    """

    state: Mapping[str, Tensor]
    config: Mapping[str, Any] = field(default_factory=dict)


@final
@dataclass(frozen=True, eq=False)
class LoraProduct:
    """What one adapter adds to one weight: ``scale * up @ down``, brought into the weight's shape.

    Arguments:
        up: B, shape ``(rows, rank)``.
        down: A, shape ``(rank, columns)``.
        scale: s.
        shape: of the weight; its entries are those of the product in order, or of its transpose.
        transposed: whether of its transpose.
    """

    up: Tensor
    down: Tensor
    scale: float
    shape: torch.Size
    transposed: bool

    @property
    def dtype(self) -> torch.dtype:
        """Type of the factors."""
        return self.up.dtype

    def numel(self) -> int:
        """How many weights it changes."""
        return self.shape.numel()


def is_lora(name: str) -> bool:
    """Whether a tensor of this name is a part of a LoRA adapter."""
    return ".lora_" in f".{name}"


def lora_tensors(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor | LoraProduct]:
    """Products by the name of the weight in the base model, and whatever else the adapter holds in full.

    Raises:
        InvalidSettings: not LoRA, DoRA, a bias on B, or half a pair of factors.
    """
    if config.get("peft_type", "LORA") != "LORA" or config.get("use_dora"):
        kind = "DoRA" if config.get("use_dora") else config["peft_type"]
        raise InvalidSettings(f"an adapter must be LoRA to be combined with others, but is {kind}; merge it first")
    if "lora_alpha" not in config:
        raise InvalidSettings(f"the settings of a LoRA adapter must say lora_alpha, but are {dict(config)!r}")
    factors: dict[tuple[str, bool], dict[str, Tensor]] = {}
    tensors: dict[str, Tensor | LoraProduct] = {}
    for name, tensor in state.items():
        plain = name.removeprefix(_PREFIX)
        match = _FACTOR.fullmatch(plain)
        if match:
            factors.setdefault((match["module"], bool(match["embedding"])), {})[match["side"]] = tensor.detach()
        elif is_lora(plain):
            raise InvalidSettings(f"an adapter must consist of lora_A and lora_B, but has {name!r}; merge it first")
        else:
            tensors[plain] = tensor.detach()
    for (module, embedding), pair in factors.items():
        if set(pair) != {"A", "B"}:
            raise InvalidSettings(f"{module!r} must have both lora_A and lora_B, but has only lora_{min(pair)}")
        tensors[f"{module}.weight"] = _product(module, pair["A"], pair["B"], config, embedding)
    return tensors


def _product(module: str, a: Tensor, b: Tensor, config: Mapping[str, Any], embedding: bool) -> LoraProduct:
    rank = len(a)
    if b.flatten(1).shape[1] != rank:
        raise InvalidSettings(
            f"lora_A of {module!r} is {tuple(a.shape)} and must meet lora_B in the rank, but that is {tuple(b.shape)}"
        )
    alpha = _by_pattern(config.get("alpha_pattern"), module, config["lora_alpha"])
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    transposed = embedding or bool(config.get("fan_in_fan_out"))
    shape = (a.shape[1], b.shape[0]) if transposed else (b.shape[0], *a.shape[1:])
    return LoraProduct(b.flatten(1), a.flatten(1), scale, torch.Size(shape), transposed)


def _by_pattern(patterns: Mapping[str, float] | None, module: str, default: float) -> float:
    """peft's rule: the first pattern that is the module's name, or matches its end after a dot."""
    return next((value for key, value in (patterns or {}).items() if re.match(rf"(.*\.)?({key})$", module)), default)


def combine_products(products: Sequence[LoraProduct], coefficients: Tensor, out: Tensor) -> None:
    """Write ``sum of coefficients[b, i] * products[i]`` to ``out[b]``.

    Arguments:
        products: of the same weight, of any ranks.
        coefficients: shape ``(candidates, len(products))``, float32.
        out: shape ``(candidates, weights)``, float32.
    """
    down = torch.cat([product.down.float() for product in products])
    up = torch.cat([product.up.float() for product in products], dim=1)
    ranks = torch.tensor([len(product.down) for product in products])
    scales = torch.tensor([product.scale for product in products])
    factors = (coefficients * scales).repeat_interleave(ranks, dim=1)
    first, second = (down.T, up.T) if products[0].transposed else (up, down)
    for row, factor in zip(out, factors, strict=True):
        scaled = first * factor
        torch.mm(scaled, second, out=row.view(first.shape[0], second.shape[1]))
