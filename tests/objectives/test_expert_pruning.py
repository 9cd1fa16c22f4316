import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from searchlib import Candidates, Search, Split, search  # noqa: E402
from searchlib.errors import InvalidSettings, UnsupportedModel  # noqa: E402
from searchlib.objectives import Case, ExpertPlan, ExpertPruning  # noqa: E402
from searchlib.objectives.expert_pruning import _smoke_model, split_cases  # noqa: E402
from searchlib.spaces import ExpertMerges, ExpertSubsets  # noqa: E402
from searchlib.testing import check_objective  # noqa: E402


def fingerprint(model):
    tensors = [*model.named_parameters(), *model.named_buffers()]
    hooks = sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())
    return [(name, tensor.data_ptr(), tensor.clone()) for name, tensor in tensors], hooks


def same(before, after):
    (old, old_hooks), (new, new_hooks) = before, after
    assert len(old) == len(new) > 10
    for (name, place, tensor), (other, there, now) in zip(old, new, strict=True):
        assert (name, place) == (other, there)
        assert torch.equal(tensor, now), name
    assert old_hooks == new_hooks


def cases(n=24, length=5, seed=0):
    rng = np.random.default_rng(seed)
    words = [tuple(int(token) for token in rng.integers(2, 20, size=length)) for _ in range(n)]
    return [Case(word[:-1], word[-1:]) for word in words]


def own_model():
    model, _ = _smoke_model()
    return model


@pytest.mark.parametrize("phases", [("prune",), ("prune", "merge")])
@pytest.mark.parametrize("groups", [1, 2])
def test_the_contract_holds(phases, groups):
    objective = ExpertPruning(_smoke_model, None, cases(), keep=2, groups=groups, phases=phases)
    check_objective(objective)


def test_kept_experts_and_their_one_hot_matrices_score_alike():
    pruned = ExpertPruning(_smoke_model, None, cases(), keep=2, phases=("prune",))
    merged = ExpertPruning(_smoke_model, None, cases(), keep=2)
    assert isinstance(pruned.space, ExpertSubsets)
    assert isinstance(merged.space, ExpertMerges)
    rows = pruned.space.sample(np.random.default_rng(0), 5)
    with pruned, merged:
        split = pruned.cases(Split.SEARCH)
        one = pruned.evaluate(Candidates(pruned.space, rows), split)
        two = merged.evaluate(Candidates(merged.space, merged.space.embed(rows)), split)
    np.testing.assert_array_equal(one.secondary, two.secondary)


def test_all_experts_kept_is_the_full_model():
    objective = ExpertPruning(_smoke_model, None, cases(), keep=4)
    with objective:
        seeds = objective.seeds()
        split = objective.cases(Split.HOLDOUT)
        ours = objective.evaluate(Candidates(objective.space, seeds), split)
        full = objective.evaluate_reference("full", split)
    assert len(seeds) == 1
    np.testing.assert_array_equal(ours.values[0], full)
    assert objective.references() == ("full",)


def test_the_baselines_start_the_search_and_the_winner_is_no_worse():
    objective = ExpertPruning(_smoke_model, None, cases(40), keep=2)
    run = Search(objective, budget=30)
    records = list(run)
    with objective:
        seeds = objective.space.canonical(objective.seeds())
    first = run.history.population[: len(np.unique(seeds, axis=0))]
    assert {row.tobytes() for row in first} == {row.tobytes() for row in seeds}
    assert records[-1].best_value >= np.nanmax(run.history.values[:3])


def test_after_the_search_the_model_is_bit_identical():
    model = own_model()
    before = fingerprint(model)
    search(ExpertPruning(model, None, cases(), keep=2), budget=40)
    same(before, fingerprint(model))


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_after_an_exception_inside_the_model_it_is_bit_identical(error):
    model = own_model()
    before = fingerprint(model)
    objective = ExpertPruning(model, None, cases(), keep=2)
    calls = 0

    def trip(*_):
        nonlocal calls
        calls += 1
        if calls == 40:
            raise error("in the middle of a layer")

    handle = model.model.layers[1].mlp.experts.register_forward_pre_hook(trip)
    result = search(objective, budget=40)
    handle.remove()
    assert calls >= 40
    if error is RuntimeError:
        assert result.history.failures == 1
    same(before, fingerprint(model))


def test_the_winner_can_be_saved_as_a_smaller_stock_checkpoint(tmp_path):
    model = own_model()
    objective = ExpertPruning(model, None, cases(), keep=2, phases=("prune",))
    result = search(objective, budget=20)
    assert isinstance(result.best, ExpertPlan)
    assert result.best.save_pretrained(model, tmp_path) is True
    smaller = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, local_files_only=True).eval()
    assert smaller.config.num_local_experts == 2
    tokens = torch.tensor([[3, 5, 7, 9]])
    with objective, torch.inference_mode():
        objective.score(objective.space.decode(result.row), objective.cases(Split.SEARCH))
        searched = model(tokens).logits
    with torch.inference_mode():
        assert (smaller(tokens).logits - searched).abs().max() < 1e-5
    result.best.to_json(tmp_path / "kept.json")
    kept = json.loads((tmp_path / "kept.json").read_text())
    assert kept == {str(layer): sorted(group) for layer, group in enumerate(objective.space.decode(result.row))}


def test_the_history_is_the_same_on_workers():
    digests = []
    for workers in (1, 2):
        objective = ExpertPruning(_smoke_model, None, cases(), keep=2)
        digests.append(search(objective, budget=16, workers=workers).history.digest)
    assert digests[0] == digests[1]


def test_a_model_given_as_an_object_does_not_travel_and_says_what_to_do():
    with pytest.raises(InvalidSettings, match="name or path"):
        search(ExpertPruning(own_model(), None, cases(), keep=2), budget=8, workers=2)


def test_a_checkpoint_is_loaded_by_its_path(tmp_path):
    own_model().save_pretrained(tmp_path)
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {str(i): i for i in range(20)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="0"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(tmp_path)
    objective = ExpertPruning(str(tmp_path), cases=cases(), keep=2)
    assert search(objective, budget=8).history.evaluations == 8


def test_fewer_active_experts_are_a_setting_and_a_reference():
    objective = ExpertPruning(_smoke_model, None, cases(), keep=4, top_k=1)
    assert "full, fewer active" in objective.references()
    small, _ = _smoke_model()
    for layer in small.model.layers:
        layer.mlp.gate.top_k = 1
    from searchlib.objectives import AnswerScorer

    with objective:
        split = objective.cases(Split.HOLDOUT)
        reduced = objective.evaluate_reference("full, fewer active", split)
    parts = split_cases(cases())
    np.testing.assert_array_equal(reduced, AnswerScorer(small, None, parts[Split.HOLDOUT]).score()[0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keep": 5}, "keep.*4 experts.*5"),
        ({"keep": 0}, "keep.*0"),
        ({"keep": 2, "top_k": 3}, "top_k=3.*keep=2"),
        ({"keep": 2, "groups": 3}, "3"),
        ({"keep": 2, "phases": ("merge",)}, "phases"),
    ],
)
def test_settings_that_do_not_fit_the_model_are_refused(settings, message):
    with pytest.raises(InvalidSettings, match=message):
        ExpertPruning(_smoke_model, None, cases(), **settings)


def test_a_model_without_experts_is_refused():
    config = transformers.LlamaConfig(vocab_size=20, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                                      num_attention_heads=2, num_key_value_heads=1)  # fmt: skip
    with pytest.raises(UnsupportedModel):
        ExpertPruning(transformers.LlamaForCausalLM(config), None, cases(), keep=2)


def test_a_study_of_another_model_is_refused(tmp_path):
    from searchlib.errors import StudyMismatch

    search(ExpertPruning(_smoke_model, None, cases(), keep=2), budget=8, study=tmp_path / "s.db")
    other = own_model()
    with torch.no_grad():
        other.model.layers[0].mlp.gate.weight[0, 0] += 1
    with pytest.raises(StudyMismatch, match="routers"):
        search(ExpertPruning(other, None, cases(), keep=2), budget=8, study=tmp_path / "s.db")


def test_splitting_cases_loses_none_and_repeats_none():
    every = cases(31)
    parts = split_cases(every, (0.6, 0.1, 0.3), seed=4)
    joined = [case for part in parts.values() for case in part]
    assert sorted(map(repr, joined)) == sorted(map(repr, every))
    with pytest.raises(InvalidSettings, match="shares"):
        split_cases(every, (0.5, 0.5, 0.5))
    with pytest.raises(InvalidSettings, match="shares"):
        split_cases(every, (0.5, float("nan"), 0.5))


@pytest.mark.parametrize("number", [0, 1, 3])
def test_too_few_cases_for_the_splits_are_refused_with_the_number_needed(number):
    with pytest.raises(InvalidSettings, match=rf"too few cases \({number}\).*give 4 or more.*cases=\{{Split\.SEARCH"):
        ExpertPruning(_smoke_model, None, cases(number), keep=2)
    assert [len(part) for part in split_cases(cases(4)).values()] == [2, 1, 1]
    assert [len(part) for part in split_cases(cases(1), (1.0, 0.0, 0.0)).values()] == [1, 0, 0]
    with pytest.raises(InvalidSettings, match=r"too few cases \(1\).*give 2 or more"):
        split_cases(cases(1), (0.5, 0.0, 0.5))


def test_splits_that_are_given_need_search_cases_only():
    alone = ExpertPruning(_smoke_model, None, {Split.SEARCH: cases(1)}, keep=2)
    assert [len(alone.cases(split)) for split in Split] == [1, 0, 0]
    with pytest.raises(InvalidSettings, match="no SEARCH cases"):
        ExpertPruning(_smoke_model, None, {Split.HOLDOUT: cases(1)}, keep=2)
