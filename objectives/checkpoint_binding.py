"""A live module whose weights are combinations of checkpoints, and its own again afterwards."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self, final

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from searchlib.errors import InvalidSettings, UnsupportedModel

if TYPE_CHECKING:
    from searchlib.objectives.checkpoint_store import CheckpointStore

__all__ = ["BoundCheckpoints"]


@final
class BoundCheckpoints:
    """The tensors of a module while they show combinations of checkpoints.

    A context manager: nothing happens to the module before it is entered; on exit, also after an exception, every
    tensor is what it was, to the bit and in the same memory. Inside, parameters are views of the combined vector where
    the module holds float32 on the store's device: a combination is live as soon as it is computed. Elsewhere it is
    converted or moved once. What ``newest`` takes from the newest checkpoint is live from the start. What the module
    ties and the checkpoints hold twice is combined from the first of its names.

    ``write`` computes each combination from all checkpoints, so that it depends on its coefficients alone. With
    ``increments`` it adds the difference to the last one instead where at most a quarter of the coefficients changed,
    and computes anew after so many additions: faster for a local search, at rounding errors that depend on what was
    written before (each addition adds about 1e-7 of the largest term).

    Arguments:
        store: the checkpoints.
        module: the model they are of. Not to be moved or converted while it is bound.
        increments: how many additions in a row; 0 is none.

    Raises:
        UnsupportedModel: the module has a tensor that the checkpoints lack (unless they are adapters) or the other way
            round, one of another shape, or one without memory.

    Example:
        >>> from searchlib.objectives.checkpoint_store import CheckpointStore
        >>> model = nn.Linear(2, 1, bias=False)
        >>> store = CheckpointStore.open([{"weight": torch.tensor([[1.0, 2.0]])}, {"weight": torch.zeros(1, 2)}])
        >>> with store.bind(model) as live:
        ...     live.write([2.0, -1.0])
        ...     model(torch.ones(1, 2)).item()
        6.0
    """

    def __init__(self, store: CheckpointStore, module: nn.Module, *, increments: int = 0) -> None:
        self.store = store
        self.module = module
        self.increments = increments
        self._combined, self._as_it_is = _targets(store, module)
        self._originals: list[Tensor] | None = None
        self._live: _Combination | None = None
        self._batch: list[_Combination] = []
        self._vectors = torch.empty(0)
        self._written: tuple[Tensor, int] | None = None

    def __enter__(self) -> Self:
        if self._originals is not None:
            raise InvalidSettings("a module must be bound once at a time, but this one is bound already")
        self._originals = [tensor.data for tensor, _ in (*self._combined, *self._as_it_is)]
        for tensor, name in self._as_it_is:
            newest = self.store.layout.newest[name]
            tensor.data = newest.to(device=tensor.device, dtype=tensor.dtype, copy=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for (tensor, _), original in zip((*self._combined, *self._as_it_is), self._originals or (), strict=False):
            tensor.data = original
        self._originals, self._live, self._written = None, None, None
        self._batch, self._vectors = [], torch.empty(0)

    def write(self, row: ArrayLike) -> None:
        """Make one combination live.

        Arguments:
            row: coefficients, ``(K,)``, ``(blocks, K)`` or ``(blocks * K,)``.
        """
        originals = self._bound()
        coefficients = self.store.coefficients(np.asarray(row)[None])
        if self._live is None:
            self._live = _Combination(self.store, self._combined, originals)
        vector = self._live.vector[None]
        if not self._increment(coefficients, vector):
            self.store.combine(coefficients.numpy(), out=vector)
            self._live.add_base()
            self._written = coefficients, 0
        self._live.show()

    def _increment(self, coefficients: Tensor, vector: Tensor) -> bool:
        if self._written is None or self._written[1] >= self.increments:
            return False
        change = coefficients - self._written[0]
        if 4 * int(change.any(dim=1).sum()) > self.store.count:
            return False
        self.store.update(change, vector)
        self._written = coefficients, self._written[1] + 1
        return True

    def batch(self, rows: ArrayLike) -> int:
        """Compute many combinations in one pass; :meth:`use` makes one of them live. Returns how many.

        Arguments:
            rows: coefficients, see :meth:`CheckpointStore.coefficients`; their results take ``4 * B * P`` bytes, in
                the memory of the last batch: what was live of it is overwritten.
        """
        originals = self._bound()
        coefficients = self.store.coefficients(rows).numpy()
        if len(coefficients) != len(self._batch):
            self._batch = []
            vectors = torch.empty(len(coefficients), self.store.parameters, device=self.store.device)
            self._batch = [_Combination(self.store, self._combined, originals, vector) for vector in vectors]
            self._vectors = vectors
        self.store.combine(coefficients, out=self._vectors)
        for combination in self._batch:
            combination.add_base()
        return len(self._batch)

    def use(self, index: int) -> None:
        """Make the ``index``-th combination of the last :meth:`batch` live."""
        self._bound()
        self._batch[index].show()

    def _bound(self) -> list[Tensor]:
        if self._originals is None:
            raise InvalidSettings("the module must be bound for that: with store.bind(module) as live: ...")
        return self._originals


@final
class _Combination:
    """One vector of weights and the tensors that show it."""

    def __init__(
        self,
        store: CheckpointStore,
        targets: list[tuple[Tensor, str]],
        originals: list[Tensor],
        vector: Tensor | None = None,
    ) -> None:
        self.vector = torch.empty(store.parameters, device=store.device) if vector is None else vector
        self._copies: dict[tuple[torch.device, torch.dtype], Tensor] = {}
        added = {slot.name for slot in store.layout.slots if slot.added}
        own = dict(store.views(self.vector))
        views = {(self.vector.device, self.vector.dtype): own}
        self._shown: list[tuple[Tensor, Tensor]] = []
        self._base: list[tuple[Tensor, Tensor]] = []
        for (tensor, name), original in zip(targets, originals, strict=False):
            kind = original.device, original.dtype
            if kind not in views:
                self._copies[kind] = torch.empty_like(self.vector, device=kind[0], dtype=kind[1])
                views[kind] = dict(store.views(self._copies[kind]))
            self._shown.append((tensor, views[kind][name]))
            if name in added and all(view is not own[name] for view, _ in self._base):
                self._base.append((own[name], original))

    def add_base(self) -> None:
        """Complete what adapters change by the module's own weights."""
        for view, original in self._base:
            view.add_(original.to(view))

    def show(self) -> None:
        """Make it live."""
        for copied in self._copies.values():
            copied.copy_(self.vector)
        for tensor, view in self._shown:
            tensor.data = view


def _targets(store: CheckpointStore, module: nn.Module) -> tuple[list[tuple[Tensor, str]], list[tuple[Tensor, str]]]:
    """The distinct tensors of the module with the name of each in the store: the combined ones, and the others."""
    shapes = {slot.name: slot.shape for slot in store.layout.slots}
    shapes |= {name: tensor.shape for name, tensor in store.layout.newest.items()}
    shapes |= {name: shapes[owner] for name, owner in store.layout.tied.items()}
    adapters = any(slot.added for slot in store.layout.slots)
    # Also distinct parameters in the same memory are one tensor.
    groups: dict[tuple[object, ...], list[tuple[str, Tensor]]] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if isinstance(tensor, Tensor):
            place = (tensor.data_ptr(), tensor.shape, tensor.stride()) if tensor.numel() else (name,)
            groups.setdefault(place if tensor.device.type != "meta" else (id(tensor),), []).append((name, tensor))
    combined: list[tuple[Tensor, str]] = []
    as_it_is: list[tuple[Tensor, str]] = []
    for group in groups.values():
        known = next((name for name, _ in group if name in shapes), None)
        if known is None:
            if adapters:
                continue
            raise UnsupportedModel(f"the checkpoints must have every tensor of the module, but lack {group[0][0]!r}")
        for tensor in {id(tensor): tensor for _, tensor in group}.values():
            _check_target(known, tensor, shapes[known])
            (as_it_is if known in store.layout.newest else combined).append((tensor, known))
    unused = shapes.keys() - {name for group in groups.values() for name, _ in group}
    if unused:
        raise UnsupportedModel(f"the module must have every tensor of the checkpoints, but lacks {min(unused)!r}")
    return combined, as_it_is


def _check_target(name: str, tensor: Tensor, shape: torch.Size) -> None:
    if tensor.shape != shape:
        raise UnsupportedModel(
            f"{name!r} must have the checkpoints' shape {tuple(shape)}, but has {tuple(tensor.shape)} in the module"
        )
    if tensor.device.type == "meta":
        raise UnsupportedModel(f"{name!r} must be in memory, but is on the meta device; load the model first")
