"""Combining checkpoints: searchlib against a loop over tensors, mergekit, and the speed of memory, in one run.

The checkpoints are those of a diffusers U-Net with random weights (their values do not matter for time), in
safetensors files that the system has in memory. Bandwidth counts bytes read plus bytes written: one combination reads
K numbers and writes one for each of P weights; a copy reads one and writes one. Ratios are of CPU seconds, which hardly
depend on what else the computer does, where torch has one thread; of seconds on the clock otherwise.

What was tried before the store became what it is, in one run (K = 20, 4 million weights, one thread, best of 5, in
milliseconds for 1 and for 8 combinations; memory copies as many bytes as one combination moves in 12):

================================================================  ====  =====
a loop over tensors                                                 24    178
rows gathered by torch (16,384 columns), multiplied by torch        39     57
rows gathered by ``torch.stack``, multiplied by torch               30     51
rows gathered by numpy (4,096 columns), multiplied by numpy         39     52
``add_`` in pieces of 131,072 that stay in cache                    19    119
all checkpoints in one file, multiplied in place by torch           15     40
================================================================  ====  =====

The store has the last row's speed without a file of its own: it maps the checkpoints' files at equal distances. It
multiplies one combination in place; for more it gathers 16,384 columns, long enough for memory to stream, and
multiplies them by numpy 3,072 at a time, which OpenBLAS does without packing.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.speed_clock import Spent, claim_at_least, in_turn, threads
from benchmarks.table import Table
from searchlib.objectives.checkpoint_store import CheckpointStore
from searchlib.spaces import CheckpointCoefficients

__all__ = ["CombinationSize", "measure", "report"]


@dataclass(frozen=True)
class CombinationSize:
    """How much is combined, and how often.

    Arguments:
        checkpoints: K.
        widths: of the U-Net's two levels; (96, 192) has 5.9 million weights.
        batch: combinations at once.
        repetitions: of every measurement.
        threads: of torch.
    """

    checkpoints: int = 40
    widths: tuple[int, int] = (96, 192)
    batch: int = 8
    repetitions: int = 5
    threads: int = 1


def measure(size: CombinationSize, folder: Path | None = None) -> dict[str, Any]:
    """Time all ways in turn. Seconds and CPU seconds are lists, one entry per repetition.

    Arguments:
        size: how much.
        folder: where the files are written, ``4 * K * P`` bytes; a temporary one if None.

    Returns:
        ``checkpoints``, ``weights``, ``batch``, ``threads``; ``seconds`` and ``cpu_seconds`` by way ("loop" and "store"
        for a batch, "loop, one", "store, one", "store, live", "state dicts", "copy"); ``copy_bytes`` and ``one_bytes``,
        read plus written; ``clock``, which of both times the ratios are of; ``batch_ratio`` and ``copy_share``, ratios
        of medians; ``difference``, the largest between loop and store in units of the largest weight; ``mergekit``:
        seconds from files to a file by way, their ratio and the difference, or why it was not measured.
    """
    with tempfile.TemporaryDirectory() as temporary, threads(size.threads), torch.no_grad():
        model = _unet(size.widths)
        paths = _saved(model, size.checkpoints, folder or Path(temporary))
        store = CheckpointStore.open(paths)
        states = [load_file(path) for path in paths]
        rows = CheckpointCoefficients(size.checkpoints).sample(np.random.default_rng(0), size.batch)
        loop, ours = _Loop(states, rows), torch.empty(size.batch, store.parameters)
        one, in_memory = torch.empty(1, store.parameters), CheckpointStore.open(states)
        source = torch.ones(max(1, size.checkpoints * store.parameters // 2))
        target = torch.empty_like(source)
        with store.bind(model) as live:
            works: dict[str, Callable[[int], Any]] = {
                "loop": lambda _: loop.run(size.batch),
                "store": lambda _: store.combine(rows, out=ours),
                "loop, one": lambda _: loop.run(1),
                "store, one": lambda _: store.combine(rows[:1], out=one),
                "store, live": lambda _: live.write(rows[0]),
                "state dicts": lambda _: in_memory.combine(rows, out=ours),
                "copy": lambda _: target.copy_(source),
            }
            for work in works.values():  # maps pages and fills caches
                work(0)
            spent: dict[str, list[Spent]] = {name: [] for name in works}
            for name, taken in in_turn(works, size.repetitions):
                spent[name].append(taken)
        clock = "cpu_seconds" if size.threads == 1 else "seconds"
        times = {
            kind: {name: [float(getattr(one, kind)) for one in several] for name, several in spent.items()}
            for kind in ("seconds", "cpu_seconds")
        }
        median = {name: float(np.median(several)) for name, several in times[clock].items()}
        one_bytes = (size.checkpoints + 1) * store.parameters * 4
        return {
            "checkpoints": size.checkpoints, "weights": store.parameters, "batch": size.batch, "threads": size.threads,
            **times, "clock": clock, "copy_bytes": 2 * source.nbytes, "one_bytes": one_bytes,
            "batch_ratio": median["loop"] / median["store"],
            "copy_share": median["copy"] / (2 * source.nbytes) * one_bytes / median["store, one"],
            "difference": loop.difference(store, ours),
            "mergekit": _mergekit(paths, rows[0], size.repetitions, Path(temporary)),
        }  # fmt: skip


def report(table: Table, measured: dict[str, Any]) -> None:
    """Rows and claims of :func:`measure`."""
    task = f"combine {measured['checkpoints']} checkpoints"
    for name, seconds in measured["seconds"].items():
        for wall, cpu in zip(seconds, measured["cpu_seconds"][name], strict=True):
            table.add(task, name, seconds=wall, cpu_seconds=cpu)
    times, clock = measured[measured["clock"]], measured["clock"].replace("_", " ")
    claim_at_least(
        table, f"{measured['batch']} combinations at once are 5 times as fast as a loop over tensors",
        times["loop"], times["store"], 5, clock,
    )  # fmt: skip
    per_byte = [one / measured["one_bytes"] for one in times["store, one"]]
    copy_per_byte = [one / measured["copy_bytes"] for one in times["copy"]]
    claim_at_least(
        table, "one combination moves bytes at 60 % of the speed of a copy", copy_per_byte, per_byte, 0.6,
        f"{clock} per byte read or written",
    )  # fmt: skip
    if isinstance(measured["mergekit"], dict):
        theirs = measured["mergekit"]
        for name, several in theirs["seconds"].items():
            for wall in several:
                table.add(f"{task}, files to file", name, seconds=wall)
        claim_at_least(
            table, "a combination from files to a file is faster than mergekit's", theirs["seconds"]["mergekit"],
            theirs["seconds"]["store"], 1, "seconds",
        )  # fmt: skip


def _unet(widths: tuple[int, int]) -> Any:
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=widths, norm_num_groups=8,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
    )  # fmt: skip


def _saved(model: Any, count: int, folder: Path) -> list[Path]:
    generator = torch.Generator().manual_seed(0)
    state = model.state_dict()
    noise = 0.01 * torch.randn(1 << 20, generator=generator)
    paths = [folder / f"{number}.safetensors" for number in range(count)]
    for number, path in enumerate(paths):
        # A prime offset: drawing noise for every checkpoint would take longer than all measurements.
        rolled = noise.roll(389 * number)
        save_file({name: tensor + _tiled(rolled, tensor.shape) for name, tensor in state.items()}, path)
        with path.open("rb") as file:
            os.fsync(file.fileno())  # or it would be written while others are timed
    return paths


def _tiled(noise: Tensor, shape: torch.Size) -> Tensor:
    return noise.repeat(-(-shape.numel() // len(noise)))[: shape.numel()].view(shape)


class _Loop:
    """The obvious way: for each candidate and each tensor, add up the checkpoints' tensors, in place."""

    def __init__(self, states: Sequence[dict[str, Tensor]], rows: NDArray[np.float64]) -> None:
        self.states = states
        self.rows = rows.tolist()
        self.results = [{name: torch.zeros_like(tensor) for name, tensor in states[0].items()} for _ in self.rows]

    def run(self, candidates: int) -> None:
        for row, result in zip(self.rows[:candidates], self.results, strict=False):
            for name, total in result.items():
                torch.mul(self.states[0][name], row[0], out=total)
                for state, weight in zip(self.states[1:], row[1:], strict=True):
                    total.add_(state[name], alpha=weight)

    def difference(self, store: CheckpointStore, ours: Tensor) -> float:
        apart = largest = 0.0
        for result, vector in zip(self.results, ours, strict=True):
            for name, tensor in store.views(vector):
                apart = max(apart, float((tensor - result[name]).abs().max()))
                largest = max(largest, float(tensor.abs().max()))
        return apart / largest


def _mergekit(paths: Sequence[Path], row: NDArray[np.float64], repetitions: int, folder: Path) -> dict[str, Any] | str:
    """mergekit's linear merge of the same files into a file, against opening a store, combining and saving."""
    try:
        from mergekit.graph import Executor
        from mergekit.options import MergeOptions
        from mergekit.scripts.merge_raw_pytorch import RawPyTorchMergeConfig, SimpleLoaderCache, plan_flat_merge
    except ImportError as reason:
        return f"mergekit could not be imported: {reason}"
    models = [
        {"model": str(path), "parameters": {"weight": float(weight)}} for path, weight in zip(paths, row, strict=True)
    ]
    config = RawPyTorchMergeConfig.model_validate(
        {"merge_method": "linear", "models": models, "parameters": {"normalize": False}, "dtype": "float32"}
    )

    def theirs(_: int) -> None:
        SimpleLoaderCache().loaders.clear()
        tasks = plan_flat_merge(config, str(folder / "mergekit"), False, False, MergeOptions(quiet=True))
        Executor(tasks, math_device="cpu", storage_device="cpu").execute()

    def ours(_: int) -> None:
        save_file(CheckpointStore.open(paths).state_dict(row), folder / "store.safetensors")

    seconds: dict[str, list[float]] = {"mergekit": [], "store": []}
    theirs(0)
    ours(0)
    for name, spent in in_turn({"mergekit": theirs, "store": ours}, repetitions):
        seconds[name].append(spent.seconds)
    merged: dict[str, Tensor] = {}
    for file in (folder / "mergekit").glob("*.safetensors"):
        merged |= load_file(file)
    apart = max(
        float((merged[name] - tensor).abs().max()) for name, tensor in load_file(folder / "store.safetensors").items()
    )
    return {
        "seconds": seconds,
        "ratio": float(np.median(seconds["mergekit"]) / np.median(seconds["store"])),
        "difference": apart,
    }
