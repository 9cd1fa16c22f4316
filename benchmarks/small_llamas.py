"""Small language models of the Llama architecture that copy from far back, trained here from scratch.

Real ``LlamaForCausalLM`` models on the text of Python's own standard library, one token per ASCII character. Most
training sequences have chunks of 24 to 64 characters written a second time further on, at any distance, some of them
random characters, so that the model grows heads that look far back beside heads that look at their neighbors: what a
search over attention spans, or over the bits of a cache, has to find out. Copying is learned on short sequences first,
and matrices by Muon: with AdamW alone it is not learned in 800 steps. (Nor is associative recall of keys and values.)

The text of a file belongs to one split, decided by a hash of its name, so no case was ever trained on. The weights are
a function of the recipe, the text (Python's version), the library versions and the kind of processor. Trained once, on
one thread, and cached below ``$XDG_CACHE_HOME/searchlib``.

Run ``python -m benchmarks.small_llamas [SEED]`` to train one and print what it can do.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import sys
import sysconfig
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from benchmarks.model_cache import is_complete, store, user_cache
from benchmarks.speed_clock import threads
from searchlib.cases import Split
from searchlib.errors import InvalidSettings

__all__ = ["CUE", "VOCABULARY", "Recipe", "copies", "losses", "plain", "text", "trained"]

#: Tokens are ASCII codes.
VOCABULARY = 128
#: So many characters of a copied chunk say which chunk it is; what follows them can be known.
CUE = 8

_OTHER = ord("?")  # what stands for every character that is not ASCII
_SPLITS = {Split.SEARCH: 0, Split.SELECT: 1, Split.HOLDOUT: 2}
_SHARES = 16  # one sixteenth of all files for each split, the other thirteen for training
_CHUNK = (24, 64)
#: Training sequences grow: up to each share of the steps they have so many characters; then the recipe's.
_GROWTH = ((0.3, 64), (0.45, 128), (0.55, 192))


@final
@dataclass(frozen=True)
class Recipe:
    """One training run; with text and library versions it decides every weight.

    Arguments:
        seed: of the first weights and of the training sequences.
        layers, heads, head_dim: the architecture; its width is ``heads * head_dim``.
        steps: optimizer steps.
        tokens: characters per step.
        length: characters of a training sequence in the end (see ``_GROWTH``), and the positions that the model knows.
        rate: peak learning rate of AdamW, for embeddings and norms; it falls to a tenth.
        muon_rate: the same of Muon, for matrices.
        copied: how many chunks of a sequence are copied, at most; from none on, drawn alike.
    """

    seed: int = 0
    layers: int = 4
    heads: int = 8
    head_dim: int = 16
    steps: int = 1100
    tokens: int = 2560
    length: int = 320
    rate: float = 3e-3
    muon_rate: float = 0.02
    copied: int = 3

    def config(self) -> LlamaConfig:
        """The architecture."""
        width = self.heads * self.head_dim
        return LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.heads,
            max_position_embeddings=2 * self.length,
            tie_word_embeddings=True,
            pad_token_id=None,
            bos_token_id=None,
            eos_token_id=None,
        )

    def key(self) -> str:
        """What the weights are a function of."""
        versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers")}
        told = json.dumps([asdict(self), versions, platform.machine(), _digest(), 1], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:20]


def trained(recipe: Recipe | None = None, cache: str | os.PathLike[str] | None = None) -> LlamaForCausalLM:
    """The model of this recipe, in evaluation mode: from the cache, or trained now."""
    recipe = Recipe() if recipe is None else recipe
    folder = _folder(recipe, cache)
    if not is_complete(folder):
        store(folder, lambda fresh: _train(recipe, fresh))
    model: Any = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    return model.eval()


def losses(recipe: Recipe | None = None, cache: str | os.PathLike[str] | None = None) -> list[dict[str, float]]:
    """The training curve of a trained recipe: mean loss of text and of copies, in nats, every hundred steps."""
    recipe = Recipe() if recipe is None else recipe
    lines: list[dict[str, float]] = json.loads((_folder(recipe, cache) / "losses.json").read_text())
    return lines


def text(split: Split | str | None = None) -> NDArray[np.uint8]:
    """All text of a split, or of the training data (None), as ASCII codes."""
    if split is not None and split not in _SPLITS:
        raise InvalidSettings(f"split must be one of {', '.join(_SPLITS)}, or None, but got {split!r}")
    return _texts()[3 if split is None else _SPLITS[Split(split)]]


def plain(n: int, length: int, split: Split | str, *, seed: int = 0) -> NDArray[np.int64]:
    """``n`` pieces of unchanged text, shape ``(n, length)``."""
    rng = np.random.default_rng([seed, length, _SPLITS[Split(split)], 0])
    return _pieces(rng, text(split), n, length)


def copies(
    n: int, length: int, split: Split | str, *, chunk: int = 40, distance: int | None = None, seed: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """``n`` pieces of text that end with a chunk copied from further up.

    Arguments:
        n: how many.
        length: characters of each, the copy included.
        split: whose text.
        chunk: characters of the copy.
        distance: from each copied character back to its source; by default drawn anew for every piece.
        seed: another seed is another draw from the same split.

    Returns:
        tokens ``(n, length)``, and where they can be known: True in the copy from the ninth character on.
    """
    farthest = length - chunk
    if not CUE < chunk <= farthest or not (distance is None or chunk <= distance <= farthest):
        raise InvalidSettings(
            f"a chunk of {chunk} characters must be longer than {CUE} and lie {chunk} to {farthest} characters "
            f"before its copy, but got (length={length}, distance={distance})"
        )
    rng = np.random.default_rng([seed, length, _SPLITS[Split(split)], 1])
    tokens = _pieces(rng, text(split), n, length)
    for row in tokens:
        back = int(rng.integers(chunk, farthest + 1)) if distance is None else distance
        row[farthest:] = row[farthest - back : farthest - back + chunk]
    known = np.zeros(tokens.shape, bool)
    known[:, farthest + CUE :] = True
    return tokens, known


@lru_cache(maxsize=1)
def _texts() -> tuple[NDArray[np.uint8], ...]:
    """Text of the three splits, and of the training data."""
    root = Path(sysconfig.get_paths()["stdlib"])
    parts: list[list[bytes]] = [[], [], [], []]
    skipped = {"test", "tests", "site-packages", "dist-packages", "lib2to3", "idlelib", "__pycache__"}
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if skipped.isdisjoint(name.split("/")):
            share = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "little") % _SHARES
            parts[min(share, 3)].append(path.read_bytes())
    codes = [np.frombuffer(b"\n".join(part), np.uint8) for part in parts]
    return tuple(np.where(code < VOCABULARY, code, _OTHER).astype(np.uint8) for code in codes)


@lru_cache(maxsize=1)
def _digest() -> str:
    digest = hashlib.blake2b(digest_size=8)
    for part in _texts():
        digest.update(part.tobytes())
    return digest.hexdigest()


def _pieces(rng: np.random.Generator, source: NDArray[np.uint8], n: int, length: int) -> NDArray[np.int64]:
    starts = rng.integers(len(source) - length, size=n)
    return source[starts[:, None] + np.arange(length)].astype(np.int64)


def _batch(rng: np.random.Generator, recipe: Recipe, step: int) -> tuple[Tensor, Tensor]:
    """Training sequences, and which of their characters are copies that can be known."""
    grown = [least for share, least in _GROWTH if step <= share * recipe.steps]
    length = min([*grown, recipe.length])
    short = length <= 64
    (least, most), odds = ((16, 32), 0.5) if short else (_CHUNK, 0.3)
    tokens = _pieces(rng, text(), recipe.tokens // length, length)
    known = np.zeros(tokens.shape, bool)
    for row, mark in zip(tokens, known, strict=True):
        for _ in range(1 if short else int(rng.integers(recipe.copied + 1))):
            size = int(rng.integers(least, min(most, length // 2) + 1))
            goal = int(rng.integers(size, length - size + 1))
            source = int(rng.integers(goal - size + 1))
            if rng.random() < odds:
                row[source : source + size] = rng.integers(33, 127, size=size)
                mark[source : source + size] = False
            row[goal : goal + size] = row[source : source + size].copy()
            mark[goal : goal + size] = np.arange(size) >= CUE
    return torch.from_numpy(tokens), torch.from_numpy(known)


def _train(recipe: Recipe, folder: Path) -> None:
    data = np.random.default_rng(recipe.seed)
    curve: list[dict[str, float]] = []
    with threads(1), torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = LlamaForCausalLM(recipe.config()).train()
        matrices = [weight for weight in model.model.layers.parameters() if weight.ndim == 2]
        others = [weight for weight in model.parameters() if not any(weight is matrix for matrix in matrices)]
        optimizers = [
            torch.optim.Muon(matrices, lr=recipe.muon_rate, weight_decay=0.01, momentum=0.95),
            torch.optim.AdamW(others, lr=recipe.rate, betas=(0.9, 0.98), weight_decay=0.01),
        ]
        sums = np.zeros(4)
        for step in range(1, recipe.steps + 1):
            for optimizer, rate in zip(optimizers, (recipe.muon_rate, recipe.rate), strict=True):
                optimizer.param_groups[0]["lr"] = rate * _share_of_rate(recipe, step)
            sums += _step(model, optimizers, _batch(data, recipe, step))
            if step % 100 == 0:
                text_loss, copy_loss = sums[0] / sums[1], sums[2] / max(sums[3], 1)
                curve.append({"step": step, "text": round(float(text_loss), 4), "copies": round(float(copy_loss), 4)})
                sums[:] = 0
                print(f"small Llama: {curve[-1]}", file=sys.stderr, flush=True)
    model.eval().save_pretrained(folder)
    (folder / "losses.json").write_text(json.dumps(curve))


def _step(
    model: Any, optimizers: Sequence[torch.optim.Optimizer], batch: tuple[Tensor, Tensor]
) -> NDArray[np.float64]:
    """One step; the summed loss and the count of ordinary characters, and of copied ones."""
    tokens, known = batch
    logits = model(tokens, use_cache=False).logits[:, :-1]
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
    model.zero_grad()
    loss.mean().backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
    copied, each = known[:, 1:].flatten(), loss.detach()
    return np.array([each[~copied].sum(), (~copied).sum(), each[copied].sum(), copied.sum()], np.float64)


def _share_of_rate(recipe: Recipe, step: int) -> float:
    progress = step / recipe.steps
    return min(1.0, step / 50) * (0.55 + 0.45 * float(np.cos(np.pi * progress)))


def _folder(recipe: Recipe, cache: str | os.PathLike[str] | None) -> Path:
    return (user_cache() if cache is None else Path(cache)) / f"small-llama-{recipe.key()}"


def _main() -> None:
    recipe = Recipe(seed=int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    start, processor = time.perf_counter(), time.process_time()
    model = trained(recipe)
    seconds, used = time.perf_counter() - start, time.process_time() - processor
    print(f"ready after {seconds:.1f} s ({used:.1f} s of processor time)")
    for line in losses(recipe):
        print(line)
    with torch.inference_mode():
        for length in (128, 192, 256, 320):
            ends = []
            for distance in (40, length // 2, length - 40):
                tokens, known = map(torch.from_numpy, copies(32, length, Split.SELECT, distance=distance))
                predicted = torch.log_softmax(model(tokens).logits[:, :-1], dim=-1)
                found = -predicted.gather(2, tokens[:, 1:, None])[..., 0]
                right = (predicted.argmax(-1) == tokens[:, 1:])[known[:, 1:]].float().mean()
                ends.append(f"{distance}: {found[known[:, 1:]].mean():.3f} ({100 * right:.0f} %)")
                whole = found[~known[:, 1:]].mean()
            print(f"length {length}: text {whole:.3f} nats; copies by distance {', '.join(ends)}")


if __name__ == "__main__":
    _main()
