"""How many bits every tensor of a model gets, and what that costs in bytes.

A *tensor* is a layer's weight, what goes into a layer (its activation), or the keys and values of an attention layer.
An *option* of a tensor is a number of bits, ``4``, or bits with a group size, ``"4@32"``: one scale for 32 neighboring
numbers instead of one for a whole row. 16 is full precision.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, final

from searchlib.arguments import listed, one_of, shown
from searchlib.errors import InvalidCandidate, InvalidSettings
from searchlib.json_data import parsed_json
from searchlib.spaces.arguments import real, whole

__all__ = ["FULL", "KINDS", "BitPlan", "Bits", "SizedTensor"]

#: Bits of full precision: such tensors are left as they are.
FULL = 16
#: Characters of an option: two digits, a sign and a group size.
_LONGEST = 14
#: What has bits: a layer's weight, its input, the keys and values of an attention layer.
KINDS = ("weight", "activation", "kv")
#: Bits of a stored scale (float16).
SCALE_BITS = 16

Option = int | str
Pairs = Mapping[str, Any] | Iterable[tuple[str, Any]]


class Bits(NamedTuple):
    """What an option means.

    Arguments:
        bits: 2 to 15, or 16 for full precision.
        group: numbers that share a scale; None: a whole row (an output channel, a token, a head).

    Example:
        >>> Bits.of("4@32"), Bits.of(8)
        (Bits(bits=4, group=32), Bits(bits=8, group=None))
    """

    bits: int
    group: int | None = None

    @classmethod
    def of(cls, option: Any) -> Bits:
        """Read an option.

        Raises:
            InvalidSettings: neither 2 to 16 bits nor such bits with a group size.
        """
        plain = isinstance(option, int | str) and not isinstance(option, bool)
        text = str(option) if isinstance(option, str) or (plain and 0 <= option <= FULL) else ""
        bits, at, group = text[:_LONGEST].partition("@")
        if not plain or not bits.isdecimal() or not 2 <= int(bits) <= FULL or (at and not _counts(group)):
            raise InvalidSettings(
                f"an option is a number of bits from 2 to {FULL}, such as 4, or bits with a group size, such as "
                f"'4@32', but is {shown(option)}"
            )
        if at and int(bits) == FULL:
            raise InvalidSettings(f"{FULL} bits are full precision, which has no scales and no group size: {option!r}")
        return cls(int(bits), int(group) if at else None)

    @property
    def option(self) -> Option:
        """The option as it is written: an int, or a string where there is a group size."""
        return self.bits if self.group is None else f"{self.bits}@{self.group}"

    @property
    def full(self) -> bool:
        """Whether the tensor is left as it is."""
        return self.bits == FULL


@final
@dataclass(frozen=True)
class SizedTensor:
    """A tensor that can be quantized, and how large it is.

    Arguments:
        name: of the layer, as ``model.named_modules()`` has it.
        kind: one of :data:`KINDS`.
        rows: rows that have scales of their own: output channels of a weight, tokens of an activation or of a cache.
        columns: numbers per row: inputs of an output channel (times the kernel's area), channels of a token.
        group: numbers that share a scale where the option names no group; None: a whole row. For keys and values the
            size of a head.
        macs: multiplications of the layer per evaluation of the model; they count once, at its activation.

    Raises:
        InvalidSettings: an unknown kind, or sizes below 1.

    Example:
        >>> SizedTensor("ff.0", "weight", rows=64, columns=256).bytes(Bits(4))
        8352.0
        >>> SizedTensor("ff.0", "weight", rows=64, columns=256).bytes(Bits(16))
        32768.0
    """

    name: str
    kind: str
    _: KW_ONLY
    rows: int
    columns: int
    group: int | None = None
    macs: float = 0.0

    def __post_init__(self) -> None:
        one_of("kind", self.kind, KINDS)
        for name in ("rows", "columns"):
            object.__setattr__(self, name, whole(name, getattr(self, name), high=2**62))
        if self.group is not None:
            whole("group", self.group)
        object.__setattr__(self, "macs", real("macs", self.macs))
        if self.macs < 0:
            raise InvalidSettings(f"macs must be at least 0, but are {self.macs}")

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return self.rows * self.columns

    def scales(self, group: int | None) -> int:
        """How many scales (and zero points) it has: at least one per row."""
        size = min(group or self.group or self.columns, self.columns)
        return self.rows * math.ceil(self.columns / size)

    def bytes(self, bits: Bits) -> float:
        """What it takes to store it packed: its numbers, a scale of 16 bits and a zero point for every group."""
        if bits.full:
            return self.elements * FULL / 8
        return self.bytes_at(bits.bits, bits.group)

    def bytes_at(self, bits: float, group: int | None = None) -> float:
        """The bytes of any number of bits, also of a fraction: a mean over tensors."""
        return (self.elements * bits + self.scales(group) * (SCALE_BITS + bits)) / 8


@final
@dataclass(frozen=True)
class BitPlan:
    """Which tensor gets how many bits. Tensors that a plan does not name stay in full precision; it names no others.

    Arguments:
        weight: option of the weight of every layer, by the layer's name: a mapping, or pairs; kept as a tuple of pairs.
        activation: option of the input of every layer, or a tuple with one option for every range of timesteps.
        kv: option of the keys and values of attention layers; names that end in ``.key`` or ``.value`` mean one alone.
        ranges: where the ranges of timesteps begin, strictly descending, the first of them left out: with
            ``(750, 500, 250)`` there are four ranges, and the first (noisiest) holds timesteps above 750. A timestep
            that is a boundary belongs to the later range (ViDiT-Q's ``[501, 1000]``, ``[0, 500]``).

    Raises:
        InvalidCandidate: options that are none, or not one for every range.

    Example:
        >>> plan = BitPlan(weight={"a": 4, "b": "3@32"}, activation={"a": (8, 6)}, ranges=(500,))
        >>> plan.weight_bits("b"), plan.activation_bits("a", 1), plan.weight_bits("c")
        (Bits(bits=3, group=32), Bits(bits=6, group=None), Bits(bits=16, group=None))
        >>> plan.range_of(501), plan.range_of(500)
        (0, 1)
        >>> BitPlan.from_json(plan.to_json()) == plan
        True
    """

    weight: Pairs = ()
    activation: Pairs = ()
    kv: Pairs = ()
    ranges: tuple[float, ...] = ()
    _known: dict[str, dict[str, Any]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "ranges", checked_ranges(self.ranges))
            for kind in KINDS:
                pairs = _pairs(getattr(self, kind))
                every = {name: self._read(kind, name, options) for name, options in pairs}
                read = {name: bits for name, bits in sorted(every.items()) if not _all_full(bits)}
                object.__setattr__(self, kind, tuple((name, _written(bits)) for name, bits in read.items()))
                self._known[kind] = read
        except InvalidSettings as error:
            raise InvalidCandidate(str(error)) from error

    def _read(self, kind: str, name: str, options: Any) -> Bits | tuple[Bits, ...]:
        if not isinstance(options, tuple | list):
            return Bits.of(options)
        count = len(self.ranges) + 1
        if kind != "activation" or len(options) != count:
            raise InvalidCandidate(
                f"{name}: only activations have an option for every range of timesteps, one for each of the {count}, "
                f"but its {kind} has {options!r}"
            )
        bits = tuple(Bits.of(option) for option in options)
        return bits[0] if len(set(bits)) == 1 else bits

    def weight_bits(self, name: str) -> Bits:
        """Of the weight of a layer."""
        bits: Bits = self._known["weight"].get(name, Bits(FULL))
        return bits

    def activation_bits(self, name: str, number: int = 0) -> Bits:
        """Of the input of a layer in a range of timesteps, counted from the noisiest."""
        bits = self._known["activation"].get(name, Bits(FULL))
        return bits if isinstance(bits, Bits) else bits[number]

    def kv_bits(self, name: str) -> tuple[Bits, Bits]:
        """Of the keys and of the values of an attention layer."""
        known, full = self._known["kv"], Bits(FULL)
        both = known.get(name, full)
        return known.get(f"{name}.key", both), known.get(f"{name}.value", both)

    def range_of(self, timestep: float) -> int:
        """In which range of timesteps a timestep lies."""
        return sum(timestep <= start for start in self.ranges)

    @cached_property
    def changed(self) -> Mapping[str, tuple[str, ...]]:
        """The names that do not stay in full precision, by kind."""
        return {kind: tuple(self._known[kind]) for kind in KINDS}

    def memory(self, tensors: Iterable[SizedTensor]) -> float:
        """Bytes of weights and of the cache, packed, with their scales and zero points; activations are not stored."""
        return sum(self._bytes(tensor) for tensor in tensors if tensor.kind != "activation")

    def _bytes(self, tensor: SizedTensor) -> float:
        stored = self._stored(tensor)
        return sum(tensor.bytes(bits) for bits in stored) / len(stored)

    def mean_bits(self, tensors: Iterable[SizedTensor], kind: str = "weight") -> float:
        """The mean number of bits over the numbers of a kind, without scales; of activations also over the ranges."""
        sized = [tensor for tensor in tensors if tensor.kind == kind]
        if not sized:
            raise InvalidSettings(f"there is no tensor of kind {kind!r} to take the mean over")
        total = sum(tensor.elements for tensor in sized)
        return sum(tensor.elements * self._mean(tensor) for tensor in sized) / total

    def _mean(self, tensor: SizedTensor) -> float:
        if tensor.kind != "activation":
            stored = self._stored(tensor)
            return sum(bits.bits for bits in stored) / len(stored)
        count = len(self.ranges) + 1
        return sum(self.activation_bits(tensor.name, number).bits for number in range(count)) / count

    def _stored(self, tensor: SizedTensor) -> tuple[Bits, ...]:
        """Of a weight, or of the keys and the values of a cache, which are equally large."""
        both = tensor.kind == "kv" and not tensor.name.endswith((".key", ".value"))
        return self.kv_bits(tensor.name) if both else (self.stored_bits(tensor),)

    def stored_bits(self, tensor: SizedTensor) -> Bits:
        """Of a weight or of a cache; of a cache whose keys and values differ, of the keys."""
        if tensor.kind == "weight":
            return self.weight_bits(tensor.name)
        name = tensor.name
        if name.endswith((".key", ".value")):
            parent, _, which = name.rpartition(".")
            return self.kv_bits(parent)[which == "value"]
        return self.kv_bits(name)[0]

    def to_json(self) -> dict[str, Any]:
        """JSON values; :meth:`from_json` rebuilds the plan."""
        kinds = {kind: dict(getattr(self, kind)) for kind in KINDS if getattr(self, kind)}
        listed = {
            kind: {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}
            for kind, options in kinds.items()
        }
        return listed | ({"ranges": list(self.ranges)} if self.ranges else {})

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | str) -> BitPlan:
        """A plan from :meth:`to_json`, or from its text.

        Raises:
            InvalidCandidate: it is none.
        """
        try:
            read = dict(parsed_json("it", data) if isinstance(data, str) else data)
            return cls(**{name: tuple(value) if name == "ranges" else value for name, value in read.items()})
        except (TypeError, ValueError) as error:
            raise InvalidCandidate(f"this is no plan of bits ({error}): {shown(data)}") from error


def checked_ranges(ranges: Iterable[Any]) -> tuple[float, ...]:
    """Boundaries between ranges of timesteps, strictly descending and finite.

    Raises:
        InvalidSettings: they are not.
    """
    starts = listed("ranges", ranges)
    numbers = all(isinstance(start, int | float) and abs(start) < 1e300 for start in starts)
    if not numbers or any(a <= b for a, b in itertools.pairwise(starts)):
        raise InvalidSettings(
            f"ranges must be strictly descending timesteps such as (750, 500), but are {shown(ranges)}"
        )
    return tuple(float(start) for start in starts)


def _counts(group: str) -> bool:
    return group.isdecimal() and int(group) >= 1


def _pairs(given: Pairs) -> list[tuple[str, Any]]:
    pairs = list(given.items()) if isinstance(given, Mapping) else [
        listed("a pair of a name and an option", pair) for pair in listed("options", given)
    ]
    named = all(len(pair) == 2 and isinstance(pair[0], str) for pair in pairs)
    if not named or len({name for name, _ in pairs}) < len(pairs):
        raise InvalidSettings(f"options are given by distinct names, such as {{'ff.0': 4}}, but are {shown(given)}")
    return [(name, option) for name, option in pairs]


def _written(bits: Bits | tuple[Bits, ...]) -> Any:
    return bits.option if isinstance(bits, Bits) else tuple(one.option for one in bits)


def _all_full(bits: Bits | tuple[Bits, ...]) -> bool:
    return bits.full if isinstance(bits, Bits) else all(one.full for one in bits)
