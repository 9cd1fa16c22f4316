"""A grid city of any size with seeded demand, made by SUMO's own ``netgenerate``: 14 × 14 has 196 signals.

CityLight's Manhattan has as many signals and 16,317 trips in its hour, but no file that may be had here.
"""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path

import numpy as np

from searchlib.arguments import whole_number
from searchlib.errors import MissingDependency
from searchlib.objectives.traffic_network import TrafficNetwork

__all__ = ["grid_city"]


def grid_city(
    folder: Path, side: int, *, vehicles: int, seconds: int = 3600, block: float = 200.0, seed: int = 0
) -> TrafficNetwork:  # fmt: skip
    """A square grid with a signal on every crossing and roads of two lanes, entered and left at its border.

    Every trip goes from one road of the border to another; departures are spread evenly over the time.

    Arguments:
        folder: where its three files are written.
        side: crossings of a side, at least 2.
        vehicles: that depart.
        seconds: over which they do.
        block: meters between two crossings.
        seed: of the demand.

    Raises:
        MissingDependency: ``eclipse-sumo`` is not installed.
    """
    name = f"grid{whole_number('side', side, 2)}x{side}"
    folder.mkdir(parents=True, exist_ok=True)
    net = folder / f"{name}.net.xml"
    subprocess.run(
        [str(_binary("netgenerate")), "--grid", "--grid.number", str(side), "--grid.length", str(block),
         "--grid.attach-length", str(block), "--default.lanenumber", "2", "--default-junction-type", "traffic_light",
         "--tls.left-green.time", "6", "--no-turnarounds", "true", "--output-file", str(net)],
        check=True, capture_output=True,
    )  # fmt: skip
    entries, exits = _border(side)
    rng = np.random.default_rng(seed)
    departures = np.sort(rng.uniform(0, seconds, vehicles))
    lines = ["<routes>", '<vType id="car" vClass="passenger"/>']
    for number, second in enumerate(departures.tolist()):
        start, goal = rng.choice(len(entries), 2, replace=False).tolist()
        lines.append(
            f'<trip id="{number}" type="car" depart="{second:.2f}" departLane="best" departSpeed="max" '
            f'from="{entries[start]}" to="{exits[goal]}"/>'
        )
    (folder / f"{name}.rou.xml").write_text("\n".join([*lines, "</routes>"]), encoding="utf-8")
    config = folder / f"{name}.sumocfg"
    config.write_text(
        f'<configuration><input><net-file value="{net.name}"/><route-files value="{name}.rou.xml"/></input>'
        f'<time><begin value="0"/><end value="{seconds}"/></time></configuration>',
        encoding="utf-8",
    )
    return TrafficNetwork(name, str(config))


def _binary(name: str) -> Path:
    package = importlib.util.find_spec("sumo")
    if package is None or not package.submodule_search_locations:
        raise MissingDependency("grids are made by eclipse-sumo: pip install 'searchlib[traffic]'")
    return Path(package.submodule_search_locations[0]) / "bin" / name


def _border(side: int) -> tuple[list[str], list[str]]:
    """Roads into the grid and out of it, by the names that ``netgenerate`` gives: columns A, B, …, rows 0, 1, …"""
    columns = [_letters(i) for i in range(side)]
    ends = [(f"left{i}", f"{columns[0]}{i}") for i in range(side)]
    ends += [(f"right{i}", f"{columns[-1]}{i}") for i in range(side)]
    ends += [(f"bottom{i}", f"{columns[i]}0") for i in range(side)]
    ends += [(f"top{i}", f"{columns[i]}{side - 1}") for i in range(side)]
    return [outside + inside for outside, inside in ends], [inside + outside for outside, inside in ends]


def _letters(column: int) -> str:
    return chr(ord("A") + column)
