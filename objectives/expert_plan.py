"""The winner of an expert search as something to keep: apply it, save it, serve it.

Efficient Expert Pruning (EEP, arXiv 2407.00945) ends with two matrices per layer group. What they can become depends
on the model. Equation 5 acts *after* the router's softmax, so a dense router mapping cannot be folded into the gate:
such a plan lives as a small file beside the base checkpoint and is put back by :meth:`ExpertPlan.apply`. A one-hot
router mapping is a smaller gate, wherever deleting gate rows leaves the chosen weights alone (renormalized top-k, or
sigmoid scores): such a plan, merged experts included, becomes a stock checkpoint that any tool loads.

What is reproduced: both forms, exactly. What is not: the paper's own coefficient files, which are pickles.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, Self, final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import nn

from searchlib.errors import InvalidSettings, UnsupportedModel
from searchlib.json_data import json_object, parsed_json
from searchlib.objectives.expert_matrices import Matrix, checked_groups, one_hot_index, smaller_experts
from searchlib.objectives.moe_model import MoeModel
from searchlib.objectives.router_hook import RouterHook
from searchlib.objectives.stock_checkpoint import StockCheckpoint, immovable_experts

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

    def __repr__(self) -> str:
        """Sizes, then the kept experts of every layer group by decoder layer; matrices only by their shape."""
        text = f"{self.keep} of {self.base.experts} experts in {len(self.base.layers)} layers, top_k={self.top_k}"
        kept = [one_hot_index(matrix) for matrix in self.merging]
        if any(index is None for index in kept):
            text += f"; experts merged, router and merging matrices of shape {self.router.shape}"
        else:
            if not np.array_equal(self.router, self.merging):
                text += f"; router mapped by other matrices of shape {self.router.shape}"
            layers = np.array(self.base.numbers)
            for group, index in enumerate(kept):
                text += f"; {_named(layers[np.array(self.layer_groups) == group])}: {index.tolist()}"  # type: ignore[union-attr]
        return f"ExpertPlan({text})"

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
        return self._stock(self._opened(model)).obstacle()

    def apply(self, model: nn.Module) -> nn.Module:
        """Change the model for good and return it; the same object, smaller.

        Every layer keeps ``keep`` experts, sliced or merged (quantized or offloaded experts are pruned by the router
        alone and stay in memory). Where :meth:`stock_obstacle` finds none, gate rows are
        sliced too and the configuration is updated: a stock model of the smaller size, which ``save_pretrained``
        saves. Otherwise the gate stays as wide as it was and a forward hook on every router maps to the slots: the
        model runs and generates, but its own ``save_pretrained`` would lose the hook and therefore refuses: save the
        plan (:meth:`save`) and apply it again after loading the base model.

        Raises:
            InvalidSettings: the plan is for another model, or a plan was applied to this one before.
            UnsupportedModel: a model that :class:`MoeModel` refuses, or merging of quantized or offloaded experts.
        """
        moe = self._opened(model)
        stock = self._stock(moe)
        obstacle = stock.obstacle()
        fixed = immovable_experts(moe)
        if fixed is not None and self.kept is None:
            raise UnsupportedModel(f"experts of this model can be pruned but not merged: {fixed}")
        for layer, group in zip(moe.layers, self.layer_groups, strict=True):
            if fixed is None:
                gate_up, down = (smaller_experts(weight, self.merging[group]) for weight in layer.weights())
                layer.point((gate_up, down), self.keep)
            if obstacle is not None:
                hook = RouterHook(layer)
                stored = None if fixed is None else one_hot_index(self.merging[group])
                hook.set(self.router[group], stored, self.top_k)
                layer.router.register_forward_hook(hook)
        if obstacle is None:
            stock.shrink_routers()
        else:
            model.save_pretrained = partial(_refuse_to_save, obstacle)  # type: ignore[assignment, unused-ignore]
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
        checkpoint = self._stock(moe)
        obstacle = checkpoint.obstacle()
        if stock and obstacle is not None:
            raise InvalidSettings(f"{obstacle}; save the plan beside the base checkpoint with stock=False")
        if stock is False or obstacle is not None:
            self.save(folder)
            return False
        checkpoint.build().save_pretrained(folder)
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
        except (SafetensorError, TypeError, ValueError, OSError) as error:
            raise InvalidSettings(f"{path} is not a safetensors file: {error}") from error
        if metadata.get("format") != _FORMAT or metadata.get("version") != str(_VERSION):
            found = f"format {metadata.get('format')!r}, version {metadata.get('version')!r}"
            raise InvalidSettings(f"{path} must be a {_FORMAT!r} of version {_VERSION}, got {found}")
        try:
            rest = json_object("the plan", parsed_json("the plan", metadata["plan"]))
            told = json_object("the base", rest["base"])
            base = BaseModel(**(told | {key: tuple(told[key]) for key in ("layers", "numbers")}))
            groups = tuple(rest["layer_groups"])
            return cls(tensors["router"], tensors["merging"], groups, rest["top_k"], base)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise InvalidSettings(f"{path} holds no expert plan that makes sense: {error}") from error

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
        for layer in moe.layers:
            if any(isinstance(hook, RouterHook) for hook in layer.router._forward_hooks.values()):
                raise InvalidSettings(
                    f"{layer.name}: its router is steered already, by an open search or by a plan that was applied; "
                    "close the search, or load the base model again"
                )
        return moe

    def _stock(self, moe: MoeModel) -> StockCheckpoint:
        return StockCheckpoint(moe, self.router, self.merging, self.layer_groups, self.top_k)


def _refuse_to_save(obstacle: str, *arguments: Any, **keywords: Any) -> None:
    """What ``model.save_pretrained`` becomes where a checkpoint would leave out the hooks that the model runs with."""
    del arguments, keywords
    raise InvalidSettings(
        f"a checkpoint of this model would not hold what its routers do: {obstacle}; save the plan with "
        "plan.save(folder), and apply ExpertPlan.load(folder) to the base model"
    )


def _named(layers: NDArray[np.int64]) -> str:
    """Some layers in words: "layer 3", "layers 0-7", "layers 0, 2, 5"."""
    if len(layers) == 1:
        return f"layer {layers[0]}"
    one_run = len(layers) > 2 and (np.diff(layers) == 1).all()
    return f"layers {layers[0]}-{layers[-1]}" if one_run else f"layers {', '.join(map(str, layers))}"


def _repeats(experts: list[int]) -> bool:
    return len(set(experts)) < len(experts)
