import numpy as np
import pytest

from searchlib.errors import InvalidSettings
from searchlib.memo import Memo
from searchlib.objectives.exemplar_operators import FailureReplacement, LLMRewriter, read_exemplars, tagged
from searchlib.objectives.exemplars import Exemplar, ExemplarFormat, ExemplarPrompt, Failure, yes_or_no

POOL = [Exemplar(f"question {i}", "yes" if i % 2 else "no") for i in range(10)]
SHOWN = tuple(POOL[:3])


def failures(*items, student=0):
    return [Failure(student, SHOWN, item, "perhaps") for item in items]


def rng(seed=0):
    return np.random.default_rng(seed)


def test_failed_items_of_the_pool_replace_exemplars():
    operator = FailureReplacement(POOL, children=50, most=2)
    sets = operator(failures(POOL[5], POOL[8]), SHOWN, rng())
    entered = [frozenset(child) - set(SHOWN) for child in sets]
    # one of two items for one of three exemplars, or both for two of them: six sets and three
    assert len({frozenset(child) for child in sets}) == len(sets) == 9
    assert set(entered) == {frozenset([POOL[5]]), frozenset([POOL[8]]), frozenset([POOL[5], POOL[8]])}
    assert all(len(set(child)) == 3 for child in sets)


def test_it_returns_as_many_sets_as_it_may():
    assert len(FailureReplacement(POOL)(failures(*POOL[3:]), SHOWN, rng())) == 8
    assert len(FailureReplacement(POOL, children=3)(failures(*POOL[3:]), SHOWN, rng())) == 3


@pytest.mark.parametrize("given", [[], [Exemplar("unheard of", "no")], [POOL[1]]], ids=["none", "strange", "shown"])
def test_without_useful_failures_it_has_nothing_to_say(given):
    assert FailureReplacement(POOL)(failures(*given), SHOWN, rng()) == []


def test_the_most_similar_exemplar_stands_in_for_a_failed_item():
    def similarity(first, second):
        return -abs(int(first.split()[1]) - int(second.split()[1]))

    operator = FailureReplacement(POOL, similarity, children=50, most=1)
    sets = operator(failures(Exemplar("question 90", "no"), Exemplar("question -5", "no"), POOL[6]), SHOWN, rng())
    entered = {(*(set(child) - set(SHOWN)),) for child in sets}
    assert entered == {(POOL[9],), (POOL[3],), (POOL[6],)}  # the nearest to -5 are shown already
    assert len(sets) == 9


def test_what_more_students_fail_on_is_chosen_more_often():
    operator = FailureReplacement(POOL, children=1, most=1)
    given = [*failures(POOL[5]), *failures(POOL[5], student=1), *failures(POOL[5], student=2), *failures(POOL[8])]
    picked = [POOL[5] in operator(given, SHOWN, rng(seed))[0] for seed in range(800)]
    assert np.mean(picked) == pytest.approx(0.75, abs=0.05)


def test_the_generator_alone_decides():
    operator, given = FailureReplacement(POOL), failures(*POOL[4:])
    assert operator(given, SHOWN, rng(3)) == operator(given, SHOWN, rng(3)) != operator(given, SHOWN, rng(4))


LIST = "Question: one\nAnswer: yes\n\nQuestion: two\nAnswer: no\n"


@pytest.mark.parametrize("completion", [
    f"<START>\n{LIST}<END>", f"Of course.\n<START>{LIST}<END>\nI hope this helps.", f"<START>\n\n{LIST}\n\n<END>",
])  # fmt: skip
def test_a_list_between_tags_is_read(completion):
    assert read_exemplars(completion, 2) == (Exemplar("one", "yes"), Exemplar("two", "no"))


def test_questions_and_answers_may_have_several_lines():
    text = "<START>Question: one\nand more\n\nof it\nAnswer: because\nyes\nQuestion: two\nAnswer: no<END>"
    assert read_exemplars(text, 2) == (Exemplar("one\nand more\n\nof it", "because\nyes"), Exemplar("two", "no"))


@pytest.mark.parametrize("completion", [
    "", LIST, f"<START>{LIST}", f"{LIST}<END>", f"<END>{LIST}<START>", f"<START>{LIST}<END><START>{LIST}<END>",
    f"<START><START>{LIST}<END><END>", f"<START>Here they are:\n{LIST}<END>", f"<START>{LIST}{LIST}<END>",
    f"<START>{LIST}Question: three\nAnswer: yes<END>", "<START>Question: one\nAnswer: yes<END>",
    "<START>Question: one\nAnswer: yes\nQuestion: two<END>",
    "<START>Question: one\nAnswer: yes\nQuestion: two\nAnswer:<END>",
    "<START>Question: one\nAnswer: a\nAnswer: b\nQuestion: two\nAnswer: no<END>",
    "<START>Question:\nAnswer: a\nQuestion: b\nAnswer: c<END>",
    "<START>Question: one\nAnswer: yes\nQuestion: one\nAnswer: yes<END>",
    "<START>- Question: one\nAnswer: a\n- Question: two\nAnswer: b<END>",
])  # fmt: skip
def test_anything_else_is_no_list(completion):
    assert read_exemplars(completion, 2) is None


def test_tags_must_pair():
    assert tagged("no tags") == tagged("<START> a <START> b <END>") == tagged("<END> a <START>") == []
    assert tagged("<START>a\nb<END> <START> c <END>") == ["a\nb", "c"]


def reason(which, group):
    return f"<START> the examples say nothing about {which} {group} <END>"


class Teacher:
    """Reflects with two reasons, then writes a list that names the reason; notes what it was asked."""

    def __init__(self, lists=None):
        self.lists, self.calls = lists, []

    def __call__(self, prompts, sampling, seeds):
        self.calls.append((list(prompts), sampling, list(seeds)))
        number = len(self.calls)
        if "different reasons" in prompts[0].full:
            both = [reason("first", i) + reason("second", i) for i in range(len(prompts))]
            return [f"Well: {reasons}<START>too short<END>" for reasons in both]
        if self.lists is not None:
            return (self.lists * len(prompts))[: len(prompts)]
        return [
            f"<START>Question: {number} {i}\nAnswer: yes\nQuestion: two\nAnswer: no\nQuestion: three\nAnswer: no<END>"
            for i in range(len(prompts))
        ]


def test_four_groups_of_two_reasons_make_eight_lists_in_two_calls():
    teacher = Teacher()
    sets = LLMRewriter(teacher, "Say yes or no.")(failures(*POOL[3:]), SHOWN, rng())
    assert [child[0].question for child in sets] == [f"2 {i}" for i in range(8)]
    (reflect, sampling, seeds), (rewrite, _, more) = teacher.calls
    assert (len(reflect), len(rewrite)) == (4, 8)
    assert (sampling.temperature, sampling.max_tokens) == (0.7, 1024)
    assert len({*seeds, *more}) == 12
    for prompt in (*reflect, *rewrite):
        assert "Say yes or no." in prompt.full
        assert all(one.question in prompt.full for one in SHOWN)
        assert prompt.full.count("Given: perhaps") == 4
    assert len({prompt.full for prompt in reflect}) > 1  # each group has failures of its own
    for i, prompt in enumerate(rewrite):
        assert f"the examples say nothing about {['first', 'second'][i % 2]} {i // 2}" in prompt.full
        group = {line for line in prompt.full.splitlines() if line.startswith("Question: question")}
        assert group == {line for line in reflect[i // 2].full.splitlines() if line.startswith("Question: question")}


def test_reasons_of_few_words_and_beyond_the_number_asked_for_are_ignored():
    def teacher(prompts, sampling, seeds):
        seen.append(len(prompts))
        five, six = "<START>just five words of it<END>", "<START>these are six words of it<END>"
        return [five + six * 3] * len(prompts)

    seen = []
    assert LLMRewriter(teacher, groups=3, reasons=1)(failures(*POOL[3:]), SHOWN, rng()) == []
    assert seen == [3, 3]


def test_lists_that_cannot_be_read_are_dropped_and_counted():
    good = "<START>" + LIST + "Question: three\nAnswer: no<END>"
    rewriter = LLMRewriter(Teacher([good, f"<START>{LIST}<END>", "I would rather not."]))
    sets = rewriter(failures(*POOL[3:]), SHOWN, rng())
    assert len(sets) == 3
    assert (rewriter.lists, rewriter.malformed) == (8, 5)


def test_no_failures_and_no_reasons_ask_no_further():
    teacher = Teacher()
    assert LLMRewriter(teacher)([], SHOWN, rng()) == []
    assert teacher.calls == []
    silent = []

    def mute(prompts, sampling, seeds):
        silent.append(len(prompts))
        return [""] * len(prompts)

    assert LLMRewriter(mute)(failures(POOL[4]), SHOWN, rng()) == []
    assert silent == [4]


def test_what_is_in_the_memo_is_not_asked_again():
    memo, first, second = Memo(), Teacher(), Teacher()
    given = failures(*POOL[3:])
    sets = []
    for teacher in (first, second):
        rewriter = LLMRewriter(teacher)
        rewriter.remember(memo)
        sets.append(rewriter(given, SHOWN, rng(5)))
    assert sets[0] == sets[1]
    assert (len(sets[0]), len(first.calls), len(second.calls)) == (8, 2, 0)
    rewriter(given, SHOWN, rng(6))
    assert len(second.calls) == 2  # another draw is another question


@pytest.mark.parametrize(("settings", "sentence"), [
    ({"groups": 0}, "groups"), ({"errors": 0}, "errors"), ({"reasons": 0}, "reasons"),
    ({"reflect": "{nothing}"}, "reflect may hold {k}"), ({"rewrite": "{reasons}"}, "rewrite may hold"),
])  # fmt: skip
def test_settings_that_cannot_be_meant_are_refused(settings, sentence):
    with pytest.raises(InvalidSettings, match=sentence):
        LLMRewriter(Teacher(), **settings)


def test_an_empty_pool_is_refused():
    with pytest.raises(InvalidSettings, match="pool"):
        FailureReplacement([])


def test_braces_in_texts_are_left_alone():
    odd = Exemplar("what is {x} in {}?", "{y}")
    form = ExemplarFormat()
    assert form.prompt([odd], "{z}").full == "Question: what is {x} in {}?\nAnswer: {y}\n\nQuestion: {z}\nAnswer:"
    teacher = Teacher()
    LLMRewriter(teacher, "{task}")(failures(odd), (odd, *SHOWN[1:]), rng())
    assert "what is {x} in {}?" in teacher.calls[1][0][0].full


@pytest.mark.parametrize("settings", [
    {"exemplar": "{question}"}, {"question": "what?"}, {"exemplar": "{question}{answer}{more}"},
    {"exemplar": "{question} {answer} {"},
])  # fmt: skip
def test_a_template_without_its_places_is_refused(settings):
    with pytest.raises(InvalidSettings, match="must hold"):
        ExemplarFormat(**settings)


@pytest.mark.parametrize("settings", [("", "a"), ("a", " "), (None, "a"), ("a", 3)])
def test_an_exemplar_says_something(settings):
    with pytest.raises(InvalidSettings, match="says something"):
        Exemplar(*settings)


def test_answers_are_read_and_compared():
    form = ExemplarFormat()
    assert form.right(" Yes.\nQuestion: next", Exemplar("q", "yes"))
    assert not form.right("", Exemplar("q", "yes"))
    solved = ExemplarFormat(parse=lambda text: text.rsplit("=", 1)[-1].strip())
    assert solved.right("1+1=2, 2+2=4", Exemplar("q", "so 4 = 4"))
    binary = ExemplarFormat(parse=yes_or_no)
    assert binary.right("YES, it is", Exemplar("q", "Yes"))
    assert binary.right("hard to say", Exemplar("q", "No"))
    assert ExemplarPrompt(SHOWN, form)("again?").prefix == form.prefix(SHOWN)
