"""Every operator of every space refuses what is no candidate, in one of our exceptions that shows it."""

import importlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchlib.errors import InvalidCandidate, InvalidSettings, MissingOperator
from searchlib.operator_arguments import OPERATORS, blaming
from searchlib.space import Space
from searchlib.spaces import Binary, Categorical, Grouped, Real, Subset

junk = importlib.import_module("tests.properties.junk")
rows = importlib.import_module("tests.properties.bad_rows")
verdict = importlib.import_module("tests.properties.verdict")
amount = importlib.import_module("tests.properties.settings")
operator_calls = importlib.import_module("tests.properties.space_calls").operator_calls

#: Small spaces of every kind.
SPACES = [space for space in importlib.import_module("tests.spaces.every_space").SPACES if space.dimension <= 60]


def unchecked(space):
    """A space to which the type checker lets anything be passed."""
    return space


def bad_values(good):
    """Makers of what could come in the place of a good argument."""
    makers = dict(junk.JUNK)
    if isinstance(good, np.ndarray):
        makers |= {label: lambda change=change: change(good) for label, change in rows.BAD_ROWS.items()}
    if isinstance(good, list):
        makers |= {f"a list of {label}": lambda make=make: [make()] for label, make in junk.JUNK.items()}
    return makers


def judge(space, operator, argument, label):
    arguments = operator_calls(space)[operator]()
    value = bad_values(arguments[argument])[label]()
    before = {name: one.copy() for name, one in arguments.items() if isinstance(one, np.ndarray)}
    answer, refusal = verdict.attempt(lambda: getattr(space, operator)(**{**arguments, argument: value}))
    assert all(np.array_equal(arguments[name], one) for name, one in before.items() if name != argument)
    if refusal is None:
        return answer
    assert isinstance(refusal, InvalidCandidate | InvalidSettings | MissingOperator)
    shows = junk.mentions(str(refusal), value) or "inf" in str(refusal)  # a float that was too large for float32
    assert shows or isinstance(refusal, MissingOperator), f"{refusal} does not show it"
    return None


@amount.cases(few=250, many=5_000)
@given(st.sampled_from(SPACES), st.data())
def test_what_is_no_candidate_is_refused_with_its_value(space, data):
    calls = operator_calls(space)
    operator = data.draw(st.sampled_from(sorted(calls)))
    arguments = calls[operator]()
    argument = data.draw(st.sampled_from(sorted(arguments)))
    judge(space, operator, argument, data.draw(st.sampled_from(sorted(bad_values(arguments[argument])))))


def test_every_operator_of_the_contract_is_looked_after():
    known = set(OPERATORS) | {"enumerate", "neighbors", "check", "to_json", "to_nevergrad", "dimension", "dtype",
                              "size", "latent_dimension"}  # fmt: skip
    assert {name for name in vars(Space) if not name.startswith("_")} == known - {"embed", "restrict", "sample_from"}
    assert all(getattr(Binary, name).__wrapped__ for name in OPERATORS[:12])


def test_repair_and_contains_answer_on_any_numbers():
    for space in SPACES:
        table = np.full((2, space.dimension), 1e6)
        assert space.contains(space.repair(table)).all()
        assert space.contains(np.full((2, space.dimension), np.nan)).shape == (2,)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: Binary(4).mutate(np.random.default_rng(0), np.zeros((2, 3), bool)), r"shape \(n, 4\).*\(2, 3\)"),
        (lambda: unchecked(Binary(4)).mutate(7, np.zeros((2, 4), bool)), "rng in mutate of Binary.*Generator.*7"),
        (lambda: Binary(4).sample(np.random.default_rng(0), -1), "n in sample of Binary.*-1"),
        (lambda: unchecked(Subset(4, 2)).decode("ab"), "row in decode of Subset must be an array.*'ab'"),
        (lambda: Subset(4, 2).neighbors([0]), r"row must have shape \(2,\).*\[0\]"),
        (lambda: Real(0, 1).distance(np.zeros((2, 1)), np.zeros((3, 1))), "as many rows.*2 and 3"),
        (lambda: unchecked(Real(0, 1)).encode(5), "values in encode of Real must be a list.*5"),
        (lambda: Real(0, 1).check([[[0.5]], [0.5]]), "array of rows"),
        (lambda: Grouped(Binary(2), 2).sample(np.random.default_rng(0), 2**70), f"sample of Grouped.*{2**70}"),
        (lambda: Categorical((1, 2)).from_latent(np.zeros((1, 3))), r"latent in from_latent.*\(n, 2\), but.*\(1, 3\)"),
        (lambda: unchecked(Real(0, 1)).from_latent("x"), "latent in from_latent of Real must be an array.*'x'"),
    ],
)
def test_the_sentence_names_operator_and_argument(call, sentence):
    with pytest.raises((InvalidCandidate, InvalidSettings), match=sentence):
        call()


def test_an_operator_that_is_at_fault_itself_says_so_itself(monkeypatch):
    def canonical(self, population):
        raise ZeroDivisionError("mine")

    monkeypatch.setattr(Binary, "canonical", blaming(canonical))
    with pytest.raises(ZeroDivisionError, match="mine"):
        Binary(1).canonical(np.zeros((1, 1), bool))
