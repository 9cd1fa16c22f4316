"""The mixture-of-experts layers of a transformers model: found by structure, their routing verified on random probes.

Nothing depends on the name of a model family: a layer counts by its modules and tensors, and its routing rule is the
one that reproduces what its router does. Models whose experts are transposed, carry biases or are separate modules
are refused by name.
"""

from __future__ import annotations

import copy
import inspect
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from searchlib.errors import UnsupportedModel
from searchlib.objectives.routing_rule import RoutingRule

__all__ = ["MoeLayer", "find_config_field", "find_moe_layers"]

_PROBES = 256
_MERGEABLE = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_CORRECTIONS = ("e_score_correction_bias", "expert_bias")


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
