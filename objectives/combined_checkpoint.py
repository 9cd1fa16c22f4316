"""What a search over checkpoint combinations brings home: coefficients, and a model that can be saved."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import numpy as np
from torch import Tensor, nn

from searchlib.errors import InvalidSettings
from searchlib.objectives.checkpoint_store import CheckpointStore

__all__ = ["CombinedCheckpoint"]

#: The file beside the weights that says how they came about.
_RECIPE = "checkpoint_coefficients.json"


@final
@dataclass(frozen=True)
class CombinedCheckpoint:
    """A combination of checkpoints.

    Arguments:
        coefficients: one per checkpoint, oldest first; with blocks a tuple of such tuples.
        labels: what the checkpoints are called.
    """

    coefficients: tuple[Any, ...]
    labels: tuple[str, ...]
    _store: CheckpointStore = field(repr=False, compare=False)
    _module: nn.Module = field(repr=False, compare=False)
    _owner: Any = field(default=None, repr=False, compare=False)  # a pipeline, saved as a whole

    def state_dict(self) -> dict[str, Tensor]:
        """The combined weights by name, in the types of the checkpoints."""
        return self._store.state_dict(np.asarray(self.coefficients), base=self._module.state_dict())

    def apply(self, model: nn.Module) -> nn.Module:
        """Load the combined weights into a model of the same structure, for good; returns it."""
        state = self._store.state_dict(np.asarray(self.coefficients), base=model.state_dict())
        model.load_state_dict(state)
        return model

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the model, or the pipeline that it belongs to, as its own library does, with a note of how it was made.

        Raises:
            InvalidSettings: the model has no ``save_pretrained``; save :meth:`state_dict` instead.
        """
        owner: Any = self._module if self._owner is None else self._owner
        if not hasattr(owner, "save_pretrained"):
            raise InvalidSettings(
                f"{type(owner).__name__} has no save_pretrained; write best.state_dict() with "
                f"safetensors.torch.save_file"
            )
        with self._store.bind(self._module) as live:
            live.write(np.asarray(self.coefficients))
            owner.save_pretrained(folder)
        Path(folder, _RECIPE).write_text(json.dumps(self.recipe(), indent=1) + "\n", encoding="utf-8")

    def recipe(self) -> dict[str, Any]:
        """Coefficients and what they belong to, as JSON values."""
        return {"checkpoints": list(self.labels), "coefficients": _listed(self.coefficients)}

    def __str__(self) -> str:
        rows = self.coefficients if isinstance(self.coefficients[0], tuple) else (self.coefficients,)
        spans = [f"{min(row):.3g} … {max(row):.3g}, {sum(c < 0 for c in row)} negative" for row in rows]
        return f"combination of {len(self.labels)} checkpoints ({'; '.join(spans)})"


def _listed(coefficients: Sequence[Any]) -> list[Any]:
    return [_listed(item) if isinstance(item, tuple) else item for item in coefficients]
