"""One device for every worker process: whoever starts takes the first that nobody has."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from searchlib.arguments import shown
from searchlib.errors import InvalidSettings

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

__all__ = ["DEVICES", "checked_devices", "take_device"]

#: Variable that names the folder where workers see which devices are taken, and the devices.
DEVICES = "SEARCHLIB_DEVICES"


def checked_devices(devices: Any, workers: int) -> tuple[str, ...]:
    """Devices as CUDA numbers or names them, one for every worker.

    Raises:
        InvalidSettings: fewer than two, two are the same, workers of another number, or no locks on this system.
    """
    names = tuple(map(_named, devices)) if isinstance(devices, list | tuple | range) else ()
    if len(names) < 2 or len(set(names)) < len(names) or not all(names):
        raise InvalidSettings(
            f"devices must be numbers or names of two GPUs or more, for example [0, 1], but is {shown(devices)}; with "
            f"a single one no workers are needed"
        )
    if workers not in (1, len(names)):
        raise InvalidSettings(
            f"every device has one worker, but there are workers={workers} for devices={shown(devices)}"
        )
    if fcntl is None:
        raise InvalidSettings("devices=… needs a system with POSIX locks; start one dask worker per GPU instead")
    return names


def _named(device: Any) -> str:
    if isinstance(device, int) and not isinstance(device, bool) and device >= 0:
        return str(device)
    return device.removeprefix("cuda:").strip() if isinstance(device, str) else ""


def take_device() -> str | None:
    """The device of this process, for as long as it lives; ``CUDA_VISIBLE_DEVICES`` names it alone from now on.

    None where workers have none. A process that dies, however it does, leaves its device to the next one.

    Raises:
        InvalidSettings: all are taken.
    """
    given = os.environ.pop(DEVICES, None)
    if given is None:
        return None
    folder, *devices = given.split(os.pathsep)
    for number, device in enumerate(devices):
        # Open until the process ends.
        handle = os.open(Path(folder) / f"device-{number}", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            continue
        os.environ["CUDA_VISIBLE_DEVICES"] = device
        return device
    raise InvalidSettings(f"all of devices={devices} are taken by other workers of this search")
