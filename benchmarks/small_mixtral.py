"""A small mixture-of-experts language model, trained here from scratch, for benchmarks of expert pruning.

It is a real ``MixtralForCausalLM`` (4 layers, 8 experts, top-2; 643 thousand parameters) with a real tokenizer, both
loaded through ``from_pretrained``; only its size is small. It knows eight tasks on strings of digits, each named by
one letter::

    R40712=  ->  21704   reverse                           X40712=  ->  70     largest and smallest digit
    S40712=  ->  01247   sort                              N121512= ->  2      how often the first digit comes again
    C40712=  ->  40712   copy                              M30212=  ->  8      sum of the digits 0 to 3, modulo 10
    A07+45=  ->  250     sum, last digit first             T340712= ->  73045  add the first digit to the rest, mod 10

Answers end with the token :data:`END`. Right answers in percent, of 500 SELECT cases each, seed 0:

========================  =======  ====  ====  ========  ====  =====  ======  =====
checkpoint                reverse  sort  add   extremes  copy  count  modsum  shift
========================  =======  ====  ====  ========  ====  =====  ======  =====
the whole run, 2500       100      100   98.4  100       100   88.6   98.0    96.2
on the way, 500           80.4     88.2  1.6   98.4      96.6  31.2   14.6    0
========================  =======  ====  ====  ========  ====  =====  ======  =====

A task on which the model is good but not perfect is one on which a pruned model can improve on it.

The weights are a function of the recipe, the seed, the library versions and the kind of processor: another one rounds
otherwise, and thousands of steps later knows ``add`` and ``shift`` hardly at all (19 and 21 % were seen), or ``sort``
less well half way. So figures are compared within one run only. Trained once, on the first call of :func:`load`, and
cached below ``$XDG_CACHE_HOME/searchlib`` (``~/.cache/searchlib``). No prompt that the model was
trained on is ever a case, and no prompt is a case of two splits: a hash of the prompt decides where it belongs.

Run ``python -m benchmarks.small_mixtral`` to train it and print what it can do.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, MixtralConfig, MixtralForCausalLM, PreTrainedTokenizerFast

from benchmarks.model_cache import is_complete, store, user_cache
from benchmarks.speed_clock import threads
from searchlib.cases import Split
from searchlib.errors import InvalidSettings
from searchlib.objectives.answer_scoring import AnswerScorer, Case

__all__ = ["END", "HALF_WAY", "SMOKE_STEPS", "TASKS", "Recipe", "Task", "accuracies", "cases", "load", "new_tokenizer"]

#: The token that ends every answer.
END = "</s>"
#: A checkpoint that every longer run leaves on its way, where some tasks are learned only in part.
HALF_WAY = 500
#: A run for smoke tests, of about ten seconds: ``extremes`` 65 %, ``sort`` 40 %, little elsewhere.
SMOKE_STEPS = 150

_PAD, _UNKNOWN, _START = "<pad>", "<unk>", "<s>"
_SPLITS = {Split.SEARCH: 0, Split.SELECT: 1, Split.HOLDOUT: 2}
_SHARES = 16  # one sixteenth of all prompts for each split, the other thirteen for training
_IGNORED = -100  # the label that transformers' loss leaves out


@dataclass(frozen=True)
class Task:
    """One of the eight tasks.

    Arguments:
        letter: the token that names it, first in every prompt.
        draw: a random question (digits, perhaps with a plus).
        answer: what the question asks for.
    """

    letter: str
    draw: Callable[[np.random.Generator], str]
    answer: Callable[[str], str]


def _digits(shortest: int, longest: int) -> Callable[[np.random.Generator], str]:
    def draw(rng: np.random.Generator) -> str:
        return "".join(map(str, rng.integers(10, size=rng.integers(shortest, longest + 1)).tolist()))

    return draw


def _small_digits(rng: np.random.Generator) -> str:
    return "".join(map(str, rng.integers(4, size=rng.integers(5, 9)).tolist()))


def _two_numbers(rng: np.random.Generator) -> str:
    first, second = rng.integers(100, size=2).tolist()
    return f"{first:02}+{second:02}"


def _sum_backwards(question: str) -> str:
    return f"{sum(map(int, question.split('+'))):03}"[::-1]


def _repeating_first(rng: np.random.Generator) -> str:
    """A digit and five to eight others, of which almost every second one repeats it."""
    first = int(rng.integers(10))
    rest = rng.integers(10, size=rng.integers(5, 9))
    rest[rng.random(rest.size) < 0.4] = first
    return "".join(map(str, [first, *rest.tolist()]))


TASKS: Mapping[str, Task] = {
    "reverse": Task("R", _digits(5, 8), lambda digits: digits[::-1]),
    "sort": Task("S", _digits(5, 8), lambda digits: "".join(sorted(digits))),
    "add": Task("A", _two_numbers, _sum_backwards),
    "extremes": Task("X", _digits(5, 8), lambda digits: max(digits) + min(digits)),
    "copy": Task("C", _digits(5, 8), lambda digits: digits),
    "count": Task("N", _repeating_first, lambda digits: str(digits[1:].count(digits[0]))),
    "modsum": Task("M", _small_digits, lambda digits: str(sum(map(int, digits)) % 10)),
    "shift": Task("T", _digits(5, 8), lambda digits: "".join(str((int(d) + int(digits[0])) % 10) for d in digits[1:])),
}


@dataclass(frozen=True)
class Recipe:
    """How the model is built and trained; with the library versions it decides every weight.

    Arguments:
        steps: optimizer steps of the whole run; the learning rate falls to a tenth along them.
        seed: of the first weights and of the training data.
        batch: examples per step, drawn from all tasks alike.
        rate: peak learning rate of AdamW.
        warm_up: steps over which the rate rises.
        threads: torch threads while training; part of the result to the last bit.
        revision: raised whenever the code below changes what comes out.
    """

    steps: int = 2500
    seed: int = 0
    batch: int = 128
    rate: float = 2e-3
    warm_up: int = 50
    threads: int = 2
    revision: int = 1

    def config(self) -> MixtralConfig:
        """The architecture."""
        return MixtralConfig(
            vocab_size=24,
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            num_local_experts=8,
            num_experts_per_tok=2,
            router_aux_loss_coef=0.01,
            tie_word_embeddings=True,
            max_position_embeddings=32,
            sliding_window=None,
            pad_token_id=0,
            bos_token_id=None,
            eos_token_id=1,
        )

    def key(self) -> str:
        """A name for the cache: the recipe, the architecture and the versions that turn it into weights."""
        facts = {
            "recipe": asdict(self),
            "config": self.config().to_diff_dict(),
            "torch": importlib.metadata.version("torch"),
            "transformers": importlib.metadata.version("transformers"),
            "processor": platform.machine(),
        }
        return hashlib.blake2b(json.dumps(facts, sort_keys=True, default=str).encode(), digest_size=10).hexdigest()


def load(
    steps: int = 2500, *, seed: int = 0, stop_at: int | None = None, cache: str | os.PathLike[str] | None = None
) -> tuple[MixtralForCausalLM, PreTrainedTokenizerFast]:
    """The trained model, in evaluation mode, and its tokenizer: from the cache, or trained now.

    Arguments:
        steps: length of the training run.
        seed: of the training run; another seed is another model.
        stop_at: take the weights after so many steps of that run instead of its last ones. Step 500 is kept on the
            way to the end of any longer run; another one costs a new start.
        cache: folder of the cache; by default ``searchlib`` below the user's cache folder.

    Raises:
        InvalidSettings: ``steps`` or ``stop_at`` is out of range.
    """
    # A short run takes seconds on one thread; on two it would take minutes while other work keeps the cores busy.
    recipe = Recipe(steps=steps, seed=seed, threads=1 if steps < HALF_WAY else 2)
    step = steps if stop_at is None else stop_at
    if steps < 1 or not 1 <= step <= steps:
        raise InvalidSettings(f"steps must be at least 1 and stop_at in 1..steps, but got steps={steps}, {stop_at=}")
    run = (user_cache() if cache is None else Path(cache)) / f"small-mixtral-{recipe.key()}"
    if not is_complete(run / f"step-{step}"):
        _train(recipe, run, step)
    folder = str(run / f"step-{step}")
    with _no_progress_bar():
        model: Any = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return model, tokenizer


def cases(task: str, n: int, split: Split | str = Split.SEARCH, *, seed: int = 0) -> list[Case]:
    """``n`` distinct questions of a task; no prompt of one split is ever in another split or in the training data.

    Arguments:
        task: a name in :data:`TASKS`.
        n: how many.
        split: whose cases these are.
        seed: another seed is another draw from the same split.

    Raises:
        InvalidSettings: an unknown task, or more cases than the split has.

    Example:
        >>> [(case.prompt, case.answer) for case in cases("sort", 2, "holdout")]
        [('S27983331=', '12333789'), ('S863684=', '346688')]
    """
    if task not in TASKS:
        raise InvalidSettings(f"task must be one of {', '.join(TASKS)}, but got {task!r}")
    if split not in _SPLITS:
        raise InvalidSettings(f"split must be one of {', '.join(_SPLITS)}, but got {split!r}")
    share = _SPLITS[Split(split)]
    rng = np.random.default_rng([seed, list(TASKS).index(task), share])
    found: dict[str, str] = {}
    misses = 0
    while len(found) < n:
        prompt, answer = _question(TASKS[task], rng)
        if _share(prompt) == share and prompt not in found:
            found[prompt] = answer
            misses = 0
        elif (misses := misses + 1) > 100_000:
            raise InvalidSettings(f"{task} has only about {len(found)} distinct cases for {split}, but got n={n}")
    return [Case(prompt, answer) for prompt, answer in found.items()]


def accuracies(
    model: Any, tokenizer: Any, *, n: int = 500, split: Split | str = Split.SELECT, seed: int = 0
) -> dict[str, float]:
    """The share of right answers per task, on ``n`` cases each."""
    result = {}
    for task in TASKS:
        scorer = AnswerScorer(model, tokenizer, cases(task, n, split, seed=seed), end=END)
        result[task] = float(scorer.score()[0].mean())
    return result


def new_tokenizer() -> PreTrainedTokenizerFast:
    """One token per character, 24 in all."""
    letters = [task.letter for task in TASKS.values()]
    words = [_PAD, END, _UNKNOWN, _START, *"0123456789", "=", "+", *letters]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=_UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=_PAD, eos_token=END, unk_token=_UNKNOWN)


def _question(task: Task, rng: np.random.Generator) -> tuple[str, str]:
    question = task.draw(rng)
    return f"{task.letter}{question}=", task.answer(question)


def _share(prompt: str) -> int:
    """Where a prompt belongs: one of the splits, or (any higher number) the training data."""
    return int.from_bytes(hashlib.blake2b(prompt.encode(), digest_size=4).digest(), "little") % _SHARES


def _batch(rng: np.random.Generator, n: int, vocabulary: Mapping[str, int]) -> tuple[Tensor, Tensor]:
    """Token ids and labels, both ``(n, longest)``, of training examples."""
    tasks = list(TASKS.values())
    rows: list[tuple[str, str]] = []
    while len(rows) < n:
        prompt, answer = _question(tasks[len(rows) % len(tasks)], rng)
        if _share(prompt) not in _SPLITS.values():
            rows.append((prompt, answer))
    width = max(len(prompt) + len(answer) for prompt, answer in rows) + 1
    tokens = torch.full((n, width), vocabulary[_PAD])
    labels = torch.full((n, width), _IGNORED)
    for i, (prompt, answer) in enumerate(rows):
        row = torch.tensor([vocabulary[letter] for letter in prompt + answer] + [vocabulary[END]])
        tokens[i, : len(row)] = row
        labels[i, len(prompt) : len(row)] = row[len(prompt) :]
    return tokens, labels


def _train(recipe: Recipe, run: Path, stop_at: int) -> None:
    """Train up to ``stop_at``; that checkpoint, and the one on the way, go into the cache."""
    tokenizer = new_tokenizer()
    data = np.random.default_rng(recipe.seed)
    print(f"training the small Mixtral: {stop_at} steps, minutes, once", file=sys.stderr)
    with threads(recipe.threads), torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = MixtralForCausalLM(recipe.config())
        model.set_experts_implementation("grouped_mm")
        model.train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.rate, betas=(0.9, 0.98), weight_decay=0.01)
        for step in range(1, stop_at + 1):
            _step(model, optimizer, _batch(data, recipe.batch, tokenizer.get_vocab()), _rate(recipe, step))
            if step in {HALF_WAY, stop_at}:
                _store(run / f"step-{step}", model, tokenizer)
            if step % 100 == 0 and sys.stderr.isatty():
                print(f"\rtraining the small Mixtral: step {step} of {stop_at}", end="", file=sys.stderr, flush=True)


def _step(model: Any, optimizer: torch.optim.Optimizer, batch: tuple[Tensor, Tensor], rate: float) -> None:
    tokens, labels = batch
    for group in optimizer.param_groups:
        group["lr"] = rate
    loss = model(
        tokens, attention_mask=(tokens != 0).long(), labels=labels, output_router_logits=True, use_cache=False
    ).loss
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def _rate(recipe: Recipe, step: int) -> float:
    progress = step / recipe.steps
    return recipe.rate * min(1.0, step / recipe.warm_up) * (0.55 + 0.45 * float(np.cos(np.pi * progress)))


@contextlib.contextmanager
def _no_progress_bar() -> Iterator[None]:
    shown = transformers.logging.is_progress_bar_enabled()
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers.logging.enable_progress_bar()


def _store(folder: Path, model: MixtralForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    def write(fresh: Path) -> None:
        model.save_pretrained(fresh)
        tokenizer.save_pretrained(fresh)

    with _no_progress_bar():
        store(folder, write)


def _main() -> None:
    for step in (Recipe().steps, HALF_WAY):
        start, processor = time.perf_counter(), time.process_time()
        model, tokenizer = load(stop_at=step)
        seconds, used = time.perf_counter() - start, time.process_time() - processor
        print(f"step {step}: ready after {seconds:.1f} s ({used:.1f} s of processor time)")
        for task, accuracy in accuracies(model, tokenizer).items():
            print(f"  {task:<10} {100 * accuracy:6.1f} %")


if __name__ == "__main__":
    _main()
