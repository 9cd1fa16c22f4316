"""MoA: which span every attention head of a causal language model gets, within an average span.

*MoA: Mixture of Sparse Attention for Automatic Large Language Model Compression* (COLM 2025: *Mixture of Attention
Spans*), Fu et al., arXiv 2406.14909, https://github.com/thu-nics/MoA (MIT).

Reproduced: elastic rules per head (section 3.1) and their grid, budgets at several lengths, at most two rules per
layer, calibration on the dense model's own answers, selection at a length that was not profiled, the uniform window
with sinks (StreamingLLM), plans in the released layout. Different: heads are profiled by masking them, without
gradients (:func:`searchlib.measure_profile`; the paper's Taylor profile is in
:mod:`searchlib.objectives.span_profiles`), the knapsack is solved without a commercial solver, and what the sum over
heads misses is searched with true evaluations.
Not reproduced: H2O and InfLLM, and the CUDA kernels; on CUDA flex_attention skips blocks that no query sees.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from searchlib.arguments import whole_number
from searchlib.cases import Cases, Split
from searchlib.errors import InvalidSettings
from searchlib.objective import Objective
from searchlib.objectives.answer_cases import Case
from searchlib.objectives.attention_switch import attention_shape
from searchlib.objectives.evaluation_mode import evaluating
from searchlib.objectives.layer_prefixes import LayerPrefixes
from searchlib.objectives.span_attention import SpanAttention
from searchlib.objectives.span_plan import SpanPlan
from searchlib.objectives.token_cases import TokenCase, batches_by_length, own_answers, token_cases
from searchlib.objectives.weight_sample import weight_sample
from searchlib.space import Candidates, Population
from searchlib.spaces.attention_configs import AttentionConfigs, elastic_rules
from searchlib.spaces.attention_plan import AttentionPlan

__all__ = ["SparseAttention"]

Loader = Callable[[], tuple[nn.Module, Any]]


@final
class SparseAttention(Objective):
    """The loss of a language model's responses when every head sees only its span.

    A case's score is the mean negative log-likelihood of its response tokens, in nats; spans are those for the case's
    own length. The model is bit-identical again when the objective is closed.

    At full scale, profiled at 2k, 4k and 8k tokens and selected at 12k, in blocks of 64 as MoA's kernels want them::

        model = AutoModelForCausalLM.from_pretrained("lmsys/vicuna-7b-v1.5-16k", dtype="bfloat16", device_map="cuda")
        objective = SparseAttention(
            model, tokenizer, {"search": summaries, "select": longer_ones, "holdout": other_long_ones},
            rules=elastic_rules((2048, 4096, 8192), (16384,)), lengths=(2048, 4096, 8192, 16384),
            sink=64, block=64, max_rules_per_layer=2, supervision="model",
        )
        profile = AdditiveProfile.of(objective.space, attention_mass_profile(objective))  # 49k passes if head by head
        search(objective, ExactAllocation(profile), budget=50).best.save("moa_alpha_beta.json")

    Arguments:
        model: a transformers causal language model; or a checkpoint's name or path; or a function that returns
            ``(model, tokenizer)``. Only the last two can be sent to worker processes.
        tokenizer: of the model; None where cases are tokens.
        cases: by split, :class:`~searchlib.objectives.token_cases.TokenCase` or
            :class:`~searchlib.objectives.answer_cases.Case` objects: long texts whose end depends on their beginning.
            Give SELECT a length that SEARCH has not (MoA: 12k after 2k, 4k and 8k).
        density: share of the keys that heads keep on average, sinks included, at each of ``lengths``.
        rules: ``(alpha, beta)``; by default :func:`~searchlib.spaces.elastic_rules` for the lengths of the cases, with
            alphas half of the shortest length apart.
        lengths: where the budget holds; by default the lengths of all cases.
        sink: first tokens that all heads keep (4 as in StreamingLLM; MoA: a block of 64).
        block: spans are rounded up to multiples of so many tokens (64 for MoA's kernels).
        max_rules_per_layer: 2 for MoA's kernels and for two groups of cache; None for no limit.
        same_per_layer: one rule per layer.
        supervision: ``"model"`` replaces SEARCH and SELECT responses by the dense model's own, as MoA does; needs
            responses at the end. ``"given"`` takes the cases as they are. HOLDOUT is always as given.
        batch_tokens: tokens per pass.
        reuse: start from the hidden states of the last candidate where first layers agree.
        seeded: whether uniform plans start the first population.

    Raises:
        UnsupportedModel: attention that cannot be switched, or layers that do not see all tokens before them.
        InvalidSettings: arguments that do not fit the model.

    Example:
        >>> from searchlib import search
        >>> objective = SparseAttention.smoke()
        >>> result = search(objective, budget=20)
        >>> sorted(row.name for row in result.holdout.rows)
        ['best', 'dense', 'uniform']
        >>> result.best.plan.density(24) <= 0.5
        True
    """

    direction = "minimize"
    chunk_rows = 32

    def __init__(
        self,
        model: nn.Module | str | Loader,
        tokenizer: Any = None,
        cases: Mapping[Any, Sequence[TokenCase | Case]] | None = None,
        *,
        density: float | None = 0.5,
        rules: Sequence[tuple[float, float]] | None = None,
        lengths: Sequence[int] | None = None,
        sink: int = 4,
        block: int = 1,
        max_rules_per_layer: int | None = None,
        same_per_layer: bool = False,
        supervision: Literal["given", "model"] = "given",
        batch_tokens: int = 8192,
        reuse: bool = True,
        seeded: bool = True,
    ) -> None:
        if supervision not in ("given", "model"):
            raise InvalidSettings(f"supervision must be 'given' or 'model', but is {supervision!r}")
        self._recipe = None if isinstance(model, nn.Module) else (model, tokenizer)
        unknown = [key for key in cases or {} if key not in list(Split)]
        if unknown:
            raise InvalidSettings(f"cases are given by split ({', '.join(Split)}), but one is called {unknown[0]!r}")
        self._given = {Split(split): list(payload) for split, payload in (cases or {}).items()}
        self._settings: dict[str, Any] = {
            "density": density, "rules": rules, "lengths": lengths, "sink": sink, "block": block,
            "max_rules_per_layer": max_rules_per_layer, "same_per_layer": same_per_layer, "supervision": supervision,
            "batch_tokens": whole_number("batch_tokens", batch_tokens, 1), "reuse": reuse, "seeded": seeded,
        }  # fmt: skip
        self.model, self.tokenizer = _loaded(model, tokenizer)
        self.layers, self.heads, kv_groups = attention_shape(self.model)
        parts = {split: token_cases(self._given.get(split, ()), self.tokenizer) for split in Split}
        if not parts[Split.SEARCH]:
            raise InvalidSettings("there are no SEARCH cases; pass cases={'search': [TokenCase(…), …], …}")
        if supervision == "model":
            for split in (Split.SEARCH, Split.SELECT):
                parts[split] = _evaluated(self.model, partial(own_answers, batch_tokens=batch_tokens), parts[split])
        self._cases = {
            split: Cases(tuple(f"{split.value} {i}" for i in range(len(part))), tuple(part))
            for split, part in parts.items()
        }
        known = {split: sorted({len(case) for case in part}) for split, part in parts.items()}
        every = sorted({length for part in known.values() for length in part})
        self.space: AttentionConfigs = AttentionConfigs(
            self.layers, self.heads, _default_rules(known[Split.SEARCH], every) if rules is None else tuple(rules),
            lengths=tuple(every if lengths is None else lengths), density=density, sink=sink, block=block,
            max_rules_per_layer=max_rules_per_layer, same_per_layer=same_per_layer, kv_groups=kv_groups,
        )  # fmt: skip
        self._attention = SpanAttention(self.model)
        self._prefixes: LayerPrefixes | None = None
        self._stack = ExitStack()

    @classmethod
    def smoke(cls) -> Self:
        """A tiny random Llama with grouped queries, for conformance tests and examples."""
        return cls(_smoke_model, None, _smoke_cases(), sink=1)

    def __reduce__(self) -> tuple[Any, ...]:
        if self._recipe is None:
            raise InvalidSettings(
                "this SparseAttention holds a model that was given as an object; give a checkpoint's name or path, or "
                "a function that returns (model, tokenizer), so that every worker can load its own"
            )
        return _rebuilt, (*self._recipe, self._given, self._settings)

    def cases(self, split: Split) -> Cases:
        """The cases of a split."""
        return self._cases[split]

    def evaluate(self, candidates: Candidates, cases: Cases) -> NDArray[np.float64]:
        """The loss ``(n, c)`` of every candidate; also of rows of ``space.unlimited``."""
        rows = candidates.array.astype(np.intp)
        return self._table(lambda row: self.space.decode(rows[row]), len(rows), cases)[0]

    def score(self, plan: AttentionPlan, cases: Cases) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Loss, and accuracy of the likeliest tokens, of the responses ``(c,)`` under any plan."""
        losses, right = self._table(lambda row: plan, 1, cases)
        return losses[0], right[0]

    def references(self) -> tuple[str, ...]:
        """The dense model, and the uniform window with sinks at the same density (StreamingLLM)."""
        return ("dense",) if self.space.density is None else ("dense", "uniform")

    def evaluate_reference(self, name: str, cases: Cases) -> NDArray[np.float64]:
        """The loss ``(c,)`` of a reference."""
        if name == "dense":
            return self.score(AttentionPlan.dense(self.layers, self.heads), cases)[0]
        payload: list[TokenCase] = list(cases.payload or ())
        losses = np.empty(len(payload))
        for length in sorted({len(case) for case in payload}):
            same = [i for i, case in enumerate(payload) if len(case) == length]
            losses[same] = self.score(self.uniform_plan(length), cases.take(same))[0]
        return losses

    def uniform_plan(self, length: int, density: float | None = None) -> AttentionPlan:
        """The same window for every head, as wide as the density allows at a length, and the sinks."""
        share = (self.space.density or 1.0) if density is None else density
        sink, block = self.space.sink, self.space.block
        window = max(1, (int(share * length + 1e-9) - sink) // block * block)
        groups = self.space.kv_groups
        return AttentionPlan.uniform(self.layers, self.heads, alpha=window, sink=sink, block=block, kv_groups=groups)

    def seeds(self) -> Population:
        """Uniform plans: the widest that the budgets allow."""
        return self.space.uniform() if self._settings["seeded"] else super().seeds()

    def artifact(self, value: AttentionPlan) -> SpanPlan:
        """The winner as a plan that can be applied to the model, saved, and given a cache of its own."""
        return SpanPlan(value)

    def cost(self, candidates: Candidates, cases: Cases) -> float:
        """Tokens that go through the model."""
        return float(len(candidates) * sum(len(case) for case in cases.payload or ()))

    def fingerprint(self) -> Mapping[str, Any]:
        """Model (architecture, size, a sample of every weight), space, and the content of all cases."""
        told = repr([(split.value, self._cases[split].payload) for split in Split])
        return {
            "objective": "SparseAttention",
            "model": type(self.model).__name__,
            "weights": weight_sample(self.model),
            "cases": hashlib.blake2b(told.encode(), digest_size=8).hexdigest(),
            "supervision": self._settings["supervision"],
        }

    def __enter__(self) -> Self:
        if self._prefixes is None:
            with ExitStack() as opening:
                opening.enter_context(evaluating(self.model))
                opening.enter_context(self._attention)
                opening.callback(self._forget)
                self._attention.use(None)
                self._prefixes = LayerPrefixes(self.model, reuse=self._settings["reuse"])
                self._stack = opening.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _forget(self) -> None:
        self._prefixes = None

    @property
    def layers_run(self) -> int:
        """Layers computed since the objective was opened: what sharing of first layers has saved can be read off."""
        return self._opened().layers_run

    def _opened(self) -> LayerPrefixes:
        if self._prefixes is None:
            raise InvalidSettings("the model is not open: use `with objective: …`, or search(objective)")
        return self._prefixes

    def _table(
        self, plan_of: Callable[[int], AttentionPlan], count: int, cases: Cases
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Losses and accuracies ``(count, c)``; plans are visited so that neighbors share their first layers."""
        prefixes = self._opened()
        payload: list[TokenCase] = list(cases.payload or ())
        plans = [plan_of(row) for row in range(count)]
        losses, right = np.empty((2, count, len(payload)))
        device = self.model.get_input_embeddings().weight.device
        with torch.inference_mode():
            for index, batch in batches_by_length(payload, self._settings["batch_tokens"]):
                length, tokens = batch.shape[1], batch.to(device)
                judge = _Responses([payload[i] for i in index], tokens)
                kept = np.stack([plan.span(length) for plan in plans]).reshape(count, self.layers, -1)
                order = np.lexsort(kept.reshape(count, -1).T[::-1])
                last: int | None = None
                for row in order.tolist():
                    first = 0 if last is None else _common(kept[last], kept[row], plans[last], plans[row])
                    if last is None or first < self.layers:
                        self._attention.use(plans[row], length)
                        values = judge.losses(prefixes.logits(tokens, first, judge.keep))
                    losses[row, index], right[row, index] = values
                    last = row
                prefixes.forget()
        return losses, right


class _Responses:
    """The response tokens of a batch, and where their predictions are."""

    def __init__(self, cases: Sequence[TokenCase], tokens: torch.Tensor) -> None:
        counts = torch.tensor([case.response for case in cases], device=tokens.device)[:, 1:]
        self.keep = counts.any(dim=0).nonzero()[:, 0]  # a position predicts the token after it
        self._counts = counts[:, self.keep].double()
        self._targets = tokens[:, 1:][:, self.keep]

    def losses(self, logits: torch.Tensor) -> NDArray[np.float64]:
        """Mean loss and accuracy of each case, shape ``(2, batch)``."""
        each = torch.nn.functional.cross_entropy(logits.float().transpose(1, 2), self._targets, reduction="none")
        both = torch.stack([each.double(), (logits.argmax(dim=-1) == self._targets).double()])
        mean = (both * self._counts).sum(dim=2) / self._counts.sum(dim=1)
        return np.asarray(mean.cpu().numpy())


def _common(first: NDArray[np.int64], second: NDArray[np.int64], one: AttentionPlan, other: AttentionPlan) -> int:
    """How many first layers of two plans have the same spans."""
    differ = (first != second).any(axis=1) | (one.sink != other.sink)
    return int(differ.argmax()) if differ.any() else len(differ)


def _default_rules(searched: Sequence[int], every: Sequence[int]) -> tuple[tuple[float, float], ...]:
    later = [length for length in every if length not in searched]
    return elastic_rules(searched, later, step=max(1, min(every) // 2))


def _loaded(model: nn.Module | str | Loader, tokenizer: Any) -> tuple[Any, Any]:
    if isinstance(model, nn.Module):
        return model, tokenizer
    if isinstance(model, str):
        from transformers import AutoModelForCausalLM, AutoTokenizer

        loaded = AutoModelForCausalLM.from_pretrained(model).eval()
        named = model if tokenizer is None else tokenizer
        return loaded, AutoTokenizer.from_pretrained(named) if isinstance(named, str) else named
    if not callable(model):
        raise InvalidSettings(
            f"model must be a module, a checkpoint's name, or a function that returns (model, tokenizer), but is "
            f"{model!r:.100}"
        )
    own, tokens = model()
    return own, tokens if tokenizer is None else tokenizer


def _evaluated(model: Any, work: Callable[[Any, Any], Any], cases: Any) -> Any:
    with evaluating(model):
        return work(model, cases)


def _rebuilt(model: Any, tokenizer: Any, cases: Any, settings: dict[str, Any]) -> SparseAttention:
    return SparseAttention(model, tokenizer, cases, **settings)


def _smoke_model() -> tuple[nn.Module, None]:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=20, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, pad_token_id=None, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 2:
                    parameter.mul_(20)  # away from the uniform attention of small random weights
    return model, None


def _smoke_cases() -> dict[str, list[TokenCase]]:
    rng = np.random.default_rng(0)

    def draw(n: int, *lengths: int) -> list[TokenCase]:
        every = [rng.integers(1, 20, size=lengths[i % len(lengths)]) for i in range(n)]
        return [TokenCase.answered(tokens[:-5].tolist(), tokens[-5:].tolist()) for tokens in every]

    return {"search": draw(8, 12, 20), "select": draw(4, 24), "holdout": draw(4, 24)}
