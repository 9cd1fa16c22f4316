"""Mixture-of-experts layers of a transformers model: found by structure, steered by two matrices per layer.

Efficient Expert Pruning (EEP, arXiv 2407.00945, section 4.2) describes a smaller mixture-of-experts layer by two
matrices of shape ``(keep, experts)``: the router mapping ``W_RM``, which turns the router's probabilities over all
experts into scores of ``keep`` slots, and the expert merging ``W_EM``, whose row j holds the coefficients of the
parameters of slot j. :class:`MoeModel` puts such matrices into a loaded model and takes them out again without a
trace.

What is reproduced: equations 5 and 6, for one-hot matrices (pruning) as for dense ones (merging), and fewer active
experts. What is not: the masking and dynamic skipping of other papers; models whose experts are transposed, carry
biases or are separate modules (they are refused by name).

Semantics for every family, *after* the scoring function as in equation 5: ``mapped = score(logits) @ W_RM.T``, the
``top_k`` largest slots are chosen, and their weights are renormalized and scaled exactly where the model's own router
does so. Three consequences are worth knowing:

- Where the router does not renormalize (``norm_topk_prob=False``), pruned experts keep their share of the softmax,
  so the kept weights do not grow. Masking logits with minus infinity, as other tools do, is a different operation.
- Negative mapped scores count as zero weight, and chosen slots whose weights all vanish share equally where the
  router renormalizes. The paper leaves both open; for non-negative matrices nothing changes.
- Group-limited routing (DeepSeek) holds while the number of slots equals the number of experts, slot j standing in
  the group of expert j; with fewer slots there is no such grouping, and it is dropped.
"""

from __future__ import annotations

import copy
import inspect
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self, final

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

from searchlib.errors import InvalidSettings, UnsupportedModel

__all__ = [
    "MoeLayer",
    "MoeModel",
    "RouterHook",
    "RouterStatistics",
    "RoutingRule",
    "checked_groups",
    "consecutive_groups",
    "find_config_field",
    "find_moe_layers",
    "merge_experts",
    "one_hot_index",
    "one_hot_matrices",
]

Matrix = NDArray[np.float32]

_PROBES = 256
_MERGEABLE = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_CORRECTIONS = ("e_score_correction_bias", "expert_bias")


def consecutive_groups(layers: int, groups: int) -> NDArray[np.int64]:
    """Group index of every layer when consecutive layers share a group, shape ``(layers,)``.

    The paper's default is 4 groups (0-7, 8-15, 16-23, 24-31 for 32 layers); appendix A.1 uses one per layer.

    Raises:
        InvalidSettings: not between 1 and ``layers`` groups.

    Example:
        >>> consecutive_groups(6, 3).tolist()
        [0, 0, 1, 1, 2, 2]
    """
    if not 1 <= groups <= layers:
        raise InvalidSettings(f"expected between 1 and {layers} layer groups, got {groups}")
    return np.arange(layers, dtype=np.int64) * groups // layers


def one_hot_matrices(kept: ArrayLike, experts: int) -> Matrix:
    """Matrices that keep experts unchanged: ``(groups, keep)`` expert indices to ``(groups, keep, experts)``.

    Raises:
        InvalidSettings: an index lies outside ``0 … experts - 1``.

    Example:
        >>> one_hot_matrices([[2, 0]], experts=3).tolist()
        [[[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]]
    """
    index = np.asarray(kept, dtype=np.int64)
    if index.size and (index.min() < 0 or index.max() >= experts):
        raise InvalidSettings(f"expected expert indices from 0 to {experts - 1}, got {index.min()} to {index.max()}")
    return np.eye(experts, dtype=np.float32)[index]


def one_hot_index(matrix: Matrix) -> NDArray[np.int64] | None:
    """The expert of every row where each row holds a single 1 and zeros, shape ``(keep,)``; None for other matrices.

    Example:
        >>> one_hot_index(np.array([[0, 1, 0], [1, 0, 0]], np.float32)).tolist()
        [1, 0]
    """
    single = (np.count_nonzero(matrix, axis=1) == 1) & (matrix.max(axis=1) == 1)
    return matrix.argmax(axis=1) if single.all() else None


def checked_groups(layer_groups: ArrayLike | None, layers: int, groups: int | None = None) -> NDArray[np.int64]:
    """The group index of every layer as an array ``(layers,)``; None means a group per layer.

    Arguments:
        layer_groups: one index per layer, from 0 on.
        layers: number of mixture-of-experts layers.
        groups: how many groups there must be; None takes the largest index plus one.

    Raises:
        InvalidSettings: the wrong number of entries, or indices outside the groups.
    """
    index = np.arange(layers) if layer_groups is None else np.asarray(layer_groups)
    if index.shape != (layers,) or not np.issubdtype(index.dtype, np.integer):
        raise InvalidSettings(f"layer_groups must hold one integer for each of {layers} layers, got {layer_groups!r}")
    count = int(index.max()) + 1 if groups is None else groups
    if index.min() < 0 or index.max() >= count or len(np.unique(index)) != count:
        raise InvalidSettings(f"layer_groups must use every group from 0 to {count - 1}, got {index.tolist()}")
    return index.astype(np.int64)


def merge_experts(weight: Tensor, matrix: Matrix, out: Tensor | None = None) -> Tensor:
    """Linear combinations of experts, equation 6: ``(experts, a, b)`` and ``(keep, experts)`` to ``(keep, a, b)``.

    One matrix product per weight tensor, in the tensor's own type: coefficients are rounded to that type once and
    products are accumulated in single precision, where adding expert by expert would round after every step.

    Arguments:
        weight: stacked expert weights.
        matrix: merging coefficients.
        out: where to write; None allocates.
    """
    with torch.inference_mode(False), torch.no_grad():
        if out is None:
            out = torch.empty(len(matrix), *weight.shape[1:], dtype=weight.dtype, device=weight.device)
        rows = torch.tensor(matrix, device=weight.device, dtype=weight.dtype)
        torch.mm(rows, weight.detach().reshape(len(weight), -1), out=out.view(len(matrix), -1))
    return out


@final
@dataclass(frozen=True)
class RoutingRule:
    """How a router turns logits over experts into ``top_k`` weights and indices (equation 5).

    Arguments:
        scoring: scores are the softmax over all experts, or a sigmoid of each logit.
        renormalize: whether the chosen weights are divided by their sum.
        scaling: factor on the weights (``routed_scaling_factor``).
        groups: number of expert groups of group-limited routing; 1 means none.
        top_groups: how many groups stay.
        group_score: a group's score is its largest score (DeepSeek-V2) or the sum of its two largest (DeepSeek-V3).
    """

    scoring: Literal["softmax", "sigmoid"] = "softmax"
    renormalize: bool = True
    scaling: float = 1.0
    groups: int = 1
    top_groups: int = 1
    group_score: Literal["max", "two largest"] = "max"

    @property
    def sliceable(self) -> bool:
        """Whether deleting rows of the gate equals a one-hot router mapping: the softmax's denominator must cancel."""
        return self.renormalize or self.scoring == "sigmoid"

    def scores(self, logits: Tensor) -> Tensor:
        """Scores of all experts in single precision, shape ``(…, experts)``."""
        logits = logits.float()
        return logits.softmax(dim=-1) if self.scoring == "softmax" else logits.sigmoid()

    def route(
        self,
        logits: Tensor,
        top_k: int,
        mapping: Tensor | None = None,
        correction: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Weights and indices of the chosen slots, both ``(…, top_k)``.

        Arguments:
            logits: the router's logits, ``(…, experts)``.
            top_k: slots per token.
            mapping: ``W_RM`` as a float tensor ``(keep, experts)``, or for one-hot rows the expert of every slot as an
                integer tensor ``(keep,)`` (more axes before the last route several mappings at once). None: every
                expert is a slot.
            correction: bias ``(experts,)`` on the scores that decides the choice but not the weights.
        """
        scores = self.scores(logits)
        mapped = _mapped(scores, mapping)
        choice = mapped if correction is None else _mapped(scores + correction.float(), mapping)
        if self.groups > 1 and choice.shape[-1] == logits.shape[-1]:
            choice = self._within_groups(choice)
        slots = choice.topk(top_k, dim=-1).indices
        return self._weights(mapped.gather(-1, slots)), slots

    def _within_groups(self, choice: Tensor) -> Tensor:
        grouped = choice.view(*choice.shape[:-1], self.groups, -1)
        if self.group_score == "max":
            group_scores = grouped.amax(dim=-1)
        else:
            group_scores = grouped.topk(2, dim=-1).values.sum(dim=-1)
        stay = torch.zeros_like(group_scores, dtype=torch.bool)
        stay.scatter_(-1, group_scores.topk(self.top_groups, dim=-1).indices, True)
        return grouped.masked_fill(~stay.unsqueeze(-1), float("-inf")).flatten(-2)

    def _weights(self, chosen: Tensor) -> Tensor:
        chosen = chosen.clamp_min(0)
        if self.renormalize:
            smallest = torch.finfo(chosen.dtype).tiny
            total = chosen.sum(dim=-1, keepdim=True)
            equal = torch.full_like(chosen, 1 / chosen.shape[-1])
            chosen = torch.where(total < smallest, equal, chosen / total.clamp_min(smallest))
        return chosen * self.scaling


def _mapped(scores: Tensor, mapping: Tensor | None) -> Tensor:
    if mapping is None:
        return scores
    return scores @ mapping.T if mapping.is_floating_point() else scores[..., mapping]


@final
@dataclass(frozen=True, eq=False)
class MoeLayer:
    """One mixture-of-experts layer: its modules and its verified routing rule.

    Arguments:
        name: dotted path of the block inside the model.
        number: decoder layer it belongs to (dense layers count).
        block: the module that holds router and experts.
        router: module whose output is (logits, weights, indices).
        experts: module with ``gate_up_proj (experts, 2 * intermediate, hidden)`` and ``down_proj``.
        rule: routing rule that reproduces the router.
        correction_name: path inside the block of the bias that decides the choice; None where there is none.
        unmergeable: why the experts cannot be merged linearly; None where they can.
    """

    name: str
    number: int
    block: nn.Module
    router: nn.Module
    experts: nn.Module
    rule: RoutingRule
    correction_name: str | None
    unmergeable: str | None

    @property
    def correction(self) -> Tensor | None:
        """Bias ``(experts,)`` on the scores that decides the choice; None where the router has none."""
        return None if self.correction_name is None else _tensor_at(self.block, self.correction_name).reshape(-1)

    def weights(self) -> tuple[Tensor, Tensor]:
        """The stacked expert weights, ``gate_up_proj`` and ``down_proj``, as plain tensors that share their memory."""
        return _parameter(self.experts, "gate_up_proj").data, _parameter(self.experts, "down_proj").data

    def point(self, weights: tuple[Tensor, Tensor], count: int) -> None:
        """Let the experts' parameters hold other tensors, of ``count`` experts; the parameter objects stay."""
        _parameter(self.experts, "gate_up_proj").data = weights[0]
        _parameter(self.experts, "down_proj").data = weights[1]
        self.experts.num_experts = count  # type: ignore[assignment]


def _parameter(module: nn.Module, name: str) -> nn.Parameter:
    parameter = module._parameters[name]
    assert parameter is not None
    return parameter


def _tensor_at(module: nn.Module, path: str) -> Tensor:
    parent, _, name = path.rpartition(".")
    tensor = getattr(module.get_submodule(parent), name)
    assert isinstance(tensor, Tensor)
    return tensor


def find_moe_layers(model: nn.Module) -> tuple[MoeLayer, ...]:
    """The mixture-of-experts layers of a model, in order, each with a routing rule verified on random probes.

    A layer is a module with a child ``experts`` (fused three-dimensional weights, as in every transformers family that
    supports several expert implementations) and a child ``gate`` or ``router`` with ``top_k``, a weight
    ``(experts, hidden)`` and outputs (logits, weights, indices). Dense layers and shared experts are left alone. Runs
    each router once on probes; changes nothing.

    Raises:
        UnsupportedModel: there are no such layers, or one of another structure; the message says which and why.
    """
    layers: list[MoeLayer] = []
    for name, block in model.named_modules():
        children = dict(block.named_children())
        if "experts" not in children:
            continue
        router = children.get("gate", children.get("router"))
        obstacle = _structural_obstacle(router, children["experts"])
        if obstacle is not None:
            raise UnsupportedModel(f"{name}: {obstacle}")
        assert router is not None
        digits = re.search(r"(?:^|\.)(\d+)(?:\.|$)", name)
        number = int(digits.group(1)) if digits else len(layers)
        rule, correction = _verified_rule(name, block, router)
        obstacle = _merging_obstacle(children["experts"])
        layers.append(MoeLayer(name, number, block, router, children["experts"], rule, correction, obstacle))
    if not layers:
        raise UnsupportedModel(
            f"{type(model).__name__} has no mixture-of-experts layer: expected modules with a child 'experts' that "
            "holds gate_up_proj and down_proj and a child 'gate' or 'router'"
        )
    return tuple(layers)


def _structural_obstacle(router: nn.Module | None, experts: nn.Module) -> str | None:
    if router is None:
        return "it has experts but no child 'gate' or 'router' that routes to them"
    weight = getattr(router, "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim != 2 or type(getattr(router, "top_k", None)) is not int:
        return f"its router {type(router).__name__} lacks a weight (experts, hidden) or an integer top_k"
    named = dict(experts.named_parameters(recurse=False))
    if not {"gate_up_proj", "down_proj"} <= named.keys():
        return f"its experts {type(experts).__name__} do not hold fused gate_up_proj and down_proj parameters"
    if getattr(experts, "is_transposed", None) or getattr(experts, "has_bias", None):
        return f"its experts {type(experts).__name__} store transposed weights or biases, which slots cannot replace"
    if getattr(experts, "has_gate", None) is not True or not hasattr(type(experts).forward, "__wrapped__"):
        return f"its experts {type(experts).__name__} do not dispatch over expert implementations of transformers"
    shapes = [tuple(named[key].shape) for key in ("gate_up_proj", "down_proj")]
    fused = all(len(shape) == 3 and shape[0] == weight.shape[0] for shape in shapes)
    if _merging_obstacle(experts) is None and not (fused and getattr(experts, "num_experts", 0) == weight.shape[0]):
        return f"expected expert weights ({weight.shape[0]}, …, …) to match its router, got {shapes[0]} and {shapes[1]}"
    return None


def _merging_obstacle(experts: nn.Module) -> str | None:
    for name, parameter in experts.named_parameters(recurse=False):
        if parameter.dtype not in _MERGEABLE or hasattr(parameter, "quant_state"):
            return f"{name} is quantized ({parameter.dtype}); load the model unquantized to merge experts"
    return None


def _verified_rule(name: str, block: nn.Module, router: nn.Module) -> tuple[RoutingRule, str | None]:
    weight = router.weight
    assert isinstance(weight, Tensor)
    device = "cpu" if weight.device.type == "meta" else weight.device
    probes = torch.randn(_PROBES, weight.shape[1], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        output = router.forward(probes.to(device, weight.dtype), **_router_arguments(name, block, router))
    if not isinstance(output, tuple) or len(output) < 3 or any(part.ndim != 2 for part in output[:3]):
        raise UnsupportedModel(f"{name}: expected its router to return (logits, weights, indices)")
    corrections = _correction_names(block, len(weight))
    for correction, rule in itertools.product((*corrections, None), _candidate_rules(router)):
        bias = None if correction is None else _tensor_at(block, correction).reshape(-1)
        if _reproduces(rule, bias, *output[:3]):
            return rule, correction
    raise UnsupportedModel(
        f"{name}: no known scoring rule (softmax or sigmoid, renormalized or not, scaled, group-limited) reproduces "
        f"the weights of its router {type(router).__name__} on {_PROBES} probes"
    )


def _router_arguments(name: str, block: nn.Module, router: nn.Module) -> dict[str, Any]:
    arguments = {}
    for key, parameter in list(inspect.signature(router.forward).parameters.items())[1:]:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        value = getattr(block, key, parameter.default)
        if value is parameter.empty:
            raise UnsupportedModel(f"{name}: its router needs {key!r}, which the block does not hold")
        arguments[key] = value
    return arguments


def _correction_names(block: nn.Module, experts: int) -> list[str]:
    named = itertools.chain(block.named_parameters(), block.named_buffers())
    return [path for path, tensor in named if path.split(".")[-1] in _CORRECTIONS and tensor.numel() == experts]


def _candidate_rules(router: nn.Module) -> Iterator[RoutingRule]:
    groups = getattr(router, "num_group", None) or 1
    top_groups = getattr(router, "topk_group", None) or groups
    limits: list[dict[str, Any]] = [{}]
    if groups > 1 and top_groups < groups:
        shared = {"groups": groups, "top_groups": top_groups}
        limits = [shared | {"group_score": "two largest"}, shared | {"group_score": "max"}, {}]
    renormalize = bool(getattr(router, "norm_topk_prob", True))
    scaling = float(getattr(router, "routed_scaling_factor", 1.0) or 1.0)
    for limit, factor in itertools.product(limits, dict.fromkeys((scaling, 1.0))):
        for normalized in (renormalize, not renormalize):
            yield RoutingRule("softmax", normalized, factor, **limit)
            yield RoutingRule("sigmoid", normalized, factor, **limit)


def _reproduces(rule: RoutingRule, correction: Tensor | None, logits: Tensor, weights: Tensor, index: Tensor) -> bool:
    """Whether the rule gives the router's weight to every expert, whatever the order of the chosen ones."""
    top_k = index.shape[-1]
    if rule.groups > 1 and logits.shape[-1] < 2 * rule.groups and rule.group_score == "two largest":
        return False
    own_weights, own_index = rule.route(logits, top_k, correction=correction)
    dense = torch.zeros_like(logits, dtype=torch.float32)
    difference = dense.scatter(-1, own_index, own_weights) - dense.scatter(-1, index.long(), weights.float())
    # Logits of low precision can tie at the boundary, where any choice is right.
    ordered = logits.sort(dim=-1, descending=True).values
    clear = ordered[:, top_k - 1] > ordered[:, top_k] if top_k < logits.shape[-1] else ordered[:, 0] == ordered[:, 0]
    if clear.any():
        difference = difference[clear]
    tolerance = max(1e-5, 4 * torch.finfo(weights.dtype).eps) * max(1.0, rule.scaling)
    return bool(difference.abs().max() <= tolerance)


@final
class RouterHook:
    """Forward hook on a router that replaces its weights and indices by those of the mapped slots.

    Inert until :meth:`set` is called. The logits pass through unchanged, so that ``output_router_logits=True`` still
    records those of all experts.
    """

    def __init__(self, layer: MoeLayer) -> None:
        self._layer = layer
        self._mapping: Tensor | None = None
        self._experts: Tensor | None = None
        self._top_k = 0

    def set(self, router: Matrix, experts: NDArray[np.int64] | None, top_k: int) -> None:
        """Route to slots from now on.

        Arguments:
            router: ``W_RM``, shape ``(keep, experts)``.
            experts: the stored expert of every slot, shape ``(keep,)``; None where slot j is stored as expert j.
            top_k: slots per token.
        """
        index = one_hot_index(router)
        self._mapping = torch.tensor(router, dtype=torch.float32) if index is None else torch.from_numpy(index.copy())
        self._experts = None if experts is None else torch.from_numpy(experts.copy())
        self._top_k = top_k

    def clear(self) -> None:
        """Leave the router alone again."""
        self._top_k = 0

    def __call__(self, module: nn.Module, arguments: Any, output: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        """Called by torch after the router has run."""
        del module, arguments
        if not self._top_k:
            return None
        logits, weights, index = output[:3]
        assert self._mapping is not None
        self._mapping = self._mapping.to(logits.device)
        layer = self._layer
        own_weights, slots = layer.rule.route(logits, self._top_k, self._mapping, layer.correction)
        if self._experts is not None:
            self._experts = self._experts.to(logits.device)
            slots = self._experts[slots]
        return (logits, own_weights.to(weights.dtype), slots.to(index.dtype), *output[3:])


@final
@dataclass(frozen=True, eq=False)
class RouterStatistics:
    """What the routers of the full model did on calibration cases.

    Arguments:
        frequency: how often each expert was among the chosen, ``(layers, experts)``.
        soft: accumulated scores of each expert over all tokens (the softmax before top-k), ``(layers, experts)``.
        tokens: number of tokens counted; padding is not.
        inputs: for every layer the inputs of the routed experts on the calibration tokens, ``(n, hidden)``, in main
            memory.
        logits: for every layer the router's logits on the same tokens, ``(n, experts)``.
    """

    frequency: NDArray[np.float64]
    soft: NDArray[np.float64]
    tokens: int
    inputs: tuple[Tensor, ...]
    logits: tuple[Tensor, ...]


@final
@dataclass
class _Steered:
    """One layer inside an open :class:`MoeModel`: its full weights and what is in force instead."""

    layer: MoeLayer
    hook: RouterHook
    originals: tuple[Tensor, Tensor]
    in_force: tuple[bytes, bytes, int] | None = None
    merging: Matrix | None = None
    buffers: tuple[Tensor, Tensor] | None = None
    buffered: bytes | None = None


@final
class MoeModel:
    """A loaded transformers model whose mixture-of-experts layers can be pruned, merged and restored at will.

    A context manager: nothing happens to the model before it is entered, and on exit (also after an exception) every
    parameter, buffer, hook and attribute is what it was, to the bit and in the same memory. Inside, the model is in
    evaluation mode. Gradients through merged experts are not supported.

    Arguments:
        model: any transformers model with fused experts. Changed only inside the context.
        lazy: False keeps the merged experts of all layers in memory (``keep / experts`` of the expert weights on top of
            the model) and pays a merge per change; True merges a layer whenever it runs, into one scratch buffer for
            all layers (extra memory: one layer), and also works for weights that are offloaded between uses. Prefer
            lazy for scoring by a single forward pass of a model that barely fits, not for generating long answers.

    Attributes:
        layers: the mixture-of-experts layers, in order.
        experts: number of routed experts, the same in every layer.
        top_k: active experts per token of the full model.
        config_field: name of the integer in the configuration that sets the number of experts (``num_local_experts``,
            ``num_experts``, ``n_routed_experts``); None where it could not be found.
        merges: how many times a layer was merged so far.

    Raises:
        UnsupportedModel: no mixture-of-experts layers, a router that no known rule reproduces, experts that are stored
            in another way, or layers that differ in size; the message names the module.

    Example::

        with MoeModel(model) as moe:
            keep_two = one_hot_matrices([[0, 3]] * len(moe.layers), moe.experts)
            moe.apply(keep_two, keep_two, range(len(moe.layers)))
            logits = model(input_ids).logits
    """

    def __init__(self, model: nn.Module, *, lazy: bool = False) -> None:
        self.model: Any = model
        self.lazy = lazy
        self.layers = find_moe_layers(model)
        self.experts = self._agreed("experts", [len(layer.router.weight) for layer in self.layers])  # type: ignore
        self.top_k = self._agreed("active experts", [layer.router.top_k for layer in self.layers])  # type: ignore
        first = self.layers[0].experts
        self.config_field = find_config_field(first.config, first, "num_experts")
        self.merges = 0
        self._steered: list[_Steered] = []
        self._scratch: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}
        self._underlying = "eager"
        self._undo = ExitStack()

    def _agreed(self, what: str, counts: list[int]) -> int:
        odd = [f"{layer.name} {n}" for layer, n in zip(self.layers, counts, strict=True) if n != counts[0]]
        if odd:
            first = f"{counts[0]} as in {self.layers[0].name}"
            raise UnsupportedModel(f"every layer must have the same number of {what}, {first}, got {', '.join(odd)}")
        return counts[0]

    def __enter__(self) -> Self:
        if self._steered:
            raise InvalidSettings("this MoeModel is open already; leave its context before entering it again")
        stale = [layer.name for layer in self.layers if layer.experts.num_experts != self.experts]
        if stale:
            raise InvalidSettings(f"the experts of {stale} changed since this MoeModel was made; make a new one")
        with ExitStack() as undo:
            self._take_over(undo)
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._undo.close()

    def _take_over(self, undo: ExitStack) -> None:
        undo.callback(self._forget)
        undo.callback(_restore_modes, [(module, module.training) for module in self.model.modules()])
        self.model.eval()
        for layer in self.layers:
            steered = _Steered(layer, RouterHook(layer), layer.weights())
            self._steered.append(steered)
            undo.callback(self._restore, steered)
            undo.callback(layer.router.register_forward_hook(steered.hook).remove)
        self._choose_implementation(undo)

    def _choose_implementation(self, undo: ExitStack) -> None:
        own = str(_implementation(self.layers[0]))
        # Gathering one weight matrix per token is some 30 times slower than the alternatives on a processor.
        slow = own == "batched_mm" and all(steered.originals[0].device.type == "cpu" for steered in self._steered)
        self._underlying = wanted = "grouped_mm" if slow else own
        if self.lazy:
            wanted = f"searchlib_lazy_merge_{id(self)}"
            ALL_EXPERTS_FUNCTIONS[wanted] = self._merge_and_run
            undo.callback(ALL_EXPERTS_FUNCTIONS.__delitem__, wanted)
        if wanted == own:
            return
        undo.callback(self.model.set_experts_implementation, self.model.get_experts_implementation())
        self.model.set_experts_implementation(wanted)
        for layer in self.layers:
            if _implementation(layer) != wanted:
                raise UnsupportedModel(f"{layer.name}: its experts cannot be switched to another implementation")

    def _restore(self, steered: _Steered) -> None:
        steered.layer.router.top_k = self.top_k  # type: ignore[assignment]
        if steered.layer.unmergeable is None:
            steered.layer.point(steered.originals, self.experts)

    def _forget(self) -> None:
        self._steered = []
        self._scratch = {}

    def apply(
        self,
        router: ArrayLike,
        merging: ArrayLike,
        layer_groups: ArrayLike | None = None,
        top_k: int | None = None,
    ) -> None:
        """Put matrices in force: equation 5 in every router, equation 6 in the experts.

        Layers whose matrices did not change are not touched. Where ``merging`` is one-hot no weight moves: slots are
        looked up among the stored experts. Otherwise the layer is merged (at once, or lazily when it runs).

        Arguments:
            router: ``W_RM``, shape ``(groups, keep, experts)``.
            merging: ``W_EM``, the same shape.
            layer_groups: group of every layer, shape ``(layers,)``; None means a group per layer.
            top_k: active slots per token; None takes the model's own.

        Raises:
            InvalidSettings: outside the context, wrong shapes, numbers that are not finite, more active slots than
                slots, or weights that only the lazy mode can merge.
            UnsupportedModel: dense merging of quantized experts.
        """
        steered_layers = self._opened()
        matrices = [np.array(matrix, dtype=np.float32, order="C") for matrix in (router, merging)]
        for name, matrix in zip(("router", "merging"), matrices, strict=True):
            if matrix.ndim != 3 or matrix.shape != matrices[0].shape or matrix.shape[-1] != self.experts:
                expected = f"(groups, keep, {self.experts})"
                raise InvalidSettings(f"{name} must have the shape {expected}, the same for both, got {matrix.shape}")
            if not np.isfinite(matrix).all():
                raise InvalidSettings(f"{name} must hold finite numbers")
        groups = checked_groups(layer_groups, len(self.layers), len(matrices[0]))
        active = self._checked_top_k(top_k, matrices[0].shape[1], "slots")
        self._check_merging([one_hot_index(matrix) is None for matrix in matrices[1]], groups)
        for steered, group in zip(steered_layers, groups, strict=True):
            self._steer(steered, matrices[0][group], matrices[1][group], active)

    def identity(self, top_k: int | None = None) -> None:
        """The full model again, without leaving the context; merged experts stay in their buffers.

        Arguments:
            top_k: active experts per token (the paper's reduction of active experts); None takes the model's own.

        Raises:
            InvalidSettings: outside the context, or more active experts than experts.
        """
        steered_layers = self._opened()
        active = self._checked_top_k(top_k, self.experts, "experts")
        for steered in steered_layers:
            steered.in_force = None
            steered.hook.clear()
            self._unmerge(steered)
            steered.layer.router.top_k = active  # type: ignore[assignment]

    def _opened(self) -> list[_Steered]:
        if not self._steered:
            raise InvalidSettings("the model is steered only inside the context; write `with MoeModel(model) as moe:`")
        return self._steered

    def _checked_top_k(self, top_k: int | None, available: int, what: str) -> int:
        active = self.top_k if top_k is None else top_k
        if not 1 <= active <= available:
            raise InvalidSettings(f"top_k must lie between 1 and the number of {what} ({available}), got {active}")
        return active

    def _check_merging(self, dense: Sequence[bool], groups: NDArray[np.int64]) -> None:
        for steered, group in zip(self._steered, groups, strict=True):
            if not dense[group]:
                continue
            layer = steered.layer
            if layer.unmergeable is not None:
                raise UnsupportedModel(f"{layer.name}: experts can be pruned but not merged: {layer.unmergeable}")
            if not self.lazy and steered.originals[0].device.type == "meta":
                raise InvalidSettings(f"{layer.name}: offloaded experts can only be merged with MoeModel(…, lazy=True)")

    def _steer(self, steered: _Steered, router: Matrix, merging: Matrix, top_k: int) -> None:
        wanted = (router.tobytes(), merging.tobytes(), top_k)
        if steered.in_force == wanted:
            return
        # Cleared first, so that an interruption in between leaves nothing to be taken for granted.
        steered.in_force = None
        stored = one_hot_index(merging)
        if stored is None:
            self._merge(steered, merging)
        else:
            self._unmerge(steered)
        steered.layer.router.top_k = self.top_k  # type: ignore[assignment]
        steered.hook.set(router, stored, top_k)
        steered.in_force = wanted

    def _merge(self, steered: _Steered, merging: Matrix) -> None:
        steered.merging = merging
        if self.lazy:
            return
        if steered.buffers is None or steered.buffered != merging.tobytes():
            steered.buffered = None
            steered.buffers = self._merged(steered.originals, merging, steered.buffers)
            steered.buffered = merging.tobytes()
        steered.layer.point(steered.buffers, len(merging))

    def _unmerge(self, steered: _Steered) -> None:
        if not self.lazy and steered.merging is not None:
            steered.layer.point(steered.originals, self.experts)
        steered.merging = None

    def _merged(
        self,
        weights: tuple[Tensor, Tensor],
        merging: Matrix,
        buffers: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, Tensor]:
        self.merges += 1
        reuse = buffers is not None and all(
            buffer.shape == (len(merging), *weight.shape[1:]) for buffer, weight in zip(buffers, weights, strict=True)
        )
        into = buffers if reuse and buffers is not None else (None, None)
        return merge_experts(weights[0], merging, into[0]), merge_experts(weights[1], merging, into[1])

    def _merge_and_run(self, experts: nn.Module, *arguments: Any, **keywords: Any) -> Tensor:
        run: Callable[..., Tensor] = type(experts).forward.__wrapped__  # type: ignore[attr-defined]
        if self._underlying != "eager":
            run = ALL_EXPERTS_FUNCTIONS[self._underlying]
        steered = next((one for one in self._steered if one.layer.experts is experts), None)
        if steered is None or steered.merging is None:
            return run(experts, *arguments, **keywords)
        own = steered.layer.weights()
        place = (own[0].device, own[0].dtype)
        try:
            merged = self._scratch[place] = self._merged(own, steered.merging, self._scratch.get(place))
            steered.layer.point(merged, len(steered.merging))
            return run(experts, *arguments, **keywords)
        finally:
            steered.layer.point(own, self.experts)

    def statistics(
        self,
        batches: Callable[[], Any] | Iterable[Mapping[str, Any]],
        *,
        sequences: int = 64,
        tokens: int = 2048,
    ) -> RouterStatistics:
        """Run the full model on calibration cases and record what its routers did.

        The full model is put back first, with its own number of active experts. Padding is left out where the model
        is given a two-dimensional ``attention_mask``.

        Arguments:
            batches: keyword arguments of the model, one mapping per forward pass; or a function that runs the model
                itself (forward passes, not generation, so that tokens belong to sequences).
            sequences: how many sequences contribute calibration tokens, the first ones. 64 as in NAEE's comparison
                in the paper.
            tokens: at most so many calibration tokens are kept per layer, ``tokens // sequences`` evenly spaced ones
                of each sequence.

        Raises:
            InvalidSettings: outside the context, or nothing was run.
        """
        self.identity()
        recorder = _Recorder(self.layers, self.experts, sequences, max(1, tokens // sequences))
        with recorder.attached(self.model), torch.no_grad():
            if callable(batches):
                batches()
            else:
                for batch in batches:
                    self.model(**{key: _to_device(value, self.model.device) for key, value in batch.items()})
        return recorder.statistics()


def _restore_modes(modes: list[tuple[nn.Module, bool]]) -> None:
    for module, training in modes:
        module.training = training


def _implementation(layer: MoeLayer) -> str | None:
    config: Any = layer.experts.config
    implementation: str | None = config._experts_implementation
    return implementation


def _to_device(value: Any, device: torch.device) -> Any:
    return value.to(device) if isinstance(value, Tensor) else value


def find_config_field(config: Any, module: nn.Module, attribute: str) -> str | None:
    """Name of the integer in ``config`` that sets ``module.attribute``; None where none can be shown to.

    Found by experiment: the module is built again, without memory, from a configuration in which one candidate (an
    integer of the same value) is doubled.
    """
    value = getattr(module, attribute, None)
    candidates: list[str] = [name for name, held in vars(config).items() if type(held) is int and held == value]
    for name in candidates:
        changed = copy.deepcopy(config)
        setattr(changed, name, 2 * value)  # type: ignore[operator]
        try:
            with torch.device("meta"):
                built = type(module)(changed)
        except TypeError:
            return None
        if getattr(built, attribute) == 2 * value:  # type: ignore[operator]
            return name
    return None


@final
class _Recorder:
    """Hooks that count what routers choose and keep the calibration tokens."""

    def __init__(self, layers: tuple[MoeLayer, ...], experts: int, sequences: int, per_sequence: int) -> None:
        self._layers = layers
        self._per_sequence = per_sequence
        self._left = sequences
        self._tokens = 0
        self._mask = torch.ones(0, dtype=torch.bool)
        self._kept = torch.zeros(0, dtype=torch.int64)
        self._frequency = torch.zeros(len(layers), experts, dtype=torch.float64)
        self._soft = torch.zeros(len(layers), experts, dtype=torch.float64)
        self._inputs: list[list[Tensor]] = [[] for _ in layers]
        self._logits: list[list[Tensor]] = [[] for _ in layers]

    @contextmanager
    def attached(self, model: nn.Module) -> Iterator[None]:
        with ExitStack() as undo:
            undo.callback(model.register_forward_pre_hook(self._begin, with_kwargs=True).remove)
            for number, layer in enumerate(self._layers):
                undo.callback(layer.router.register_forward_hook(self._router_hook(number)).remove)
                hook = layer.experts.register_forward_pre_hook(self._experts_hook(number), with_kwargs=True)
                undo.callback(hook.remove)
            yield

    def _begin(self, model: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        del model
        given = keywords.get("input_ids")
        given = keywords.get("inputs_embeds") if given is None else given
        given = arguments[0] if given is None and arguments else given
        if given is None:
            raise InvalidSettings("statistics need forward passes with input_ids or inputs_embeds")
        rows, columns = given.shape[:2]
        mask = keywords.get("attention_mask")
        if mask is None:
            mask = torch.ones(rows, columns)
        elif not isinstance(mask, Tensor) or mask.ndim != 2:
            raise InvalidSettings("statistics need a two-dimensional attention_mask, 1 for tokens and 0 for padding")
        mask = mask[:, -columns:].bool().cpu()
        self._kept = self._calibration_tokens(mask)
        self._mask = mask.reshape(-1)
        self._tokens += int(mask.sum())

    def _calibration_tokens(self, mask: Tensor) -> Tensor:
        chosen = []
        for row, valid in enumerate(mask[: self._left]):
            positions = valid.nonzero().reshape(-1)
            spaced = torch.linspace(0, len(positions) - 1, min(self._per_sequence, len(positions))).round().long()
            chosen.append(row * mask.shape[1] + positions[spaced])
        self._left -= len(chosen)
        return torch.cat(chosen) if chosen else torch.zeros(0, dtype=torch.int64)

    def _router_hook(self, number: int) -> Callable[..., None]:
        def record(router: nn.Module, arguments: Any, output: tuple[Tensor, ...]) -> None:
            del router, arguments
            logits, _, index = output[:3]
            if len(logits) != len(self._mask):
                name = self._layers[number].name
                raise UnsupportedModel(f"{name}: expected {len(self._mask)} tokens at its router, got {len(logits)}")
            valid = self._mask.to(logits.device)
            experts = logits.shape[-1]
            self._frequency[number] += torch.bincount(index[valid].reshape(-1), minlength=experts).cpu()
            scores = self._layers[number].rule.scores(logits[valid])
            self._soft[number] += scores.sum(dim=0, dtype=torch.float64).cpu()
            self._logits[number].append(logits[self._kept.to(logits.device)].cpu())

        return record

    def _experts_hook(self, number: int) -> Callable[..., None]:
        def record(experts: nn.Module, arguments: tuple[Tensor, ...], keywords: dict[str, Tensor]) -> None:
            del experts
            hidden = arguments[0] if arguments else keywords["hidden_states"]
            hidden = hidden.reshape(-1, hidden.shape[-1])
            self._inputs[number].append(hidden[self._kept.to(hidden.device)].cpu())

        return record

    def statistics(self) -> RouterStatistics:
        if not self._tokens:
            raise InvalidSettings("statistics need at least one forward pass of the model with tokens, got none")
        return RouterStatistics(
            frequency=self._frequency.numpy(),
            soft=self._soft.numpy(),
            tokens=self._tokens,
            inputs=tuple(torch.cat(parts) for parts in self._inputs),
            logits=tuple(torch.cat(parts) for parts in self._logits),
        )
