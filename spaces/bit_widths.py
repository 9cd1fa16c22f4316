"""How many bits every tensor of a model gets, under budgets of memory and computation."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self, final

import numpy as np
from numpy.typing import NDArray

from searchlib.arguments import listed, shown
from searchlib.errors import InvalidSettings
from searchlib.space import Population
from searchlib.spaces.allocation import Allocation
from searchlib.spaces.allocation_view import AllocationView
from searchlib.spaces.arguments import positive, real
from searchlib.spaces.bit_plan import FULL, KINDS, BitPlan, Bits, Option, SizedTensor, checked_ranges
from searchlib.spaces.codec import stack

__all__ = ["BitWidths"]

#: What can be limited, in the order of the budgets.
BUDGETS = ("memory", "compute")


@final
@dataclass(frozen=True)
class BitWidths(AllocationView):
    """One option of bits for every weight, every input and every cache of a model. A value is a :class:`BitPlan`.

    The search space of MixDQ (arXiv 2405.17873), of ViDiT-Q's mixed precision (arXiv 2406.02540), and of per-layer
    weights, activations and caches of language models. The bits of a weight are the same at all timesteps, for it is
    stored once; those of an activation may differ between ranges of timesteps.

    *Memory* is what weights and caches take when they are packed, with 16 bits per scale and a zero point.
    *Compute* counts multiplications in units of 16-bit ones: of a layer with 8-bit inputs half. It is the inputs that
    count: kernels unpack narrower weights to the width of the inputs. (Wider weights than inputs are not faster than
    this, but no kernel has them.)

    Rows, operators and budgets are those of :attr:`allocation`, an :class:`~searchlib.spaces.Allocation`.

    Arguments:
        tensors: :class:`~searchlib.spaces.SizedTensor` values, or tuples of their fields.
        weight, activation, kv: the options of tensors of each kind, bits or ``"bits@group"``. A kind without options
            stays in full precision.
        ranges: where ranges of timesteps begin, descending, without the first; see :class:`BitPlan`.
        only: pairs of a regular expression and options: weights, inputs or caches whose names match as a whole have no
            other options (of their kind's). The first that matches counts.
        memory: most bytes; None: no limit.
        compute: most multiplications per evaluation of the model, in 16-bit ones; None: no limit.
        shares: the share of steps in each range, summing to 1; by default equal.

    Raises:
        InvalidSettings: no tensor with options, equal names, or budgets that no plan meets.

    Example:
        >>> layers = [SizedTensor(name, "weight", rows=64, columns=64) for name in ("q", "k", "v")]
        >>> space = BitWidths(layers, weight=(2, 4, 8)).within(mean_bits=4)
        >>> plan = space.decode(space.sample(np.random.default_rng(0), 1)[0])
        >>> plan.mean_bits(layers) <= 4, space.size
        (True, 11)
    """

    tensors: Sequence[Any]
    weight: tuple[Option, ...] = ()
    activation: tuple[Option, ...] = ()
    kv: tuple[Option, ...] = ()
    ranges: tuple[float, ...] = ()
    only: tuple[tuple[str, tuple[Option, ...]], ...] = ()
    memory: float | None = None
    compute: float | None = None
    shares: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        self._set("tensors", tuple(map(_tensor, listed("tensors", self.tensors))))
        for kind in KINDS:
            self._set(kind, _options(kind, getattr(self, kind)))
        self._set("ranges", checked_ranges(self.ranges))
        self._set("only", tuple((_pattern(text), _options("only", options)) for text, options in _pairs(self.only)))
        count = len(self.ranges) + 1
        shares = tuple(real("shares", share) for share in listed("shares", self.shares)) or (1 / count,) * count
        if len(shares) != count or not min(shares) >= 0 or not abs(sum(shares) - 1) <= 1e-6:
            raise InvalidSettings(f"shares must be {count} shares of the steps that sum to 1, but are {self.shares}")
        self._set("shares", shares)
        for name in BUDGETS:
            if getattr(self, name) is not None:
                self._set(name, positive(name, getattr(self, name)))
        names = [(tensor.name, tensor.kind) for tensor in self.sized]
        if len(set(names)) < len(names):
            raise InvalidSettings("two tensors have the same name and kind; every tensor is given once")
        if not self._parts:
            raise InvalidSettings("no tensor has options to choose from; pass weight=, activation= or kv=")
        if self.compute is not None and not self._parts_of("activation"):
            raise InvalidSettings(
                f"compute={self.compute} limits the bits of activations, but none has options; pass activation="
            )
        _ = self.allocation  # refuses budgets that nothing meets

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    @cached_property
    def sized(self) -> tuple[SizedTensor, ...]:
        """The tensors with their sizes."""
        return tuple(
            SizedTensor(name, kind, rows=rows, columns=columns, group=group, macs=macs)
            for name, kind, rows, columns, group, macs in self.tensors
        )

    @cached_property
    def _parts(self) -> tuple[tuple[SizedTensor, int | None], ...]:
        """Every tensor with options; an activation once for every range of timesteps."""
        parts: list[tuple[SizedTensor, int | None]] = []
        for tensor in self.sized:
            if not getattr(self, tensor.kind):
                continue
            ranged = tensor.kind == "activation" and self.ranges
            parts.extend((tensor, number) for number in (range(len(self.ranges) + 1) if ranged else (None,)))
        return tuple(parts)

    def _parts_of(self, kind: str) -> list[int]:
        return [index for index, (tensor, _) in enumerate(self._parts) if tensor.kind == kind]

    @cached_property
    def _options(self) -> tuple[Option, ...]:
        """The options of all kinds, from few bits to many."""
        every = {option for kind in KINDS for option in getattr(self, kind)}
        return tuple(sorted(every, key=lambda option: (Bits.of(option).bits, -(Bits.of(option).group or 0))))

    @cached_property
    def allocation(self) -> Allocation:
        """The same rows as a plain space of parts and options; its parts are called ``name:kind[@range]``."""
        parts, options = self._parts, self._options
        allowed = [[option in self._options_of(tensor) for option in options] for tensor, _ in parts]
        costs, budgets = [], []
        for name in BUDGETS:
            if getattr(self, name) is not None:
                cost = self._memory if name == "memory" else self._compute
                costs.append([[cost(tensor, part, Bits.of(option)) for option in options] for tensor, part in parts])
                budgets.append(getattr(self, name) - self._spent(name))
        names = [f"{tensor.name}:{tensor.kind}" + ("" if number is None else f"@{number}") for tensor, number in parts]
        return Allocation(tuple(names), options, costs, tuple(budgets), allowed)  # type: ignore[arg-type]

    def _options_of(self, tensor: SizedTensor) -> tuple[Option, ...]:
        own: tuple[Option, ...] = getattr(self, tensor.kind)
        for pattern, options in self.only:
            if re.fullmatch(pattern, tensor.name):
                common = tuple(option for option in own if option in options)
                if common:
                    return common
        return own

    def _memory(self, tensor: SizedTensor, number: int | None, bits: Bits) -> float:
        del number
        return 0.0 if tensor.kind == "activation" else tensor.bytes(bits)

    def _compute(self, tensor: SizedTensor, number: int | None, bits: Bits) -> float:
        share = 1.0 if number is None else self.shares[number]
        return share * tensor.macs * bits.bits / FULL if tensor.kind == "activation" else 0.0

    def _spent(self, budget: str) -> float:
        """What tensors without options take of a budget."""
        decided = {id(tensor) for tensor, _ in self._parts}
        cost = self._memory if budget == "memory" else self._compute
        return sum(cost(tensor, None, Bits(FULL)) for tensor in self.sized if id(tensor) not in decided)

    def within(
        self, *, memory: float | None = None, compute: float | None = None, mean_bits: float | None = None
    ) -> Self:
        """The same space under these budgets.

        Arguments:
            memory, compute: as for the class; None: no limit.
            mean_bits: instead of ``memory``: the bytes of weights that have this many bits each and a scale per row,
                and of caches in full precision.
        """
        if mean_bits is not None:
            if memory is not None:
                raise InvalidSettings("memory= and mean_bits= both limit the memory; pass one of them")
            memory = self.memory_at(weight=positive("mean_bits", mean_bits))
        return dataclasses.replace(self, memory=memory, compute=compute)

    def memory_at(self, weight: float = FULL, kv: float = FULL) -> float:
        """Bytes of the tensors if every weight, or every cache, had this many bits."""
        bits = {"weight": weight, "kv": kv}
        stored = [tensor for tensor in self.sized if tensor.kind != "activation"]
        return sum(
            tensor.bytes(Bits(FULL)) if bits[tensor.kind] >= FULL else tensor.bytes_at(bits[tensor.kind])
            for tensor in stored
        )

    def compute_at(self, activation: float = FULL) -> float:
        """Multiplications in 16-bit ones if every input had this many bits."""
        return sum(tensor.macs for tensor in self.sized if tensor.kind == "activation") * activation / FULL

    def uniform(self, *, weight: Option = FULL, activation: Option = FULL, kv: Option = FULL) -> BitPlan:
        """The plan that gives all tensors of a kind the same option; it need not lie in the space."""
        given = {"weight": weight, "activation": activation, "kv": kv}
        kinds: dict[str, Any] = {
            kind: [(tensor.name, given[kind]) for tensor in self.sized if tensor.kind == kind] for kind in KINDS
        }
        return BitPlan(**kinds, ranges=self.ranges)

    @property
    def unlimited(self) -> BitWidths:
        return dataclasses.replace(self, memory=None, compute=None)

    def with_budgets(self, budgets: tuple[float, ...]) -> Self:
        names = [name for name in BUDGETS if getattr(self, name) is not None]
        if len(budgets) != len(names):
            raise InvalidSettings(f"this space has the budgets {names}, but got {len(budgets)} limits")
        limits = {name: limit + self._spent(name) for name, limit in zip(names, budgets, strict=True)}
        return dataclasses.replace(self, **limits)  # type: ignore[arg-type]

    def encode(self, values: Sequence[Any]) -> Population:
        return stack(self, values, self._genes)

    def _genes(self, plan: Any) -> list[int]:
        if not isinstance(plan, BitPlan) or (plan.changed["activation"] and plan.ranges != self.ranges):
            raise TypeError("no plan of bits with these ranges")
        place = {option: index for index, option in enumerate(self._options)}
        known = {kind: {tensor.name for tensor, _ in self._parts if tensor.kind == kind} for kind in KINDS}
        for kind, names in plan.changed.items():
            if not known[kind].issuperset(names):
                raise LookupError(f"{kind} without options")
        return [place[self._chosen(plan, tensor, number).option] for tensor, number in self._parts]

    def _chosen(self, plan: BitPlan, tensor: SizedTensor, number: int | None) -> Bits:
        if tensor.kind == "activation":
            return plan.activation_bits(tensor.name, number or 0)
        return plan.stored_bits(tensor)

    def decode(self, row: NDArray[Any]) -> BitPlan:
        kinds: dict[str, Any] = {kind: {} for kind in KINDS}
        for (tensor, number), gene in zip(self._parts, row.astype(np.int64).tolist(), strict=True):
            option = self._options[gene]
            if number is None:
                kinds[tensor.kind][tensor.name] = option
            else:
                kinds[tensor.kind].setdefault(tensor.name, []).append(option)
        return BitPlan(**kinds, ranges=self.ranges)


def _tensor(given: Any) -> tuple[Any, ...]:
    fields = dataclasses.astuple(given) if isinstance(given, SizedTensor) else listed("each of tensors", given)
    if len(fields) != len(dataclasses.fields(SizedTensor)):
        raise InvalidSettings(f"each of tensors must be a SizedTensor, but one is {shown(given)}")
    return fields


def _pairs(only: Any) -> list[tuple[Any, ...]]:
    pairs = [listed("each of only", pair) for pair in listed("only", only)]
    if any(len(pair) != 2 for pair in pairs):
        raise InvalidSettings(f"only must be pairs of a pattern and its options, but is {shown(only)}")
    return pairs


def _pattern(given: Any) -> str:
    try:
        return str(re.compile(given).pattern)
    except (re.error, TypeError, RecursionError, OverflowError) as error:
        raise InvalidSettings(f"only must hold regular expressions, but {shown(given)} is none: {error}") from error


def _options(name: str, given: Sequence[Any]) -> tuple[Option, ...]:
    options = tuple(Bits.of(option).option for option in listed(name, given, "a tuple of options such as (2, 4, 8)"))
    if len(set(options)) < len(options):
        raise InvalidSettings(f"the options of {name} must be distinct, but are {shown(given)}")
    return options
