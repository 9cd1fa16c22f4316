import json
import re

import numpy as np
import pytest

from searchlib import Cases, Objective, RandomSearch, Search, Split, Study, search
from searchlib.errors import InvalidSettings
from searchlib.exchange import model_card
from searchlib.spaces import Binary, Subset

HOSTILE = 'x"\n---\nlicense: stolen\n# <script>alert(1)</script> | [a](http://b) `c` $d$ \u202e\x00\ud800\u2028{{e}}'


class Kept(Objective):
    """Which bits are on; 30 cases per split, references by name."""

    space, direction = Binary(5), "maximize"

    def __init__(self, reference="all on"):
        self._reference = reference

    def cases(self, split):
        start = 30 * list(Split).index(split)
        return Cases(tuple(range(start, start + 30)))

    def evaluate(self, candidates, cases):
        noise = np.random.default_rng(0).normal(size=200)[list(cases.ids)]
        return (candidates.array @ np.array([1.0, -1, 1, -1, 1]))[:, None] + 0.1 * noise

    def references(self):
        return (self._reference,)

    def evaluate_reference(self, name, cases):
        noise = np.random.default_rng(1).normal(size=200)[list(cases.ids)]
        return 1 + 0.1 * noise


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "kept.db"
    search(Kept(), RandomSearch(), budget=32, seed=7, study=path)
    return path


@pytest.fixture
def hub():
    return pytest.importorskip("huggingface_hub")


def test_the_hub_reads_the_header_as_it_was_meant(path, hub):
    text = model_card(
        path, name="kept-bits", base_model="org/base", cases="Numbers.", metric="accuracy", task="text-generation",
        dataset="org/numbers", license="apache-2.0", tags=["pruning"], metadata={"library_name": "transformers"},
    )  # fmt: skip
    card = hub.ModelCard(text)
    assert card.data.license == "apache-2.0"
    assert card.data.tags == ["searchlib", "pruning"]
    assert card.data.base_model == "org/base"
    assert card.data.library_name == "transformers"
    assert card.data.model_name == "kept-bits"
    (found,) = card.data.eval_results
    with Study.open(path) as study:
        held = study.result().holdout
    assert found.metric_value == held.value
    assert (found.metric_type, found.dataset_type, found.task_type) == ("accuracy", "org/numbers", "text-generation")


def test_the_held_out_table_is_that_of_the_study(path):
    text = model_card(path, name="kept")
    with Study.open(path) as study:
        rows = study.result().holdout.rows
    lines = [line for line in text.splitlines() if line.startswith("| all on") or line.startswith(f"| {rows[0].name} ")]
    winner, reference = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    assert float(winner[1]) == pytest.approx(rows[0].value, rel=1e-3)
    assert winner[3:] == ["", ""]
    assert float(reference[3]) == pytest.approx(rows[1].difference, rel=1e-3)
    bounds = json.loads(reference[4].replace("\\", "").replace("+", ""))
    assert bounds == pytest.approx(rows[1].difference_interval, rel=1e-3)
    assert "On 30 held-out cases" in text


def test_it_says_what_was_searched_on_which_cases_and_how_to_do_it_again(path):
    text = model_card(path, name="kept", base_model=["org/a", "org/b"], cases="Three times thirty numbers.")
    assert "over choices inside org/a, org/b." in text
    assert "Three times thirty numbers." in text
    assert re.search(r"\| search \| 30 \|", text)
    assert re.search(r"\| seed \| 7 \|", text)
    assert "(1, 0, 1, 0, 1)" in text
    assert "    seed=7,\n" in text
    assert f"algorithm={RandomSearch()!r}," in text
    assert f"pip install numpy=={np.__version__} " in text
    assert "resume kept.db --objective" in text


def test_the_license_is_left_to_the_user_and_the_index_too(path, hub):
    card = hub.ModelCard(model_card(path, name="kept"))
    assert card.data.license is None
    assert card.data.eval_results is None
    assert "license" not in card.data.to_dict()


@pytest.mark.parametrize("text", [HOSTILE, "- a: b", "{}", "null", "1e5", "---\n...", "👍 naïve", "%YAML", "'", "\t"])
def test_no_text_breaks_the_header_or_the_page(text, tmp_path, hub):
    path = tmp_path / "hostile.db"
    search(Kept(text.replace("\ud800", "")), RandomSearch(), budget=8, study=path)  # a study is a file of UTF-8
    given = {"name": text, "cases": text, "metric": text, "task": text, "dataset": text, "license": text}
    card = hub.ModelCard(model_card(path, base_model=text, tags=[text], metadata={"pipeline_tag": text}, **given))
    clean = re.sub("[\u202e\x00\ud800\u2028]", "\ufffd", text)
    assert card.data.license == card.data.base_model == card.data.pipeline_tag == card.data.tags[1] == clean
    assert card.data.eval_results[0].metric_type == clean
    assert set(card.data.to_dict()) == {"license", "base_model", "pipeline_tag", "tags", "model-index"}
    prose = re.sub(r"(?ms)^(`{3,})\w*$.*?^\1$", "", card.text)
    assert "<script" not in prose
    assert not re.search(r"(?<!\\)\]\(", prose)
    tables = [line for line in prose.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in tables} <= {3, 4, 6}


def test_a_result_alone_makes_a_card_without_settings():
    result = search(sum, space=Subset(8, k=2), budget=28)
    text = model_card(result, name="pair")
    assert "(0, 1)" in text
    assert "Nothing was held out" in text
    assert "## Reproduce" not in text
    assert "| seed" not in text


def test_several_objectives_have_a_table_each(tmp_path, hub):
    class Two(Kept):
        direction = ("maximize", "minimize")
        value_names = ("gain", "bits")

        def evaluate(self, candidates, cases):
            bits = candidates.array.sum(axis=1, dtype=float)[:, None] + 0.0 * np.array(cases.ids)
            return np.stack([super().evaluate(candidates, cases), bits], axis=2)

        def evaluate_reference(self, name, cases):
            return np.stack([super().evaluate_reference(name, cases), np.full(len(cases), 5.0)], axis=1)

    search(Two(), budget=32, study=tmp_path / "two.db")
    text = model_card(tmp_path / "two.db", name="two", task="other", dataset="numbers")
    assert [one.metric_type for one in hub.ModelCard(text).data.eval_results] == ["gain", "bits"]
    assert text.count("| all on |") == 2


def test_a_search_without_a_winner_has_no_card(tmp_path):
    run = Search(Kept(), RandomSearch(), budget=32, batch_size=4, study=tmp_path / "half.db")
    next(iter(run))
    with pytest.raises(InvalidSettings, match="has no winner to make a card of: it has not stopped yet"):
        model_card(tmp_path / "half.db", name="half")
    run.close()


def test_wrong_arguments_are_named(path):
    with pytest.raises(InvalidSettings, match="name must be a text, but is 3"):
        model_card(path, name=3)
    with pytest.raises(InvalidSettings, match="says 'license' again"):
        model_card(path, name="kept", metadata={"license": "mit"})
    with pytest.raises(InvalidSettings, match="holds JSON values, but one is <object"):
        model_card(path, name="kept", metadata={"thing": object()})
