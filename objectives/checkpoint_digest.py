"""Which checkpoints a search was about: a short text that another set of checkpoints does not have."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from searchlib.objectives.checkpoint_layout import Layout, Slot
from searchlib.objectives.checkpoint_lora import LoraProduct
from searchlib.objectives.checkpoint_panels import Panel

__all__ = ["digest"]

# Numbers of every tensor that are looked at: reading all of them would take as long as a search's first evaluations.
_LOOKED_AT = 64


def digest(layout: Layout, panels: Sequence[Panel]) -> str:
    """32 hexadecimal digits of the tensors' names, shapes and types, and of some numbers of each in every checkpoint.

    The same for the same numbers, whether they come from files or from state dicts. Training changes all numbers, so
    some of them tell checkpoints apart; this is no protection against a forgery.
    """
    total = hashlib.blake2b(digest_size=16)
    for slot in sorted(layout.slots, key=lambda slot: slot.name):
        total.update(repr((slot.name, tuple(slot.shape), slot.dtype, slot.block, slot.added)).encode())
        for numbers in _numbers(slot, panels):
            total.update(numbers)
    for name, owner in sorted(layout.tied.items()):
        total.update(repr((name, owner)).encode())
    for name, tensor in sorted(layout.newest.items()):
        total.update(repr((name, tuple(tensor.shape), tensor.dtype)).encode() + _some(tensor))
    return total.hexdigest()


def _numbers(slot: Slot, panels: Sequence[Panel]) -> Iterator[bytes]:
    for panel in panels:
        if panel.start <= slot.start < panel.stop and slot.start < slot.stop:
            for row in panel.rows:
                if isinstance(row, LoraProduct):
                    yield _some(row.up) + _some(row.down) + repr(row.scale).encode()
                else:
                    yield _some(row[slot.start - panel.start : slot.stop - panel.start])


def _some(tensor: Tensor) -> bytes:
    step = max(1, tensor.numel() // _LOOKED_AT)
    some = tensor.reshape(-1)[::step].to(device="cpu", dtype=torch.float64)
    return bytes(some.contiguous().numpy().tobytes())
