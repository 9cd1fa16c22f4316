"""The winner of an expert search as something to keep: apply it, save it, serve it.

Efficient Expert Pruning (EEP, arXiv 2407.00945) ends with two matrices per layer group. What they can become depends
on the model. Equation 5 acts *after* the router's softmax, so a dense router mapping cannot be folded into the gate:
such a plan lives as a small file beside the base checkpoint and is put back by :meth:`ExpertPlan.apply`. A one-hot
router mapping is a smaller gate, wherever deleting gate rows leaves the chosen weights alone (renormalized top-k, or
sigmoid scores): such a plan, merged experts included, becomes a stock checkpoint that any tool loads.

What is reproduced: both forms, exactly. What is not: the paper's own coefficient files, which are pickles.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Self, final

import numpy as np
import torch
from numpy.typing import ArrayLike
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor, nn

from searchlib.errors import InvalidSettings, UnsupportedModel
from searchlib.objectives.moe_layers import (
    Matrix,
    MoeLayer,
    MoeModel,
    RouterHook,
    checked_groups,
    find_config_field,
    merge_experts,
    one_hot_index,
)

__all__ = ["BaseModel", "ExpertPlan"]

_FILE = "expert_plan.safetensors"
_FORMAT = "searchlib expert plan"
_VERSION = 1


@final
@dataclass(frozen=True)
class BaseModel:
    """Which model a plan is for.

    Arguments:
        name: what ``from_pretrained`` loaded it from; empty for a model made from a configuration.
        revision: commit of the checkpoint where known.
        architecture: class of the model.
        experts: number of routed experts per layer.
        layers: dotted paths of the mixture-of-experts blocks, in order.
        numbers: decoder layers that these blocks belong to.
    """

    name: str
    revision: str | None
    architecture: str
    experts: int
    layers: tuple[str, ...]
    numbers: tuple[int, ...]

    @classmethod
    def of(cls, moe: MoeModel) -> Self:
        """Describe a model."""
        config = moe.model.config
        return cls(
            name=str(getattr(config, "_name_or_path", "") or ""),
            revision=getattr(config, "_commit_hash", None),
            architecture=type(moe.model).__name__,
            experts=moe.experts,
            layers=tuple(layer.name for layer in moe.layers),
            numbers=tuple(layer.number for layer in moe.layers),
        )


@final
@dataclass(frozen=True, eq=False)
class ExpertPlan:
    """Which experts a model keeps, how they are merged and how its routers map to them.

    Arguments:
        router: ``W_RM``, shape ``(groups, keep, experts)``, single precision.
        merging: ``W_EM``, the same shape.
        layer_groups: group of every mixture-of-experts layer.
        top_k: active slots per token.
        base: the model the plan is for; see :meth:`BaseModel.of`.

    Raises:
        InvalidSettings: shapes that do not fit together or to the base model, numbers that are not finite, or more
            active slots than slots.

    Example::

        plan = ExpertPlan.of(moe, router, merging, layer_groups)
        if not plan.save_pretrained(model, "mixtral-4-experts"):
            plan = ExpertPlan.load("mixtral-4-experts")
            model = plan.apply(AutoModelForCausalLM.from_pretrained(plan.base.name))
    """

    router: Matrix
    merging: Matrix
    layer_groups: tuple[int, ...]
    top_k: int
    base: BaseModel

    def __post_init__(self) -> None:
        for name in ("router", "merging"):
            matrix = np.array(getattr(self, name), dtype=np.float32, order="C")
            if matrix.ndim != 3 or matrix.shape[2] != self.base.experts or not np.isfinite(matrix).all():
                expected = f"(groups, keep, {self.base.experts})"
                raise InvalidSettings(f"{name} must hold finite numbers of shape {expected}, got shape {matrix.shape}")
            matrix.setflags(write=False)
            object.__setattr__(self, name, matrix)
        if self.router.shape != self.merging.shape:
            raise InvalidSettings(f"router {self.router.shape} and merging {self.merging.shape} must agree in shape")
        if not 1 <= self.top_k <= self.keep:
            raise InvalidSettings(f"top_k must lie between 1 and the {self.keep} slots, got {self.top_k}")
        groups = checked_groups(self.layer_groups, len(self.base.layers), len(self.router))
        object.__setattr__(self, "layer_groups", tuple(groups.tolist()))

    @classmethod
    def of(
        cls,
        moe: MoeModel,
        router: ArrayLike,
        merging: ArrayLike,
        layer_groups: ArrayLike | None = None,
        top_k: int | None = None,
    ) -> Self:
        """The plan that :meth:`MoeModel.apply` with the same arguments puts in force."""
        groups = checked_groups(layer_groups, len(moe.layers))
        return cls(
            router=np.asarray(router, dtype=np.float32),
            merging=np.asarray(merging, dtype=np.float32),
            layer_groups=tuple(groups.tolist()),
            top_k=moe.top_k if top_k is None else top_k,
            base=BaseModel.of(moe),
        )

    @property
    def keep(self) -> int:
        """Slots per layer."""
        return int(self.router.shape[1])

    @property
    def kept(self) -> list[list[int]] | None:
        """The kept experts of every layer in slot order, or None where experts are merged instead."""
        groups = [one_hot_index(matrix) for matrix in self.merging]
        if any(index is None for index in groups):
            return None
        return [groups[group].tolist() for group in self.layer_groups]  # type: ignore[union-attr]

    def stock_obstacle(self, model: nn.Module) -> str | None:
        """Why the result is not a stock model of a smaller configuration, in one sentence; None where it is.

        Arguments:
            model: the base model.

        Raises:
            InvalidSettings: the plan is for another model.
            UnsupportedModel: a model that :class:`MoeModel` refuses.
        """
        return self._stock_obstacle(self._opened(model))

    def apply(self, model: nn.Module) -> nn.Module:
        """Change the model for good and return it; the same object, smaller.

        Every layer keeps ``keep`` experts, sliced or merged (quantized or offloaded experts are pruned by the router
        alone and stay in memory). Where :meth:`stock_obstacle` finds none, gate rows are
        sliced too and the configuration is updated: a stock model of the smaller size, which ``save_pretrained``
        saves. Otherwise the gate stays as wide as it was and a forward hook on every router maps to the slots: the
        model runs and generates, but its own ``save_pretrained`` would lose the hook, so save the plan
        (:meth:`save`) and apply it again after loading the base model.

        Raises:
            InvalidSettings: the plan is for another model.
            UnsupportedModel: a model that :class:`MoeModel` refuses, or merging of quantized or offloaded experts.
        """
        moe = self._opened(model)
        stock = self._stock_obstacle(moe) is None
        fixed = _immovable(moe)
        if fixed is not None and self.kept is None:
            raise UnsupportedModel(f"experts of this model can be pruned but not merged: {fixed}")
        for layer, group in zip(moe.layers, self.layer_groups, strict=True):
            if fixed is None:
                gate_up, down = (_smaller(weight, self.merging[group]) for weight in layer.weights())
                layer.point((gate_up, down), self.keep)
            if stock:
                self._slice_router(layer, self.router[group])
            else:
                hook = RouterHook(layer)
                stored = None if fixed is None else one_hot_index(self.merging[group])
                hook.set(self.router[group], stored, self.top_k)
                layer.router.register_forward_hook(hook)
        if stock:
            self._shrink_settings(moe)
        return model

    def save_pretrained(self, model: nn.Module, folder: str | PathLike[str], *, stock: bool | None = None) -> bool:
        """Save the result; whether it is a stock checkpoint. The model is not changed.

        A stock checkpoint is physically smaller and loads with ``AutoModelForCausalLM.from_pretrained``; save the
        tokenizer beside it. Otherwise the folder gets the plan alone (see :meth:`save`), which refers to the base
        checkpoint.

        Arguments:
            model: the base model that the plan was searched on, with its full weights.
            folder: is created where it does not exist.
            stock: True insists on a stock checkpoint, False saves the plan only; None saves a stock checkpoint where
                it is exact.

        Raises:
            InvalidSettings: the plan is for another model, or ``stock=True`` where that would not be exact.
            UnsupportedModel: a model that :class:`MoeModel` refuses.
        """
        moe = self._opened(model)
        obstacle = self._stock_obstacle(moe)
        if stock and obstacle is not None:
            raise InvalidSettings(f"{obstacle}; save the plan beside the base checkpoint with stock=False")
        if stock is False or obstacle is not None:
            self.save(folder)
            return False
        self._stock_model(moe).save_pretrained(folder)
        return True

    def save(self, folder: str | PathLike[str]) -> Path:
        """Write ``expert_plan.safetensors``: both matrices, and as JSON metadata the format, its version and the rest.

        Kilobytes; the base checkpoint is named, not copied. Returns the file's path.
        """
        path = Path(folder) / _FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        rest = {"layer_groups": self.layer_groups, "top_k": self.top_k, "base": dataclasses.asdict(self.base)}
        metadata = {"format": _FORMAT, "version": str(_VERSION), "plan": json.dumps(rest)}
        save_file({"router": self.router, "merging": self.merging}, path, metadata)
        return path

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """Read what :meth:`save` wrote, from its folder or file.

        Raises:
            InvalidSettings: no such file, or not a plan of a version that this library reads.
        """
        path = Path(path)
        path = path / _FILE if path.is_dir() else path
        if not path.is_file():
            raise InvalidSettings(f"expected an expert plan, but there is no file {path}")
        try:
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        except SafetensorError as error:
            raise InvalidSettings(f"{path} is not a safetensors file: {error}") from error
        if metadata.get("format") != _FORMAT or metadata.get("version") != str(_VERSION):
            found = f"format {metadata.get('format')!r}, version {metadata.get('version')!r}"
            raise InvalidSettings(f"{path} must be a {_FORMAT!r} of version {_VERSION}, got {found}")
        rest = json.loads(metadata["plan"])
        base = rest["base"] | {key: tuple(rest["base"][key]) for key in ("layers", "numbers")}
        return cls(tensors["router"], tensors["merging"], tuple(rest["layer_groups"]), rest["top_k"], BaseModel(**base))

    def to_json(self, path: str | PathLike[str], *, dominant: bool = False) -> None:
        """Write the kept experts per decoder layer, for serving engines that prune while loading.

        ``{"3": [0, 2, 5], …}``: decoder layer to kept experts, ascending. A path that ends in ``.jsonl`` gets one
        such object per line with *all* experts, kept ones first, as engines take that cut a ranking by a ratio.
        Engines keep experts as they are and mostly mask the gate, so merging is lost, and where the router does not
        renormalize its top-k the weights differ from the searched model's.

        Arguments:
            path: file to write.
            dominant: where experts are merged, take the largest coefficient of every slot instead of refusing.

        Raises:
            InvalidSettings: a merged slot without ``dominant=True``, or two slots with the same expert.
        """
        kept = self._dominant() if dominant else self.kept
        if kept is None:
            raise InvalidSettings(
                "a slot merges several experts, which a list of kept experts cannot say; pass dominant=True to list "
                "the expert with the largest coefficient of every slot"
            )
        repeated = [number for number, experts in zip(self.base.numbers, kept, strict=True) if _repeats(experts)]
        if repeated:
            raise InvalidSettings(f"each kept expert must fill one slot, but layers {repeated} use one expert twice")
        path = Path(path)
        profile = {str(number): sorted(experts) for number, experts in zip(self.base.numbers, kept, strict=True)}
        if path.suffix == ".jsonl":
            lines = [json.dumps({number: self._ranking(experts)}) + "\n" for number, experts in profile.items()]
            path.write_text("".join(lines), encoding="utf-8")
        else:
            path.write_text(json.dumps(profile, indent=1) + "\n", encoding="utf-8")

    def _dominant(self) -> list[list[int]]:
        return [self.merging[group].argmax(axis=1).tolist() for group in self.layer_groups]

    def _ranking(self, kept: list[int]) -> list[int]:
        return kept + [expert for expert in range(self.base.experts) if expert not in kept]

    def _opened(self, model: nn.Module) -> MoeModel:
        moe = MoeModel(model)
        found = BaseModel.of(moe)
        for name in ("architecture", "experts", "layers"):
            expected, got = getattr(self.base, name), getattr(found, name)
            if expected != got:
                raise InvalidSettings(f"the plan is for a model whose {name} is {expected!r}, got {got!r}")
        return moe

    def _stock_obstacle(self, moe: MoeModel) -> str | None:
        layer = moe.layers[0]
        if any(one_hot_index(matrix) is None for matrix in self.router):
            return "a dense router mapping acts after the softmax and cannot be folded into the gate's weights"
        if not all(layer.rule.sliceable for layer in moe.layers):
            return (
                "this router does not renormalize its top-k weights, so removing rows of its gate would change the "
                "softmax's denominator and with it every weight"
            )
        if _immovable(moe) is not None:
            return f"the experts cannot be rewritten: {_immovable(moe)}"
        if _groups(layer) is not None and self.keep == 1:
            return "a router that ranks expert groups by their two best experts needs two experts at least"
        if None in self._config_fields(moe) or _config_path(moe) is None:
            return "the configuration's fields for the numbers of experts, active experts or groups were not found"
        return None

    def _config_fields(self, moe: MoeModel) -> dict[str | None, int]:
        """The configuration's fields that a smaller model changes, and their values; None for one not found."""
        layer = moe.layers[0]
        config: Any = layer.experts.config
        fields = {moe.config_field: self.keep, find_config_field(config, layer.router, "top_k"): self.top_k}
        if self._drops_groups(layer):
            fields |= {find_config_field(config, layer.router, name): 1 for name in ("num_group", "topk_group")}
        return fields

    def _drops_groups(self, layer: MoeLayer) -> bool:
        return (_groups(layer) or 1) > 1 and self.keep < self.base.experts

    def _stock_model(self, moe: MoeModel) -> Any:
        """A model of the smaller configuration that shares every unchanged tensor with the base model."""
        config = copy.deepcopy(moe.model.config)
        own = getattr(config, path) if (path := _config_path(moe)) else config
        for name, value in self._config_fields(moe).items():
            setattr(own, str(name), value)
        with torch.device("meta"):
            stock = type(moe.model)(config)
        state = dict(moe.model.state_dict())
        for layer, group in zip(moe.layers, self.layer_groups, strict=True):
            for name, weight in zip(("gate_up_proj", "down_proj"), layer.weights(), strict=True):
                state[f"{layer.name}.experts.{name}"] = _smaller(weight, self.merging[group]).cpu()
            for path, tensor in _router_tensors(layer).items():
                state[f"{layer.name}.{path}"] = _sliced(tensor, self.router[group])
        stock.load_state_dict(state, assign=True)
        stock.tie_weights()
        stock.generation_config = copy.deepcopy(moe.model.generation_config)
        return stock

    def _slice_router(self, layer: MoeLayer, router: Matrix) -> None:
        for path, tensor in _router_tensors(layer).items():
            parent, _, name = path.rpartition(".")
            getattr(layer.block.get_submodule(parent), name).data = _sliced(tensor, router)

    def _shrink_settings(self, moe: MoeModel) -> None:
        for name, value in self._config_fields(moe).items():
            setattr(moe.layers[0].experts.config, str(name), value)
        settings = dict.fromkeys(_COUNTS, self.keep) | dict.fromkeys(_ACTIVE, self.top_k)
        if self._drops_groups(moe.layers[0]):
            settings |= dict.fromkeys(_GROUPS, 1)
        modules = itertools.chain([moe.model], *((part.block, part.router, part.experts) for part in moe.layers))
        for module in modules:
            for name in settings.keys() & vars(module).keys():
                setattr(module, name, settings[name])


# Plain numbers that transformers' modules copy from the configuration when they are built.
_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts")
_ACTIVE = ("top_k", "num_experts_per_tok")
_GROUPS = ("num_group", "topk_group")


def _groups(layer: MoeLayer) -> int | None:
    groups: int | None = getattr(layer.router, "num_group", None)
    return groups


def _immovable(moe: MoeModel) -> str | None:
    """Why expert weights cannot be sliced or merged; None where they can."""
    for layer in moe.layers:
        if layer.unmergeable is not None:
            return f"{layer.name}.experts.{layer.unmergeable}"
        if layer.weights()[0].device.type == "meta":
            return f"{layer.name}.experts are offloaded; load the model into memory"
    return None


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


def _smaller(weight: Tensor, merging: Matrix) -> Tensor:
    index = one_hot_index(merging)
    if index is None:
        return merge_experts(weight, merging)
    return weight.index_select(0, torch.from_numpy(index).to(weight.device))


def _repeats(experts: list[int]) -> bool:
    return len(set(experts)) < len(experts)
