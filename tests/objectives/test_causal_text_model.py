"""A causal language model as a text model, against ``generate`` of transformers."""

import copy
import functools
import itertools

import numpy as np
import pytest
from scipy import stats

from searchlib.errors import InvalidSettings, UnsupportedModel
from searchlib.objectives.text_model import Prompt, Sampling, checked

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from searchlib.objectives.causal_decoding import attends_to_all  # noqa: E402
from searchlib.objectives.causal_text_model import CausalTextModel  # noqa: E402

pytestmark = pytest.mark.usefixtures("_one_thread")

COMMON = {"vocab_size": 32, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
SIZES = COMMON | {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
MODELS = {
    "GPT2": COMMON | {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256},
    "Llama": SIZES,
    "Mixtral": SIZES | {"num_local_experts": 4, "num_experts_per_tok": 2},
    # These three cannot hand on what they remember: a window, an attention bias by column, a recurrent state.
    "Mistral": SIZES | {"sliding_window": 6},
    "Bloom": COMMON | {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "Mamba": COMMON | {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
}
SHARING = ("GPT2", "Llama", "Mixtral")

LESSON, OTHER = "sort the letters of a word ", "a lesson "
PROMPTS = [
    Prompt("zebra", LESSON),
    Prompt("what comes after this", ""),
    Prompt("ox", LESSON),
    Prompt("cat", OTHER),
    Prompt("a", ""),
    Prompt("rhinoceros", LESSON),
    Prompt("dog", OTHER),
    Prompt("what comes after this", ""),
    Prompt("z", LESSON),
    Prompt("alone with its prefix", "nobody else "),
]
GREEDY = Sampling(temperature=0, max_tokens=12)
DRAWN = Sampling(temperature=1.0, top_k=8, top_p=0.9, max_tokens=12)


def build(name, seed=0):
    """Random weights, large enough that predictions are far from ties."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(transformers, f"{name}ForCausalLM" if name != "GPT2" else "GPT2LMHeadModel")(
            getattr(transformers, f"{name}Config")(**MODELS[name])
        )
        with torch.no_grad():
            for path, parameter in model.named_parameters():
                # Tied embeddings larger than the rest would make a model repeat its last token.
                if parameter.ndim > 1 and "emb" not in path and "wte" not in path:
                    parameter.mul_(12)
    return model.eval()


@pytest.fixture(scope="module", params=MODELS)
def any_model(request):
    return build(request.param)


@pytest.fixture(scope="module", params=SHARING)
def sharing_model(request):
    return build(request.param)


@pytest.fixture(scope="module", params=["Llama", "Mistral"])
def either_model(request):
    """One that shares and one that does not."""
    return build(request.param)


@pytest.fixture(scope="module")
def llama():
    return build("Llama")


@pytest.fixture(scope="module")
def tokenizer(make_tokenizer):
    return make_tokenizer()


def greedy_tokens(model, ids, max_tokens=12):
    """What generate says after one prompt alone, without padding, batch or shared computation."""
    ids = torch.tensor([ids])
    settings = {"do_sample": False, "max_new_tokens": max_tokens, "eos_token_id": 1, "pad_token_id": 0}
    return model.generate(ids, attention_mask=torch.ones_like(ids), **settings)[0, ids.shape[1] :].tolist()


def greedy_text(model, tokenizer, ids, max_tokens=12):
    return tokenizer.decode(greedy_tokens(model, ids, max_tokens), skip_special_tokens=True)


def fed_tokens(model, monkeypatch):
    """A list to which every forward pass adds how many tokens it feeds, padding not counted."""
    # The wrapper must look like what it wraps: the arguments of `forward` say whether a model can share.
    fed = []
    forward = type(model).forward

    @functools.wraps(forward)
    def counting(self, *args, **settings):
        width = settings["input_ids"].shape[1]
        fed.append(int(settings["attention_mask"][:, -width:].sum()))
        return forward(self, *args, **settings)

    monkeypatch.setattr(type(model), "forward", counting)
    return fed


# --- greedy ----------------------------------------------------------------------------------------------------------


def test_greedy_completions_are_those_of_generate(any_model, tokenizer):
    expected = [greedy_text(any_model, tokenizer, tokenizer(prompt.full)["input_ids"]) for prompt in PROMPTS]
    assert len(set(expected)) > 5
    for batch_size in (1, 3, 32):
        model = CausalTextModel(any_model, tokenizer, batch_size=batch_size)
        assert checked(model, PROMPTS, GREEDY, [0] * len(PROMPTS)) == expected
        assert model.generated == len(PROMPTS)


def test_which_models_can_share():
    assert [name for name in MODELS if attends_to_all(build(name))] == list(SHARING)


def test_every_family_of_experts_shares_and_is_greedy_as_generate_is(family, build, tokenizer):
    # `build` of this folder's conftest: nine families of mixtures of experts.
    model = build(family, vocab_size=32)
    expected = [greedy_text(model, tokenizer, tokenizer(prompt.full)["input_ids"], 6) for prompt in PROMPTS[:5]]
    text_model = CausalTextModel(model, tokenizer)
    assert text_model(PROMPTS[:5], Sampling(temperature=0, max_tokens=6), range(5)) == expected
    assert text_model.prefilled_tokens < sum(len(prompt.full) for prompt in PROMPTS[:5])


def test_a_token_across_the_end_of_the_prefix_is_that_of_the_whole_prompt(llama, make_tokenizer):
    pairs = make_tokenizer(merges=True)  # "ab" is one token
    prompts = [Prompt("bc", "xyza"), Prompt("cb", "xyza"), Prompt("ab", "xyza")]
    ids = [pairs(prompt.full)["input_ids"] for prompt in prompts]
    assert [len(tokens) for tokens in ids] == [5, 6, 5]
    expected = [greedy_text(llama, pairs, tokens) for tokens in ids]
    assert CausalTextModel(llama, pairs)(prompts, GREEDY, [0] * 3) == expected
    assert len(set(expected)) == 3


def test_special_tokens_around_a_prompt_are_those_of_the_tokenizer(llama, make_tokenizer):
    dressed = make_tokenizer(template="<s> $A </s>")
    expected = [greedy_text(llama, dressed, dressed(prompt.full)["input_ids"][:-1]) for prompt in PROMPTS]
    assert CausalTextModel(llama, dressed)(PROMPTS, GREEDY, [0] * len(PROMPTS)) == expected


def test_chat_wraps_prefix_and_text_in_one_message_and_still_shares(llama, make_tokenizer, monkeypatch):
    chat = make_tokenizer()
    chat.chat_template = (
        "{{ bos_token }}{% for m in messages %}{{ m['role'] + ' ' + m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %} answer {% endif %}"
    )
    written = [f"<s>user {prompt.full} answer " for prompt in PROMPTS]
    ids = [chat(text, add_special_tokens=False)["input_ids"] for text in written]
    assert ids[0][0] == 2
    expected = [greedy_text(llama, chat, tokens) for tokens in ids]
    model = CausalTextModel(llama, chat, chat=True)
    assert model(PROMPTS, GREEDY, [0] * len(PROMPTS)) == expected
    assert model.prefilled_tokens < sum(map(len, ids)) - 3 * len(LESSON)


# --- sampling --------------------------------------------------------------------------------------------------------


def frequencies(llama, tokenizer, sampling, n=4000):
    """How often each completion came, and how often it had to come: by the softmax, token by token."""
    prompt = "the quick brown fox"
    drawn = CausalTextModel(llama, tokenizer, batch_size=500)([Prompt(prompt)] * n, sampling, range(n))
    expected = {}

    def unfold(tokens, probability):
        if len(tokens) == sampling.max_tokens or tokens[-1:] == [1]:
            text = tokenizer.decode(tokens, skip_special_tokens=True)
            expected[text] = expected.get(text, 0.0) + n * probability
            return
        ids = torch.tensor([tokenizer(prompt)["input_ids"] + tokens])
        with torch.no_grad():
            logits = llama(ids).logits[0, -1].double() / sampling.temperature
        top = logits.topk(sampling.top_k)
        for token, p in zip(top.indices.tolist(), top.values.softmax(0).tolist(), strict=True):
            unfold([*tokens, token], probability * p)

    unfold([], 1.0)
    assert set(drawn) <= set(expected)
    texts = sorted(expected, key=expected.get, reverse=True)
    counts = np.array([drawn.count(text) for text in texts], float)
    wanted = np.array([expected[text] for text in texts])
    rare = wanted < 10
    if rare.any():
        counts, wanted = ([*x[~rare], x[rare].sum()] for x in (counts, wanted))
    return counts, wanted


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=3.0, top_k=6, max_tokens=1),
        Sampling(temperature=8.0, top_k=32, max_tokens=1),
        Sampling(temperature=4.0, top_k=3, max_tokens=3),
    ],
)
def test_completions_come_as_often_as_the_softmax_says(llama, tokenizer, sampling):
    counts, wanted = frequencies(llama, tokenizer, sampling)
    assert len(counts) >= 4
    assert stats.chisquare(counts, wanted).pvalue > 0.01


def test_a_completion_is_the_same_alone_in_company_and_in_another_order(any_model, tokenizer):
    model = CausalTextModel(any_model, tokenizer, batch_size=4)
    seeds = [5, 5, -1, 2**70, 0, 1, 2, 6, 3, 4]
    together = model(PROMPTS, DRAWN, seeds)
    order = np.random.default_rng(0).permutation(len(PROMPTS)).tolist()
    mixed = model([PROMPTS[i] for i in order], DRAWN, [seeds[i] for i in order])
    assert mixed == [together[i] for i in order]
    assert [model([prompt], DRAWN, [seed])[0] for prompt, seed in zip(PROMPTS, seeds, strict=True)] == together
    assert len(set(together)) > 4


def test_the_prefix_counts_only_as_a_part_of_the_whole(llama, tokenizer):
    cut = [Prompt("zebra", LESSON), Prompt("word zebra", LESSON.removesuffix("word ")), Prompt(LESSON + "zebra")]
    assert len(set(CausalTextModel(llama, tokenizer)(cut, DRAWN, [9, 9, 9]))) == 1


def test_other_seeds_say_other_things(llama, tokenizer):
    said = CausalTextModel(llama, tokenizer)([PROMPTS[0]] * 30, DRAWN, range(30))
    assert len(set(said)) > 15


def test_global_random_state_is_neither_used_nor_touched(llama, tokenizer):
    model = CausalTextModel(llama, tokenizer)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = model(PROMPTS, DRAWN, range(10))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert model(PROMPTS, DRAWN, range(10)) == first


# --- cost ------------------------------------------------------------------------------------------------------------


def test_a_shared_prefix_is_computed_once(sharing_model, tokenizer, monkeypatch):
    fed = fed_tokens(sharing_model, monkeypatch)
    exams = [Prompt(question, lesson) for lesson in (LESSON, OTHER) for question in ("cat", "dogs", "elk") * 3]
    model = CausalTextModel(sharing_model, tokenizer)
    model(exams, Sampling(temperature=0, max_tokens=1), range(18))
    expected = len(LESSON) + len(OTHER) + 6 * len("catdogselk")
    assert sum(fed) == model.prefilled_tokens == expected < sum(len(exam.full) for exam in exams) / 3
    assert model.decoded_tokens == model.generated == 18


def test_repetitions_of_a_prompt_are_computed_once_over_all_batches(sharing_model, tokenizer, monkeypatch):
    fed = fed_tokens(sharing_model, monkeypatch)
    model = CausalTextModel(sharing_model, tokenizer, batch_size=8)
    said = model([Prompt("what is it ")] * 50, Sampling(temperature=2.0, max_tokens=1), range(50))
    assert sum(fed) == model.prefilled_tokens == len("what is it ") - 1 + 50
    assert fed[1:] == [8] * 6 + [2]
    assert len(set(said)) > 3


def test_every_drawn_token_is_fed_once_but_the_last_of_each_row(sharing_model, tokenizer, monkeypatch):
    fed = fed_tokens(sharing_model, monkeypatch)
    model = CausalTextModel(sharing_model, tokenizer, batch_size=4)
    model(PROMPTS, DRAWN, range(10))
    assert sum(fed) == model.prefilled_tokens + model.decoded_tokens - 10


def test_where_nothing_can_be_shared_every_prompt_is_computed_on_its_own(tokenizer):
    model = CausalTextModel(build("Mistral"), tokenizer)
    model(PROMPTS, GREEDY, range(10))
    assert model.prefilled_tokens == sum(len(prompt.full) for prompt in PROMPTS)


def test_batches_go_from_long_to_short_so_that_padding_is_little(llama, tokenizer, monkeypatch):
    padded = []
    forward = type(llama).forward

    @functools.wraps(forward)
    def watching(self, *args, **settings):
        padded.append(tuple(settings["attention_mask"].shape))
        return forward(self, *args, **settings)

    monkeypatch.setattr(type(llama), "forward", watching)
    prompts = [Prompt("x" * n) for n in (3, 40, 20, 4, 39, 21)]
    CausalTextModel(llama, tokenizer, batch_size=2)(prompts, Sampling(temperature=0, max_tokens=1), range(6))
    assert padded[::2] == [(2, 39), (2, 20), (2, 3)]


# --- where completions end -------------------------------------------------------------------------------------------


def test_stop_strings_cut_the_text_and_end_the_row(either_model, tokenizer):
    model = CausalTextModel(either_model, tokenizer)
    whole = model(PROMPTS, GREEDY, range(10))
    spent = model.decoded_tokens
    stop = (whole[0][4:6], whole[3][2])
    assert all(stop)
    stopped = model(PROMPTS, Sampling(temperature=0, max_tokens=12, stop=stop), range(10))
    for text, expected in zip(stopped, whole, strict=True):
        assert text == min((expected.split(string)[0] for string in stop), key=len)
    assert stopped != whole

    def needed(ids):
        """Tokens until the text so far has a stop string in it."""
        tokens = greedy_tokens(either_model, ids)
        texts = [tokenizer.decode(tokens[:n], skip_special_tokens=True) for n in range(1, len(tokens))]
        return next((n for n, text in enumerate(texts, 1) if any(string in text for string in stop)), len(tokens))

    assert model.decoded_tokens - spent == sum(needed(tokenizer(prompt.full)["input_ids"]) for prompt in PROMPTS)
    assert model.decoded_tokens - spent < spent


def test_rows_end_with_the_end_of_sequence_token(either_model, tokenizer):
    model = CausalTextModel(either_model, tokenizer)
    ids = [tokenizer(prompt.full)["input_ids"] for prompt in PROMPTS]
    alone = [greedy_tokens(either_model, tokens, 40) for tokens in ids]
    ends = max(range(6, 32), key=lambda token: sum(token in row for row in alone))
    either_model.generation_config.eos_token_id = [1, ends]  # a token that the model does say
    try:
        said = model(PROMPTS, Sampling(temperature=0, max_tokens=40), range(10))
    finally:
        either_model.generation_config.eos_token_id = 1
    lengths = [next((i for i, token in enumerate(row) if token in (1, ends)), len(row)) for row in alone]
    assert said == [tokenizer.decode(row[:n], skip_special_tokens=True) for row, n in zip(alone, lengths, strict=True)]
    assert sum(n < len(row) for row, n in zip(alone, lengths, strict=True)) >= 2
    assert model.decoded_tokens == sum(min(n + 1, len(row)) for row, n in zip(alone, lengths, strict=True))


def test_a_stop_string_that_is_a_special_token_ends_the_row_too(llama, tokenizer):
    hot = Sampling(temperature=50.0, top_k=None, max_tokens=60, stop=("<unk>", "<s>"))
    model = CausalTextModel(llama, tokenizer)
    model([PROMPTS[0]] * 40, hot, range(40))
    # Three of 32 tokens end a row, each about equally likely at this temperature.
    assert 5 < model.decoded_tokens / 40 < 20


def test_a_tokenizer_without_end_and_padding_tokens_will_do(either_model, tokenizer):
    bare = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)
    assert bare.pad_token_id is None
    assert bare.eos_token_id is None
    plain = CausalTextModel(either_model, tokenizer)(PROMPTS, GREEDY, range(10))
    said = CausalTextModel(either_model, bare)(PROMPTS, GREEDY, range(10))
    assert [text.replace("<s>", "").replace("<unk>", "").replace("<pad>", "") for text in said] == plain


def test_the_penalties_of_a_models_own_settings_are_left_out(either_model, tokenizer):
    expected = CausalTextModel(either_model, tokenizer)(PROMPTS, GREEDY, range(10))
    strange = copy.deepcopy(either_model)
    strange.generation_config.update(repetition_penalty=3.0, no_repeat_ngram_size=1, do_sample=True, temperature=9.0)
    assert CausalTextModel(strange, tokenizer)(PROMPTS, GREEDY, range(10)) == expected


# --- limits ----------------------------------------------------------------------------------------------------------


def test_a_prompt_may_fill_the_last_position_but_not_more(llama, tokenizer):
    model = CausalTextModel(llama, tokenizer)
    prompts = [Prompt("ok"), Prompt("a" * 200, "b" * 40)]
    assert len(model(prompts, Sampling(temperature=0, max_tokens=17), [0, 0])) == 2  # 240 + 17 - 1 are 256
    with pytest.raises(InvalidSettings, match=r"prompt 1 has 240 tokens.*max_tokens=18 needs 257.*has 256"):
        model(prompts, Sampling(temperature=0, max_tokens=18), [0, 0])


def out_of_memory_above(rows, model, monkeypatch, error=torch.OutOfMemoryError, after=0):
    """Forward passes of more rows than that fail, but for the first few."""
    forward, tried = type(model).forward, []

    @functools.wraps(forward)
    def limited(self, *args, **settings):
        tried.append(len(settings["input_ids"]))
        if tried[-1] > rows and len(tried) > after:
            raise error("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return forward(self, *args, **settings)

    monkeypatch.setattr(type(model), "forward", limited)
    return tried


@pytest.mark.parametrize(
    ("name", "error", "after"),
    [
        ("Llama", torch.OutOfMemoryError, 0),  # among the heads
        ("Llama", MemoryError, 1),  # among the tails
        ("Llama", RuntimeError, 8),  # on the way
        ("Mistral", torch.OutOfMemoryError, 3),
    ],
)
def test_out_of_memory_halves_the_batch_and_goes_on(tokenizer, monkeypatch, name, error, after):
    big = build(name)
    expected = CausalTextModel(big, tokenizer)(PROMPTS, DRAWN, range(10))
    model = CausalTextModel(big, tokenizer, batch_size=64)
    tried = out_of_memory_above(2, big, monkeypatch, error, after)
    assert model(PROMPTS, DRAWN, range(10)) == expected
    assert max(tried) > 2
    assert model.batch_size == 2
    assert model.generated == 10


def test_a_single_row_that_does_not_fit_is_an_error(llama, tokenizer, monkeypatch):
    out_of_memory_above(0, llama, monkeypatch)
    with pytest.raises(torch.OutOfMemoryError):
        CausalTextModel(llama, tokenizer)(PROMPTS, GREEDY, range(10))


def test_other_errors_of_the_model_are_not_taken_for_a_lack_of_memory(llama, tokenizer, monkeypatch):
    tried = []

    @functools.wraps(type(llama).forward)
    def broken(self, **settings):
        tried.append(1)
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(type(llama), "forward", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        CausalTextModel(llama, tokenizer)(PROMPTS, GREEDY, range(10))
    assert len(tried) == 1


def test_broken_weights_are_an_error_that_says_so(tokenizer):
    model = build("Llama")
    with torch.no_grad():
        model.lm_head.weight.fill_(torch.nan)
    with pytest.raises(UnsupportedModel, match="not finite numbers"):
        CausalTextModel(model, tokenizer)(PROMPTS, DRAWN, range(10))


# --- what it leaves behind -------------------------------------------------------------------------------------------


def test_model_and_tokenizer_are_left_as_they_were(either_model, make_tokenizer):
    tokenizer = make_tokenizer()
    tokenizer.padding_side = "right"
    tokenizer.pad_token = None
    model = copy.deepcopy(either_model).train()
    frozen = next(iter(model.children()))
    frozen.eval()
    modes = [module.training for module in model.modules()]
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    settings = model.generation_config.to_dict()
    expected = CausalTextModel(either_model, make_tokenizer())(PROMPTS, DRAWN, range(10))
    assert CausalTextModel(model, tokenizer)(PROMPTS, DRAWN, range(10)) == expected  # dropout is off
    assert [module.training for module in model.modules()] == modes
    assert True in modes
    assert False in modes
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    assert model.generation_config.to_dict() == settings
    assert (tokenizer.padding_side, tokenizer.pad_token) == ("right", None)
    assert torch.is_inference_mode_enabled() is False


def test_the_mode_is_restored_after_an_error_too(llama, tokenizer):
    model = copy.deepcopy(llama).train()
    with torch.no_grad():
        model.lm_head.weight.fill_(torch.nan)
    with pytest.raises(UnsupportedModel):
        CausalTextModel(model, tokenizer)(PROMPTS, GREEDY, range(10))
    assert all(module.training for module in model.modules())


def test_weights_may_change_between_two_calls(llama, tokenizer):
    weights = copy.deepcopy(llama)
    model = CausalTextModel(weights, tokenizer)
    before = model(PROMPTS, GREEDY, range(10))
    weights.load_state_dict(build("Llama", seed=1).state_dict())
    assert model(PROMPTS, GREEDY, range(10)) == CausalTextModel(build("Llama", seed=1), tokenizer)(
        PROMPTS, GREEDY, range(10)
    )
    assert model(PROMPTS, GREEDY, range(10)) != before


def test_the_fingerprint_tells_models_apart_and_is_the_same_for_copies(llama, make_tokenizer):
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "{{ messages }}"
    tuned = copy.deepcopy(llama)
    with torch.no_grad():
        tuned.model.layers[1].mlp.up_proj.weight.add_(1e-3)
    models = [
        CausalTextModel(llama, tokenizer),
        CausalTextModel(tuned, tokenizer),
        CausalTextModel(llama, tokenizer, chat=True),
        CausalTextModel(build("GPT2"), tokenizer),
    ]
    prints = [model.fingerprint() for model in models]
    assert all(one != other for one, other in itertools.combinations(prints, 2))
    assert prints[0] == CausalTextModel(copy.deepcopy(llama), tokenizer, batch_size=2).fingerprint()


# --- wrong use -------------------------------------------------------------------------------------------------------


def test_no_prompts_have_no_completions(either_model, tokenizer):
    assert CausalTextModel(either_model, tokenizer)([], GREEDY, []) == []


def test_there_is_a_seed_per_prompt(llama, tokenizer):
    with pytest.raises(InvalidSettings, match="3 for 10"):
        CausalTextModel(llama, tokenizer)(PROMPTS, GREEDY, range(3))


def test_a_prompt_without_tokens_cannot_be_continued(llama, tokenizer):
    with pytest.raises(InvalidSettings, match="prompt 1 has no tokens"):
        CausalTextModel(llama, tokenizer)([Prompt("a"), Prompt("")], GREEDY, [0, 0])


def test_wrong_settings_are_refused(llama, tokenizer):
    with pytest.raises(InvalidSettings, match="batch_size must be at least 1, but is 0"):
        CausalTextModel(llama, tokenizer, batch_size=0)
    with pytest.raises(InvalidSettings, match="chat template"):
        CausalTextModel(llama, tokenizer, chat=True)


def test_an_encoder_decoder_model_is_refused(tokenizer):
    config = transformers.T5Config(vocab_size=32, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    with pytest.raises(UnsupportedModel, match="T5ForConditionalGeneration has an encoder"):
        CausalTextModel(transformers.T5ForConditionalGeneration(config), tokenizer)
