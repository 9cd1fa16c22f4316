"""The released expert search's way of applying and scoring one candidate, as a rival for speed.

Source: imagination-research/EEP at 39df572 (``opencompass/tasks/search.py``), the code behind arXiv 2407.00945. For
every candidate it combines the experts of all layers tensor by tensor, out of a second copy of the whole model, loads
the whole state dict, tokenizes all questions again and rebuilds the batches.

Where the two could differ the rival gets the benefit: a product is added in one step instead of through a temporary
tensor, no file is written or read, nothing is printed, and questions are tokenized a batch at a time. Negative mapped
probabilities count as zero, as in searchlib and unlike in the release, so that both ways score alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self, final

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from searchlib.objectives import Case
from searchlib.objectives.moe_layers import MoeLayer, find_moe_layers

__all__ = ["ReleasedScoring", "ReleasedWeights"]


@final
class ReleasedWeights:
    """A model whose experts and routers are set the way the release does it; a context that puts all back.

    Inside, a copy of every tensor is held, and the merged slots of the last candidate: ``1 + keep / experts`` times
    the model on top of the model. The model never shrinks; slots from ``keep`` on are there, but never chosen.

    Arguments:
        model: a transformers model with fused experts and a renormalized softmax router (Mixtral).
        keep: slots per layer.
    """

    def __init__(self, model: nn.Module, keep: int) -> None:
        self._model, self._keep = model, keep
        self.layers = find_moe_layers(model)
        self._routers: list[Tensor] = []
        self._hooks: list[Any] = []

    def __enter__(self) -> Self:
        self._by_expert = _ByExpert(self._model, self.layers)
        self._reference = self._by_expert.state_dict()
        self._originals = {name: tensor.clone() for name, tensor in self._reference.items()}
        for number, layer in enumerate(self.layers):
            self._hooks.append(layer.router.register_forward_hook(self._mapped(number)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._by_expert.load_state_dict(self._originals)
        for hook in self._hooks:
            hook.remove()
        self._routers, self._hooks = [], []
        del self._by_expert, self._reference, self._originals

    @torch.no_grad()
    def apply(self, router: ArrayLike, merging: ArrayLike, layer_groups: Sequence[int] | None = None) -> None:
        """Merge all layers and load the whole model; both matrices have shape ``(groups, keep, experts)``."""
        groups = range(len(self.layers)) if layer_groups is None else layer_groups
        coefficients = np.asarray(merging, np.float32).tolist()
        for number, group in enumerate(groups):
            for slot in range(self._keep):
                for part in _ByExpert.PARTS:
                    self._reference[_name(number, slot, part)] = self._merged(number, part, coefficients[group][slot])
        self._by_expert.load_state_dict(self._reference)
        self._routers = [torch.tensor(np.asarray(router, np.float32)[group]) for group in groups]

    def _merged(self, number: int, part: str, row: Sequence[float]) -> Tensor:
        merged = self._originals[_name(number, 0, part)] * row[0]
        for expert, coefficient in enumerate(row[1:], start=1):
            if coefficient != 0:
                merged.add_(self._originals[_name(number, expert, part)], alpha=coefficient)
        return merged

    def _mapped(self, number: int) -> Any:
        def hook(module: Any, arguments: Any, output: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
            if not self._routers:
                return None
            scores = output[0].float().softmax(-1) @ self._routers[number].T
            chosen, slots = scores.topk(min(module.top_k, self._keep), dim=-1)
            positive = chosen.clamp_min(0)
            weights = positive / positive.sum(-1, keepdim=True)
            return output[0], weights.nan_to_num(1 / chosen.shape[-1]).to(output[1].dtype), slots

        return hook


@final
class _ByExpert(nn.Module):
    """The model's own memory as one tensor per expert and matrix, as transformers 4.39 kept it (w1, w2, w3)."""

    PARTS = ("gate", "up", "down")

    def __init__(self, model: nn.Module, layers: Sequence[MoeLayer]) -> None:
        super().__init__()
        fused = set()
        for number, layer in enumerate(layers):
            gate_up, down = layer.weights()
            fused |= {id(parameter) for parameter in layer.experts.parameters()}
            for expert in range(len(gate_up)):
                for part, view in zip(self.PARTS, (*gate_up[expert].chunk(2), down[expert]), strict=True):
                    self.register_parameter(_name(number, expert, part), nn.Parameter(view, requires_grad=False))
        for i, parameter in enumerate(model.parameters()):
            if id(parameter) not in fused:
                self.register_parameter(f"other{i}", parameter)


def _name(layer: int, expert: int, part: str) -> str:
    return f"layer{layer}_expert{expert}_{part}"


@final
class ReleasedScoring:
    """Accuracy on questions that are tokenized and put into batches anew every time.

    Arguments:
        model, tokenizer: as loaded.
        cases: strings, with answers to be produced.
        end: the token that ends an answer.
        batch: questions per forward pass (released: 32).
        max_new_tokens: as far as an answer is generated (released: 20 and more).
    """

    def __init__(
        self, model: Any, tokenizer: Any, cases: Sequence[Case], *, end: str, batch: int = 32, max_new_tokens: int = 20
    ) -> None:
        self._model, self._tokenizer, self._cases, self._end = model, tokenizer, tuple(cases), end
        self._batch, self._max_new_tokens = batch, max_new_tokens

    @torch.inference_mode()
    def prefill(self) -> NDArray[np.bool_]:
        """Whether greedy decoding would say each answer, from one forward pass per batch; shape ``(cases,)``."""
        right = []
        for cases in self._batches():
            asked = self._tokens([str(case.prompt) for case in cases], "right")
            told = self._tokens([f"{case.prompt}{case.answer}{self._end}" for case in cases], "right")
            logits = self._model(**told, use_cache=False).logits[:, :-1]
            place = torch.arange(logits.shape[1])
            first, last = asked["attention_mask"].sum(1) - 1, told["attention_mask"].sum(1) - 1
            outside = (place < first[:, None]) | (place >= last[:, None])
            right.append((outside | (logits.argmax(-1) == told["input_ids"][:, 1:])).all(1).numpy())
        return np.concatenate(right)

    @torch.inference_mode()
    def generate(self) -> NDArray[np.bool_]:
        """Whether greedy decoding, token by token, says each answer; shape ``(cases,)``."""
        end = self._tokenizer.convert_tokens_to_ids(self._end)
        right: list[bool] = []
        for cases in self._batches():
            asked = self._tokens([str(case.prompt) for case in cases], "left")
            said = self._model.generate(
                **asked, max_new_tokens=self._max_new_tokens, do_sample=False, eos_token_id=end, pad_token_id=end
            )
            texts = self._tokenizer.batch_decode(said[:, asked["input_ids"].shape[1] :])
            right += [
                text.split(self._end)[0] == case.answer and self._end in text
                for text, case in zip(texts, cases, strict=True)
            ]
        return np.array(right)

    def _batches(self) -> Iterator[tuple[Case, ...]]:
        return (self._cases[i : i + self._batch] for i in range(0, len(self._cases), self._batch))

    def _tokens(self, texts: list[str], side: str) -> dict[str, Tensor]:
        encoded = self._tokenizer(texts, padding=True, padding_side=side, return_tensors="pt")
        return {name: encoded[name] for name in ("input_ids", "attention_mask")}
