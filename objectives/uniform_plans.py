"""The plans that give all tensors of a kind the same bits: the rivals that cost nothing to find."""

from __future__ import annotations

import itertools

import numpy as np

from searchlib.space import Population
from searchlib.spaces import BitPlan, BitWidths
from searchlib.spaces.bit_plan import KINDS, Bits

__all__ = ["uniform_plans"]


def uniform_plans(space: BitWidths) -> list[BitPlan]:
    """The uniform plans of a space, without those that another one has more bits than in every kind.

    Layers that may not have the option of the others take the nearest.

    Example:
        >>> from searchlib.spaces import SizedTensor
        >>> space = BitWidths((SizedTensor("q", "weight", rows=8, columns=8),), weight=(2, 4, 8)).within(mean_bits=5)
        >>> [plan.weight for plan in uniform_plans(space)]
        [(('q', 4),)]
    """
    kinds = [kind for kind in KINDS if getattr(space, kind) and any(sized.kind == kind for sized in space.sized)]
    unlimited = space.unlimited
    found: list[tuple[tuple[int, ...], BitPlan]] = []
    for options in itertools.product(*(getattr(space, kind) for kind in kinds)):
        row = unlimited.repair(_row(space, dict(zip(kinds, options, strict=True))))
        if space.contains(row)[0]:
            found.append((tuple(Bits.of(option).bits for option in options), space.decode(row[0])))
    return [
        plan for bits, plan in found
        if not any(other != bits and all(a >= b for a, b in zip(other, bits, strict=True)) for other, _ in found)
    ]  # fmt: skip


def _row(space: BitWidths, options: dict[str, int | str]) -> Population:
    place = {name: index for index, name in enumerate(space.option_names)}
    kinds = [name.rpartition(":")[2].partition("@")[0] for name in space.part_names]
    return np.array([[place[str(options[kind])] for kind in kinds]], space.dtype)
