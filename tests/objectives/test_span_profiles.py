import numpy as np
import pytest
from scipy import stats

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from searchlib import Candidates, Split  # noqa: E402
from searchlib.objectives import SparseAttention, TokenCase, attention_mass_profile, taylor_profile  # noqa: E402
from searchlib.objectives.span_profiles import _removal  # noqa: E402
from searchlib.objectives.sparse_attention import _smoke_cases, _smoke_model  # noqa: E402
from searchlib.spaces.attention_plan import spans  # noqa: E402

pytestmark = pytest.mark.usefixtures("_one_thread")


def objective(**settings):
    return SparseAttention(_smoke_model()[0], None, settings.pop("cases", _smoke_cases()), **settings)


def matrices(model, case):
    """The attention of every head, as transformers itself gives it, ``(layers, heads, length, length)``."""
    model.set_attn_implementation("eager")
    with torch.inference_mode():
        found = model(torch.tensor([case.tokens]), output_attentions=True).attentions
    return torch.cat(found).double().numpy()


def test_the_mass_is_what_each_rule_masks_out_of_transformers_own_matrices():
    here = objective(sink=2)
    case = here.cases(Split.SEARCH).take([1])
    (tokens,) = case.payload
    found = attention_mass_profile(here, case)
    attention = matrices(_smoke_model()[0], tokens)
    length = len(tokens)
    back = np.arange(length)[:, None] - np.arange(length)
    expected = np.zeros((2, 2, len(here.space.rules)))
    for option, (alpha, beta) in enumerate(here.space.rules):
        outside = (back >= spans(alpha, beta, length)) & (np.arange(length) >= 2)
        per_head = (attention * outside).sum(axis=3).mean(axis=2)
        expected[:, :, option] = per_head.reshape(2, 2, 2).sum(axis=2)  # two query heads share a part
    assert found.shape == (1, 4, len(here.space.rules))
    assert expected.max() > 0.5
    np.testing.assert_allclose(found[0].reshape(expected.shape), expected, atol=1e-5)


def test_removal_is_the_first_order_change_of_a_renormalized_row():
    generator = torch.Generator().manual_seed(0)
    row = torch.rand(6, generator=generator, dtype=torch.double).softmax(0)
    slope = torch.randn(6, generator=generator, dtype=torch.double)
    without = []
    for j in range(6):
        rest = row.clone()
        rest[j] = 0
        without.append(float((slope * (rest / rest.sum() - row)).sum()))
    np.testing.assert_allclose(_removal(row, slope), np.abs(without), atol=1e-12)


@pytest.mark.parametrize("profile", [attention_mass_profile, taylor_profile])
def test_losses_fall_as_spans_grow_and_a_full_span_loses_nothing(profile):
    here = objective()
    loss = profile(here)[0]
    full = [i for i, (alpha, beta) in enumerate(here.space.rules) if beta == 1 and alpha == 0]
    assert (loss >= 0).all()
    assert np.abs(loss[:, full]).max() < 1e-9
    windows = np.array([i for i, (_, beta) in enumerate(here.space.rules) if beta == 0])
    assert len(windows) >= 2
    order = windows[np.argsort([here.space.rules[i][0] for i in windows])]
    assert (np.diff(loss[:, order], axis=1) <= 1e-9).all()
    assert loss[:, order[0]].min() > 0


def test_both_rank_rules_as_masking_them_does():
    rng = np.random.default_rng(3)
    drawn = [TokenCase.whole(rng.integers(1, 20, size=24).tolist()) for _ in range(12)]
    here = objective(cases={"search": drawn}, density=None)
    space, cases = here.space, here.cases(Split.SEARCH)
    dense = space.rules.index((0.0, 1.0))
    rows = np.full((space.dimension * len(space.rules), space.dimension), dense, space.dtype)
    part, option = np.divmod(np.arange(len(rows)), len(space.rules))
    rows[np.arange(len(rows)), part] = option
    with here:
        truth = (here.evaluate(Candidates(space, rows), cases) - here.evaluate_reference("dense", cases)).mean(axis=1)
    for profile in (attention_mass_profile, taylor_profile):
        assert stats.spearmanr(np.abs(truth), profile(here)[0].ravel()).statistic > 0.5


def test_gradients_of_parameters_and_modes_are_left_alone():
    here = objective()
    here.model.train()
    for trainable in (True, False):
        here.model.requires_grad_(trainable)
        assert taylor_profile(here).max() > 0
    assert here.model.training
    assert all(parameter.grad is None for parameter in here.model.parameters())
    assert here.model.config._attn_implementation == "sdpa"
