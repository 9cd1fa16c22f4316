"""The small real model: the same weights every time, cached safely, and questions that never leak between splits."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest

from searchlib.cases import Split
from searchlib.errors import InvalidSettings

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from benchmarks import small_mixtral  # noqa: E402
from benchmarks.small_mixtral import END, TASKS, accuracies, cases, load, new_tokenizer  # noqa: E402


def weights(model) -> dict:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache that holds a run of three steps."""
    folder = tmp_path_factory.mktemp("cache")
    load(3, cache=folder)
    return folder


@pytest.fixture
def no_training(monkeypatch):
    def refuse(*arguments):
        raise AssertionError("trained although the cache has it")

    monkeypatch.setattr(small_mixtral, "_train", refuse)


def step_folder(cache, step: int = 3):
    (folder,) = cache.glob(f"small-mixtral-*/step-{step}")
    return folder


def test_training_twice_gives_the_same_bits(cache, tmp_path):
    torch.manual_seed(99)
    first, second = load(3, cache=cache)[0], load(3, cache=tmp_path)[0]
    assert same(weights(first), weights(second))
    assert (step_folder(cache) / "model.safetensors").read_bytes() == (
        step_folder(tmp_path) / "model.safetensors"
    ).read_bytes()


def test_another_seed_or_length_is_another_model(cache, tmp_path):
    model = weights(load(3, cache=cache)[0])
    assert not same(model, weights(load(3, seed=1, cache=tmp_path)[0]))
    assert not same(model, weights(load(4, stop_at=3, cache=tmp_path)[0])), "a longer run decays its rate later"
    assert len(list(tmp_path.glob("small-mixtral-*"))) == 2


def test_the_cache_gives_the_same_weights_without_training(cache, no_training):
    first, tokenizer = load(3, cache=cache)
    second, _ = load(3, cache=cache)
    assert same(weights(first), weights(second))
    assert isinstance(first, transformers.MixtralForCausalLM)
    assert not first.training
    assert sum(tensor.numel() for tensor in first.parameters()) == 643_136
    assert tokenizer.get_vocab() == new_tokenizer().get_vocab()


def test_the_cache_lies_in_the_users_cache_folder(cache, no_training, monkeypatch, tmp_path):
    (tmp_path / "searchlib").symlink_to(cache, target_is_directory=True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    load(3)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "searchlib").symlink_to(cache, target_is_directory=True)
    load(3)


def tear_weights(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def flip_a_bit(folder):
    file = folder / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))


@pytest.mark.parametrize(
    "damage",
    [
        tear_weights,
        flip_a_bit,
        lambda folder: (folder / "tokenizer.json").unlink(),
        lambda folder: (folder / "complete.json").unlink(),
        lambda folder: (folder / "complete.json").write_text("{"),
    ],
)
def test_a_torn_cache_is_built_anew(cache, tmp_path, damage):
    torn = tmp_path / "cache"
    shutil.copytree(cache, torn)
    damage(step_folder(torn))
    assert same(weights(load(3, cache=torn)[0]), weights(load(3, cache=cache)[0]))
    listed = json.loads((step_folder(torn) / "complete.json").read_text())
    assert listed == json.loads((step_folder(cache) / "complete.json").read_text())
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(listed)
    assert [path.name for path in step_folder(torn).parent.iterdir()] == ["step-3"], "no scraps are left behind"


def test_the_checkpoint_half_way_is_a_step_of_the_same_run(tmp_path, monkeypatch):
    monkeypatch.setattr(small_mixtral, "HALF_WAY", 2)
    load(3, cache=tmp_path / "whole")
    load(3, stop_at=2, cache=tmp_path / "half")
    on_the_way, alone = (step_folder(tmp_path / name, 2) / "model.safetensors" for name in ("whole", "half"))
    assert on_the_way.read_bytes() == alone.read_bytes()
    assert not list((tmp_path / "half").glob("*/step-3"))


def test_training_leaves_threads_and_random_state_as_they_were(tmp_path):
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    load(1, cache=tmp_path)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def test_training_lowers_the_loss(tmp_path):
    """Twenty steps already tell digits from other tokens."""
    from searchlib.objectives.answer_scoring import AnswerScorer

    questions = cases("copy", 40)
    losses = [
        AnswerScorer(*load(steps, cache=tmp_path), questions, end=END).score()[1].mean() for steps in (1, 20)
    ]
    assert losses[1] < losses[0] - 0.3


def test_accuracies_name_every_task(cache):
    result = accuracies(*load(3, cache=cache), n=5)
    assert list(result) == list(TASKS)
    assert all(0 <= value <= 1 for value in result.values())


def answer_of(prompt: str) -> str:
    """The answers once more, by arithmetic on lists of numbers."""
    letter, question = prompt[0], prompt[1:-1]
    assert prompt[-1] == "="
    if letter == "A":
        first, second = (int(number) for number in question.split("+"))
        return f"{first + second:03d}"[::-1]
    d = np.array([int(digit) for digit in question])
    numbers = {
        "R": lambda: np.flip(d),
        "S": lambda: np.sort(d),
        "X": lambda: [d.max(), d.min()],
        "C": lambda: d,
        "N": lambda: [np.count_nonzero(d[1:] == d[0])],
        "M": lambda: [d.sum() % 10],
        "T": lambda: np.mod(d[1:] + d[0], 10),
    }[letter]()
    return "".join(str(int(number)) for number in numbers)


@pytest.mark.parametrize("task", TASKS)
def test_answers_are_right(task):
    questions = cases(task, 200)
    assert len({case.prompt for case in questions}) == 200
    for case in questions:
        assert case.prompt[0] == TASKS[task].letter
        assert case.answer == answer_of(case.prompt)


@pytest.mark.parametrize("task", TASKS)
def test_no_prompt_is_in_two_splits_or_in_the_training_data(task):
    drawn = {split: {case.prompt for seed in (0, 1) for case in cases(task, 300, split, seed=seed)} for split in Split}
    assert all(len(prompts) >= 300 for prompts in drawn.values())
    assert not drawn[Split.SEARCH] & drawn[Split.SELECT]
    assert not drawn[Split.SEARCH] & drawn[Split.HOLDOUT]
    assert not drawn[Split.SELECT] & drawn[Split.HOLDOUT]
    tokenizer = new_tokenizer()
    tokens, labels = small_mixtral._batch(np.random.default_rng(0), 2000, tokenizer.get_vocab())
    trained = set()
    for row, label in zip(tokens, labels, strict=True):
        prompt = tokenizer.decode(row[: int((label >= 0).nonzero()[0])])
        answer = tokenizer.decode(row[label >= 0])
        assert answer == answer_of(prompt) + END
        trained.add(prompt)
    assert len(trained) > 1000
    assert not trained & set().union(*drawn.values())


def test_cases_are_the_same_for_the_same_seed_only():
    assert cases("sort", 20, "holdout", seed=3) == cases("sort", 20, Split.HOLDOUT, seed=3)
    assert cases("sort", 20, "holdout", seed=3) != cases("sort", 20, "holdout", seed=4)
    assert cases("sort", 20, seed=3) == cases("sort", 30, seed=3)[:20]


def test_the_tokenizer_has_one_token_per_character_and_survives_saving(cache):
    _, tokenizer = load(3, cache=cache)
    assert len(tokenizer) == 24
    for task in TASKS:
        for case in cases(task, 20):
            ids = tokenizer(case.prompt + case.answer)["input_ids"]
            assert len(ids) == len(case.prompt + case.answer)
            assert tokenizer.unk_token_id not in ids
            assert tokenizer.decode(ids) == case.prompt + case.answer
    assert tokenizer.eos_token == END


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: load(0), "steps must be at least 1 and stop_at in 1..steps, but got steps=0, stop_at=None"),
        (lambda: load(10, stop_at=11), "but got steps=10, stop_at=11"),
        (lambda: cases("poetry", 5), f"task must be one of {', '.join(TASKS)}, but got 'poetry'"),
        (lambda: cases("sort", 5, "test"), "split must be one of search, select, holdout, but got 'test'"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(make, sentence):
    with pytest.raises(InvalidSettings, match=re.escape(sentence)):
        make()


def test_more_cases_than_there_are_is_refused(monkeypatch):
    few = small_mixtral.Task("C", small_mixtral._digits(2, 2), lambda digits: digits)
    monkeypatch.setitem(small_mixtral.TASKS, "copy", few)
    with pytest.raises(InvalidSettings, match=r"copy has only about \d+ distinct cases for search, but got n=100"):
        cases("copy", 100)
