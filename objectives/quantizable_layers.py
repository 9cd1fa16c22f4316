"""Which layers of a model can be quantized, found by structure, and how large their tensors are.

Layers are ``nn.Linear`` and ``nn.Conv2d`` (and the transposed linear layers of GPT-2). Which of them stay in full
precision is a matter of their names: dotted paths that a regular expression must match as a whole. (In the released
code names are compared by substring, so that "attn" also means "cross_attn" and "attn_temp".)
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from searchlib.errors import InvalidSettings, UnsupportedModel
from searchlib.spaces.bit_plan import SizedTensor

__all__ = ["DIFFUSION_FULL", "LANGUAGE_FULL", "find_layers", "in_features", "layer_sizes", "rows_of", "stored_as_rows"]

#: Layers of diffusion models that stay in full precision: embedders, modulation and other projections in norms, the
#: first and the last layer (ViDiT-Q's ``remain_fp.txt``, and its expression of the names ``embed``, ``norm_out``,
#: ``proj_out``, ``adaln_single``, ``caption_projection``; together less than 1 % of the computation). ``proj_out`` only
#: at the top: blocks of UNets have one of their own.
DIFFUSION_FULL = (
    r"(.+\.)?(\w*embed\w*|\w*norm\w*|adaln_single|caption_projection|t_block|emb)(\..+)?"
    r"|(proj_out\w*|final_layer|conv_in|conv_out|time_proj|time_text_embed)(\..+)?"
)

#: Layers of language models that stay in full precision: the head, and the routers of mixtures of experts.
LANGUAGE_FULL = r"(.+\.)?(lm_head|embed_out|output_layer|score|gate|router|shared_expert_gate)"


def find_layers(model: nn.Module, full: str = "") -> dict[str, nn.Module]:
    """Layers that can be quantized, by name, without those that ``full`` matches.

    Arguments:
        model: any module.
        full: regular expression of the names of modules that stay in full precision; it must match a whole name, of
            the layer itself or of a module it lies in.

    Raises:
        InvalidSettings: an expression that is none, or that leaves nothing.
        UnsupportedModel: weights that two layers share, that are quantized already, or that lie in fused experts.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> list(find_layers(model)), list(find_layers(model, full="2"))
        (['0', '2'], ['0'])
    """
    try:
        expression = re.compile(full) if full else None
    except re.error as error:
        raise InvalidSettings(f"full must be a regular expression, but {full!r} is none: {error}") from error
    found: dict[str, nn.Module] = {}
    owners = _owners(model)
    for name, module in model.named_modules():
        if expression is not None and any(expression.fullmatch(path) for path in _paths(name)):
            continue
        _refuse_fused_experts(name, module)
        if not _is_layer(module):
            continue
        weight = weight_of(module)
        if not weight.dtype.is_floating_point or type(weight.data) is not Tensor:
            raise UnsupportedModel(f"{name}: its weight is quantized already ({weight.dtype}); load it unquantized")
        others = [other for other in owners[id(weight)] if other != name]
        if others:
            raise UnsupportedModel(f"{others[0]} and {name} share a weight; leave both in full precision by full=")
        found[name] = module
    if not found:
        raise InvalidSettings(f"{type(model).__name__} has no layer to quantize, beside what full={full!r} matches")
    return found


def layer_sizes(
    layers: Mapping[str, nn.Module], kinds: Iterable[str] = ("weight",), tokens: Mapping[str, int] | int = 1
) -> list[SizedTensor]:
    """The tensors of layers: of every weight, and of every input.

    Arguments:
        layers: from :func:`find_layers`.
        kinds: ``"weight"``, ``"activation"`` or both.
        tokens: vectors that go into a layer when the model runs once (pixels, for convolutions); a number for all.
    """
    count = {name: tokens if isinstance(tokens, int) else tokens[name] for name in layers}
    sizes = []
    for kind in kinds:
        for name, layer in layers.items():
            rows, columns = rows_of(layer).shape
            size: dict[str, Any] = {"rows": rows, "columns": columns}
            if kind == "activation":
                inputs = in_features(layer)
                outputs = count[name] / math.prod(getattr(layer, "stride", (1,)))
                size = {"rows": count[name], "columns": inputs, "macs": outputs * rows * columns}
            sizes.append(SizedTensor(name, kind, **size))
    return sizes


def weight_of(layer: nn.Module) -> nn.Parameter:
    """Its weight, as the parameter it is."""
    weight = layer.weight
    assert isinstance(weight, nn.Parameter)
    return weight


def rows_of(layer: nn.Module, weight: Tensor | None = None) -> Tensor:
    """Its weight as a matrix with a row per output channel (a view where that is possible)."""
    given = weight_of(layer).data if weight is None else weight
    return given.T if _is_transposed(layer) else given.flatten(1)


def stored_as_rows(layer: nn.Module, rows: Tensor) -> Tensor:
    """The inverse of :func:`rows_of`: a matrix with a row per output channel as the layer stores it."""
    shape = weight_of(layer).shape
    return rows.T.contiguous() if _is_transposed(layer) else rows.reshape(shape).contiguous()


def in_features(layer: nn.Module) -> int:
    """Channels of its input."""
    if isinstance(layer, nn.Conv2d):
        return layer.in_channels
    return int(weight_of(layer).shape[0 if _is_transposed(layer) else 1])


def _owners(model: nn.Module) -> dict[int, list[str]]:
    """By parameter the modules that hold it: a head may share its weight with an embedding."""
    owners: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        for parameter in module._parameters.values():
            owners.setdefault(id(parameter), []).append(name)
    return owners


def _is_layer(module: nn.Module) -> bool:
    if not isinstance(module, nn.Linear | nn.Conv2d) and not _is_transposed(module):
        return False
    return isinstance(module._parameters.get("weight"), nn.Parameter)


def _is_transposed(module: nn.Module) -> bool:
    """Whether it is GPT-2's linear layer, which stores its weight as (inputs, outputs)."""
    return type(module).__name__ == "Conv1D" and isinstance(getattr(module, "nf", None), int)


def _refuse_fused_experts(name: str, module: nn.Module) -> None:
    fused = [key for key, held in module.named_parameters(recurse=False) if held.ndim == 3 and "proj" in key]
    if fused:
        raise UnsupportedModel(
            f"{name}: {fused[0]} holds the weights of many experts in one tensor, which is no layer that can be "
            f"quantized here; leave them in full precision by full=, with an expression that matches {name!r}"
        )


def _paths(name: str) -> list[str]:
    """The name itself and those of the modules it lies in."""
    parts = name.split(".")
    return [".".join(parts[: i + 1]) for i in range(len(parts))]


def count_tokens(model: nn.Module, layers: Mapping[str, nn.Module], run: Any) -> dict[str, int]:
    """How many vectors go into every layer while ``run(model)`` runs, for one example: divided by the model's batch.

    The batch is the first axis of the first tensor that the model gets; that of a layer may be another one (video
    transformers attend frame by frame, or place by place, in a larger batch).

    Arguments:
        model: the layers' model.
        layers: from :func:`find_layers`.
        run: of the model; every layer must run at least once. Of several runs of a layer the last one counts.

    Raises:
        InvalidSettings: a layer that does not run.
    """
    seen: dict[str, int] = {}
    examples = 1

    def hook(name: str) -> Any:
        def count(layer: nn.Module, arguments: tuple[Any, ...]) -> None:
            seen[name] = max(1, arguments[0].numel() // in_features(layer) // examples)

        return count

    def begin(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        nonlocal examples
        examples = next((len(x) for x in (*arguments, *named.values()) if isinstance(x, Tensor) and x.ndim > 1), 1)

    handles = [model.register_forward_pre_hook(begin, with_kwargs=True)]
    handles += [layer.register_forward_pre_hook(hook(name)) for name, layer in layers.items()]
    try:
        with torch.inference_mode():
            run(model)
    finally:
        for handle in handles:
            handle.remove()
    silent = [name for name in layers if name not in seen]
    if silent:
        raise InvalidSettings(
            f"{silent[0]} does not run where the model does, so that its bits would mean nothing; leave it in full "
            f"precision by full="
        )
    return seen
