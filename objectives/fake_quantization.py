"""A model that computes as if its layers were quantized, one plan after the other, without a copy of the model.

Weights are rounded once for every layer and option and kept; another plan only points the layers at other tensors.
Inputs are rounded by hooks. On exit the layers point at their own weights again, which were never touched.

Activations are quantized per token: every vector has its own scale. (ViDiT-Q's released code shares a scale between the
examples of a batch and the two halves of classifier-free guidance, unless ``cfg_split`` is set: results then depend on
who shares the batch. Here they do not.) Inputs of convolutions have one scale per image, for a convolution adds up
pixels. With measured ranges they are quantized per tensor and static instead, the baseline of the papers.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, final

import torch
from torch import Tensor, nn

from searchlib.errors import InvalidSettings, UnsupportedModel
from searchlib.objectives.channel_balancing import Balance, InputRanges
from searchlib.objectives.fake_quantize import fake_quantize, fake_quantize_within
from searchlib.objectives.quantizable_layers import rows_of, stored_as_rows, weight_of
from searchlib.spaces.bit_plan import FULL, BitPlan, Bits

__all__ = ["FakeQuantization", "Rounding"]

#: Of (layer's name, rows, option) to rounded rows: another way to round weights than to the nearest level.
Rounding = Callable[[str, Tensor, Bits], Tensor]


@final
class FakeQuantization:
    """Quantizes layers of a model by a plan; a context manager.

    Arguments:
        model: the model. Where its ``forward`` takes ``timestep``, that decides the range of timesteps of a plan.
        layers: the layers that plans may name, from
            :func:`~searchlib.objectives.quantizable_layers.find_layers`.
        symmetric: whether weights have no zero point.
        balances: how channels of layers are balanced, by name. A layer in full precision is left alone.
        static: measured ranges: activations are then quantized per tensor within them, instead of per token.
        rounding: how weights are rounded; None: to the nearest level. It gets balanced rows.
        keep: whether rounded weights are kept; they take as much memory as the layers, for every option in use.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
        >>> before = model[0].weight.clone()
        >>> with FakeQuantization(model, {"0": model[0]}) as quantized:
        ...     quantized.set(BitPlan(weight={"0": 2}, activation={"0": 8}))
        ...     len(model[0].weight[0].unique()) <= 4
        True
        >>> bool((model[0].weight == before).all())
        True
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Mapping[str, nn.Module],
        *,
        symmetric: bool = False,
        balances: Mapping[str, Balance] | None = None,
        static: InputRanges | None = None,
        rounding: Rounding | None = None,
        keep: bool = True,
    ) -> None:
        if balances and static is not None:
            raise InvalidSettings("static ranges were measured before balancing; pass balances= or static=, not both")
        self.model, self.layers, self._symmetric = model, dict(layers), symmetric
        self._balances, self._static, self._keep = dict(balances or {}), static, keep
        self._round = rounding or self._to_nearest
        self._plan = BitPlan()
        self._range = 0
        self._own: dict[str, Tensor] = {}
        self._handles: list[Any] = []
        self._rounded: dict[tuple[str, Bits, bool], Tensor] = {}
        self._current: dict[str, tuple[Bits, bool]] = {}

    def __enter__(self) -> Self:
        if self._handles:
            raise InvalidSettings("this model is being quantized already; leave the first with-block before")
        self._own = {name: weight_of(layer).data for name, layer in self.layers.items()}
        self._handles = [
            layer.register_forward_pre_hook(self._hook(name), prepend=True) for name, layer in self.layers.items()
        ]
        if _takes_timestep(self.model):
            self._handles.append(self.model.register_forward_pre_hook(self._read_timestep, with_kwargs=True))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        for name, own in self._own.items():
            weight_of(self.layers[name]).data = own
        self._handles, self._own, self._current = [], {}, {}
        self._rounded = {}
        self._plan = BitPlan()

    def set(self, plan: BitPlan) -> None:
        """Compute by this plan from now on.

        Raises:
            InvalidSettings: outside of the with-block, or a plan with a name that is no layer.
        """
        if not self._handles:
            raise InvalidSettings("enter the quantization first: with FakeQuantization(…) as quantized: …")
        check_names(plan, self.layers)
        self._plan = plan
        self._range = 0
        for name in self.layers:
            self._point(name, plan.weight_bits(name))

    @contextmanager
    def at(self, timestep: float) -> Iterator[None]:
        """Within the block the plan's options of this timestep hold, for models that are not told the timestep."""
        before, self._range = self._range, self._plan.range_of(timestep)
        try:
            yield
        finally:
            self._range = before

    @property
    def plan(self) -> BitPlan:
        """The plan in force."""
        return self._plan

    @property
    def balances(self) -> Mapping[str, Balance] | None:
        """How channels are balanced, by layer; None where they are not."""
        return self._balances or None

    @property
    def range(self) -> int:
        """The range of timesteps that the model is in."""
        return self._range

    @property
    def kept_bytes(self) -> int:
        """What the rounded weights take."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self._rounded.values())

    def weight(self, name: str, bits: Bits, *, balanced: bool = False) -> Tensor:
        """The rounded weight of a layer, as the layer stores it."""
        key = (name, bits, balanced)
        if key in self._rounded:
            return self._rounded[key]
        layer = self.layers[name]
        # Not in inference mode, whose tensors no parameter may hold.
        with torch.inference_mode(False), torch.no_grad():
            self._restore(name)
            rows = self._balances[name].rows(layer) if balanced else rows_of(layer)
            if not bits.full:
                rows = self._round(name, rows, bits)
            made = stored_as_rows(layer, rows)
        if self._keep:
            self._rounded[key] = made
        return made

    def _to_nearest(self, name: str, rows: Tensor, bits: Bits) -> Tensor:
        del name
        return fake_quantize(rows, bits.bits, group=bits.group, symmetric=self._symmetric)

    def _point(self, name: str, bits: Bits) -> None:
        balanced = self._is_balanced(name)
        if self._current.get(name, (Bits(FULL), False)) == (bits, balanced):
            return
        if bits.full and not balanced:
            self._restore(name)
        else:
            weight_of(self.layers[name]).data = self.weight(name, bits, balanced=balanced)
        self._current[name] = (bits, balanced)

    def _restore(self, name: str) -> None:
        weight_of(self.layers[name]).data = self._own[name]
        self._current.pop(name, None)

    def _is_balanced(self, name: str) -> bool:
        plan, count = self._plan, len(self._plan.ranges) + 1
        whole = plan.weight_bits(name).full and all(plan.activation_bits(name, i).full for i in range(count))
        return name in self._balances and not whole

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...] | None]:
        def before(layer: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
            bits = self._plan.activation_bits(name, self._range)
            balanced = self._current.get(name, (None, False))[1]
            if bits.full and not balanced:
                return None
            if not arguments:
                raise UnsupportedModel(f"{name} is not given its input as the first argument, so it is not quantized")
            x = arguments[0]
            if balanced:
                x = self._balances[name].inputs(x, axis=1 if isinstance(layer, nn.Conv2d) else -1)
            return (self._quantized(name, layer, x, bits), *arguments[1:])

        return before

    def _quantized(self, name: str, layer: nn.Module, x: Tensor, bits: Bits) -> Tensor:
        if bits.full:
            return x
        if self._static is not None:
            low, high = self._static.low[name], self._static.high[name]
            nearest = min(low, key=lambda known: abs(known - self._range))
            return fake_quantize_within(x, bits.bits, low[nearest], high[nearest])
        if isinstance(layer, nn.Conv2d):
            return fake_quantize(x.flatten(1), bits.bits).reshape(x.shape)
        return fake_quantize(x, bits.bits, group=bits.group)

    def _read_timestep(self, module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        if not self._plan.ranges:
            return
        given = inspect.signature(module.forward).bind(*arguments, **named).arguments.get("timestep")
        if given is None:
            raise InvalidSettings("the plan has ranges of timesteps, but the model is called without timestep=")
        times = torch.as_tensor(given).flatten().tolist()
        ranges = {self._plan.range_of(time) for time in times}
        if len(ranges) > 1:
            raise InvalidSettings(
                f"one call of the model has timesteps in several ranges of the plan ({sorted(set(times))[:4]} …, "
                f"ranges={self._plan.ranges}); call it once for every timestep"
            )
        self._range = ranges.pop()


def check_names(plan: BitPlan, layers: Mapping[str, nn.Module]) -> None:
    """Whether the weights and activations that a plan names are among the layers.

    Raises:
        InvalidSettings: they are not; the message names the first.
    """
    for kind in ("weight", "activation"):
        unknown = [name for name, _ in getattr(plan, kind) if name not in layers]
        if unknown:
            raise InvalidSettings(
                f"the plan has bits for the {kind} of {unknown[0]!r}, which is none of the {len(layers)} layers "
                f"that are quantized ({', '.join(list(layers)[:3])}, …)"
            )


def _takes_timestep(model: nn.Module) -> bool:
    return "timestep" in inspect.signature(model.forward).parameters
