"""Looking at what goes into layers while a model runs on calibration data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from searchlib.errors import InvalidSettings

__all__ = ["watch_inputs"]


def watch_inputs(
    layers: Mapping[str, nn.Module], run: Callable[[], Any], see: Callable[[str, nn.Module, Tensor], None]
) -> None:
    """Call ``see(name, layer, input)`` whenever one of the layers runs during ``run()``; no gradients.

    Raises:
        InvalidSettings: a layer that did not run.
    """
    seen: set[str] = set()

    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def watch(layer: nn.Module, arguments: tuple[Any, ...]) -> None:
            seen.add(name)
            see(name, layer, arguments[0].detach())

        return watch

    handles = [layer.register_forward_pre_hook(hook(name)) for name, layer in layers.items()]
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    silent = [name for name in layers if name not in seen]
    if silent:
        raise InvalidSettings(f"{silent[0]} did not run on the calibration data; leave it in full precision by full=")
