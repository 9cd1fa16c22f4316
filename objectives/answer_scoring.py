"""Scoring a causal language model on questions with known answers.

Two kinds of case, and what is computed for them:

**An answer to be produced.** Right if greedy decoding produces the answer. No decoding is needed to know that: the
prompt is fed together with the answer, and all tokens of the answer are the most likely ones at their places if and
only if greedy decoding, which at each step has seen the same tokens, chooses them one after the other. One prefill
thus replaces a generation; only rounding can tell the two apart (a near-tie between two tokens in half precision).
Where the caller names an ``end`` token it belongs to the answer, so going on talking is wrong; without one, only the
beginning of what would be generated is compared. The loss is the mean negative log-likelihood per answer token.

**Options to choose from.** The option with the largest log-likelihood is chosen (the sum over its tokens; the first of
equals). Options that are one token each, such as ``A`` … ``D``, need one prefill of the prompt; longer ones a row each,
in the same batch, and options that share their beginning share the row. The loss is the cross-entropy of the softmax
over the options' log-likelihoods.

With a function as ``metric`` (an F1 score, a pattern found in the text …) there is no such shortcut: the answer is
generated greedily, token by token. How cases become tokens is :mod:`searchlib.objectives.answer_cases`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray

from searchlib.errors import InvalidSettings, MissingDependency

try:
    import torch
    from torch import Tensor
except ImportError as error:
    raise MissingDependency(
        "scoring language models needs PyTorch and transformers: pip install 'searchlib[llm]'"
    ) from error

from searchlib.objectives.answer_batches import AnswerBatch, TokenizedCase, within_budget
from searchlib.objectives.answer_cases import Case, Text, answer_tokens, end_token, option_tokens, prompt_tokens

__all__ = ["AnswerScorer", "Case", "Metric", "Text"]

#: Scores what was generated (a string; token ids without a tokenizer) for a case: 0 wrong … 1 right.
Metric = Callable[[Any, Case], float]

_POSITIONS_AT_ONCE = 1024  # rows of float32 logits over a whole vocabulary that exist at one time
_PACKINGS_KEPT = 64


@final
class AnswerScorer:
    """A causal language model's accuracy and loss on every case, in as few forward passes as fit a token budget.

    Cases are tokenized once, sorted by length and packed into padded batches. The padding comes after the tokens, so
    no token ever sees it, and scores do not depend on the company of a case beyond rounding. The scorer only reads
    the model: change its weights or install hooks between two calls as you like.

    Arguments:
        model: a transformers causal language model in evaluation mode, on any device and in any dtype.
        tokenizer: its tokenizer; None where all cases are given as token ids.
        cases: what to score on.
        batch_tokens: most tokens (padding included) in a batch; a case that is longer gets a batch of its own.
        metric: ``"exact"``, or a function of (what was generated, the case) that returns a number in [0, 1]. The
            text it gets has neither the ``end`` token nor special tokens. It then scores multiple-choice questions,
            too, and the loss is that of the answer.
        max_new_tokens: how long a generated answer may get; used for a metric function only.
        end: the token that ends an answer, as a string or an id (such as ``tokenizer.eos_token``). For
            options it only counts where one option is the beginning of another, which could never win without.

    Raises:
        InvalidSettings: no cases, or one that the model cannot take.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> model = GPT2LMHeadModel(GPT2Config(vocab_size=12, n_embd=8, n_layer=1, n_head=2)).eval()
        >>> scorer = AnswerScorer(model, None, [Case((3, 1, 2), (4,)), Case((5, 6), (7,), options=((7,), (8,)))])
        >>> accuracy, loss = scorer.score()
        >>> accuracy.shape, bool((loss > 0).all())
        ((2,), True)
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        cases: Sequence[Case],
        *,
        batch_tokens: int = 8192,
        metric: Literal["exact"] | Metric = "exact",
        max_new_tokens: int = 32,
        end: str | int | None = None,
    ) -> None:
        if not len(cases):
            raise InvalidSettings("cases must not be empty: there is nothing to score")
        if batch_tokens < 1 or max_new_tokens < 1:
            raise InvalidSettings(
                f"batch_tokens and max_new_tokens must be at least 1, but got {batch_tokens} and {max_new_tokens}"
            )
        if metric != "exact" and not callable(metric):
            raise InvalidSettings(f'metric must be "exact" or a function (generated, case) -> float, not {metric!r}')
        self.model = model
        self.tokenizer = tokenizer
        self.cases = tuple(cases)
        self.batch_tokens = batch_tokens
        self.metric = metric
        self.max_new_tokens = max_new_tokens
        self.end = None if end is None else end_token(tokenizer, end)
        self._tasks = [self._tokenize(i, case) for i, case in enumerate(self.cases)]
        self._trims_logits = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._packings: dict[bytes, list[AnswerBatch]] = {}

    def __len__(self) -> int:
        return len(self.cases)

    @property
    def tokens(self) -> NDArray[np.int64]:
        """What a case costs: the tokens that are fed for it in a prefill, padding not included; shape ``(c,)``."""
        return np.array([sum(map(len, task.rows)) for task in self._tasks], np.int64)

    def score(
        self, columns: Sequence[int] | NDArray[np.integer[Any]] | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Accuracy and loss of the model as it is now.

        Arguments:
            columns: positions of the cases to score, in any order; None means all.

        Returns:
            accuracy (1 right, 0 wrong; or what the metric says) and loss (in nats, lower is better), both of shape
            ``(len(columns),)`` and in the order of ``columns``. Where the model's output is NaN, so is
            the loss, and the accuracy is 0.

        Raises:
            InvalidSettings: no such column, a model in training mode, or a metric that returns nonsense.
        """
        chosen = self._chosen(columns)
        if self.model.training:
            raise InvalidSettings("the model must be in evaluation mode, but is in training mode: call model.eval()")
        accuracy, loss = np.empty(len(self)), np.empty(len(self))
        with torch.inference_mode():
            for batch in self._packed(chosen):
                accuracy[batch.cases], loss[batch.cases] = self._prefill(batch)
            if callable(self.metric):
                needed = np.unique(chosen)
                accuracy[needed] = self._generate_and_judge(needed, self.metric)
        return accuracy[chosen], loss[chosen]

    def inputs(self, columns: Sequence[int] | NDArray[np.integer[Any]] | None = None) -> Iterator[dict[str, Tensor]]:
        """The batches that :meth:`score` feeds: ``input_ids`` and ``attention_mask``, each ``(rows, width)``.

        For statistics over the same tokens, such as how often a router chooses an expert where the mask is 1.
        """
        for batch in self._packed(self._chosen(columns)):
            yield {"input_ids": batch.tokens.to(self._device), "attention_mask": batch.mask.to(self._device)}

    @property
    def _device(self) -> torch.device:
        device: torch.device = self.model.get_input_embeddings().weight.device
        # Weights that accelerate has offloaded are on no device; it moves the inputs by itself.
        return torch.device("cpu") if device.type == "meta" else device

    def _chosen(self, columns: Sequence[int] | NDArray[np.integer[Any]] | None) -> NDArray[np.int64]:
        if columns is None:
            return np.arange(len(self))
        chosen = np.asarray(columns, np.int64).reshape(-1)
        if chosen.size and (chosen.min() < 0 or chosen.max() >= len(self)):
            raise InvalidSettings(f"columns must lie in 0..{len(self) - 1}, but got {columns!r:.120}")
        return chosen

    def _tokenize(self, i: int, case: Case) -> TokenizedCase:
        prompt = prompt_tokens(self.tokenizer, case.prompt)
        if not prompt:
            raise InvalidSettings(f"case {i} has a prompt without tokens, so nothing to predict the answer from")
        if case.options is None or callable(self.metric):
            answers = [answer_tokens(self.tokenizer, case.prompt, case.answer) + self._ending]
            right = None
        else:
            answers = option_tokens(self.tokenizer, i, case, self.end)
            right = case.options.index(case.answer)
        self._check_fits(i, prompt, answers)
        return TokenizedCase.of(prompt, answers, right)

    @property
    def _ending(self) -> tuple[int, ...]:
        return () if self.end is None else (self.end,)

    def _check_fits(self, i: int, prompt: tuple[int, ...], answers: list[tuple[int, ...]]) -> None:
        config = self.model.config.get_text_config()
        longest = len(prompt) + max(map(len, answers)) - 1  # the last token of an answer is predicted, never fed
        if callable(self.metric):
            longest = max(longest, len(prompt) + self.max_new_tokens - 1)
        limit = getattr(config, "max_position_embeddings", None)
        if limit is not None and longest > limit:
            raise InvalidSettings(
                f"case {i} needs {longest} positions, but the model has {limit}: shorten its prompt of "
                f"{len(prompt)} tokens" + (" or lower max_new_tokens" if callable(self.metric) else "")
            )
        tokens = {*prompt, *(token for answer in answers for token in answer)}
        if min(tokens) < 0 or max(tokens) >= config.vocab_size:
            raise InvalidSettings(
                f"case {i} has token ids {min(tokens)}..{max(tokens)}, but the model knows 0..{config.vocab_size - 1}"
            )

    def _packed(self, chosen: NDArray[np.int64]) -> list[AnswerBatch]:
        """Batches of the cases; built once per selection, as a search asks for the same ones again and again."""
        key = chosen.tobytes()
        if key not in self._packings:
            if len(self._packings) >= _PACKINGS_KEPT:
                self._packings.clear()
            order = sorted(set(chosen.tolist()), key=lambda i: (self._tasks[i].width, i))
            sizes = [(len(self._tasks[i].rows), self._tasks[i].width) for i in order]
            self._packings[key] = [
                AnswerBatch.of([order[j] for j in group], [self._tasks[order[j]] for j in group])
                for group in within_budget(sizes, self.batch_tokens)
            ]
        return self._packings[key]

    def _prefill(self, batch: AnswerBatch) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        # The index stays on the CPU: the last layer of a model may lie on another device than its first.
        kept = {"logits_to_keep": batch.columns} if self._trims_logits else {}
        logits = self.model(
            input_ids=batch.tokens.to(self._device),
            attention_mask=batch.mask.to(self._device),
            use_cache=False,
            **kept,
        ).logits
        # Some models take the argument and ignore it: then all positions are there.
        trimmed = logits.shape[1] == len(batch.columns)
        places = batch.places_trimmed if trimmed else batch.places
        likelihood, greedy = _at(logits, batch.rows, places, batch.which, batch.targets)
        return batch.reduce(likelihood, greedy)

    def _generate_and_judge(self, columns: NDArray[np.int64], metric: Metric) -> NDArray[np.float64]:
        order = sorted(columns.tolist(), key=lambda i: (len(self._tasks[i].prompt), i))
        sizes = [(1, len(self._tasks[i].prompt) + self.max_new_tokens) for i in order]
        result = np.empty(len(self))
        for group in within_budget(sizes, self.batch_tokens):
            members = [order[j] for j in group]
            for i, generated in zip(members, self._generate(members), strict=True):
                result[i] = self._judge(metric, i, generated)
        return result[columns]

    def _generate(self, members: list[int]) -> list[tuple[int, ...]]:
        """What greedy decoding says after each prompt, up to and without the token that stops it."""
        prompts = [self._tasks[i].prompt for i in members]
        width = max(map(len, prompts))
        stops = self._stops()
        # Padding comes first here, so that all answers begin at the same place.
        tokens = torch.tensor([(0,) * (width - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        generated = self.model.generate(
            input_ids=tokens.to(self._device),
            attention_mask=mask.to(self._device),
            max_new_tokens=self.max_new_tokens,
            eos_token_id=stops or None,
            pad_token_id=stops[0] if stops else 0,
            do_sample=False,
            num_beams=1,
            # A model's own generation settings may hold penalties, under which decoding is no longer greedy.
            repetition_penalty=1.0,
            no_repeat_ngram_size=0,
        )
        return [_before_stop(row, stops) for row in generated[:, width:].tolist()]

    def _stops(self) -> list[int]:
        own = getattr(self.model.generation_config, "eos_token_id", None)
        own = [] if own is None else list(own) if isinstance(own, (list, tuple)) else [own]
        return [*self._ending, *(token for token in own if token != self.end)]

    def _judge(self, metric: Metric, i: int, generated: tuple[int, ...]) -> float:
        said = generated if self.tokenizer is None else self.tokenizer.decode(generated, skip_special_tokens=True)
        value = float(metric(said, self.cases[i]))
        if not 0 <= value <= 1:
            raise InvalidSettings(f"metric must return a number in [0, 1], but returned {value} for case {i}")
        return value


def _at(
    logits: Tensor, rows: Tensor, places: Tensor, which: Tensor, targets: Tensor
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Log-likelihood of every target token, and whether it is the most likely one at its place."""
    at = logits[rows.to(logits.device), places.to(logits.device)]
    which, targets = which.to(at.device), targets.to(at.device)
    normalizer, best = [], []
    for part in torch.split(at, _POSITIONS_AT_ONCE):
        exact = part.float()
        normalizer.append(exact.logsumexp(-1))
        best.append(exact.argmax(-1))
    likelihood = at[which, targets].float() - torch.cat(normalizer)[which]
    greedy = torch.cat(best)[which] == targets
    return likelihood.double().cpu().numpy(), greedy.cpu().numpy()


def _before_stop(tokens: list[int], stops: list[int]) -> tuple[int, ...]:
    for i, token in enumerate(tokens):
        if token in stops:
            return tuple(tokens[:i])
    return tuple(tokens)
