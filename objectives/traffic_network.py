"""Road networks with signals, read from SUMO's own files: phases, lanes, queues' reach, upstream neighbors.

A network is any ``.sumocfg`` of the user. Nothing is copied: SUMO reads the same files. The networks of the RESCO
benchmark (Ault and Sharon, NeurIPS 2021) are found in the installed ``sumo-rl`` package; their licenses (CC BY-NC-SA
and GPL) let us use them, not ship them.
"""

from __future__ import annotations

import importlib.util
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, final

from searchlib.arguments import one_of
from searchlib.errors import InvalidSettings, MissingDependency

__all__ = ["RESCO", "Link", "Signal", "TrafficNetwork", "resco"]

#: Networks of the RESCO benchmark, from one signal to 21.
RESCO = (
    "cologne1", "cologne3", "cologne8", "ingolstadt1", "ingolstadt7", "grid4x4", "arterial4x4", "ingolstadt21",
)  # fmt: skip


class Link(NamedTuple):
    """A way across a junction.

    Arguments:
        source, target: lanes.
        signal: that controls it, or "".
        place: of the link in the signal's states, or -1.
        inside: the lane of it inside the junction, or "".
    """

    source: str
    target: str
    signal: str
    place: int
    inside: str


@final
@dataclass(frozen=True)
class Signal:
    """A set of traffic lights with its own program.

    Arguments:
        name: in the network.
        plan: (seconds, state) of every phase of the network's own program, greens and yellows.
        kind: of that program, such as ``"static"``.
        links: that it controls.
    """

    name: str
    plan: tuple[tuple[float, str], ...]
    kind: str
    links: tuple[Link, ...]

    @cached_property
    def phases(self) -> tuple[str, ...]:
        """States of the program with green and no yellow, each once: what may be chosen."""
        greens = [state for _, state in self.plan if set("Gg") & set(state) and not set("yY") & set(state)]
        return tuple(dict.fromkeys(greens))

    def between(self, before: str, after: str) -> str:
        """The state between two phases: yellow where a link loses its green, else what both allow."""
        found = []
        for old, new in zip(before, after, strict=True):
            if old in "Gg":
                found.append(old if new in "Gg" else "y")
            else:
                found.append("r" if new in "Gg" else new)
        return "".join(found)


@final
@dataclass(frozen=True)
class TrafficNetwork:
    """A network with its demand.

    Arguments:
        name: for tables.
        config: path of its ``.sumocfg``, whose net, routes and beginning are used.

    Raises:
        InvalidSettings: the file is missing, or names no net.

    Example:
        >>> TrafficNetwork("mine", "missing.sumocfg")
        Traceback (most recent call last):
        searchlib.errors.InvalidSettings: a traffic network needs a .sumocfg file, but there is none at \
'missing.sumocfg'
    """

    name: str
    config: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "config", os.fspath(self.config))
        if not Path(self.config).is_file():
            raise InvalidSettings(f"a traffic network needs a .sumocfg file, but there is none at {self.config!r}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.name, self.config)  # what was read is read again

    @cached_property
    def _options(self) -> Mapping[str, str]:
        tree = ElementTree.parse(self.config)
        return {element.tag: element.get("value", "") for element in tree.iter() if element.get("value") is not None}

    @property
    def begin(self) -> float:
        """First second."""
        return float(self._options.get("begin", 0) or 0)

    @property
    def net(self) -> Path:
        """The ``.net.xml``."""
        file = self._options.get("net-file") or self._options.get("n")
        if not file:
            raise InvalidSettings(f"{self.config!r} names no net-file")
        return Path(self.config).parent / file

    @property
    def additional(self) -> tuple[str, ...]:
        """Paths of the additional files that it names."""
        given = self._options.get("additional-files") or self._options.get("a") or ""
        return tuple(str(Path(self.config).parent / file.strip()) for file in given.split(",") if file.strip())

    @cached_property
    def _parsed(self) -> tuple[dict[str, float], tuple[Link, ...], tuple[Signal, ...]]:
        root = ElementTree.parse(self.net).getroot()
        lengths = {
            lane.get("id", ""): float(lane.get("length", 0))
            for edge in root.iter("edge") if edge.get("function") in (None, "normal") for lane in edge.iter("lane")
        }  # fmt: skip
        links = tuple(
            Link(
                f"{way.get('from')}_{way.get('fromLane')}", f"{way.get('to')}_{way.get('toLane')}",
                way.get("tl", ""), int(way.get("linkIndex", -1)), way.get("via", ""),
            )
            for way in root.iter("connection")
            if not way.get("from", ":").startswith(":")
        )  # fmt: skip
        return lengths, links, tuple(_signals(root, links))

    @property
    def lengths(self) -> Mapping[str, float]:
        """Of all lanes outside junctions, in m."""
        return self._parsed[0]

    @property
    def links(self) -> tuple[Link, ...]:
        """All ways across junctions."""
        return self._parsed[1]

    @property
    def signals(self) -> tuple[Signal, ...]:
        """Those with at least two phases; others keep their program."""
        return self._parsed[2]


def _signals(root: ElementTree.Element, links: Iterable[Link]) -> Iterable[Signal]:
    held: dict[str, list[Link]] = {}
    for link in links:
        if link.signal:
            held.setdefault(link.signal, []).append(link)
    seen = set()
    for program in root.iter("tlLogic"):
        name = program.get("id", "")
        plan = tuple((float(p.get("duration", 0)), p.get("state", "")) for p in program.iter("phase"))
        signal = Signal(name, plan, program.get("type", "static"), tuple(held.get(name, ())))
        if name not in seen and signal.links and len(signal.phases) > 1:
            seen.add(name)
            yield signal


def resco(name: str) -> TrafficNetwork:
    """A network of the RESCO benchmark, from the installed ``sumo-rl`` package.

    Arguments:
        name: one of :data:`RESCO`.

    Raises:
        InvalidSettings: there is none of that name.
        MissingDependency: ``sumo-rl`` is not installed.
    """
    one_of("the name of a RESCO network", name, tuple(RESCO))
    package = importlib.util.find_spec("sumo_rl")
    if package is None or not package.submodule_search_locations:
        raise MissingDependency("RESCO's networks are read from sumo-rl: pip install 'searchlib[traffic]'")
    folder = Path(package.submodule_search_locations[0]) / "nets" / "RESCO" / name
    return TrafficNetwork(name, str(folder / f"{name}.sumocfg"))
