"""The next token of each row, against the distributions and the loops of transformers."""

import math

import numpy as np
import pytest
from scipy import stats

from searchlib.errors import UnsupportedModel
from searchlib.objectives.text_model import Sampling

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from searchlib.objectives.completions import Completions  # noqa: E402

pytestmark = pytest.mark.usefixtures("_one_thread")
LOGITS = torch.tensor([0.3, -1.0, 2.0, 1.1, -torch.inf, 0.9, 1.1, -0.5])


class Letters:
    """Token i is the i-th letter."""

    def decode(self, tokens, skip_special_tokens=True):
        return "".join(chr(ord("a") + token) for token in tokens)


class Spaced:
    """Like sentencepiece: every token begins with a space, which is lost at the beginning of what is decoded."""

    def decode(self, tokens, skip_special_tokens=True):
        return "".join(f" {chr(ord('a') + token)}" for token in tokens)[1:]


def rows(n, *, prompt=(0,), seeds=None, ends=(), tokenizer=None, **sampling):
    seeds = range(n) if seeds is None else seeds
    return Completions(tokenizer or Letters(), [prompt] * n, Sampling(**sampling), seeds, ends)


def one_hot(*tokens, size=8):
    return torch.nn.functional.one_hot(torch.tensor(tokens), size).float() * 9


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.7, "top_k": 4},
        {"temperature": 1.0, "top_k": None},
        {"temperature": 2.5, "top_k": None, "top_p": 0.6},
        {"temperature": 0.7, "top_k": 5, "top_p": 0.8},
    ],
)
def test_tokens_are_drawn_with_the_probabilities_that_generate_would_draw_from(settings):
    n = 20_000
    drawn, _ = rows(n, max_tokens=2, **settings).extend(LOGITS.expand(n, -1))
    # The reference: the processors that generate itself sets up for these settings.
    config = transformers.GenerationConfig(do_sample=True, **{"top_k": 0} | {k: v for k, v in settings.items() if v})
    scores = LOGITS[None]
    for step in transformers.GPT2LMHeadModel(tiny())._get_logits_processor(config, device="cpu"):
        scores = step(None, scores)
    expected = n * scores.softmax(-1)[0].double().numpy()
    counts = np.bincount(drawn, minlength=8)
    possible = expected > 0
    assert 2 <= possible.sum() < 8
    assert counts[~possible].sum() == 0
    assert stats.chisquare(counts[possible], expected[possible] * n / expected.sum()).pvalue > 0.01


def tiny():
    return transformers.GPT2Config(
        vocab_size=8, n_embd=8, n_layer=1, n_head=1, n_positions=8, bos_token_id=None, eos_token_id=None
    )


def contingency(first, second):
    table = np.zeros((4, 4))
    np.add.at(table, (first, second), 1)
    assert table.min() > 100
    return stats.chi2_contingency(table).pvalue


def test_the_steps_of_a_row_are_drawn_independently():
    writing = rows(8000, temperature=1.0, top_k=None, max_tokens=3)
    first, _ = writing.extend(torch.zeros(8000, 4))
    second, _ = writing.extend(torch.zeros(8000, 4))
    assert contingency(first, second) > 0.01


def test_two_prompts_with_the_same_seed_are_drawn_independently():
    first, second = (
        rows(8000, prompt=prompt, temperature=1.0, top_k=None).extend(torch.zeros(8000, 4))[0]
        for prompt in ((1, 2), (2, 1))
    )
    assert contingency(first, second) > 0.01


def test_a_row_draws_the_same_beside_any_others_and_whatever_the_token_limit():
    logits = torch.randn(3, 6, 50, generator=torch.Generator().manual_seed(0))  # steps, rows, tokens

    def drawn(chosen, **settings):
        prompts, seeds = [(row, 1) for row in chosen], [7 * row for row in chosen]
        writing = Completions(Letters(), prompts, Sampling(**settings), seeds, ends=())
        return np.array([writing.extend(step[chosen])[0] for step in logits]).T

    together = drawn([0, 1, 2, 3, 4, 5], max_tokens=10)
    assert (drawn([4, 1, 5], max_tokens=900) == together[[4, 1, 5]]).all()
    assert all((drawn([row], max_tokens=4)[0] == together[row]).all() for row in range(6))
    assert len(np.unique(together)) > 5


def test_the_seed_matters_unless_decoding_is_greedy():
    logits = torch.randn(1, 50, generator=torch.Generator().manual_seed(0)).expand(40, -1)
    assert len(set(rows(40, temperature=1.0).extend(logits)[0])) > 5
    assert set(rows(40, temperature=0).extend(logits)[0]) == {int(logits[0].argmax())}


def test_a_row_ends_with_an_end_token_which_is_no_part_of_its_text():
    writing = rows(2, temperature=0, ends=(5,))
    assert writing.extend(one_hot(1, 2)) == ([1, 2], [0, 1])
    assert writing.extend(one_hot(5, 3)) == ([5, 3], [1])
    assert writing.extend(one_hot(5)) == ([5], [])
    assert [writing.text(0), writing.text(1), writing.drawn] == ["b", "cd", 5]


def test_a_row_ends_at_the_token_limit():
    writing = rows(1, temperature=0, max_tokens=2)
    assert writing.extend(one_hot(1)) == ([1], [0])
    assert writing.extend(one_hot(1)) == ([1], [])


def test_a_row_ends_with_a_stop_string_that_several_tokens_make_up():
    writing = rows(2, temperature=0, stop=("bcd", "zz"))
    for expected, tokens in [([0, 1], (1, 3)), ([0, 1], (2, 2)), ([1], (3, 1))]:
        assert writing.extend(one_hot(*tokens))[1] == expected
    assert [writing.text(0), writing.text(1)] == ["", "dcb"]


@pytest.mark.parametrize("stop", [" b", " c ", "c"])
def test_spaces_that_a_tokenizer_drops_at_the_beginning_are_kept(stop):
    writing = rows(1, temperature=0, tokenizer=Spaced(), stop=("xx",))
    stopping = rows(1, temperature=0, tokenizer=Spaced(), stop=(stop,))
    for token in (1, 2, 3):
        writing.extend(one_hot(token))
        if stopping.live:
            stopping.extend(one_hot(token))
    assert writing.text(0) == " b c d"
    assert stopping.text(0) == " b c d".split(stop)[0]


def test_a_row_that_never_says_the_stop_string_is_hardly_ever_decoded():
    calls = []

    class Counting(Letters):
        def decode(self, tokens, skip_special_tokens=True):
            calls.append(len(tokens))
            return super().decode(tokens)

    writing = rows(1, temperature=0, tokenizer=Counting(), stop=("h",))
    for step in range(300):
        writing.extend(one_hot(step % 7))
    assert sum(calls) < 20


@pytest.mark.parametrize("temperature", [0, 0.7])
@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_logits_that_are_no_numbers_are_an_error_that_says_so(temperature, broken):
    logits = torch.zeros(2, 4)
    logits[1, 2] = broken
    with pytest.raises(UnsupportedModel, match="not finite numbers"):
        rows(2, temperature=temperature).extend(logits)


def test_a_number_close_to_one_never_draws_an_impossible_token():
    writing = rows(1, temperature=1.0, top_k=None)
    writing._uniforms[:] = 1.0  # what rounding may make of it
    assert writing.extend(torch.tensor([[0.0, 1.0, -torch.inf, -torch.inf]]))[0] == [1]
