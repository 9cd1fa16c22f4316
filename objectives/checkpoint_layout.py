"""How the checkpoints of one model lie side by side: where every tensor stands in one flat vector of all weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import final

import torch
from torch import Tensor

from searchlib.errors import InvalidSettings
from searchlib.objectives.checkpoint_lora import LoraProduct

__all__ = ["Layout", "Slot", "blocks_by_prefix", "lay_out"]

_Tensors = Mapping[str, Tensor | LoraProduct]


@final
@dataclass(frozen=True)
class Slot:
    """Where one tensor stands in the flat vector.

    Arguments:
        name: of the tensor.
        shape, dtype: of the tensor.
        start, stop: its entries of the vector.
        block: which coefficients it is combined by.
        added: whether the result is to be added to the weight of the base model (LoRA) instead of replacing it.
    """

    name: str
    shape: torch.Size
    dtype: torch.dtype
    start: int
    stop: int
    block: int
    added: bool


@final
@dataclass(frozen=True, eq=False)
class Layout:
    """All tensors of a store.

    Arguments:
        slots: what is combined, in the order of the vector.
        tied: further names of a slot's tensor, and the name of the slot.
        newest: tensors that come from the newest checkpoint as they are.
        blocks: how many sets of coefficients there are.
    """

    slots: tuple[Slot, ...]
    tied: Mapping[str, str]
    newest: Mapping[str, Tensor]
    blocks: int

    @property
    def parameters(self) -> int:
        """Length of the vector."""
        return self.slots[-1].stop


def blocks_by_prefix(names: Iterable[str], prefixes: Sequence[str | Sequence[str]]) -> dict[str, int]:
    """The block of every name: that of the longest prefix that fits. A prefix ends where a part of the name ends.

    Arguments:
        names: of the tensors, such as :attr:`CheckpointStore.names`.
        prefixes: one prefix per block, or several; ``""`` fits every name.

    Raises:
        InvalidSettings: a name that no prefix fits, or a prefix that fits no name.

    Example:
        >>> blocks_by_prefix(["conv_in.weight", "mid.0.bias", "out.weight"], ["mid", ("conv_in", "out")])
        {'conv_in.weight': 1, 'mid.0.bias': 0, 'out.weight': 1}
    """
    parts = [[entry] if isinstance(entry, str) else list(entry) for entry in prefixes]
    by_prefix = {prefix.rstrip("."): block for block, several in enumerate(parts) for prefix in several}
    longest_first = sorted(by_prefix, key=len, reverse=True)
    blocks, used = {}, set()
    for name in names:
        fitting = next((one for one in longest_first if one == "" or f"{name}.".startswith(f"{one}.")), None)
        if fitting is None:
            raise InvalidSettings(
                f"every name must begin with one of the prefixes, but {name!r} does not; add it or ''"
            )
        blocks[name] = by_prefix[fitting]
        used.add(fitting)
    unused = sorted(by_prefix.keys() - used)
    if unused:
        raise InvalidSettings(f"every prefix must begin a name, but {unused[0]!r} begins none")
    return blocks


def lay_out(
    checkpoints: Sequence[_Tensors], labels: Sequence[str], blocks: Mapping[str, int] | None, newest: Sequence[str]
) -> Layout:
    """Check that the checkpoints are of one model, and give every tensor its place.

    Arguments:
        checkpoints: tensors by name, oldest first.
        labels: how messages call them.
        blocks: block of every name; None is one block of all.
        newest: patterns of names (``*`` and ``?``) that come from the newest checkpoint as they are.

    Raises:
        InvalidSettings: the first tensor that differs in name, shape or type, two checkpoints in the same memory, or
            nothing to combine.
    """
    _check_alike(checkpoints, labels)
    _check_own_memory(checkpoints, labels)
    first, last = checkpoints[0], checkpoints[-1]
    kept = {name for name, tensor in first.items() if not _combined(name, tensor, newest)}
    tied = _tied(checkpoints, [name for name in first if name not in kept])
    names = [name for name in first if name not in kept and name not in tied]
    if not names:
        raise InvalidSettings(f"{labels[0]} must have floating-point tensors to combine, but has {list(first)[:5]}")
    _check_unpacked(checkpoints, labels, kept)
    by_name = _blocks(names, blocks)
    names.sort(key=by_name.__getitem__)  # stable: within a block the order of the file
    slots, start = [], 0
    for name in names:
        tensor = first[name]
        added = isinstance(tensor, LoraProduct)
        slots.append(
            Slot(name, tensor.shape, tensor.dtype, start, start := start + tensor.numel(), by_name[name], added)
        )
    as_it_is = {name: last[name] for name in first if name in kept}
    return Layout(tuple(slots), tied, as_it_is, 1 + max(by_name.values()))  # type: ignore[arg-type]


def _combined(name: str, tensor: Tensor | LoraProduct, newest: Sequence[str]) -> bool:
    return tensor.dtype.is_floating_point and not any(fnmatchcase(name, pattern) for pattern in newest)


def _check_alike(checkpoints: Sequence[_Tensors], labels: Sequence[str]) -> None:
    first = checkpoints[0]
    for checkpoint, label in zip(checkpoints[1:], labels[1:], strict=True):
        for name, tensor in first.items():
            if name not in checkpoint:
                raise InvalidSettings(f"{label} must have the tensors of {labels[0]}, but lacks {name!r}")
            got = checkpoint[name]
            for what in ("shape", "dtype"):
                expected, found = getattr(tensor, what), getattr(got, what)
                if expected != found:
                    shown = tuple(expected) if what == "shape" else expected
                    but = tuple(found) if what == "shape" else found
                    raise InvalidSettings(
                        f"{name!r} of {label} must have {what} {shown} as in {labels[0]}, but has {but}"
                    )
            if isinstance(tensor, LoraProduct) != isinstance(got, LoraProduct):
                raise InvalidSettings(f"{name!r} must be low-rank in all checkpoints or in none, but not in {label}")
        extra = next((name for name in checkpoint if name not in first), None)
        if extra is not None:
            raise InvalidSettings(f"{label} must have the tensors of {labels[0]}, but also has {extra!r}")


def _check_own_memory(checkpoints: Sequence[_Tensors], labels: Sequence[str]) -> None:
    """``state_dict()`` returns the live tensors: gathered during training without a copy, all are the last."""
    seen: dict[tuple[int, ...], str] = {}
    for checkpoint, label in zip(checkpoints, labels, strict=True):
        tensors = [tensor for tensor in checkpoint.values() if isinstance(tensor, Tensor) and tensor.numel()]
        place = tuple(tensor.data_ptr() for tensor in tensors)
        if tensors and seen.setdefault(place, label) != label:
            raise InvalidSettings(
                f"{label} must have memory of its own, but is the memory of {seen[place]}; state_dict() returns the "
                "live tensors: keep {name: tensor.clone() for name, tensor in model.state_dict().items()}"
            )


def _tied(checkpoints: Sequence[_Tensors], names: Sequence[str]) -> dict[str, str]:
    """Names whose tensor is, in every checkpoint, the very one of an earlier name."""
    groups: dict[tuple[object, ...], str] = {}
    tied = {}
    for name in names:
        tensors = [checkpoint[name] for checkpoint in checkpoints]
        places = tuple(
            (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
            if isinstance(tensor, Tensor)
            else id(tensor)
            for tensor in tensors
        )
        if tensors[0].numel() and groups.setdefault(places, name) != name:
            tied[name] = groups[places]
    return tied


def _check_unpacked(checkpoints: Sequence[_Tensors], labels: Sequence[str], kept: set[str]) -> None:
    """Matrices of whole numbers that change in training are quantized weights, which no sum of coefficients means."""
    first, last = checkpoints[0], checkpoints[-1]
    for name in kept:
        old, new = first[name], last[name]
        if not isinstance(old, Tensor) or not isinstance(new, Tensor) or old.ndim < 2 or old.dtype.is_floating_point:
            continue
        if not torch.equal(old, new):
            raise InvalidSettings(
                f"{name!r} must be of floating-point numbers to be combined, but is {old.dtype} and differs between "
                f"{labels[0]} and {labels[-1]}; quantized weights must be dequantized first"
            )


def _blocks(names: Sequence[str], blocks: Mapping[str, int] | None) -> dict[str, int]:
    if blocks is None:
        return dict.fromkeys(names, 0)
    missing = next((name for name in names if name not in blocks), None)
    if missing is not None:
        raise InvalidSettings(f"blocks must name a block for every tensor, but has none for {missing!r}")
    by_name = {name: int(blocks[name]) for name in names}
    used = sorted(set(by_name.values()))
    if used != list(range(len(used))):
        raise InvalidSettings(f"blocks must be numbered from 0 without a gap, but are {used}")
    return by_name
