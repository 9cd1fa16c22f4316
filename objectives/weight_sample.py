"""By which a study knows the weights of a model: a digest of some numbers of each."""

from __future__ import annotations

import hashlib

import torch
from torch import nn

__all__ = ["weight_sample"]

_SAMPLED = 64  # numbers per tensor: training changes all of them


def weight_sample(model: nn.Module) -> str:
    """A digest of the names and shapes of all parameters and of evenly spaced numbers of each.

    No protection against a forgery. Of parameters without numbers (on the meta device) only names and shapes count.

    Example:
        >>> model = nn.Linear(4, 2)
        >>> before = weight_sample(model)
        >>> with torch.no_grad():
        ...     _ = model.weight.mul_(2)
        >>> weight_sample(model) == before
        False
    """
    digest = hashlib.blake2b(digest_size=8)
    for name, parameter in model.named_parameters():
        digest.update(repr((name, tuple(parameter.shape))).encode())
        if parameter.device.type != "meta":
            flat = parameter.detach().reshape(-1)
            digest.update(flat[:: 1 + len(flat) // _SAMPLED].to(torch.float32).cpu().numpy().tobytes())
    return digest.hexdigest()
