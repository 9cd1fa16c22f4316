"""LCSC: the best weights of a training run lie between, or beyond, its checkpoints.

*Linear Combination of Saved Checkpoints Makes Consistency and Diffusion Models Better*, Liu et al., ICLR 2025,
arXiv 2404.02241, https://github.com/imagination-research/LCSC (MIT; the search itself was not released).

Reproduced: coefficients of either sign that sum to one (section 4.1), the evolutionary search as the paper describes
it (:mod:`searchlib.objectives.checkpoint_described_loop`), Fréchet distances on fixed noises in the search and on other
noises at the end, the baselines (last weights, EMA, EMA with its rate chosen on the search noises). New here: any
module and any score, coefficients per block, adapters, coordinates that are smooth in training time for CMA-ES, and
the mean of its distribution as a finalist, which generalizes better than the luckiest sample. Not reproduced: the
paper's models (bring your own checkpoints), FID with Inception features (pass them as ``features``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from searchlib.algorithms import CMAES, Algorithm, GaussNewton
from searchlib.arguments import whole_number
from searchlib.cases import Cases, Split
from searchlib.errors import InvalidSettings
from searchlib.objective import Objective
from searchlib.objectives.checkpoint_binding import BoundCheckpoints
from searchlib.objectives.checkpoint_files import Source, source_name
from searchlib.objectives.checkpoint_store import CheckpointStore, blocks_by_prefix
from searchlib.objectives.combined_checkpoint import CombinedCheckpoint
from searchlib.objectives.evaluation_mode import evaluating
from searchlib.objectives.model_judges import CaseLoss, ModelJudge
from searchlib.space import Candidates, Population, distinct
from searchlib.spaces import CheckpointCoefficients

__all__ = ["CheckpointCombination"]

#: Names of the references that every run has.
LAST, AVERAGE, BEST_EMA = "last checkpoint", "average", "best EMA"


@final
class CheckpointCombination(Objective):
    """How good a model is whose weights are a linear combination of checkpoints.

    While the objective is open, the model's parameters are views of the combination; when it is closed they are the
    model's own again, bit-identical, also after an exception.

    Arguments:
        model: the module that the checkpoints belong to; or a function that returns it, which worker processes need.
        checkpoints: of one training run, oldest first: safetensors or torch files, folders of diffusers or
            transformers, state dicts, peft adapters, or a
            :class:`~searchlib.objectives.checkpoint_store.CheckpointStore`.
        judge: what a model is worth: ``GeneratedImages(…)`` or ``CaseLoss(…)``.
        blocks: parts of the model with coefficients of their own: prefixes of parameter names, one or several per
            block; what no prefix names makes a last block. None, as in the paper: one set of coefficients for all.
        compare_with: further models to score on the held-out cases, by name: the online EMA, the fully trained model.
        smoothness: of the coordinates in which CMA-ES searches, see :class:`CheckpointCoefficients`.
        batch: candidates whose weights are computed in one pass over the checkpoints; needs as many times the memory
            of the model.

    Raises:
        InvalidSettings: fewer than two checkpoints, or of different models; the message names the first difference.
        UnsupportedModel: the model and its checkpoints do not fit.

    Example:
        >>> from searchlib import search
        >>> objective = CheckpointCombination.smoke()
        >>> result = search(objective, budget=60)
        >>> result.holdout.against("best EMA").difference < 0
        True
        >>> model = result.best.apply(torch.nn.Linear(3, 1))
    """

    def __init__(
        self,
        model: nn.Module | Callable[[], nn.Module],
        checkpoints: CheckpointStore | Sequence[Source],
        judge: ModelJudge,
        *,
        blocks: Sequence[str | Sequence[str]] | None = None,
        compare_with: Mapping[str, Source] | None = None,
        smoothness: float = 0.0,
        batch: int = 8,
    ) -> None:
        if not isinstance(judge, ModelJudge):
            raise InvalidSettings(f"judge must be GeneratedImages(…) or CaseLoss(…), but is {judge!r}")
        self._recipe = None if isinstance(model, nn.Module) or isinstance(checkpoints, CheckpointStore) else (
            model, checkpoints, judge,
            {"blocks": blocks, "compare_with": compare_with, "smoothness": smoothness, "batch": batch},
        )  # fmt: skip
        self.model = model if isinstance(model, nn.Module) else model()
        self.judge = judge
        self._store, self._labels = self._opened(checkpoints, blocks)
        if self._store.count < 2:
            raise InvalidSettings(f"a combination needs at least 2 checkpoints, but got {self._store.count}")
        self._others = dict(compare_with or {})
        taken = sorted({LAST, AVERAGE, BEST_EMA} & self._others.keys())
        if taken:
            raise InvalidSettings(f"compare_with must not name {taken[0]!r}, which is compared with anyway")
        self.space: CheckpointCoefficients = CheckpointCoefficients(
            self._store.count, self._store.blocks, smoothness=smoothness
        )
        self.direction = judge.direction  # type: ignore[assignment]  # a judge's type is plain str
        self.additive, self.differentiable = judge.additive, judge.differentiable
        self.chunk_rows = whole_number("batch", batch, 1)
        self.batch_size = max(16, self.chunk_rows)
        self._owner: Any = None
        self._best_ema: NDArray[np.float64] | None = None
        self._stack, self._live = ExitStack(), None  # type: tuple[ExitStack, BoundCheckpoints | None]

    @classmethod
    def from_checkpoints(
        cls,
        pipe: Any,
        checkpoints: Sequence[Source],
        judge: ModelJudge,
        *,
        component: str | None = None,
        **settings: Any,
    ) -> Self:
        """The checkpoints of one component of a diffusers pipeline; the winner is saved as a pipeline.

        Arguments:
            pipe: Stable Diffusion, DiT, a consistency model, …; the one whose sampler ``judge`` calls.
            checkpoints: of that component: its own folders, files, or LoRA adapters.
            component: ``"transformer"``, ``"unet"``, …; by default the denoiser.
            settings: as of the class.

        Example:
            A Stable Diffusion fine-tune, 40 checkpoints of its U-Net, CLIP features, prompts in turn::

                judge = GeneratedImages(
                    PipelineSampler(pipe, batch=8, num_inference_steps=15),
                    FrechetDistance(clip_features, reference_images),
                    NoiseCases(search=5000, holdout=10000, conditions=prompts, images_per_case=5000),
                )
                folders = sorted(Path("run").glob("checkpoint-*/unet"), key=lambda f: int(f.parent.name[11:]))
                objective = CheckpointCombination.from_checkpoints(pipe, folders, judge)  # oldest first
                result = search(objective, budget=1000, seed=0, study="lcsc.db")
                result.best.save_pretrained("combined")           # a diffusers folder
        """
        names = [component] if component else ["transformer", "unet"]
        found = [name for name in names if isinstance(getattr(pipe, name, None), nn.Module)]
        if not found:
            parts = getattr(pipe, "components", {})
            raise InvalidSettings(
                f"{type(pipe).__name__} has no component {' or '.join(map(repr, names))}; pass component=, one of "
                f"{sorted(name for name, part in parts.items() if isinstance(part, nn.Module))}"
            )
        objective = cls(getattr(pipe, found[0]), checkpoints, judge, **settings)
        objective._owner = pipe
        return objective

    @classmethod
    def smoke(cls) -> Self:
        """Checkpoints of a noisy linear regression, for conformance tests and examples."""
        return cls(_smoke_model, _smoke_checkpoints(), CaseLoss(_smoke_loss, _smoke_cases()))

    def __reduce__(self) -> tuple[Any, ...]:
        if self._recipe is None:
            raise InvalidSettings(
                "this CheckpointCombination holds a model that was given as an object; give a function that returns "
                "the model, and checkpoints as files, so that every worker can load its own"
            )
        return _rebuilt, self._recipe

    def _opened(
        self, checkpoints: CheckpointStore | Sequence[Source], blocks: Sequence[str | Sequence[str]] | None
    ) -> tuple[CheckpointStore, tuple[str, ...]]:
        if isinstance(checkpoints, CheckpointStore):
            if blocks is not None:
                raise InvalidSettings("a CheckpointStore has its blocks already; pass blocks= to CheckpointStore.open")
            return checkpoints, tuple(f"checkpoint {i}" for i in range(checkpoints.count))
        by_name = None if blocks is None else _blocks(list(self.model.state_dict()), blocks)
        store = CheckpointStore.open(checkpoints, blocks=by_name)
        return store, tuple(source_name(source, i) for i, source in enumerate(checkpoints))

    def cases(self, split: Split) -> Cases:
        """The cases of the judge."""
        return self.judge.cases(split)

    def evaluate(self, candidates: Candidates, cases: Cases) -> NDArray[np.float64]:
        """Observations ``(n, c, k)``; all combinations are computed in one pass over the checkpoints."""
        live = self._opened_model()
        observed = []
        for start in range(0, len(candidates), self.chunk_rows):
            for index in range(live.batch(candidates.array[start : start + self.chunk_rows])):
                live.use(index)
                observed.append(self.judge.observe(self.model, cases))
        return np.stack(observed)

    def aggregate(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """As the judge does."""
        return self.judge.aggregate(scores)

    def slope(self, scores: NDArray[np.floating[Any]]) -> tuple[float, NDArray[np.floating[Any]]]:
        """As the judge does."""
        return self.judge.slope(scores)

    def observe(self, row: NDArray[np.float64], cases: Cases) -> NDArray[np.float64]:
        """Observations ``(c, k)`` of one row of the space."""
        return np.asarray(self.evaluate(Candidates(self.space, row[None]), cases)[0])

    def seeds(self) -> Population:
        """The last checkpoint, averages of the last ones, and exponential averages of several rates."""
        return distinct(self.space.canonical(self.space.seed_population()))

    def references(self) -> tuple[str, ...]:
        """The last checkpoint, the average of all, the best exponential average, and ``compare_with``."""
        return (LAST, AVERAGE, BEST_EMA, *self._others)

    def evaluate_reference(self, name: str, cases: Cases) -> NDArray[np.float64]:
        """Observations ``(c, k)`` of a reference."""
        if name in self._others:
            return self._observe_other(self._others[name], cases)
        if name == BEST_EMA:
            return self.observe(self.best_ema(), cases)
        return self.observe(self.space.last() if name == LAST else self.space.average(), cases)

    def best_ema(self) -> NDArray[np.float64]:
        """The row of the exponential average that is best on the SEARCH cases (the paper's EMA*)."""
        if self._best_ema is None:
            known = self.space.baselines()
            rows = self.space.canonical(np.stack([row for name, row in known.items() if name.startswith("EMA")]))
            cases = self.judge.cases(Split.SEARCH)
            values = [self._value(self.observe(row, cases)) for row in rows]
            self._best_ema = rows[int(np.nanargmin(values) if self.direction == "minimize" else np.nanargmax(values))]
        return self._best_ema

    def _value(self, table: NDArray[np.float64]) -> float:
        return float(self.aggregate(table[None])[0, 0]) if np.isfinite(table).all() else np.nan

    def _observe_other(self, source: Source, cases: Cases) -> NDArray[np.float64]:
        live, one = self._opened_model(), CheckpointStore.open([source])
        live.__exit__(None, None, None)  # a module is bound once at a time, and adapters add to its own weights
        try:
            with one.bind(self.model) as other:
                other.write(np.ones(1))
                return self.judge.observe(self.model, cases)
        finally:
            live.__enter__()

    def algorithm(self, evaluations: int | None) -> Algorithm:
        """From the best of the seeds: Gauss-Newton on the features of a Fréchet distance, else CMA-ES."""
        if self.differentiable and (evaluations is None or evaluations > self.space.latent_dimension):
            return GaussNewton()
        return CMAES(sigma=1.5)

    def artifact(self, value: Any) -> CombinedCheckpoint:
        """The winner: coefficients, and weights to apply or to save."""
        return CombinedCheckpoint(value, self._labels, self._store, self.model, self._owner)

    def fingerprint(self) -> Mapping[str, Any]:
        """The checkpoints, and the judge."""
        return {
            "objective": type(self).__name__,
            "model": type(self.model).__name__,
            "checkpoints": self._store.digest,
            **self.judge.fingerprint(),
        }

    def __enter__(self) -> Self:
        if self._live is None:
            with ExitStack() as opening:
                opening.enter_context(evaluating(self.model))
                self._live = opening.enter_context(self._store.bind(self.model))
                self._stack = opening.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live = None
        self._stack.close()

    def _opened_model(self) -> BoundCheckpoints:
        if self._live is None:
            raise InvalidSettings("the model is not open: use `with objective: …`, or search(objective)")
        return self._live


def _blocks(names: Sequence[str], blocks: Sequence[str | Sequence[str]]) -> dict[str, int]:
    """The block of every name; one more block for the names that no prefix fits."""
    prefixes = [prefix.rstrip(".") for entry in blocks for prefix in ([entry] if isinstance(entry, str) else entry)]
    fit = all(any(prefix == "" or f"{name}.".startswith(f"{prefix}.") for prefix in prefixes) for name in names)
    return blocks_by_prefix(names, blocks if fit else [*blocks, ""])


def _rebuilt(model: Any, checkpoints: Any, judge: Any, settings: dict[str, Any]) -> CheckpointCombination:
    return CheckpointCombination(model, checkpoints, judge, **settings)


def _smoke_model() -> nn.Module:
    return nn.Linear(3, 1)


def _smoke_checkpoints() -> list[dict[str, torch.Tensor]]:
    """Twelve steps towards the answer, with noise that an average removes and a way still to go."""
    generator = torch.Generator().manual_seed(0)
    way = torch.linspace(0.0, 0.8, 12)
    return [
        {"weight": part * torch.ones(1, 3) + 0.1 * torch.randn(1, 3, generator=generator), "bias": torch.zeros(1)}
        for part in way
    ]


def _smoke_cases() -> dict[str, list[list[float]]]:
    generator = torch.Generator().manual_seed(1)
    draws = torch.randn(60, 3, generator=generator).tolist()
    return {"search": draws[:30], "select": draws[30:40], "holdout": draws[40:]}


def _smoke_loss(model: Any, cases: Sequence[Any]) -> torch.Tensor:
    inputs = torch.tensor(cases)
    return (model(inputs)[:, 0] - inputs.sum(dim=1)) ** 2
