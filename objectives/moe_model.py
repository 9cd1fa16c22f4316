"""A transformers model whose mixture-of-experts layers are steered by two matrices per layer, and restored at will.

Efficient Expert Pruning (EEP, arXiv 2407.00945, section 4.2) describes a smaller layer by a router mapping and an
expert merging (:mod:`searchlib.objectives.expert_matrices`). :class:`MoeModel` puts such matrices into a loaded model
and takes them out again without a trace.

What is reproduced: equations 5 and 6, for one-hot matrices (pruning) as for dense ones (merging), and fewer active
experts. What is not: the masking and dynamic skipping of other papers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, final

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

from searchlib.errors import InvalidSettings, UnsupportedModel
from searchlib.objectives.expert_matrices import Matrix, checked_groups, merge_experts, one_hot_index
from searchlib.objectives.moe_layers import MoeLayer, find_config_field, find_moe_layers
from searchlib.objectives.router_hook import RouterHook
from searchlib.objectives.router_statistics import RouterRecorder, RouterStatistics

__all__ = ["MoeModel"]


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
        recorder = RouterRecorder(self.layers, self.experts, sequences, max(1, tokens // sequences))
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
