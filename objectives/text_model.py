"""What the adapters ask of a language model: prompts go in, sampled completions come out.

A :class:`TextModel` is anything that can be called with prompts, settings and seeds. A plain function is one, so tests
and toys need no class; :class:`searchlib.objectives.causal_text_model.CausalTextModel` is one for models of
``transformers`` and :class:`searchlib.objectives.chat_endpoint.ChatEndpoint` one for servers.

A completion belongs to its prompt and its seed. A table of scores can be filled in any order, continued after a crash
and divided among workers only if the completion of a cell does not depend on the cells that were asked beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, final

from searchlib.arguments import listed, real_number, shown, whole_number
from searchlib.errors import InvalidSettings

__all__ = ["Prompt", "Sampling", "TextModel", "before_stop", "checked"]


@final
@dataclass(frozen=True)
class Prompt:
    """What a model continues.

    Arguments:
        text: the end of what the model reads.
        prefix: what comes before it, right where ``text`` begins. Many prompts may share one (a lesson that several
            exam questions follow); a model may then compute it once.

    Raises:
        InvalidSettings: something that is no string.

    Example:
        >>> Prompt("2+2=", prefix="1+1=2\\n").full
        '1+1=2\\n2+2='
    """

    text: str
    prefix: str = ""

    def __post_init__(self) -> None:
        for name, value in (("text", self.text), ("prefix", self.prefix)):
            if not isinstance(value, str):
                raise InvalidSettings(f"{name} must be a string, but is {shown(value)}")

    @property
    def full(self) -> str:
        """All that the model reads."""
        return self.prefix + self.text


@final
@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a completion is drawn.

    The defaults are those of Learning by Teaching on MATH (arXiv 2406.14629, M1, and the configurations released with
    it), the same for teacher and students.

    Arguments:
        temperature: the logits are divided by it; 0 is greedy decoding, where ``top_k``, ``top_p`` and the seed are
            without effect.
        top_k: only so many of the most likely tokens can be drawn; None for all of them.
        top_p: only the most likely tokens that together have this probability (of the ``top_k``, renormalized) can be
            drawn; in (0, 1], where 1 is all of them.
        max_tokens: no completion is longer than this, in tokens.
        stop: the completion ends before the first of these strings.

    Raises:
        InvalidSettings: a setting out of its range.

    Example:
        >>> Sampling(temperature=0, stop=["###"])
        Sampling(temperature=0, top_k=20, top_p=1.0, max_tokens=1024, stop=('###',))
    """

    temperature: float = 0.7
    top_k: int | None = 20
    top_p: float = 1.0
    max_tokens: int = 1024
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        real_number("temperature", self.temperature, "[0, inf)")
        if self.top_k is not None:
            whole_number("top_k, or None for all tokens,", self.top_k, 1)
        real_number("top_p", self.top_p, "(0, 1]")
        whole_number("max_tokens", self.max_tokens, 1)
        given: object = self.stop
        if isinstance(given, str):
            raise InvalidSettings(f"stop must be a tuple of strings; instead of {given!r} use ({given!r},)")
        object.__setattr__(self, "stop", listed("stop", self.stop, "a tuple of strings"))
        if not all(isinstance(stop, str) and stop for stop in self.stop):
            raise InvalidSettings(f"stop must hold strings that are not empty, but is {shown(self.stop)}")


class TextModel(Protocol):
    """Completes prompts; a plain function with this signature is one.

    Example:
        >>> import random
        >>> def coin(prompts, sampling, seeds):
        ...     return [random.Random(f"{seed} {p.full}").choice(["heads", "tails"]) for p, seed in zip(prompts, seeds)]
        >>> checked(coin, [Prompt("Heads or tails? ")] * 3, Sampling(), seeds=[0, 2, 0])
        ['heads', 'tails', 'heads']
    """

    def __call__(self, prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int]) -> list[str]:
        """One completion per prompt.

        Arguments:
            prompts: ``n`` prompts.
            sampling: how the completions are drawn.
            seeds: ``n`` integers; the completion is decided by (prompt, sampling, seed) alone, not by the company it
                is asked in. A model that cannot promise this (a server without seeds) says so in its documentation.

        Returns:
            ``n`` strings, each without its prompt, cut before the first stop string.
        """
        ...


def checked(model: TextModel, prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int]) -> list[str]:
    """Call the model, and make sure that it returns one string per prompt.

    Raises:
        InvalidSettings: as many seeds as prompts were not given, or strings not returned.
    """
    if len(seeds) != len(prompts):
        raise InvalidSettings(f"there must be one seed per prompt, but there are {len(seeds)} for {len(prompts)}")
    given: object = model(prompts, sampling, seeds)
    name = getattr(model, "__qualname__", type(model).__name__)
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise InvalidSettings(f"the text model {name} must return a list of strings, but returned {given!r:.120}")
    if len(given) != len(prompts):
        raise InvalidSettings(
            f"the text model {name} must return one completion per prompt, but returned {len(given)} "
            f"for {len(prompts)} prompts"
        )
    for i, completion in enumerate(given):
        if not isinstance(completion, str):
            raise InvalidSettings(f"the text model {name} must return strings, but item {i} is {completion!r:.120}")
    return list(given)


def before_stop(text: str, stop: Sequence[str]) -> str:
    """The text up to the first place where a stop string begins.

    Example:
        >>> before_stop("4\\n\\nQuestion: 5+5=", ["Question:", "\\n\\n"])
        '4'
    """
    return text[: min((place for place in map(text.find, stop) if place >= 0), default=len(text))]
