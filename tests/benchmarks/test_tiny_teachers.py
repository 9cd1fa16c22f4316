import re

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch

from benchmarks import tiny_teachers
from benchmarks.tiny_teachers import Recipe, World, answer_of, load, new_tokenizer, solution
from searchlib.errors import InvalidSettings


def test_every_wording_works_the_rule_out():
    texts = [solution((7, 4), 6, wording) for wording in range(8)]
    assert len(set(texts)) == 8
    for text in texts:
        product, total, answer = re.fullmatch(r"\d\*\d=(\d+)[,;]\d+\+\d+=(\d+)>(\d)\|", text).groups()
        assert (int(product), int(total), int(answer)) == (42, 46, 6)
        assert answer_of(text) == "6"


def test_a_world_is_decided_by_its_seed_and_another_seed_is_another_world():
    assert World(3).rules == World(3).rules
    assert World(3).rules != World(4).rules
    np.testing.assert_array_equal(World(3).book, World(3).book)
    np.testing.assert_allclose(World(3).book.sum(axis=1), 1.0)


def test_the_right_answer_is_the_first_rule_applied_to_the_question():
    world = World(0, types=20)
    for kind in range(20):
        (a, b), x = world.rules[kind][0], int(world.question(kind, 1)[1:-1])
        assert world.answer(kind, 1) == str((a * x + b) % 10)


def test_no_student_practices_with_a_right_rule_and_no_teacher_reads_about_a_question():
    world, rng = World(0, types=30), np.random.default_rng(0)
    assert {rules[0] for rules in world.rules} <= set(world.unpracticed)
    asked = {world.question(kind, place) for kind in range(30) for place in range(4)}
    read = {tiny_teachers._reading(world, rng)[0] for _ in range(3000)}
    assert len(read) > 150
    assert not asked & read


def test_one_wrong_rule_of_each_type_agrees_with_the_right_one_on_every_second_question():
    for right, *wrong in World(1).rules:
        agreeing = [sum((a * x + b) % 10 == (right[0] * x + right[1]) % 10 for x in range(10)) for a, b in wrong]
        assert 5 in agreeing
        assert max(agreeing) < 10


def test_training_is_the_same_every_time_and_is_done_once(tmp_path, monkeypatch):
    recipe = Recipe("student", World(0, types=4), seed=7, steps=3, width=16, layers=1, batch=4)
    first, tokenizer = load(recipe, tmp_path / "a")
    second, _ = load(recipe, tmp_path / "b")
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    assert tokenizer.decode(new_tokenizer()("3*4=12|")["input_ids"]) == "3*4=12|"
    monkeypatch.setattr(tiny_teachers, "_trained", lambda recipe: pytest.fail("was trained again"))
    again, _ = load(recipe, tmp_path / "a")
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))


def test_practice_lowers_the_loss(tmp_path):
    def loss(steps):
        recipe = Recipe("student", World(0, types=4), seed=7, steps=steps, width=32, layers=1, batch=16)
        model, _ = load(recipe, tmp_path)
        rng = np.random.default_rng(1)
        tokens, labels = tiny_teachers._tokens([tiny_teachers._practice(recipe.world, rng) for _ in range(64)])
        with torch.inference_mode():
            return float(model(tokens, labels=labels).loss)

    assert loss(60) < 0.8 * loss(1)


def test_too_many_types_are_refused():
    with pytest.raises(InvalidSettings, match=r"types must be in 1\.\."):
        World(0, types=1000)
