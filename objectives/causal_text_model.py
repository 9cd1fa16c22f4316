"""A causal language model of ``transformers`` as a text model, with prompts that begin alike computed once.

An exam prompt is a lesson and a question, and many questions follow each lesson; a teacher is asked the same question
hundreds of times (Learning by Teaching, arXiv 2406.14629, Algorithm 1: 256 rationales, each with nine exams). What such
prompts have in common goes through the model once (:mod:`searchlib.objectives.prompt_heads`), where the model's memory
allows it (:mod:`searchlib.objectives.causal_decoding`). How tokens are drawn is
:mod:`searchlib.objectives.completions`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

import torch

from searchlib.errors import InvalidSettings, UnsupportedModel
from searchlib.objectives.answer_cases import prompt_tokens
from searchlib.objectives.causal_decoding import HeadDecoder, attends_to_all, generate
from searchlib.objectives.completions import Completions
from searchlib.objectives.evaluation_mode import evaluating
from searchlib.objectives.prompt_heads import PromptRow, blocks, prompt_rows
from searchlib.objectives.text_model import Prompt, Sampling
from searchlib.objectives.weight_sample import weight_sample

__all__ = ["CausalTextModel"]


@final
class CausalTextModel:
    """A :class:`~searchlib.objectives.text_model.TextModel` over any causal language model of ``transformers``.

    Prompts that share their prefix string, and prompts that are the same altogether, share the computation of the
    tokens they begin with (all but the last one at most). Greedy completions are those of
    ``model.generate(do_sample=False)``; the penalties that a model's generation settings may hold are left out.

    A completion is decided by prompt, sampling and seed, whatever is asked beside it, up to rounding: where two tokens
    come within a rounding error of each other, a batch of another shape may decide otherwise. (Of 8,000 completions of
    tiny models on a processor, in batches of 128 and of 24, in float32 and in bfloat16, none did; graphics processors
    choose their kernels by shape, so expect it there in 16 bits, as with ``generate``.)

    At full scale::

        tokenizer = AutoTokenizer.from_pretrained("meta-llama/Meta-Llama-3-8B-Instruct")
        model = AutoModelForCausalLM.from_pretrained(
            "meta-llama/Meta-Llama-3-8B-Instruct", dtype="bfloat16", device_map="auto"
        )
        student = CausalTextModel(model, tokenizer, batch_size=64)
        student([Prompt(question, prefix=lesson) for question in exam], Sampling(stop=("\\n\\n",)), seeds=range(9))

    Attributes:
        batch_size: as given; halved for good whenever memory runs out.
        generated: completions so far.
        prefilled_tokens: prompt tokens that went through the model, shared ones once and no padding.
        decoded_tokens: tokens drawn, end tokens included.

    Arguments:
        model: the model, on any device and in any dtype. It is run in evaluation mode and left as it was.
        tokenizer: its tokenizer; nothing on it is changed.
        batch_size: most prompts that go through the model at one time.
        chat: wrap each prompt as a user's message in the tokenizer's chat template.

    Raises:
        InvalidSettings: a batch size below 1, or ``chat`` without a chat template.
        UnsupportedModel: an encoder-decoder model.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> class Digits:
        ...     eos_token_id = pad_token_id = None
        ...     def __call__(self, text, **settings):
        ...         return {"input_ids": [int(digit) for digit in text]}
        ...     def decode(self, tokens, **settings):
        ...         return "".join(map(str, tokens))
        >>> config = GPT2Config(vocab_size=10, n_embd=8, n_layer=1, n_head=2, bos_token_id=None, eos_token_id=None)
        >>> model = CausalTextModel(GPT2LMHeadModel(config), Digits())
        >>> lesson = [Prompt(text, prefix="314159") for text in ("26", "53", "58")]
        >>> [len(completion) for completion in model(lesson, Sampling(max_tokens=4), seeds=[0, 1, 2])]
        [4, 4, 4]
        >>> model.generated, model.prefilled_tokens, model.decoded_tokens
        (3, 12, 12)
    """

    def __init__(self, model: Any, tokenizer: Any, *, batch_size: int = 32, chat: bool = False) -> None:
        if batch_size < 1:
            raise InvalidSettings(f"batch_size must be at least 1, but is {batch_size!r}")
        if chat and not getattr(tokenizer, "chat_template", None):
            raise InvalidSettings("chat=True needs a tokenizer with a chat template: set tokenizer.chat_template")
        if getattr(model.config, "is_encoder_decoder", False):
            raise UnsupportedModel(f"{type(model).__name__} has an encoder, but a causal language model is needed")
        self.model = model
        self.tokenizer = tokenizer
        self.batch_size = int(batch_size)
        self.chat = chat
        self.generated = self.prefilled_tokens = self.decoded_tokens = 0
        self._decoder = HeadDecoder(model) if attends_to_all(model) else None

    def __call__(self, prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int]) -> list[str]:
        """One completion per prompt, in the order of the prompts.

        Raises:
            InvalidSettings: as many seeds as prompts were not given, a prompt without tokens, or one that leaves less
                than ``sampling.max_tokens`` positions.
            UnsupportedModel: the model's logits are not numbers.
        """
        if len(seeds) != len(prompts):
            raise InvalidSettings(f"there must be one seed per prompt, but there are {len(seeds)} for {len(prompts)}")
        texts: dict[int, str] = {}
        rows = self._rows(prompts, sampling)
        with evaluating(self.model), torch.inference_mode():
            while rows:
                for block in blocks(rows, self.batch_size):
                    if not self._fits_in_memory(block, sampling, seeds, texts):
                        break
                rows = [row for row in rows if row.place not in texts]
        return [texts[place] for place in range(len(prompts))]

    def fingerprint(self) -> Mapping[str, Any]:
        """JSON values that say which model this is: architecture, size, a sample of every weight, chat or not."""
        return {
            "text_model": type(self).__name__,
            "model": type(self.model).__name__,
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "weights": weight_sample(self.model),
            "chat": self.chat,
        }

    def _rows(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[PromptRow]:
        tokenized = {full: self._tokenize(full) for full in dict.fromkeys(prompt.full for prompt in prompts)}
        tokens = [tokenized[prompt.full] for prompt in prompts]
        for place, row in enumerate(tokens):
            self._check_fits(place, len(row), sampling.max_tokens)
        return prompt_rows(prompts, tokens, share=self._decoder is not None)

    def _tokenize(self, text: str) -> tuple[int, ...]:
        if not self.chat:
            return prompt_tokens(self.tokenizer, text)
        message = [{"role": "user", "content": text}]
        dressed = self.tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False)
        return tuple(self.tokenizer(dressed, add_special_tokens=False)["input_ids"])

    def _check_fits(self, place: int, tokens: int, max_tokens: int) -> None:
        if not tokens:
            raise InvalidSettings(f"prompt {place} has no tokens, so there is nothing to continue")
        limit = getattr(self.model.config.get_text_config(decoder=True), "max_position_embeddings", None)
        needed = tokens + max_tokens - 1  # the last token is drawn, never fed
        if limit is not None and needed > limit:
            raise InvalidSettings(
                f"prompt {place} has {tokens} tokens, which together with max_tokens={max_tokens} needs {needed} "
                f"positions, but the model has {limit}: shorten the prompt or lower max_tokens"
            )

    def _fits_in_memory(
        self, block: list[PromptRow], sampling: Sampling, seeds: Sequence[int], texts: dict[int, str]
    ) -> bool:
        """Put a block's completions into ``texts``; False, with a smaller batch size, where memory ran out."""
        at_once = min(self.batch_size, len(block))
        try:
            self._complete(block, sampling, seeds, texts)
            return True
        except (MemoryError, RuntimeError) as error:
            if at_once == 1 or not _is_out_of_memory(error):
                raise
        self.batch_size = at_once // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return False

    def _complete(
        self, block: list[PromptRow], sampling: Sampling, seeds: Sequence[int], texts: dict[int, str]
    ) -> None:
        """Compute the heads of a block, then its rows in batches, those with long tails first."""
        heads = {row.group: row.head for row in block}
        numbers = {group: i for i, group in enumerate(heads)}
        computed = self._decoder.compute(list(heads.values())) if self._decoder else None
        self.prefilled_tokens += sum(map(len, heads.values()))
        rows = sorted(block, key=lambda row: -len(row.tail))
        while rows:
            batch, rows = rows[: self.batch_size], rows[self.batch_size :]
            writing = Completions(
                self.tokenizer,
                [row.tokens for row in batch],
                sampling,
                seeds=[seeds[row.place] for row in batch],
                ends=self._ends(sampling),
            )
            if self._decoder is None or computed is None:
                generate(self.model, writing, [row.tail for row in batch], sampling.max_tokens, self._padding)
            else:
                mine = computed.handed_to([numbers[row.group] for row in batch], keep=bool(rows))
                self._decoder.write(writing, [row.tail for row in batch], mine)
            self._count(batch, writing)
            texts.update({row.place: writing.text(i) for i, row in enumerate(batch)})

    def _count(self, batch: list[PromptRow], writing: Completions) -> None:
        self.generated += len(batch)
        self.prefilled_tokens += sum(len(row.tail) for row in batch)
        self.decoded_tokens += writing.drawn

    def _ends(self, sampling: Sampling) -> set[int]:
        """The tokens that end a completion: the model's, the tokenizer's, and stop strings that are tokens."""
        own = getattr(getattr(self.model, "generation_config", None), "eos_token_id", None)
        ends = {*own} if isinstance(own, list | tuple) else {own}
        ends.add(self.tokenizer.eos_token_id)
        if sampling.stop:
            # Special tokens are left out of the text, so there a stop string could not be found.
            added = self.tokenizer.get_added_vocab()
            ends.update(added.get(string) for string in sampling.stop)
        return {int(token) for token in ends if token is not None}

    @property
    def _padding(self) -> int | None:
        return getattr(self.tokenizer, "pad_token_id", None)


def _is_out_of_memory(error: BaseException) -> bool:
    # On the processor torch reports a failed allocation as a plain RuntimeError.
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
