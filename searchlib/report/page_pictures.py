"""The pictures of a report's page: drawn once, for light paper; the page's script turns their colors for dark paper."""

from __future__ import annotations

import base64
import io
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from searchlib.errors import MissingDependency, SearchlibError
from searchlib.objective import Direction
from searchlib.report.markup import Markup, element
from searchlib.report.page_sections import section
from searchlib.report.plots import Plots
from searchlib.report.predictor_quality import predictor_notes
from searchlib.report.stored_tasks import stored_tasks
from searchlib.report.task_history import plot_tasks
from searchlib.report.winner_picture import WINNER_PICTURES
from searchlib.result import Outcome, Result
from searchlib.study import Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["pictures"]

#: Every color that a page's pictures use for lines and text, and what stands for it on dark paper.
_DARK = {
    "#1c1d1f": "#e6e7e9", "#62666d": "#9aa0a8", "#666666": "#9aa0a8", "#999999": "#787e87", "#d9dadc": "#3a3d43",
    "#2458c5": "#8ab0ff", "#c2571a": "#f0a35e", "#17723b": "#6fd08c", "#7a3fb0": "#c79bf2", "#b3261e": "#ff8f85",
    "#0f7f8c": "#5fd0dc",
}  # fmt: skip
_INK, _QUIET, _LINE = "#1c1d1f", "#62666d", "#d9dadc"
#: The most coordinates of a curriculum's tasks that a page shows.
_COORDINATES = 6
_CYCLE = ["#2458c5", "#c2571a", "#17723b", "#7a3fb0", "#b3261e", "#0f7f8c"]

_Draw = Callable[["Axes"], object]


def pictures(study: Study, result: Result, direction: Sequence[Direction]) -> Markup:
    """Every picture that this study has. One that cannot be drawn is left out, and the page says why."""
    figures, missing = [], []
    for title, text, draw in _all(study, result, direction):
        try:
            image = _image(draw, f"{title}: {text}")
        except MissingDependency as error:
            missing.append(f"{title}: {error}")
        except SearchlibError:
            continue  # this study has no such picture
        except Exception as error:  # an odd study still deserves its page
            missing.append(f"{title}: {type(error).__name__}: {error}"[:300])
        else:
            caption = element("figcaption", element("b", title), text)
            button = element("button", image, type="button", aria_label=f"enlarge: {title}")
            figures.append(element("figure", button, caption))
    notes = [element("p", f"Not drawn: {note}", class_="quiet") for note in dict.fromkeys(missing)]
    if not figures and not notes:
        notes = [element("p", "There is nothing to draw yet.", class_="quiet")]
    return section("pictures", "Pictures", element("div", figures, class_="gallery") if figures else None, notes)


def _all(
    study: Study, result: Result, direction: Sequence[Direction]
) -> Iterator[tuple[str, str, _Draw]]:
    """Title, caption and painter of every picture that there may be."""
    plots, history = Plots(result, tuple(direction)), result.history
    apart = " Candidates of different generations met different cases." if study.settings.get("case_source") else ""
    yield "Convergence", f"Best value so far on the search cases; held-out values as lines.{apart}", \
        lambda axes: plots.convergence(ax=axes)
    for kind in type(history.space).__mro__:
        if kind.__name__ in WINNER_PICTURES:
            yield "Winner", f"{WINNER_PICTURES[kind.__name__][0].capitalize()}.", lambda axes: plots.winner(ax=axes)
            break
    if history.objectives > 1:
        yield "Front", "What nothing else dominates, beside the candidates as they did on the search cases.", \
            lambda axes: plots.front(ax=axes)
        yield "Hypervolume", "The volume that the front dominates.", lambda axes: plots.hypervolume(ax=axes)
    if _cases(study) > 1:
        yield "Score table", "Every candidate on every case; dark is good, blank is failed.", \
            lambda axes: plots.scores(study, ax=axes)
    yield from _tasks(study)
    if result.outcome is not Outcome.RUNNING:  # a forest takes seconds, which a running search needs for itself
        yield "Importance", "Share of the variance that each parameter explains alone (fANOVA of a random forest).", \
            lambda axes: plots.importance(ax=axes)
        yield "Interactions", "What pairs explain beyond each; on the diagonal each alone.", \
            lambda axes: plots.interactions(ax=axes)
    if predictor_notes(result.notes):
        yield "Predictor", "How well it ranked candidates before it knew them; filled: it was trusted.", \
            lambda axes: plots.predictor_quality(ax=axes)


def _tasks(study: Study) -> Iterator[tuple[str, str, _Draw]]:
    """A picture of every coordinate of a curriculum's tasks that has changed."""
    tasks, success = stored_tasks(study)
    if not success:
        return
    every = np.concatenate(tasks)
    changing = np.flatnonzero(np.ptp(every, axis=0) > 0)
    names = study.settings.get("task_names")
    if not isinstance(names, list) or len(names) != every.shape[1]:
        names = [f"coordinate {number}" for number in range(every.shape[1])]
    more = f" The first {_COORDINATES} of {len(changing)} that change." if len(changing) > _COORDINATES else ""
    for number in changing[:_COORDINATES]:
        yield "Tasks", f"The {names[number]} of what the curriculum offered, colored by the success in it.{more}", \
            partial(_draw_tasks, tasks, success, str(names[number]), int(number))


def _draw_tasks(
    tasks: list[NDArray[np.float64]], success: list[NDArray[np.float64]], name: str, number: int, axes: Axes
) -> None:
    plot_tasks(tasks, success, name=name, coordinate=number, axes=axes)


def _cases(study: Study) -> int:
    """SEARCH cases of a study."""
    cases = study.settings.get("cases")
    return int(cases["search"][0]) if isinstance(cases, dict) else 0


@contextmanager
def _page_style() -> Iterator[None]:
    """Quiet colors on a transparent ground."""
    from matplotlib import rc_context

    settings: Any = {
        "text.color": _INK, "axes.labelcolor": _QUIET, "axes.titlecolor": _QUIET, "xtick.color": _QUIET,
        "ytick.color": _QUIET, "axes.edgecolor": _LINE, "axes.facecolor": "none", "figure.facecolor": "none",
        "savefig.facecolor": "none", "legend.frameon": False, "axes.spines.top": False, "axes.spines.right": False,
        "axes.prop_cycle": f"cycler('color', {_CYCLE})", "font.size": 9,
        "svg.fonttype": "path", "svg.hashsalt": "searchlib", "axes.linewidth": 0.8, "text.usetex": False,
    }  # fmt: skip
    with rc_context(settings), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name in a script that the font does not know is no reason to stop
        yield


def _image(draw: _Draw, text: str) -> Markup:
    """Draw into a figure of its own; an SVG inside an ``img`` runs no script and loads nothing."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependency("pictures need matplotlib: pip install 'searchlib[report]'") from error
    with _page_style():
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        draw(figure.subplots())
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    data = base64.b64encode(stream.getvalue().encode("utf-8", "replace")).decode()
    return element("img", src=f"data:image/svg+xml;base64,{data}", alt=text, width=640, height=400,
                   data_dark=json.dumps(_DARK))  # fmt: skip
