import dataclasses
import itertools
import json
import logging
import os
import pickle
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from searchlib import Candidates, Search, Split, Study, search
from searchlib.errors import InvalidSettings
from searchlib.memo import Memo
from searchlib.objectives.exemplar_operators import FailureReplacement, LLMRewriter
from searchlib.objectives.exemplar_search import ExemplarSearch
from searchlib.objectives.exemplars import Exemplar, ExemplarFormat, ExemplarPrompt, yes_or_no
from searchlib.objectives.text_model import Sampling
from searchlib.testing import check_objective

NUMBERS = [Exemplar(str(number), "abc"[number // 20]) for number in np.random.default_rng(0).permutation(60)]
SHOWN = re.compile(r"Question: (\d+)\nAnswer: (\w+)")


def nearest(prompts, sampling, seeds):
    """A model that copies the answer of the nearest number it was shown."""
    answers = []
    for prompt in prompts:
        asked = int(prompt.text.split()[1])
        shown = SHOWN.findall(prompt.prefix)
        answers.append(" " + min(shown, key=lambda one: abs(int(one[0]) - asked))[1] + "\nQuestion: and so on")
    return answers


def forgetful(prompts, sampling, seeds):
    """Knows only the first exemplar."""
    return [SHOWN.findall(prompt.prefix)[0][1] for prompt in prompts]


def by_hand(exemplars, items):
    """Which items the nearest exemplar, other than the item itself, answers."""
    right = []
    for item in items:
        others = [one for one in exemplars if one.question != item.question]
        right.append(min(others, key=lambda one: abs(int(one.question) - int(item.question))).answer == item.answer)
    return right


def task(**settings):
    settings = {"k": 3, "minibatch": 10, "select": NUMBERS[30:40], "holdout": NUMBERS[40:], **settings}
    return ExemplarSearch(nearest, [nearest, forgetful], NUMBERS[:14], NUMBERS[:30], **settings)


@pytest.mark.parametrize("settings", [{}, {"metric": "f1", "positive": "b"}], ids=["accuracy", "f1"])
def test_the_contract_holds(settings):
    check_objective(task(**settings))


def test_the_contract_holds_where_exemplars_are_written():
    check_objective(task(operator=lambda failures, exemplars, rng: []), pickles=False)


def test_a_score_is_whether_the_teacher_is_right():
    objective = task()
    rows = objective.space.sample(np.random.default_rng(0), 20)
    for split, items in ((Split.SEARCH, NUMBERS[:30]), (Split.HOLDOUT, NUMBERS[40:])):
        scores = objective.evaluate(Candidates(objective.space, rows), objective.cases(split))
        expected = [by_hand([NUMBERS[i] for i in row], items) for row in rows]
        assert scores.tolist() == expected
        assert 0 < scores.mean() < 1


@pytest.mark.parametrize("seed", range(3))
def test_the_best_set_of_all_is_found(seed):
    objective = task()
    values = {row: np.mean(by_hand([NUMBERS[i] for i in row], NUMBERS[:30]))
              for row in itertools.combinations(range(14), 3)}  # fmt: skip
    result = search(objective, budget=164, seed=seed)
    assert len(values) == 364
    best = result.history.values.max()
    assert best == pytest.approx(max(values.values()))
    assert sorted(values.values())[-20] < best  # few are as good
    for row, value in zip(result.history.population.tolist(), result.history.values[:, 0], strict=True):
        assert value == pytest.approx(values[tuple(row)])
    assert len(result.history) <= 4 + 5 * 32


def test_the_winner_is_a_prompt_to_be_used():
    result = search(task(), budget=60)
    assert isinstance(result.best, ExemplarPrompt)
    assert {one.answer for one in result.best.exemplars} == {"a", "b", "c"}
    said = nearest([result.best(item.question) for item in NUMBERS[40:]], Sampling(), range(20))
    right = [text.split()[0] == item.answer for text, item in zip(said, NUMBERS[40:], strict=True)]
    assert result.holdout.value == pytest.approx(np.mean(right))


def test_references_are_the_seed_and_random_sets():
    objective = task()
    holdout = objective.cases(Split.HOLDOUT)
    assert objective.evaluate_reference("seed exemplars", holdout).tolist() == by_hand(NUMBERS[:3], NUMBERS[40:])
    random = objective.evaluate_reference("random exemplars", holdout)
    assert set((random * 8 % 1).tolist()) == {0.0}
    assert np.unique(random).size > 2


def test_f1_is_that_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    objective = task(metric="f1", positive="b")
    rows = objective.space.sample(np.random.default_rng(1), 30)
    items = NUMBERS[:30]
    table = objective.evaluate(Candidates(objective.space, rows), objective.cases(Split.SEARCH))
    found = objective.aggregate(table)
    assert table.shape == (30, 30, 3)
    for row, value in zip(rows, found, strict=True):
        said = [text.split()[0] for text in nearest(objective._prompts(objective.exemplars(row), items), None, [])]
        meant = [item.answer for item in items]
        expected = metrics.f1_score(meant, said, labels=["b"], average="macro", zero_division=0)
        assert value == pytest.approx(expected)
    assert len(np.unique(found)) > 5


def test_f1_by_hand():
    form = ExemplarFormat(parse=yes_or_no)
    items = [Exemplar(f"{i}", "Yes" if i < 3 else "No") for i in range(6)]

    def says(prompts, sampling, seeds):
        return [" Yes, it is" if prompt.text.split()[1] in "124" else "no" for prompt in prompts]

    objective = ExemplarSearch(says, [says], items, items, k=2, form=form, metric="f1", positive="Yes")
    table = objective.score(items[:2], objective.cases(Split.SEARCH))
    # said: 1, 2, 4; meant: 0, 1, 2; both: 1, 2
    assert table.tolist() == [[0, 0, 1], [1, 1, 1], [1, 1, 1], [0, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert objective.aggregate(table[None])[0, 0] == pytest.approx(2 * 2 / 6)
    assert objective.aggregate(table[None, 3:4])[0, 0] == 0
    assert objective.aggregate(table[None, 1:3])[0, 0] == 1


def test_f1_is_compared_on_the_held_out_items_by_resampling():
    result = search(task(metric="f1", positive="c"), budget=40)
    assert result.holdout.cases == 20
    low, high = result.holdout.interval
    assert low <= result.holdout.value <= high
    assert 0 < result.holdout.value <= 1


def test_no_item_is_answered_with_itself_in_the_prompt():
    seen = []

    def spy(prompts, sampling, seeds):
        seen.extend(prompts)
        return ["a"] * len(prompts)

    pool = [*NUMBERS[:5], Exemplar(f" {NUMBERS[0].question} ", "another answer")]
    objective = ExemplarSearch(spy, [spy], pool, NUMBERS[:30], k=3)
    objective.score([pool[0], pool[1], pool[5]], objective.cases(Split.SEARCH))
    objective.vary(np.random.default_rng(0), objective.seeds())
    assert len(seen) == 30 + 30
    for prompt in seen:
        asked = prompt.text.split()[1]
        assert asked not in [line.split()[1] for line in prompt.prefix.splitlines() if line.startswith("Question")]
    assert {prompt.prefix.count("Question") for prompt in seen} == {1, 2, 3}


def test_students_answer_a_minibatch_and_their_failures_are_pooled():
    calls, pooled = [], []

    def student(number):
        def answer(prompts, sampling, seeds):
            calls.append((number, [prompt.text for prompt in prompts], tuple(seeds)))
            return [f"wrong {number}" if number else nearest([prompt], sampling, [0])[0] for prompt in prompts]

        return answer

    def operator(failures, exemplars, rng):
        pooled.append(list(failures))
        return []

    objective = ExemplarSearch(nearest, [student(0), student(1)], NUMBERS[:14], NUMBERS[:30], k=3, minibatch=12,
                               operator=operator)  # fmt: skip
    parents = objective.space.sample(np.random.default_rng(0), 3)
    children, owners = objective.vary(np.random.default_rng(1), parents)
    assert (children.shape, owners.shape) == ((0, 3), (0,))
    assert [number for number, _, _ in calls] == [0, 1] * 3
    assert all(len(set(texts)) == 12 for _, texts, _ in calls)
    assert calls[0][1] == calls[1][1] != calls[2][1]  # all students get the same items, every set its own
    assert calls[0][2] != calls[1][2]
    for row, failures in zip(parents, pooled, strict=True):
        exemplars = tuple(NUMBERS[i] for i in row)
        assert all(one.exemplars == exemplars for one in failures)
        second = [one for one in failures if one.student == 1]
        first = [one for one in failures if one.student == 0]
        assert failures == [*first, *second]
        assert [one.given for one in second] == ["wrong 1"] * 12
        wrong = [one.item for one in second if not by_hand(exemplars, [one.item])[0]]
        assert [one.item for one in first] == wrong
    assert any(one.student == 0 for failures in pooled for one in failures)


def writer(start=0):
    """An operator that never says the same thing twice, as a language model."""
    count = itertools.count(start)

    def write(failures, exemplars, rng):
        made = [Exemplar(str(100 + next(count)), "abc"[i % 3]) for i in range(2)]
        return [(*exemplars[:2], one) for one in made]

    write.count = count
    return write


def test_written_exemplars_get_ids_behind_the_pool_and_are_asked_about():
    objective = task(operator=writer())
    result = search(objective, budget=80)
    written = result.history.population[(result.history.population >= 14).any(axis=1)]
    assert len(written) > 20
    assert written.max() == 13 + len(objective._memo.items)
    assert objective.exemplars([3, 14, 15]) == (NUMBERS[3], Exemplar("100", "a"), Exemplar("101", "b"))
    row = result.history.population.tolist().index(written[0].tolist())
    expected = np.mean(by_hand(objective.exemplars(written[0]), NUMBERS[:30]))
    assert result.history.values[row, 0] == pytest.approx(expected)


def test_the_same_text_is_the_same_exemplar():
    again = [Exemplar("new", "a"), NUMBERS[7]]
    objective = task(operator=lambda failures, exemplars, rng: [(exemplars[0], *again), (*again, exemplars[0])])
    children, owners = objective.vary(np.random.default_rng(0), objective.seeds())
    assert children.tolist() == [[0, 7, 14]] * 2
    assert owners.tolist() == [0, 0]
    assert objective._memo.items == ('["new", "a"]',)


def test_an_id_that_nobody_wrote_is_refused():
    objective = task(operator=writer())
    with pytest.raises(InvalidSettings, match="no text has the id 6"):
        objective.exemplars([0, 1, 20])


@pytest.mark.parametrize("child", [NUMBERS[:2], [NUMBERS[0]] * 3, ["text"] * 3, NUMBERS[:4]], ids=range(4))
def test_an_operator_that_returns_no_sets_is_told_so(child):
    with pytest.raises(InvalidSettings, match="sets of 3 different exemplars"):
        search(task(operator=lambda failures, exemplars, rng: [tuple(child)]), budget=60)


def test_sets_beyond_the_capacity_are_dropped_with_a_warning(caplog):
    objective = task(operator=writer(), capacity=17)
    with caplog.at_level(logging.WARNING, logger="searchlib"):
        result = search(objective, budget=80)
    assert result.history.population.max() == 16
    assert "beyond capacity=17" in caplog.text
    assert result.outcome.name in ("NOTHING_NEW", "EVALUATIONS")


def test_an_operator_that_cannot_repeat_itself_resumes_to_the_same_history(tmp_path):
    whole = search(task(operator=writer()), budget=90, batch_size=7, study=tmp_path / "whole.db")
    assert (whole.history.population >= 14).any()
    for stop in range(1, 13):
        operator, path = writer(), tmp_path / f"{stop}.db"
        first = Search(task(operator=operator), budget=90, batch_size=7, study=path)
        for number, _ in enumerate(first, start=1):
            if number == stop:
                break
        first.close()
        # The model goes on where it was: whatever it is asked again, it answers otherwise.
        resumed = search(task(operator=writer(next(operator.count))), budget=90, batch_size=7, study=path)
        assert resumed.history.digest == whole.history.digest
        assert resumed.best == whole.best


def test_a_resumed_search_asks_no_student_again(tmp_path):
    asked = []

    def student(prompts, sampling, seeds):
        asked.append(len(prompts))
        return forgetful(prompts, sampling, seeds)

    def objective():
        return ExemplarSearch(nearest, [student], NUMBERS[:14], NUMBERS[:30], k=3, minibatch=10, holdout=NUMBERS[40:])

    path = tmp_path / "s.db"
    first = Search(objective(), budget=70, study=path, batch_size=9)
    for _ in itertools.islice(first, 5):
        pass
    first.close()
    before = len(asked)
    again = Search(objective(), budget=70, study=path, batch_size=9)
    assert [record.replayed for record in itertools.islice(again, 5)] == [True] * 5
    assert len(asked) == before >= 4
    assert not any(record.replayed for record in again)
    assert len(asked) > before


KILLED = """
import os, signal, sys
from pathlib import Path
from searchlib import search
from searchlib.objectives.exemplar_operators import LLMRewriter
from searchlib.objectives.exemplar_search import ExemplarSearch, _Nearest
from searchlib.objectives.exemplars import Exemplar

count, study, last = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])

def llm(prompts, sampling, seeds):
    calls = int(count.read_text())
    if calls == last:
        os.kill(os.getpid(), signal.SIGKILL)
    texts = []
    for i, prompt in enumerate(prompts):
        n = 7 * calls + 3 * i
        lines = "".join(f"Question: {(n + 20 * j) % 60}\\nAnswer: {'abc'[j]}\\n" for j in range(3))
        told = f"the examples are all too small, {n}" if "reasons" in prompt.full else lines
        texts.append(f"<START>{told}<END>" if n % 5 else "no idea")
    count.write_text(str(calls + 1))
    return texts

numbers = [Exemplar(str(n * 7 % 60), "abc"[n * 7 % 60 // 20]) for n in range(60)]
objective = ExemplarSearch(_Nearest(), [_Nearest(2)], numbers[:14], numbers[:30], k=3, minibatch=10,
                           operator=LLMRewriter(llm), holdout=numbers[40:])
result = search(objective, budget=120, study=study, batch_size=9)
written = int((result.history.population >= 14).any(axis=1).sum())
print(result.history.digest, result.value, written, count.read_text(), result.best.exemplars)
"""


def test_a_rewriter_that_is_killed_within_a_round_resumes_to_the_same_history(tmp_path):
    script = tmp_path / "driver.py"
    script.write_text(KILLED)

    def run(name, last):
        counter = tmp_path / f"{name}.count"
        if not counter.exists():
            counter.write_text("0")
        return subprocess.run(
            [sys.executable, script, counter, tmp_path / f"{name}.db", str(last)],
            text=True, capture_output=True, check=False, env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        )  # fmt: skip

    whole = run("whole", -1)
    assert whole.returncode == 0, whole.stderr
    calls = int(whole.stdout.split()[3])
    assert calls > 12
    assert int(whole.stdout.split()[2]) > 20
    for last in (1, 4, 5, 10, calls - 1):
        assert run("killed", last).returncode == -signal.SIGKILL
    assert run("killed", -1).stdout == whole.stdout


def test_a_study_tells_what_was_written(tmp_path):
    path = tmp_path / "s.db"
    result = search(task(operator=writer()), budget=60, study=path)
    with Study.open(path) as study:
        assert json.loads(study.memo().item(0)) == ["100", "a"]
        row = study.result().row
    assert np.array_equal(row, result.row)
    again = Search(task(operator=writer()), budget=60, study=path)
    again.objective.remember(again._memo)
    assert again.objective.artifact(row.tolist()) == result.best
    again.close()


def test_another_pool_format_or_operator_is_another_search():
    prints = [json.dumps(objective.fingerprint()) for objective in (
        task(), task(metric="f1", positive="b"), task(minibatch=9), task(form=ExemplarFormat(task="Which? ")),
        task(form=ExemplarFormat(parse=yes_or_no)), task(sampling=Sampling()), task(operator=writer()),
        task(operator=FailureReplacement(NUMBERS[:14], most=1)), task(operator=LLMRewriter(nearest)),
        task(operator=LLMRewriter(nearest, "Name the number.")), task(holdout=NUMBERS[41:]),
        ExemplarSearch(nearest, [nearest], NUMBERS[:14], NUMBERS[:30], k=3),
        ExemplarSearch(nearest, [nearest], NUMBERS[:15], NUMBERS[:30], k=3),
    )]  # fmt: skip
    assert len(set(prints)) == len(prints) == 13
    assert prints[0] == json.dumps(task().fingerprint())


@pytest.mark.slow
def test_workers_find_the_same_where_nothing_is_written():
    alone = search(ExemplarSearch.smoke(), budget=60)
    assert search(ExemplarSearch.smoke(), budget=60, workers=2).history.digest == alone.history.digest


def test_texts_of_this_process_are_not_sent_to_others():
    copy = pickle.loads(pickle.dumps(task()))
    assert copy.exemplars([0, 13, 5]) == (NUMBERS[0], NUMBERS[13], NUMBERS[5])
    with pytest.raises(InvalidSettings, match="workers=1"):
        pickle.dumps(task(operator=writer()))
    with pytest.raises(InvalidSettings, match="workers=1"):
        search(task(operator=writer()), budget=4, workers=2)


def test_a_memo_of_another_search_names_other_exemplars():
    objective = task(operator=writer())
    search(objective, budget=60)
    objective.remember(Memo())
    with pytest.raises(InvalidSettings, match="0 were interned"):
        objective.exemplars([14])


OVERLAP = dataclasses.replace(NUMBERS[3], answer="c", question=f"{NUMBERS[3].question} ")


@pytest.mark.parametrize(("settings", "sentence"), [
    ({"k": 14, "operator": writer()}, "holds no replacement"),
    ({"k": 15}, "k=15, pool=14"),
    ({"minibatch": 0}, "minibatch must be .* 0"),
    ({"select": NUMBERS[:2]}, "select must hold items found nowhere else"),
    ({"holdout": [OVERLAP]}, "holdout must hold items found nowhere else"),
    ({"select": NUMBERS[35:45]}, "holdout must hold items"),
    ({"metric": "f1"}, "positive is None"),
    ({"metric": "f1", "positive": "d"}, "positive is 'd'"),
    ({"metric": "auc"}, "not be 'auc'|is 'auc'"),
])  # fmt: skip
def test_settings_that_cannot_be_meant_are_refused(settings, sentence):
    with pytest.raises(InvalidSettings, match=sentence):
        task(**settings)


@pytest.mark.parametrize(("students", "pool", "train", "sentence"), [
    ([], NUMBERS[:9], NUMBERS, "students must not be empty"),
    ([nearest], [], NUMBERS, "pool must not be empty"),
    ([nearest], NUMBERS[:9], [], "train must not be empty"),
    ([nearest], [*NUMBERS[:9], NUMBERS[2]], NUMBERS, "there twice"),
    ([nearest], NUMBERS[:9], NUMBERS[9:], "none of them is in the pool"),
])  # fmt: skip
def test_items_that_cannot_be_meant_are_refused(students, pool, train, sentence):
    with pytest.raises(InvalidSettings, match=sentence):
        ExemplarSearch(nearest, students, pool, train, k=3)
