"""Tiny language models, trained here from scratch, that teach and that learn from being taught.

A :class:`World` is a set of problem types, each with a hidden rule ``y = (a·x + b) mod 10``. A solution writes it out::

    Q4:3*4=12,12+5=17>7|        type Q asks about x = 4; its rule is a = 3, b = 5

* The **teacher** has read a corrupted book: the right rule of a type appears with a probability of its own, from 0.15
  to 0.7, and three wrong ones share the rest. A majority vote is wrong where the book is.
* A **student** never sees types. It has practiced to do as an example does (``4:3*4=12,12+5=17>7|6:`` becomes
  ``3*6=18,18+5=23>3|``), and was stopped before it did so without errors. How well it answers depends on its lesson.

The same rule is written in eight ways, so that rationales differ in wording; one wrong rule of each type agrees with
the right one on every second x; teachers and students err in copying and in arithmetic. No student has practiced with
a right rule of its world, and no teacher has read about the question of a teaching or of an exam problem.

The weights are a function of the recipe, the library versions and the kind of processor, which decides how sums are
rounded. Trained once, on one thread, on the first call of :func:`teacher` or :func:`student`, and cached below
``$XDG_CACHE_HOME/searchlib``.

Run ``python -m benchmarks.tiny_teachers [SEED]`` to train them and print what they can do.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from benchmarks.model_cache import is_complete, user_cache
from benchmarks.small_mixtral import _no_progress_bar, _store
from benchmarks.speed_clock import threads
from searchlib.errors import InvalidSettings

__all__ = ["END", "STUDENTS", "Recipe", "World", "answer_of", "load", "new_tokenizer", "solution", "student", "teacher"]

#: The character that ends every solution.
END = "|"

_PAD, _EOS = "<pad>", "</s>"
#: One character for each problem type: Latin, Greek, Cyrillic.
_TYPES = "".join(map(chr, (*range(65, 91), *range(97, 123), *range(0x3B1, 0x3CA), *range(0x410, 0x450))))
_WORDS = (_PAD, _EOS, *"0123456789*+=,;>|:", *_TYPES)
_IDS = {word: i for i, word in enumerate(_WORDS)}
_IGNORED = -100  # the label that the loss leaves out
_CHECK_EVERY, _CHECKED = 25, 240

Rule = tuple[int, int]
#: a = 5 is left out: then "agrees on every second x" would make it a rule without x.
_RULES: tuple[Rule, ...] = tuple((a, b) for a in range(1, 10) for b in range(10) if a != 5)


def solution(rule: Rule, x: int, wording: int) -> str:
    """The rule applied to ``x``, in one of eight wordings.

    Example:
        >>> solution((3, 5), 4, 7), solution((3, 5), 4, 0)
        ('3*4=12,12+5=17>7|', '4*3=12;5+12=17>7|')
    """
    (a, b), p = rule, rule[0] * x
    product = f"{a}*{x}" if wording & 1 else f"{x}*{a}"
    total = f"{p}+{b}" if wording & 2 else f"{b}+{p}"
    return f"{product}={p}{',' if wording & 4 else ';'}{total}={p + b}>{(p + b) % 10}{END}"


def answer_of(text: str) -> str | None:
    """The answer that a solution ends with, or None.

    Example:
        >>> answer_of("3*4=12,12+5=17>7"), answer_of("3*4=12,12+5=17>7|"), answer_of("3*4=1>7>"), answer_of("17")
        ('7', '7', None, None)
    """
    text = text.removesuffix(END)
    return text[-1] if len(text) > 1 and text[-2] == ">" and text[-1].isdigit() else None


@dataclass(frozen=True)
class World:
    """Problem types, what is right about them and what the book says.

    Arguments:
        seed: another seed is another world.
        types: how many types, at most 141.
        held_out: how many of the 80 rules are never practiced by students; all right rules are among them.

    Raises:
        InvalidSettings: another number of types.
    """

    seed: int
    types: int = 140
    held_out: int = 24

    def __post_init__(self) -> None:
        if not 1 <= self.types <= len(_TYPES):
            raise InvalidSettings(f"types must be in 1..{len(_TYPES)}, but got {self.types}")

    @cached_property
    def names(self) -> str:
        """The character of each type."""
        return _TYPES[: self.types]

    @cached_property
    def unpracticed(self) -> tuple[Rule, ...]:
        """The rules that no student practices with."""
        order = np.random.default_rng([self.seed, 0]).permutation(len(_RULES))
        return tuple(_RULES[i] for i in order[: self.held_out])

    @cached_property
    def rules(self) -> tuple[tuple[Rule, ...], ...]:
        """Per type the right rule, then the three wrong ones."""
        rng = np.random.default_rng([self.seed, 1])
        return tuple(self._rules_of_one_type(rng) for _ in range(self.types))

    def _rules_of_one_type(self, rng: np.random.Generator) -> tuple[Rule, ...]:
        a, b = right = self.unpracticed[rng.integers(self.held_out)]
        wrong = [((a + 5) % 10, (b + 5 * int(rng.integers(2))) % 10)]
        while len(wrong) < 3:
            rule = _RULES[rng.integers(len(_RULES))]
            if rule != right and rule not in wrong:
                wrong.append(rule)
        return (right, *(wrong[i] for i in rng.permutation(3)))

    @cached_property
    def book(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """How often the book uses each rule of each type, shape ``(types, 4)``."""
        right = np.random.default_rng([self.seed, 2]).uniform(0.15, 0.7, size=(self.types, 1))
        return np.hstack([right, (1 - right) * np.array([0.6, 0.3, 0.1])])

    @cached_property
    def places(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Per type the ten x in an order of its own, shape ``(types, 10)``: one to teach, three exams, six to read."""
        rng = np.random.default_rng([self.seed, 3])
        return np.array([rng.permutation(10) for _ in range(self.types)])

    def question(self, kind: int, place: int) -> str:
        """Question number ``place`` of a type: 0 is the teaching problem, 1 to 3 are its exams."""
        return f"{self.names[kind]}{self.places[kind, place]}:"

    def answer(self, kind: int, place: int) -> str:
        """The right answer to that question."""
        a, b = self.rules[kind][0]
        return str((a * int(self.places[kind, place]) + b) % 10)


@dataclass(frozen=True)
class Recipe:
    """How a model is built and trained; with the library versions it decides every weight.

    Arguments:
        role: ``"teacher"``, which reads the book, or ``"student"``, which practices.
        world: whose.
        seed: of the first weights and of what is read.
        steps: optimizer steps; the learning rate falls to a tenth along them.
        until: stop as soon as so large a share of practice exams is answered right (greedily, with a right lesson).
        width, layers: size of the GPT-2.
        batch: texts per step.
        rate: peak learning rate of AdamW.
        revision: raised whenever the code below changes what comes out.
    """

    role: str
    world: World
    seed: int
    steps: int = 800
    until: float | None = None
    width: int = 96
    layers: int = 3
    batch: int = 64
    rate: float = 2e-3
    revision: int = 1

    def config(self) -> GPT2Config:
        """The architecture."""
        return GPT2Config(
            vocab_size=len(_WORDS), n_positions=64, n_embd=self.width, n_layer=self.layers, n_head=4,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=1, eos_token_id=1, pad_token_id=0,
        )  # fmt: skip

    def key(self) -> str:
        """A name for the cache."""
        versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers")}
        facts = {"recipe": asdict(self), **versions, "processor": platform.machine()}
        return hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=10).hexdigest()


#: The students by name: architecture, and the share of practice exams at which they stop.
STUDENTS = {"A": {"width": 96, "layers": 3, "until": 0.8}, "B": {"width": 64, "layers": 3, "until": 0.75}}


def teacher(world: World, steps: int = 800, cache: str | os.PathLike[str] | None = None) -> Any:
    """The teacher of a world: model and tokenizer."""
    return load(Recipe("teacher", world, world.seed, steps), cache)


def student(world: World, name: str, steps: int = 2000, cache: str | os.PathLike[str] | None = None) -> Any:
    """The student of that name in :data:`STUDENTS`: model and tokenizer. ``steps`` are its limit."""
    settings: Any = STUDENTS[name]
    seed = 1000 * (1 + sorted(STUDENTS).index(name)) + world.seed
    return load(Recipe("student", world, seed, steps, **settings), cache)


def load(recipe: Recipe, cache: str | os.PathLike[str] | None = None) -> tuple[Any, PreTrainedTokenizerFast]:
    """The trained model, in evaluation mode, and its tokenizer: from the cache, or trained now."""
    folder = (user_cache() if cache is None else Path(cache)) / f"tiny-{recipe.role}-{recipe.key()}"
    tokenizer = new_tokenizer()
    if not is_complete(folder):
        _store(folder, _trained(recipe), tokenizer)  # type: ignore[arg-type]
    with _no_progress_bar():
        model: Any = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    return model, tokenizer


def new_tokenizer() -> PreTrainedTokenizerFast:
    """One token per character."""
    tokenizer = Tokenizer(models.WordLevel(_IDS, unk_token=_PAD))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=_PAD, eos_token=_EOS)


def _trained(recipe: Recipe) -> GPT2LMHeadModel:
    draw = {"teacher": _reading, "student": _practice}[recipe.role]
    rng = np.random.default_rng([recipe.seed, 4])
    with threads(1), torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = GPT2LMHeadModel(recipe.config())
        model.train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.rate, betas=(0.9, 0.98), weight_decay=0.01)
        for step in range(1, recipe.steps + 1):
            rate = recipe.rate * min(1.0, step / 50) * (0.55 + 0.45 * float(np.cos(np.pi * step / recipe.steps)))
            _step(model, optimizer, _tokens([draw(recipe.world, rng) for _ in range(recipe.batch)]), rate)
            if step % 100 == 0 and sys.stderr.isatty():
                print(f"\rtraining the {recipe.role}: step {step}", end="", file=sys.stderr, flush=True)
            if recipe.until is not None and step % _CHECK_EVERY == 0 and _share_right(model, recipe) >= recipe.until:
                break
    return model.eval()


def _step(model: Any, optimizer: torch.optim.Optimizer, batch: tuple[Tensor, Tensor], rate: float) -> None:
    tokens, labels = batch
    for group in optimizer.param_groups:
        group["lr"] = rate
    logits = model(tokens, attention_mask=torch.ones_like(tokens), use_cache=False).logits
    loss = cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=_IGNORED)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def _reading(world: World, rng: np.random.Generator) -> tuple[str, ...]:
    """A line of the book: question and solution."""
    kind, place, wording = (int(rng.integers(n)) for n in (world.types, 6, 8))
    x = int(world.places[kind, 4 + place])
    rule = world.rules[kind][rng.choice(4, p=world.book[kind])]
    return f"{world.names[kind]}{x}:", solution(rule, x, wording)


def _practice(world: World, rng: np.random.Generator) -> tuple[str, ...]:
    """A lesson and an exam, both with the same rule; the student is trained on both solutions."""
    practiced = [rule for rule in _RULES if rule not in world.unpracticed]
    rule = practiced[rng.integers(len(practiced))]
    x, y = rng.permutation(10)[:2].tolist()
    lesson, exam = (solution(rule, z, int(rng.integers(8))) for z in (x, y))
    return f"{x}:", f"{lesson}{y}:{exam}"


def _tokens(rows: list[tuple[str, ...]]) -> tuple[Tensor, Tensor]:
    """Token ids and labels, both ``(n, longest)``, padded on the right; every second part of a row is to be learned."""
    width = max(sum(map(len, parts)) for parts in rows)
    tokens, labels = torch.zeros((len(rows), width), dtype=torch.long), torch.full((len(rows), width), _IGNORED)
    for i, parts in enumerate(rows):
        row = torch.tensor([_IDS[letter] for letter in "".join(parts)])
        learned = torch.tensor([bool(place % 2) for place, part in enumerate(parts) for _ in part])
        tokens[i, : len(row)] = row
        labels[i, : len(row)] = torch.where(learned, row, _IGNORED)
    return tokens, labels


def _share_right(model: GPT2LMHeadModel, recipe: Recipe) -> float:
    """The share of practice exams that are answered right, greedily; the exams are the same at every check."""
    rng = np.random.default_rng([recipe.seed, 5])
    prompts, wanted = zip(*(_exam(recipe, rng) for _ in range(_CHECKED)), strict=True)
    width = max(map(len, prompts))
    padded = torch.tensor([[0] * (width - len(text)) + [_IDS[letter] for letter in text] for text in prompts])
    model.eval()
    with torch.inference_mode():
        texts = model.generate(
            padded, attention_mask=(padded != 0).long(), do_sample=False, eos_token_id=_IDS[END], max_new_tokens=22
        )[:, width:]
    model.train()
    given = ["".join(_WORDS[i] for i in row if i) for row in texts.tolist()]
    return float(np.mean([answer_of(text) == answer for text, answer in zip(given, wanted, strict=True)]))


def _exam(recipe: Recipe, rng: np.random.Generator) -> tuple[str, str | None]:
    text = "".join(_practice(recipe.world, rng))
    return text[: text.rindex(":") + 1], answer_of(text)


def _main() -> None:
    world = World(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    calls: dict[str, Callable[[], Any]] = {"teacher": lambda: teacher(world)}
    calls |= {f"student {name}": lambda name=name: student(world, name) for name in STUDENTS}  # type: ignore[misc]
    for name, call in calls.items():
        start = time.process_time()
        model, _ = call()
        print(f"{name}: {sum(p.numel() for p in model.parameters())} numbers, {time.process_time() - start:.1f} s")


if __name__ == "__main__":
    _main()
