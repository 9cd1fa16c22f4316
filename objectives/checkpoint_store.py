"""Linear combinations of the saved checkpoints of one model: ``theta(alpha) = sum of alpha_i theta_i``.

What LCSC (arXiv 2404.02241) evaluates: coefficients of :class:`~searchlib.spaces.CheckpointCoefficients` in, weights of
a live model out. Checkpoints stay in their files; whole batches of combinations are computed in one pass over them.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self, final

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from searchlib.errors import InvalidSettings
from searchlib.objectives.checkpoint_binding import BoundCheckpoints
from searchlib.objectives.checkpoint_digest import digest
from searchlib.objectives.checkpoint_files import Checkpoint, Source, read_checkpoint, source_name
from searchlib.objectives.checkpoint_layout import Layout, blocks_by_prefix, lay_out
from searchlib.objectives.checkpoint_panels import Panel, panels
from searchlib.objectives.checkpoint_sums import add_panel

__all__ = ["CheckpointStore", "blocks_by_prefix"]

# torch's own AveragedModel leaves buffers alone, too: variances combined by negative weights may be negative.
_NEWEST = ("*running_mean", "*running_var")


@final
class CheckpointStore:
    """The checkpoints of one training run, oldest first, to be combined.

    Floating-point tensors are combined in float32, whatever their type. Whole numbers, truth values and the tensors
    whose names fit ``newest`` come from the newest checkpoint as they are. Names that share a tensor in every
    checkpoint are combined once. Of LoRA adapters the products are combined
    (:mod:`searchlib.objectives.checkpoint_lora`): the result is what is to be added to the base model's weight, exact
    where coefficients sum to one.

    Files are mapped, not loaded: their pages may show as resident memory, which the system takes back when it needs it.
    Files must not change while a store is open. :meth:`open` reads them; the constructor takes what has been read.

    Arguments:
        checkpoints: oldest first.
        labels: how messages call them.
        blocks: block of every name, for coefficients per block (:func:`blocks_by_prefix`); None is one for all.
        newest: patterns of names that are not combined; those of batch normalization's statistics by default, which
            are better recomputed for a combination.

    Attributes:
        layout: where every tensor stands in the vector of all weights.
        device: where combinations are computed.

    Raises:
        InvalidSettings: the checkpoints are not of one model; the message names the first tensor that differs.

    Example:
        >>> saved = [{"weight": torch.tensor([1.0, 2.0])}, {"weight": torch.tensor([3.0, 6.0])}]
        >>> store = CheckpointStore.open(saved)
        >>> store.combine([[0.5, 0.5], [-1.0, 2.0]]).tolist()
        [[2.0, 4.0], [5.0, 10.0]]
    """

    def __init__(
        self,
        checkpoints: Sequence[Checkpoint],
        labels: Sequence[str],
        *,
        blocks: Mapping[str, int] | None = None,
        newest: Sequence[str] = _NEWEST,
    ) -> None:
        self.count = len(checkpoints)
        self.layout: Layout = lay_out([checkpoint.tensors for checkpoint in checkpoints], labels, blocks, newest)
        self.device = torch.device("cpu")
        self._panels: list[Panel] = panels(checkpoints, self.layout.slots)

    @classmethod
    def open(
        cls,
        sources: Sequence[Source],
        *,
        blocks: Mapping[str, int] | None = None,
        newest: Sequence[str] = _NEWEST,
        key: str | None = None,
        prefix: str = "",
    ) -> Self:
        """Map the checkpoints into memory, without reading them.

        Arguments:
            sources: files, folders, state dicts or adapters, oldest first.
            blocks, newest: as of the class.
            key, prefix: as of :func:`~searchlib.objectives.checkpoint_files.read_checkpoint`.

        Raises:
            InvalidSettings: no sources, one that cannot be read, or they are not of one model.
        """
        if isinstance(sources, str | Path | Mapping) or not len(sources):
            raise InvalidSettings(f"sources must be a sequence of checkpoints, oldest first, but got {sources!r:.200}")
        labels = [source_name(source, index) for index, source in enumerate(sources)]
        checkpoints = [read_checkpoint(source, key=key, prefix=prefix) for source in sources]
        return cls(checkpoints, labels, blocks=blocks, newest=newest)

    def load(self, device: str | torch.device = "cpu") -> CheckpointStore:
        """The same checkpoints as float32 in the memory of a device, adapters multiplied out: ``4 * K * P`` bytes.

        For a small model whose files are mixed or half precision, and for a GPU that has the room.
        """
        loaded = copy.copy(self)
        loaded.digest = self.digest
        loaded.device = torch.device(device)
        loaded._panels = [self._loaded(panel, loaded.device) for panel in self._panels]
        return loaded

    @torch.no_grad()
    def _loaded(self, panel: Panel, device: torch.device) -> Panel:
        columns = panel.stop - panel.start
        matrix = torch.empty(self.count, columns, device=device)
        part, alone = torch.empty(1, columns), torch.ones(1, 1)
        for index, row in enumerate(matrix):
            add_panel(Panel(0, columns, 0, panel.rows), alone, part, which=[index])
            row.copy_(part[0])
        return Panel(panel.start, panel.stop, panel.block, matrix)

    @functools.cached_property
    def digest(self) -> str:
        """A text that another set of checkpoints does not have, see :mod:`searchlib.objectives.checkpoint_digest`."""
        return digest(self.layout, self._panels)

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors that are combined, in the order of the vector."""
        return tuple(slot.name for slot in self.layout.slots)

    @property
    def blocks(self) -> int:
        """Number of sets of coefficients."""
        return self.layout.blocks

    @property
    def parameters(self) -> int:
        """Number of weights P, tied ones once."""
        return self.layout.parameters

    def coefficients(self, rows: ArrayLike) -> Tensor:
        """Coefficients as float64 of shape ``(B, blocks, K)``.

        Arguments:
            rows: ``(B, K)``, the same in every block, ``(B, blocks, K)``, or ``(B, blocks * K)``.

        Raises:
            InvalidSettings: another shape, or numbers that are not finite.
        """
        given = np.asarray(rows, np.float64)
        n, wanted = len(given) if given.ndim else 0, (self.blocks, self.count)
        if given.shape == (n, self.count):
            full = np.broadcast_to(given[:, None], (n, *wanted))
        elif given.ndim and given.shape in ((n, *wanted), (n, self.blocks * self.count)):
            full = given.reshape(n, *wanted)
        else:
            raise InvalidSettings(
                f"coefficients must have shape (n, {self.count}) or (n, {self.blocks}, {self.count}), but have "
                f"{given.shape}; one candidate alone is row[None]"
            )
        if not np.isfinite(full).all():
            raise InvalidSettings("coefficients must be finite, but some are not")
        return torch.from_numpy(full.copy())

    def combine(self, rows: ArrayLike, *, out: Tensor | None = None) -> Tensor:
        """The combinations as rows of a float32 tensor of shape ``(B, P)`` on :attr:`device`.

        Arguments:
            rows: coefficients, see :meth:`coefficients`.
            out: where to write them; a new tensor if None.

        Raises:
            InvalidSettings: the shape of ``rows``.
        """
        coefficients = self.coefficients(rows)
        if out is None:
            out = torch.empty(len(coefficients), self.parameters, device=self.device)
        return self._accumulate(coefficients, out)

    def update(self, change: Tensor, out: Tensor) -> Tensor:
        """Add ``sum of change_i theta_i`` to combinations, reading only checkpoints whose coefficients change.

        Arguments:
            change: float64, ``(B, blocks, K)``.
            out: float32, ``(B, P)``; changed.
        """
        which = change.any(dim=0).any(dim=0).nonzero().ravel().tolist()
        return self._accumulate(change[:, :, which], out, which) if which else out

    @torch.no_grad()
    def _accumulate(self, coefficients: Tensor, out: Tensor, which: list[int] | None = None) -> Tensor:
        weights = coefficients.to(device=self.device, dtype=torch.float32)
        for panel in self._panels if len(out) else ():
            add_panel(panel, weights[:, panel.block], out, fresh=which is None, which=which)
        return out

    def views(self, vector: Tensor) -> Iterator[tuple[str, Tensor]]:
        """The tensors of one combination, as views of its vector, by all their names."""
        views = {slot.name: vector[slot.start : slot.stop].view(slot.shape) for slot in self.layout.slots}
        yield from views.items()
        for name, owner in self.layout.tied.items():
            yield name, views[owner]

    def state_dict(self, row: ArrayLike, *, base: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """One combination as a state dict, in the types of the checkpoints, to load or to save.

        Arguments:
            row: coefficients of one candidate, ``(K,)``, ``(blocks, K)`` or ``(blocks * K,)``.
            base: the base model's state dict, which LoRA adapters need; its other tensors come along.

        Raises:
            InvalidSettings: adapters without a base, or one that lacks a tensor.
        """
        result = dict(base or {})
        slots = {slot.name: slot for slot in self.layout.slots}
        missing = sorted(name for name, slot in slots.items() if slot.added and name not in result)
        if missing:
            raise InvalidSettings(f"base must be the base model's state dict, to add to, but lacks {missing[0]!r}")
        vector = self.combine(np.asarray(row)[None])[0].cpu()
        for name, tensor in self.views(vector):
            slot = slots[self.layout.tied.get(name, name)]
            if slot.added:
                result[name] = (result[name].detach().cpu().float() + tensor).to(result[name].dtype)
            else:
                result[name] = tensor.to(slot.dtype)
        return result | {name: tensor.clone() for name, tensor in self.layout.newest.items()}

    def bind(self, module: nn.Module, *, increments: int = 0) -> BoundCheckpoints:
        """A context manager that puts combinations into a live module, see :class:`BoundCheckpoints`."""
        return BoundCheckpoints(self, module, increments=increments)
