"""Weighted sums of checkpoints: many combinations in one pass over the numbers of all of them.

One combination reads K numbers for each that it writes: memory is the limit, so a matrix over all files is multiplied
where it lies. With more combinations arithmetic counts: pieces are gathered first that stay in cache. (Two or three
would be as fast in place, but then MKL's sums depend on the number of threads.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from searchlib.objectives.checkpoint_lora import LoraProduct, combine_products
from searchlib.objectives.checkpoint_panels import Panel

__all__ = ["add_panel"]

# Columns at a time where nothing is gathered: the sum stays in cache, and calls are few.
_DIRECT = 1 << 16
_SCALED = 1 << 17
# Columns to gather at a time: long enough for the memory to stream, few enough to stay in the last cache.
_GATHERED = 1 << 14
_CACHED = 1 << 20
# The largest product that OpenBLAS does without packing, and columns of it that stay in a core's own cache.
_SMALL = 10**6
_MULTIPLIED = 3072


def add_panel(
    panel: Panel, coefficients: Tensor, out: Tensor, *, fresh: bool = True, which: Sequence[int] | None = None
) -> None:
    """Combine one panel into its columns of ``out``, or add the result to them.

    Where pieces begin depends on shapes alone, not on the number of threads (torch's), and so do results.

    Arguments:
        panel: where and what.
        coefficients: float32, ``(B, K)``, or ``(B, len(which))``; on the panel's device, as ``out``.
        out: float32, ``(B, P)``.
        fresh: True writes, False adds.
        which: indices of the checkpoints that count; all if None.
    """
    target = out[:, panel.start : panel.stop]
    rows: Any = panel.rows
    if which is not None:
        on_gpu = isinstance(rows, Tensor) and not rows.is_cpu
        rows = rows[list(which)] if on_gpu else tuple(rows[index] for index in which)
    if isinstance(rows, Tensor) and (not rows.is_cpu or (rows.dtype == torch.float32 and len(target) == 1)):
        _multiply(rows, coefficients, target, fresh)
    elif isinstance(rows[0], LoraProduct):
        part = torch.empty(target.shape)
        combine_products(rows, coefficients, part)
        target.copy_(part if fresh else target + part)
    elif len(target) == 1 and _is_plain(rows[0]):
        _scale_and_add(rows, coefficients[0].tolist(), target[0], fresh)
    else:
        _gather_and_multiply(rows, coefficients, target, fresh)


def _is_plain(row: Tensor) -> bool:
    return row.dtype == torch.float32 and row.is_cpu


def _multiply(matrix: Tensor, coefficients: Tensor, target: Tensor, fresh: bool) -> None:
    width = _DIRECT if matrix.is_cpu else 1 << 24
    for start in range(0, target.shape[1], width):
        piece = target[:, start : start + width]
        torch.addmm(piece, coefficients, matrix[:, start : start + width].float(), beta=0 if fresh else 1, out=piece)


def _scale_and_add(rows: Sequence[Tensor], coefficients: Sequence[float], target: Tensor, fresh: bool) -> None:
    for start in range(0, len(target), _SCALED):
        piece = target[start : start + _SCALED]
        for index, (row, coefficient) in enumerate(zip(rows, coefficients, strict=True)):
            if fresh and index == 0:
                torch.mul(row[start : start + _SCALED], coefficient, out=piece)
            else:
                piece.add_(row[start : start + _SCALED], alpha=coefficient)


def _gather_and_multiply(rows: Tensor | Sequence[Tensor], coefficients: Tensor, target: Tensor, fresh: bool) -> None:
    k, columns = len(rows), target.shape[1]
    width = max(1024, min(_GATHERED, _CACHED // k // 1024 * 1024))
    part = max(256, min(_MULTIPLIED, _SMALL // (len(target) * k) // 256 * 256))
    weights, result, gather = coefficients.numpy(), target.numpy(), _gatherer(rows)

    def work(starts: range) -> None:
        # Rows a little apart from a power of two, which would meet in the same lines of the cache.
        scratch = torch.empty(k, width + 16)
        for start in starts:
            stop = min(start + width, columns)
            gather(scratch[:, : stop - start], start, stop)
            gathered = scratch.numpy()
            for left in range(start, stop, part):
                right = min(left + part, stop)
                piece = gathered[:, left - start : right - start]
                if fresh:
                    np.matmul(weights, piece, out=result[:, left:right])
                else:
                    result[:, left:right] += weights @ piece

    # torch converts in threads of its own.
    shares = _shares(range(0, columns, width), torch.get_num_threads() if _is_plain(rows[0]) else 1)
    if len(shares) == 1:
        work(shares[0])
    else:
        with ThreadPoolExecutor(len(shares)) as pool:
            list(pool.map(work, shares))


def _gatherer(rows: Tensor | Sequence[Tensor]) -> Callable[[Tensor, int, int], None]:
    """What copies the columns from ``start`` to ``stop`` of all rows into a float32 matrix."""
    # numpy's calls take a fraction of the time of torch's, and these are many.
    if isinstance(rows, Tensor):
        if not _is_plain(rows):
            return lambda piece, start, stop: _convert(piece, rows[:, start:stop])
        matrix = rows.numpy()
        return lambda piece, start, stop: np.copyto(piece.numpy(), matrix[:, start:stop])
    if not _is_plain(rows[0]):
        return lambda piece, start, stop: _copy_each(piece, [row[start:stop] for row in rows])
    vectors = [row.numpy() for row in rows]
    return lambda piece, start, stop: _copy_each(piece.numpy(), [vector[start:stop] for vector in vectors])


def _convert(piece: Tensor, numbers: Tensor) -> None:
    piece.copy_(numbers)


def _copy_each(piece: Any, rows: Sequence[Any]) -> None:
    for index, row in enumerate(rows):
        piece[index] = row


def _shares(starts: range, threads: int) -> list[range]:
    """Neighboring pieces for each thread, not too few, or a thread is not worth starting."""
    parts = max(1, min(threads, len(starts) // 4))
    return [starts[len(starts) * part // parts : len(starts) * (part + 1) // parts] for part in range(parts)]
