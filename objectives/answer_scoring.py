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
generated greedily, token by token.

Tokenization: the prompt is tokenized the way the tokenizer does it on its own (with a beginning-of-sequence token
where it adds one; an end-of-sequence token that it would append is left out), and the answer as its continuation:
prompt and answer are tokenized together, and the answer's tokens are what follows the prompt's. Where the last
token of the prompt merges with the beginning of the answer, that cannot be told apart, and the answer is tokenized
alone. Most tokenizers keep the two apart when the prompt does not end, but the answer begins, with the space between
them. An answer counts as its tokens, so a model that spells the same text with other tokens is wrong.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
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

__all__ = ["AnswerScorer", "Case", "Metric", "Text"]

#: A string, or token ids where there is no tokenizer.
Text = str | tuple[int, ...]
#: Scores what was generated (a string; token ids without a tokenizer) for a case: 0 wrong … 1 right.
Metric = Callable[[Any, "Case"], float]

_POSITIONS_AT_ONCE = 1024  # rows of float32 logits over a whole vocabulary that exist at one time
_PACKINGS_KEPT = 64


@final
@dataclass(frozen=True)
class Case:
    """A question with its answer.

    Arguments:
        prompt: what the model reads; a string, or token ids for a model without a tokenizer.
        answer: what it is to continue with, beginning right where the prompt ends (often with a space).
        options: two or more different answers, the right one among them, for a multiple-choice question; None where
            the answer is to be produced.

    Raises:
        InvalidSettings: an empty answer, fewer than two options, options that repeat, an answer not among them.

    Example:
        >>> Case("The sky is", " blue", options=(" blue", " green")).options
        (' blue', ' green')
    """

    prompt: Text
    answer: Text
    options: tuple[Text, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "prompt", _text("prompt", self.prompt))
        object.__setattr__(self, "answer", _text("answer", self.answer))
        if not self.answer:
            raise InvalidSettings(f"the answer must not be empty, but it is for the prompt {self.prompt!r:.80}")
        if self.options is not None:
            object.__setattr__(self, "options", tuple(_text("option", option) for option in self.options))
            self._check_options(self.options)

    def _check_options(self, options: tuple[Text, ...]) -> None:
        if len(options) < 2 or not all(options):
            raise InvalidSettings(
                f"options must be at least two answers, none empty, but got {options!r:.120}; "
                "leave them out where the answer is to be produced"
            )
        if len(set(options)) < len(options):
            twice = next(option for option in options if options.count(option) > 1)
            raise InvalidSettings(f"options must differ from each other, but {twice!r:.80} occurs twice")
        if self.answer not in options:
            raise InvalidSettings(f"the answer must be one of the options {options!r:.120}, but is {self.answer!r:.80}")


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
        self.end = None if end is None else _end_token(tokenizer, end)
        self._tasks = [self._tokenize(i, case) for i, case in enumerate(self.cases)]
        self._trims_logits = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._packings: dict[bytes, list[_Batch]] = {}

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

    def _tokenize(self, i: int, case: Case) -> _Task:
        prompt = _prompt_tokens(self.tokenizer, case.prompt)
        if not prompt:
            raise InvalidSettings(f"case {i} has a prompt without tokens, so nothing to predict the answer from")
        if case.options is None or callable(self.metric):
            answers = [_answer_tokens(self.tokenizer, case.prompt, case.answer) + self._ending]
            right = None
        else:
            answers = self._option_tokens(i, case)
            right = case.options.index(case.answer)
        self._check_fits(i, prompt, answers)
        return _Task.of(prompt, answers, right)

    @property
    def _ending(self) -> tuple[int, ...]:
        return () if self.end is None else (self.end,)

    def _option_tokens(self, i: int, case: Case) -> list[tuple[int, ...]]:
        options = case.options or ()
        answers = [_answer_tokens(self.tokenizer, case.prompt, option) for option in options]
        for j, one in enumerate(answers):
            for k, other in enumerate(answers):
                if j != k and one == other:
                    raise InvalidSettings(
                        f"case {i} has options {options[j]!r:.60} and {options[k]!r:.60} that are the same tokens {one}"
                    )
                if j != k and other[: len(one)] == one:
                    if self.end is None:
                        raise InvalidSettings(
                            f"case {i} has an option {options[j]!r:.60} that is the beginning of {options[k]!r:.60}, "
                            "which could never be more likely: name the token that ends an answer (end=…)"
                        )
                    return [answer + self._ending for answer in answers]
        return answers

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

    def _packed(self, chosen: NDArray[np.int64]) -> list[_Batch]:
        """Batches of the cases; built once per selection, as a search asks for the same ones again and again."""
        key = chosen.tobytes()
        if key not in self._packings:
            if len(self._packings) >= _PACKINGS_KEPT:
                self._packings.clear()
            order = sorted(set(chosen.tolist()), key=lambda i: (self._tasks[i].width, i))
            sizes = [(len(self._tasks[i].rows), self._tasks[i].width) for i in order]
            self._packings[key] = [
                _Batch.of([order[j] for j in group], [self._tasks[order[j]] for j in group])
                for group in _groups(sizes, self.batch_tokens)
            ]
        return self._packings[key]

    def _prefill(self, batch: _Batch) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
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
        for group in _groups(sizes, self.batch_tokens):
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


@dataclass(frozen=True)
class _Task:
    """A case in tokens.

    ``rows`` are fed to the model; continuation ``j`` (the answer, or option ``j``) consists of the triples
    ``continuations[j]``: (row, place, token), the token being predicted at the place. ``right`` is the index of the
    right option, None where the answer is to be produced.
    """

    prompt: tuple[int, ...]
    rows: tuple[tuple[int, ...], ...]
    continuations: tuple[tuple[tuple[int, int, int], ...], ...]
    right: int | None

    @classmethod
    def of(cls, prompt: tuple[int, ...], answers: list[tuple[int, ...]], right: int | None) -> _Task:
        fed = [prompt + answer[:-1] for answer in answers]
        rows: list[tuple[int, ...]] = []
        for tokens in sorted(fed, key=len, reverse=True):
            if not any(row[: len(tokens)] == tokens for row in rows):
                rows.append(tokens)
        continuations = []
        for tokens, answer in zip(fed, answers, strict=True):
            row = next(r for r, held in enumerate(rows) if held[: len(tokens)] == tokens)
            continuations.append(tuple((row, len(prompt) - 1 + j, token) for j, token in enumerate(answer)))
        return cls(prompt, tuple(rows), tuple(continuations), right)

    @property
    def width(self) -> int:
        return max(map(len, self.rows))


@dataclass(frozen=True)
class _Batch:
    """Padded rows of some cases, where to read the logits, and how to put scores together.

    Logits are needed at the positions ``(rows[p], places[p])``, which in the trimmed logits are
    ``(rows[p], places_trimmed[p])`` as ``columns`` are the only places kept. Token ``t`` of all continuations, laid
    end to end, is ``targets[t]`` and is predicted at position ``which[t]``. Continuation ``j`` begins at ``starts[j]``.
    """

    cases: list[int]
    right: list[int | None]
    options: list[int]
    tokens: Tensor
    mask: Tensor
    columns: Tensor
    rows: Tensor
    places: Tensor
    places_trimmed: Tensor
    which: Tensor
    targets: Tensor
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]

    @classmethod
    def of(cls, cases: list[int], tasks: list[_Task]) -> _Batch:
        rows = [row for task in tasks for row in task.rows]
        width = max(map(len, rows))
        first_row = np.cumsum([0, *(len(task.rows) for task in tasks)])
        continuations = [
            [(first_row[i] + row, place, token) for row, place, token in continuation]
            for i, task in enumerate(tasks)
            for continuation in task.continuations
        ]
        triples = np.array([triple for continuation in continuations for triple in continuation], np.int64)
        positions, which = np.unique(triples[:, 0] * width + triples[:, 1], return_inverse=True)
        columns, trimmed = np.unique(positions % width, return_inverse=True)
        lengths = np.array([len(continuation) for continuation in continuations], np.int64)
        return cls(
            cases=cases,
            right=[task.right for task in tasks],
            options=[len(task.continuations) for task in tasks],
            tokens=torch.tensor([row + (0,) * (width - len(row)) for row in rows]),
            mask=torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows]),
            columns=torch.from_numpy(columns),
            rows=torch.from_numpy(positions // width),
            places=torch.from_numpy(positions % width),
            places_trimmed=torch.from_numpy(trimmed),
            which=torch.from_numpy(which),
            targets=torch.from_numpy(triples[:, 2].copy()),
            starts=np.cumsum(lengths) - lengths,
            lengths=lengths,
        )

    def reduce(
        self, likelihood: NDArray[np.float64], greedy: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Accuracy and loss per case, from log-likelihood and greedy choice per token."""
        totals = np.add.reduceat(likelihood, self.starts)
        produced = np.logical_and.reduceat(greedy, self.starts)
        accuracy, loss = np.empty(len(self.cases)), np.empty(len(self.cases))
        first = 0
        for i, (right, options) in enumerate(zip(self.right, self.options, strict=True)):
            if right is None:
                accuracy[i], loss[i] = produced[first], -totals[first] / self.lengths[first]
            else:
                accuracy[i], loss[i] = _choice(totals[first : first + options], right)
            first += options
        # Among numbers that are not numbers argmax still names one; that is no answer.
        accuracy[np.isnan(loss)] = 0.0
        return accuracy, loss


def _choice(likelihoods: NDArray[np.float64], right: int) -> tuple[float, float]:
    """Whether the right option is the most likely one, and its cross-entropy under the softmax."""
    with np.errstate(invalid="ignore"):
        loss = np.logaddexp.reduce(likelihoods) - likelihoods[right]
    return float(np.argmax(likelihoods) == right), float(loss)


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


def _groups(sizes: list[tuple[int, int]], budget: int) -> Iterator[list[int]]:
    """Consecutive items whose rows, all padded to the widest, stay within the budget; at least one in each group."""
    group: list[int] = []
    rows = width = 0
    for i, (more, wide) in enumerate(sizes):
        if group and (rows + more) * max(width, wide) > budget:
            yield group
            group, rows, width = [], 0, 0
        group.append(i)
        rows, width = rows + more, max(width, wide)
    if group:
        yield group


def _text(what: str, value: Any) -> Text:
    if isinstance(value, str):
        return value
    try:
        return tuple(int(token) for token in value)
    except (TypeError, ValueError):
        raise InvalidSettings(f"{what} must be a string or a sequence of token ids, but is {value!r:.80}") from None


def _plain(tokenizer: Any, text: str) -> tuple[int, ...]:
    if tokenizer is None:
        raise InvalidSettings(f"a case given as a string needs a tokenizer, but there is none for {text!r:.80}")
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def _prompt_tokens(tokenizer: Any, prompt: Text) -> tuple[int, ...]:
    """The prompt with what the tokenizer puts before it, without what it would append."""
    if not isinstance(prompt, str):
        return prompt
    plain = _plain(tokenizer, prompt)
    dressed = tuple(tokenizer(prompt)["input_ids"])
    for before in range(len(dressed) - len(plain) + 1):
        if dressed[before : before + len(plain)] == plain:
            return dressed[: before + len(plain)]
    return dressed


def _answer_tokens(tokenizer: Any, prompt: Text, answer: Text) -> tuple[int, ...]:
    """The answer as the continuation of the prompt; alone where the two share a token."""
    if not isinstance(answer, str):
        return answer
    if isinstance(prompt, str):
        before, both = _plain(tokenizer, prompt), _plain(tokenizer, prompt + answer)
        if both[: len(before)] == before and len(both) > len(before):
            return both[len(before) :]
    tokens = _plain(tokenizer, answer)
    if not tokens:
        raise InvalidSettings(f"an answer must have tokens, but {answer!r:.80} has none for this tokenizer")
    return tokens


def _end_token(tokenizer: Any, end: str | int) -> int:
    if not isinstance(end, str):
        return int(end)
    known = None if tokenizer is None else tokenizer.get_vocab().get(end)
    tokens = (known,) if known is not None else _plain(tokenizer, end)
    if len(tokens) != 1:
        raise InvalidSettings(f"end must be a single token, but {end!r} is the {len(tokens)} tokens {tokens}")
    return tokens[0]


def _before_stop(tokens: list[int], stops: list[int]) -> tuple[int, ...]:
    for i, token in enumerate(tokens):
        if token in stops:
            return tuple(tokens[:i])
    return tuple(tokens)
