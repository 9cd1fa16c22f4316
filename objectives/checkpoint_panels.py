"""The numbers of many checkpoints as few large matrices, one row per checkpoint, without copying them.

Tensors that lie one after another in every checkpoint are one piece. Files of equal layout are mapped into memory at
equal distances, so that such a piece is one strided matrix over all files: what BLAS reads at the speed of memory.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from searchlib.objectives.checkpoint_files import Checkpoint
from searchlib.objectives.checkpoint_layout import Slot
from searchlib.objectives.checkpoint_lora import LoraProduct

__all__ = ["Panel", "panels"]

# Linux, where Python's mmap has no names for them.
_FIXED = 0x10
_NORESERVE = 0x4000


@final
@dataclass(frozen=True, eq=False)
class Panel:
    """A stretch of the vector of all weights, in every checkpoint.

    Arguments:
        start, stop: the stretch.
        block: which coefficients it is combined by.
        rows: its numbers per checkpoint: a matrix ``(K, stop - start)``, as many vectors, or products of adapters.
    """

    start: int
    stop: int
    block: int
    rows: Tensor | tuple[Tensor, ...] | tuple[LoraProduct, ...]


def panels(checkpoints: Sequence[Checkpoint], slots: Sequence[Slot]) -> list[Panel]:
    """Panels that cover all slots."""
    found = []
    tables: dict[tuple[int, ...], Tensor | None] = {}
    for run in _runs(checkpoints, slots):
        first, stop = run[0], run[-1].stop
        pieces = tuple(checkpoint.tensors[first.name] for checkpoint in checkpoints)
        rows: Any = pieces
        if not first.added:
            rows = tuple(_stretched(piece, stop - first.start) for piece in pieces)  # type: ignore[arg-type]
            matrix = _matrix(checkpoints, rows, tables)
            rows = rows if matrix is None else matrix
        found.append(Panel(first.start, stop, first.block, rows))
    return found


def _runs(checkpoints: Sequence[Checkpoint], slots: Sequence[Slot]) -> Iterator[list[Slot]]:
    """Slots of one block whose tensors follow each other in the memory of every checkpoint."""
    run: list[Slot] = []
    for slot in slots:
        if slot.start == slot.stop:
            continue
        if run and not (slot.block == run[-1].block and _adjacent(checkpoints, run[-1].name, slot.name)):
            yield run
            run = []
        run.append(slot)
    if run:
        yield run


def _adjacent(checkpoints: Sequence[Checkpoint], first: str, second: str) -> bool:
    for checkpoint in checkpoints:
        a, b = checkpoint.tensors[first], checkpoint.tensors[second]
        if not (isinstance(a, Tensor) and isinstance(b, Tensor) and a.is_contiguous() and b.is_contiguous()):
            return False
        same = a.dtype == b.dtype and a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()
        if not same or b.data_ptr() != a.data_ptr() + a.nbytes:
            return False
    return True


def _stretched(tensor: Tensor, length: int) -> Tensor:
    """The vector of so many numbers that begins with the tensor."""
    if not tensor.is_contiguous():
        return tensor.reshape(-1)
    return tensor.as_strided((length,), (1,), tensor.storage_offset())


def _matrix(
    checkpoints: Sequence[Checkpoint], rows: Sequence[Tensor], tables: dict[tuple[int, ...], Tensor | None]
) -> Tensor | None:
    """The rows as one matrix, where they stand at the same place in mapped files of one size."""
    files, places = [], set()
    for checkpoint, row in zip(checkpoints, rows, strict=True):
        where = row.data_ptr()
        file = next((one for one in checkpoint.files if 0 <= where - one.ctypes.data < one.nbytes), None)
        if file is None:
            return None
        files.append(file)
        places.add((file.nbytes, where - file.ctypes.data))
    if len(places) > 1:
        return None
    key = tuple(map(id, files))
    if key not in tables:
        tables[key] = _side_by_side(files)
    table = tables[key]
    if table is None:
        return None
    (_, start), *_ = places
    return table[:, start : start + rows[0].nbytes].view(rows[0].dtype)


def _side_by_side(files: Sequence[np.memmap[Any, Any]]) -> Tensor | None:
    """The files' bytes as one matrix, mapped at equal distances; None where the system cannot do that.

    One stretch of address space is reserved, and every file is mapped over its part of it. The stretch is given back as
    a whole when nothing refers to it any more.
    """
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    size = files[0].nbytes
    distance = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
    flags = mmap.MAP_PRIVATE | _NORESERVE
    try:
        reserved = mmap.mmap(-1, len(files) * distance, flags=flags | mmap.MAP_ANONYMOUS)
    except OSError:
        return None
    table = np.frombuffer(reserved, np.uint8).reshape(len(files), distance)
    protection = mmap.PROT_READ | mmap.PROT_WRITE  # private: what is written stays in memory
    for row, file in zip(table, files, strict=True):
        try:
            handle = os.open(str(file.filename), os.O_RDONLY)
        except OSError:
            return None
        try:
            if os.fstat(handle).st_size != size:
                return None
            if libc.mmap(row.ctypes.data, size, protection, flags | _FIXED, handle, 0) != row.ctypes.data:
                return None
        finally:
            os.close(handle)
    return torch.from_numpy(table)
