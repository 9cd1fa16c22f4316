"""A pruned or merged mixture-of-experts model as a stock model of a smaller configuration, where that is exact.

A one-hot router mapping is a smaller gate, wherever deleting gate rows leaves the chosen weights alone (renormalized
top-k, or sigmoid scores). Together with sliced or merged experts and a configuration that says so, that is a
checkpoint which any tool loads. A dense router mapping acts after the softmax (EEP, arXiv 2407.00945, equation 5) and
has no such form.
"""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from searchlib.objectives.expert_matrices import Matrix, one_hot_index, smaller_experts
from searchlib.objectives.moe_layers import MoeLayer, find_config_field
from searchlib.objectives.moe_model import MoeModel

__all__ = ["StockCheckpoint", "immovable_experts"]

# Plain numbers that transformers' modules copy from the configuration when they are built.
_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts")
_ACTIVE = ("top_k", "num_experts_per_tok")
_GROUPS = ("num_group", "topk_group")


@final
@dataclass(frozen=True, eq=False)
class StockCheckpoint:
    """What two matrices per layer group make of a base model, as a model of a smaller configuration.

    Arguments:
        moe: the base model, with its full weights.
        router: ``W_RM``, shape ``(groups, keep, experts)``.
        merging: ``W_EM``, the same shape.
        layer_groups: group of every mixture-of-experts layer.
        top_k: active slots per token.
    """

    moe: MoeModel
    router: Matrix
    merging: Matrix
    layer_groups: tuple[int, ...]
    top_k: int

    @property
    def keep(self) -> int:
        """Slots per layer."""
        return int(self.router.shape[1])

    def obstacle(self) -> str | None:
        """Why the result is not a stock model of a smaller configuration, in one sentence; None where it is."""
        layer = self.moe.layers[0]
        if any(one_hot_index(matrix) is None for matrix in self.router):
            return "a dense router mapping acts after the softmax and cannot be folded into the gate's weights"
        if not all(layer.rule.sliceable for layer in self.moe.layers):
            return (
                "this router does not renormalize its top-k weights, so removing rows of its gate would change the "
                "softmax's denominator and with it every weight"
            )
        fixed = immovable_experts(self.moe)
        if fixed is not None:
            return f"the experts cannot be rewritten: {fixed}"
        if _groups(layer) is not None and self.keep == 1:
            return "a router that ranks expert groups by their two best experts needs two experts at least"
        if None in self._config_fields() or _config_path(self.moe) is None:
            return "the configuration's fields for the numbers of experts, active experts or groups were not found"
        return None

    def build(self) -> Any:
        """A model of the smaller configuration that shares every unchanged tensor with the base model."""
        moe = self.moe
        config = copy.deepcopy(moe.model.config)
        inner = _config_path(moe)
        own = getattr(config, inner) if inner else config
        for name, value in self._config_fields().items():
            setattr(own, str(name), value)
        with torch.device("meta"):
            stock = type(moe.model)(config)
        state = dict(moe.model.state_dict())
        for layer, group in zip(moe.layers, self.layer_groups, strict=True):
            for name, weight in zip(("gate_up_proj", "down_proj"), layer.weights(), strict=True):
                state[f"{layer.name}.experts.{name}"] = smaller_experts(weight, self.merging[group]).cpu()
            for path, tensor in _router_tensors(layer).items():
                state[f"{layer.name}.{path}"] = _sliced(tensor, self.router[group])
        stock.load_state_dict(state, assign=True)
        stock.tie_weights()
        stock.generation_config = copy.deepcopy(moe.model.generation_config)
        return stock

    def shrink_routers(self) -> None:
        """Change the base model itself: its routers' tensors, its configuration and the numbers copied from it.

        The experts are left to the caller, who has to replace them by ``keep`` ones.
        """
        moe = self.moe
        for layer, group in zip(moe.layers, self.layer_groups, strict=True):
            for path, tensor in _router_tensors(layer).items():
                parent, _, last = path.rpartition(".")
                getattr(layer.block.get_submodule(parent), last).data = _sliced(tensor, self.router[group])
        for field, value in self._config_fields().items():
            setattr(moe.layers[0].experts.config, str(field), value)
        settings = dict.fromkeys(_COUNTS, self.keep) | dict.fromkeys(_ACTIVE, self.top_k)
        if self._drops_groups(moe.layers[0]):
            settings |= dict.fromkeys(_GROUPS, 1)
        modules = itertools.chain([moe.model], *((part.block, part.router, part.experts) for part in moe.layers))
        for module in modules:
            for name in settings.keys() & vars(module).keys():
                setattr(module, name, settings[name])

    def _config_fields(self) -> dict[str | None, int]:
        """The configuration's fields that a smaller model changes, and their values; None for one not found."""
        layer = self.moe.layers[0]
        config: Any = layer.experts.config
        fields = {self.moe.config_field: self.keep, find_config_field(config, layer.router, "top_k"): self.top_k}
        if self._drops_groups(layer):
            fields |= {find_config_field(config, layer.router, name): 1 for name in ("num_group", "topk_group")}
        return fields

    def _drops_groups(self, layer: MoeLayer) -> bool:
        return (_groups(layer) or 1) > 1 and self.keep < self.moe.experts


def immovable_experts(moe: MoeModel) -> str | None:
    """Why expert weights cannot be sliced or merged; None where they can."""
    for layer in moe.layers:
        if layer.unmergeable is not None:
            return f"{layer.name}.experts.{layer.unmergeable}"
        if layer.weights()[0].device.type == "meta":
            return f"{layer.name}.experts are offloaded; load the model into memory"
    return None


def _groups(layer: MoeLayer) -> int | None:
    groups: int | None = getattr(layer.router, "num_group", None)
    return groups


def _config_path(moe: MoeModel) -> str | None:
    """Where the configuration of the experts stands in the model's: "" for itself, a name, or None if elsewhere."""
    own: Any = moe.layers[0].experts.config
    if own is moe.model.config:
        return ""
    return next((key for key in moe.model.config.sub_configs if getattr(moe.model.config, key, None) is own), None)


def _router_tensors(layer: MoeLayer) -> dict[str, Tensor]:
    """Tensors of the router with one entry per expert, by path inside the block."""
    prefix = next(name for name, child in layer.block.named_children() if child is layer.router)
    named = itertools.chain(layer.block.named_parameters(), layer.block.named_buffers())
    experts = len(layer.router.weight)  # type: ignore[arg-type]
    return {
        path: tensor.data
        for path, tensor in named
        if path == layer.correction_name or (path.startswith(f"{prefix}.") and experts in tensor.shape[:1])
    }


def _sliced(tensor: Tensor, router: Matrix) -> Tensor:
    """The slots' entries of a router's tensor, along the first axis (or the last, for a bias kept as a row)."""
    index = torch.from_numpy(router.argmax(axis=1)).to(tensor.device)
    return tensor.index_select(0 if len(tensor) == router.shape[1] else tensor.ndim - 1, index)
