"""How many bits the weights, inputs and caches of a language model need, layer by layer.

*Evaluating Quantized Large Language Models*, Li et al., ICML 2024, arXiv 2402.18158,
https://github.com/thu-nics/qllm-eval (MIT).

Reproduced: the three kinds of tensors (weights of linear layers per group; their inputs per token; keys and values per
token and group of a head, after the rotary embedding), the bit-widths, and as a library call the grid over them with
its recommendations (:mod:`searchlib.objectives.uniform_grid`). Added: every layer its own bits under one budget of
memory, losses paired with the full-precision model's, and the search. Not reproduced: the tasks (bring your own
sequences), and AWQ's stored results. Differences from the released code: ranges hold 0, routers and heads stay in full
precision as its flags say, and a layer that cannot be quantized is an error (there it stays as it is, with a message).

At full scale::

    model = AutoModelForCausalLM.from_pretrained("meta-llama/Llama-3.1-8B", dtype="bfloat16", device_map="cuda")
    objective = QuantizedLLM(
        model, cases, weight=("3@128", "4@128", 8), kv=(3, 4, 8), tokens=8192, memory=5 * 2**30, metric="kl"
    )
    result = search(objective, budget=500)
    result.best.save("bits.json")
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from searchlib.arguments import whole_number
from searchlib.cases import Cases, Split
from searchlib.errors import InvalidSettings
from searchlib.objective import Direction, Objective
from searchlib.objectives.answer_cases import Case
from searchlib.objectives.awq import awq
from searchlib.objectives.channel_balancing import ChannelBalancing, measure_inputs
from searchlib.objectives.evaluation_mode import evaluating
from searchlib.objectives.gptq import gptq
from searchlib.objectives.input_moments import measure_moments
from searchlib.objectives.quantizable_layers import LANGUAGE_FULL, find_layers, layer_sizes
from searchlib.objectives.quantized_attention import QuantizedAttention
from searchlib.objectives.quantized_model import QuantizationPlan, QuantizedModel
from searchlib.objectives.token_cases import TokenCase, token_cases
from searchlib.objectives.token_losses import METRICS, batches, log_probabilities, measured
from searchlib.objectives.uniform_plans import uniform_plans
from searchlib.objectives.weight_sample import weight_sample
from searchlib.space import Candidates, Population
from searchlib.spaces import BitPlan, BitWidths
from searchlib.spaces.bit_plan import Option, SizedTensor

__all__ = ["QuantizedLLM"]

#: Ways to round weights by what goes into their layers.
ROUNDINGS = {"awq": awq, "gptq": gptq}

FULL_PRECISION, BEST_UNIFORM = "full precision", "best uniform"


@final
class QuantizedLLM(Objective):
    """The loss of a causal language model whose layers have few bits, each its own.

    Every case gives three observations: the loss of its scored tokens, the divergence from the full-precision model's
    predictions, and how often the likeliest token is another one. The model is used as it is, and is bit-identical
    again when the objective is closed.

    A cell is decided by candidate and case up to rounding: a number that lies between two levels may go either way
    where sums are formed in another order. Batches therefore always have the same shape.

    Arguments:
        model: a transformers causal language model, or a function that returns one (which can be sent to workers).
        cases: sequences by split: ``{"search": [TokenCase.whole(…), …], "select": […], "holdout": […]}``, or questions
            with answers.
        tokenizer: for questions and answers that are strings.
        weight, activation, kv: the options of each kind, bits or ``"bits@group"``; those left out stay at 16 bits.
        metric: what is minimized: one of ``"nll"``, ``"kl"``, ``"disagreement"``; several for a front.
        memory: most bytes of weights and cache; None: no limit.
        mean_bits: instead of ``memory``: as much as if every weight had this many bits (see ``BitWidths.within``).
        tokens: length of the cache that counts as memory; by default the longest sequence.
        full: expression of the names of layers that stay in full precision.
        only: options of some layers, see :class:`~searchlib.spaces.BitWidths`.
        balancing: how channels are balanced on the first SEARCH cases (SmoothQuant: ``ChannelBalancing(0.5)``).
        rounding: how weights are rounded: ``"nearest"``, or by what goes into layers on the first SEARCH cases
            (:mod:`~searchlib.objectives.awq`, :mod:`~searchlib.objectives.gptq`).
        batch: sequences per pass.
        seeded: whether uniform plans start the first population.

    Raises:
        UnsupportedModel: a model whose layers or caches cannot be quantized; the message names the layer.
        InvalidSettings: no cases to search on, an unknown metric, budgets that nothing meets.

    Example:
        >>> from searchlib import search
        >>> result = search(QuantizedLLM.smoke(), budget=20)
        >>> sorted(row.name for row in result.holdout.rows)
        ['best', 'best uniform', 'full precision']
        >>> result.best.memory <= QuantizedLLM.smoke().space.memory
        True
    """

    space: BitWidths
    direction: Direction | tuple[Direction, ...] = "minimize"
    chunk_rows = 8

    def __init__(
        self,
        model: nn.Module | Callable[[], nn.Module],
        cases: Mapping[Any, Sequence[TokenCase | Case]],
        *,
        tokenizer: Any = None,
        weight: Sequence[Option] = (),
        activation: Sequence[Option] = (),
        kv: Sequence[Option] = (),
        metric: str | Sequence[str] = "nll",
        memory: float | None = None,
        mean_bits: float | None = None,
        tokens: int | None = None,
        full: str = LANGUAGE_FULL,
        only: Sequence[tuple[str, Sequence[Option]]] = (),
        balancing: ChannelBalancing | None = None,
        rounding: str = "nearest",
        batch: int = 16,
        seeded: bool = True,
    ) -> None:
        self._settings = {
            "weight": tuple(weight), "activation": tuple(activation), "kv": tuple(kv), "metric": metric,
            "memory": memory, "mean_bits": mean_bits, "tokens": tokens, "full": full, "only": tuple(only),
            "balancing": balancing, "rounding": rounding, "batch": batch, "seeded": seeded,
        }  # fmt: skip
        self._recipe = None if isinstance(model, nn.Module) else model
        if not isinstance(model, nn.Module) and not callable(model):
            raise InvalidSettings(f"model must be a module, or a function that returns one, but is {model!r:.100}")
        self.model: Any = model if isinstance(model, nn.Module) else model()
        self._parts = _checked(cases, tokenizer)
        self.metrics = (metric,) if isinstance(metric, str) else tuple(metric)
        if not self.metrics or not set(self.metrics) <= set(METRICS):
            raise InvalidSettings(f"metric must be one or several of {METRICS}, but is {metric!r}")
        if len(self.metrics) > 1:
            self.direction = tuple("minimize" for _ in self.metrics)
        self.batch = whole_number("batch", batch, 1)
        self.layers = find_layers(self.model, full)
        with evaluating(self.model):
            self.tensors = self._sized(tokens)
        options: dict[str, Any] = {"weight": weight, "activation": activation, "kv": kv, "only": only}
        self.space = BitWidths(self.tensors, **options).within(memory=memory, mean_bits=mean_bits)
        self._full, self._seeded = full, seeded
        with evaluating(self.model):
            self._calibrated = self._calibrate(balancing, rounding)
        self.quantized = QuantizedModel(self.model, self.layers, **self._calibrated)
        self._uniform: BitPlan | None = None
        self._undo = ExitStack()

    @classmethod
    def smoke(cls) -> Self:
        """A tiny random Llama, for conformance tests and examples."""
        rng = np.random.default_rng(0)
        made = [TokenCase.whole(tuple(rng.integers(40, size=12).tolist())) for _ in range(20)]
        cases = {"search": made[:8], "select": made[8:12], "holdout": made[12:]}
        return cls(_smoke_model, cases, weight=(2, 4, 8), kv=(4, 16), mean_bits=4, metric="kl", batch=4)

    def __reduce__(self) -> tuple[Any, ...]:
        if self._recipe is None:
            raise InvalidSettings(
                "this QuantizedLLM holds a model that was given as an object; give a function that returns the model, "
                "so that every worker can load its own"
            )
        return _rebuilt, (self._recipe, self._parts, self._settings)

    def cases(self, split: Split) -> Cases:
        """The sequences of a split."""
        own = self._parts.get(split, ())
        return Cases(tuple(f"{split.value} {i}" for i in range(len(own))), own)

    def evaluate(self, candidates: Candidates, cases: Cases) -> NDArray[np.float64]:
        """Observations ``(n, c, 3)``: loss, divergence, disagreement."""
        return self.observe(list(candidates), cases)

    def observe(self, plans: Sequence[BitPlan], cases: Cases) -> NDArray[np.float64]:
        """Observations ``(n, c, 3)`` of any plans, also of such that lie in no space.

        Every batch goes through the full-precision model once, and once through every plan.
        """
        table = np.empty((len(plans), len(cases), len(METRICS)))
        device = next(self.model.parameters()).device
        longest = getattr(self.model.config.get_text_config(decoder=True), "max_position_embeddings", None)
        with torch.inference_mode():
            for batch in batches(cases.payload or (), self.batch, device, longest=longest):
                self.quantized.set(BitPlan())
                full = log_probabilities(self.model, batch)
                for row, plan in enumerate(plans):
                    self.quantized.set(plan)
                    own = log_probabilities(self.model, batch)
                    table[row, list(batch.columns)] = measured(own, full, batch)
                    if self.quantized.attention is not None:
                        self.quantized.attention.check()
        self.quantized.set(BitPlan())
        return table

    def aggregate(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """The mean of the chosen metrics, ``(n, metrics)``."""
        return np.asarray(scores[:, :, [METRICS.index(metric) for metric in self.metrics]].mean(axis=1))

    def seeds(self) -> Population:
        """The uniform plans within the budgets that no other one has more bits than."""
        plans = uniform_plans(self.space) if self._seeded else []
        return self.space.encode(plans)

    def references(self) -> tuple[str, ...]:
        """The full-precision model, and the uniform plan within the budgets that is best on the SEARCH cases."""
        return (FULL_PRECISION, BEST_UNIFORM) if uniform_plans(self.space) else (FULL_PRECISION,)

    def evaluate_reference(self, name: str, cases: Cases) -> NDArray[np.float64]:
        """Observations ``(c, 3)`` of a reference."""
        plan = self.best_uniform() if name == BEST_UNIFORM else BitPlan()
        return np.asarray(self.observe([plan], cases)[0])

    def best_uniform(self) -> BitPlan:
        """The uniform plan within the budgets that is best on the SEARCH cases: the strongest cheap rival."""
        if self._uniform is None:
            plans = uniform_plans(self.space)
            values = self.aggregate(self.observe(plans, self.cases(Split.SEARCH)))[:, 0]
            self._uniform = plans[int(values.argmin())]
        return self._uniform

    def artifact(self, value: Any) -> QuantizationPlan:
        """The winner: bits that can be applied, saved, or exported."""
        return QuantizationPlan(value, self.tensors, self._full, **self._calibrated)

    def cost(self, candidates: Candidates, cases: Cases) -> float:
        """Tokens that go through the model, those of the full-precision model not counted."""
        tokens = sum(len(sequence.tokens) for sequence in cases.payload or ())
        return float(len(candidates) * tokens)

    def fingerprint(self) -> Mapping[str, Any]:
        """Architecture, size, a sample of every weight, settings and the content of all cases."""
        text = repr([(split.value, self._parts.get(split, ())) for split in Split])
        return {
            "objective": "QuantizedLLM",
            "model": type(self.model).__name__,
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "weights": weight_sample(self.model),
            "cases": hashlib.blake2b(text.encode(), digest_size=8).hexdigest(),
            "metric": list(self.metrics),
            "full": self._full,
            "balancing": repr(self._settings["balancing"]),
            "rounding": self._settings["rounding"],
        }

    def __enter__(self) -> Self:
        with ExitStack() as opening:
            opening.enter_context(self.quantized)
            opening.enter_context(evaluating(self.model))
            self._undo = opening.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()

    def _sized(self, tokens: int | None) -> tuple[SizedTensor, ...]:
        """Weights, inputs and caches; attention layers are those that a short text goes through."""
        every = [len(case.tokens) for part in self._parts.values() for case in part]
        length = max(every) if tokens is None else whole_number("tokens", tokens, 1)
        sizes = layer_sizes(self.layers, ("weight", "activation"), length)
        with QuantizedAttention(self.model) as attention, torch.inference_mode():
            self.model(torch.zeros((1, 2), dtype=torch.long, device=next(self.model.parameters()).device))
        for name, (heads, keys, values) in attention.shapes.items():
            size = {"rows": length, "columns": heads * (keys + values), "group": keys}
            sizes.append(SizedTensor(name, "kv", **size))
        return tuple(sizes)

    def _calibrate(self, balancing: ChannelBalancing | None, rounding: str) -> dict[str, Any]:
        """Settings of the quantization that come from the first SEARCH cases."""
        if rounding not in ("nearest", *ROUNDINGS):
            raise InvalidSettings(f"rounding must be 'nearest' or one of {sorted(ROUNDINGS)}, but is {rounding!r}")
        if balancing is not None and rounding != "nearest":
            raise InvalidSettings(f"rounding={rounding!r} measures inputs that are not balanced; pass one of the two")
        calibration = self._parts[Split.SEARCH][: self.batch]
        device = next(self.model.parameters()).device

        def run() -> None:
            # Without padding, which would count as an input.
            for case in calibration:
                self.model(torch.tensor([case.tokens], device=device), use_cache=False)

        if rounding != "nearest":
            return {"rounding": ROUNDINGS[rounding](measure_moments(self.layers, run))}
        if balancing is None:
            return {}
        ranges = measure_inputs(self.layers, run)
        balances = {name: balancing.of(layer, ranges.largest[name]) for name, layer in self.layers.items()}
        return {"balances": balances}


def _checked(cases: Mapping[Any, Sequence[TokenCase | Case]], tokenizer: Any) -> dict[Split, tuple[TokenCase, ...]]:
    names = [split.value for split in Split]
    unknown = [key for key in cases if key not in names]
    if unknown:
        raise InvalidSettings(f"cases are given by split ({', '.join(names)}), but one is called {unknown[0]!r}")
    parts = {Split(key): tuple(token_cases(given, tokenizer)) for key, given in cases.items()}
    if not parts.get(Split.SEARCH):
        raise InvalidSettings("there are no SEARCH cases; pass cases={'search': [TokenCase.whole(…), …], …}")
    return parts


def _rebuilt(model: Any, parts: Any, settings: dict[str, Any]) -> QuantizedLLM:
    return QuantizedLLM(model, parts, **settings)


def _smoke_model() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=40, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=32, pad_token_id=None, bos_token_id=None, eos_token_id=None,
        initializer_range=0.3,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForCausalLM(config).eval()
