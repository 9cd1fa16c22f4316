"""Rows that nearly are candidates: what becomes of good ones when a caller errs."""

import warnings

import numpy as np

__all__ = ["BAD_ROWS"]


def filled(number):
    def change(rows):
        kept = rows.dtype if rows.dtype.kind in "if" else np.int64
        return np.full(rows.shape, number).astype(kept if number == int(number) else np.float64)

    return change


def cast(dtype):
    def change(rows):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NaN and the like have no whole number
            return rows.astype(dtype)

    return change


#: How to make each from an array of candidates.
BAD_ROWS = {
    "all NaN": lambda rows: np.full(rows.shape, np.nan),
    "all infinite": lambda rows: np.full(rows.shape, np.inf),
    "far away": lambda rows: np.full(rows.shape, 1e308),
    "minus one": filled(-1),
    "ninety-nine": filled(99),
    "the smallest whole number": lambda rows: np.full(rows.shape, np.iinfo(np.int64).min),
    "objects": cast(object),
    "texts": cast(str),
    "complex": cast(complex),
    "narrow floats": cast(np.float16),
    "bytes": cast(np.uint8),
    "booleans": cast(bool),
    "a gene short": lambda rows: rows[..., :-1],
    "twice as wide": lambda rows: np.concatenate([rows, rows], axis=-1),
    "an axis more": lambda rows: rows[None],
    "lists": lambda rows: rows.tolist(),
    "masked": lambda rows: np.ma.masked_array(rows, mask=True),
    "no rows": lambda rows: rows[:0],
    "a view backwards": lambda rows: rows[::-1, ::-1] if rows.ndim == 2 else rows[::-1],
    "read-only": lambda rows: np.broadcast_to(rows[:1], rows.shape),
}
