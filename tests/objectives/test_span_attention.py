import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from torch import Tensor  # noqa: E402
from torch.nn.attention.flex_attention import create_block_mask  # noqa: E402
from transformers import AttentionInterface, DynamicCache, StaticCache  # noqa: E402
from transformers.masking_utils import AttentionMaskInterface  # noqa: E402

from searchlib.errors import InvalidSettings, UnsupportedModel  # noqa: E402
from searchlib.objectives import GroupedCache, SpanAttention  # noqa: E402
from searchlib.objectives.span_blocks import span_blocks  # noqa: E402
from searchlib.objectives.span_masks import visible  # noqa: E402
from searchlib.spaces import AttentionPlan  # noqa: E402

pytestmark = pytest.mark.usefixtures("_one_thread")

N = 24
FAMILIES = {"llama": "Llama", "llama grouped": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3"}


def make(family="llama", **changes):
    """A tiny model whose attention is far from uniform."""
    name = FAMILIES[family]
    settings = {
        "vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 4 if family == "llama" else 2, "head_dim": 8, "max_position_embeddings": 128,
        "bos_token_id": None, "eos_token_id": None, "pad_token_id": 0,
    }  # fmt: skip
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}ForCausalLM")(getattr(transformers, f"{name}Config")(**settings | changes))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=0.2)
    return model.eval()


@pytest.fixture(params=FAMILIES)
def model(request):
    return make(request.param)


def tokens(batch=3, length=N, seed=1):
    return torch.randint(1, 40, (batch, length), generator=torch.Generator().manual_seed(seed))


def plan(kv_groups=1, sink=2, seed=0, **settings):
    rng = np.random.default_rng(seed)
    alphas, betas = rng.integers(-3, 8, (3, 4)), rng.choice([0, 0.25, 0.5], (3, 4))
    return AttentionPlan(alphas.tolist(), betas.tolist(), sink=sink, **settings).shared(kv_groups, N)


@torch.inference_mode()
def logits(model, ids, **settings):
    return model(ids, **settings).logits


def brute_force(spans, queries, keys, sink, before=0):
    """Which keys a query sees, one by one, by the words of the definition."""
    seen = np.zeros((len(spans), queries, keys), bool)
    for head, span in enumerate(spans):
        for row in range(queries):
            query = keys - queries + row
            for key in range(query + 1):
                newest = key > query - span
                seen[head, row, key] = newest or key - before < sink
    return seen


@pytest.mark.parametrize(("queries", "keys"), [(12, 12), (1, 12), (5, 12)])
@pytest.mark.parametrize(("sink", "before"), [(0, 0), (3, 0), (3, 4)])
def test_masks_equal_brute_force_masks(queries, keys, sink, before):
    spans = [1, 4, 7, 12]
    pad = torch.tensor([before]) if before else None
    mask = visible(torch.tensor(spans), queries, keys, sink, pad)
    assert mask.shape == (1, 4, queries, keys)
    assert np.array_equal(mask[0].numpy(), brute_force(spans, queries, keys, sink, before))


def test_the_model_computes_what_a_ready_mask_per_head_computes(model):
    # transformers takes a mask per head as it is, but the same for all layers.
    alphas = [2, 5, 9, 30]
    if model.config.num_key_value_heads == 2:
        alphas = [2, 9, 4, 5]  # within a group, too, heads may differ
    same = AttentionPlan([alphas] * 3, [[0.0] * 4] * 3, sink=2)
    mask = torch.from_numpy(brute_force(same.span(N)[0], N, N, 2))[None].expand(3, -1, -1, -1)
    expected = logits(model, tokens(), attention_mask=mask)
    with SpanAttention(model, same, length=N):
        found = logits(model, tokens())
    assert (expected - logits(model, tokens())).abs().max() > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_full_spans_are_the_model_itself_to_the_bit(model):
    own = logits(model, tokens())
    padded = torch.cat([torch.zeros(3, 2, dtype=torch.long), tokens()], dim=1)
    attention_mask = (padded > 0).long()
    own_padded = logits(model, padded, attention_mask=attention_mask)
    with SpanAttention(model):
        assert torch.equal(logits(model, tokens()), own)
        assert torch.equal(logits(model, padded, attention_mask=attention_mask), own_padded)
    with SpanAttention(model, AttentionPlan.uniform(3, 4, alpha=N - 3, sink=3)):
        assert torch.equal(logits(model, tokens()), own)


def test_decoding_computes_what_one_pass_computes(model):
    chosen = plan()
    with SpanAttention(model, chosen, length=N):
        whole = logits(model, tokens())
        cache = DynamicCache(config=model.config)
        steps = [7, 5] + [1] * 12
        parts = [logits(model, part, past_key_values=cache) for part in tokens().split(steps, dim=1)]
    assert torch.cat(parts, dim=1).shape == whole.shape
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=0, atol=2e-5)


def test_left_padding_changes_nothing(model):
    short = tokens(2, N - 5, seed=2)
    pad = torch.zeros(2, 5, dtype=torch.long)
    ids = torch.cat([tokens(1), torch.cat([pad, short], dim=1)])
    attention_mask = torch.cat([torch.ones(1, N), torch.cat([pad, torch.ones(2, N - 5)], dim=1)]).long()
    positions = (attention_mask.cumsum(1) - 1).clamp(min=0)
    chosen = plan()
    with SpanAttention(model, chosen):  # spans are those of each sequence's own length
        together = logits(model, ids, attention_mask=attention_mask, position_ids=positions)
        alone = logits(model, short)
        torch.testing.assert_close(together[1:, 5:], alone, rtol=0, atol=2e-5)
        torch.testing.assert_close(together[:1], logits(model, tokens(1)), rtol=0, atol=2e-5)
        assert torch.isfinite(together).all()


def test_padded_prompts_generate_what_they_generate_alone(model):
    pad = torch.zeros(1, 4, dtype=torch.long)
    short, long = tokens(1, 8, seed=3), tokens(1, 12, seed=4)
    both = torch.cat([torch.cat([pad, short], dim=1), long])
    settings = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    with SpanAttention(model, plan(), length=20):
        together = model.generate(both, attention_mask=(both > 0).long(), **settings)
        alone = [model.generate(ids, attention_mask=torch.ones_like(ids), **settings) for ids in (short, long)]
    assert torch.equal(together[0, 12:], alone[0][0, 8:])
    assert torch.equal(together[1], alone[1][0])


def test_later_tokens_change_no_earlier_prediction(model):
    other = tokens()
    other[:, 15:] = tokens(seed=9)[:, 15:]
    with SpanAttention(model, plan(), length=N):
        one, two = logits(model, tokens()), logits(model, other)
    assert torch.equal(one[:, :15], two[:, :15])
    assert not torch.equal(one[:, 15:], two[:, 15:])


def test_a_function_registered_without_a_mask_sees_the_future():
    """The trap: transformers then gives no mask, and nothing says so."""

    def careless(module, query, key, value, attention_mask, scaling=None, **settings):
        output = torch.nn.functional.scaled_dot_product_attention(query, key, value, attention_mask, scale=scaling)
        return output.transpose(1, 2).contiguous(), None

    model = make()
    AttentionInterface.register("careless", careless)
    try:
        model.set_attn_implementation("careless")
        leaking = logits(model, tokens())
    finally:
        model.set_attn_implementation("sdpa")
        del AttentionInterface._global_mapping["careless"]
    own = logits(model, tokens())
    assert (leaking - own).abs().max() > 0.1
    with SpanAttention(model, AttentionPlan.dense(3, 4), length=N):
        assert torch.equal(logits(model, tokens()), own)


def state(model):
    weights = [(name, tensor.data_ptr(), tensor.clone()) for name, tensor in model.named_parameters()]
    hooks = sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())
    names = set(AttentionInterface._global_mapping), set(AttentionMaskInterface._global_mapping)
    configs = {m.config._attn_implementation for m in model.modules() if hasattr(m, "config")}
    return weights, (hooks, names, configs, [module.training for module in model.modules()])


@pytest.mark.parametrize("own", ["sdpa", "eager"])
def test_the_model_and_the_registries_are_restored_also_after_an_exception(own):
    model = make("llama grouped")
    model.set_attn_implementation(own)
    before, output = state(model), logits(model, tokens())
    seen = []

    def fail_inside():
        with SpanAttention(model, plan(), length=N):
            seen.append(logits(model, tokens()))
            raise KeyError("stop")

    with pytest.raises(KeyError, match="stop"):
        fail_inside()
    assert not torch.equal(seen[0], output)
    after = state(model)
    assert before[1] == after[1]
    assert len(before[0]) > 10
    for (name, place, tensor), (other, there, now) in zip(before[0], after[0], strict=True):
        assert (name, place) == (other, there)
        assert torch.equal(tensor, now)
    assert torch.equal(logits(model, tokens()), output)


def test_plans_can_be_exchanged_while_it_is_open(model):
    with SpanAttention(model) as spans:
        seen = []
        for number in (0, 1, 0):
            spans.use(plan(seed=number), N)
            seen.append(logits(model, tokens()))
    assert torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[0], seen[1])


@pytest.mark.filterwarnings("ignore::UserWarning")  # flex_attention says that it is not compiled
def test_flex_attention_computes_the_same(model):
    pad = torch.zeros(3, 4, dtype=torch.long)
    padded = torch.cat([pad, tokens()], dim=1)
    attention_mask = (padded > 0).long()
    with SpanAttention(model, plan(), length=N):
        expected = logits(model, tokens())
        expected_padded = logits(model, padded, attention_mask=attention_mask)
    with SpanAttention(model, plan(), length=N, backend="flex"):
        torch.testing.assert_close(logits(model, tokens()), expected, rtol=0, atol=2e-5)
        found = logits(model, padded, attention_mask=attention_mask)
        cache = DynamicCache(config=model.config)
        parts = [logits(model, part, past_key_values=cache) for part in tokens().split([9, 15], dim=1)]
        torch.testing.assert_close(torch.cat(parts, dim=1), expected, rtol=0, atol=2e-5)
    torch.testing.assert_close(found[:, 4:], expected_padded[:, 4:], rtol=0, atol=2e-5)


@pytest.mark.parametrize("length", [128, 300, 512])
@pytest.mark.parametrize("sink", [0, 4, 128, 140])
def test_blocks_counted_from_spans_are_those_of_the_mask_itself(length, sink):
    spans = torch.tensor([1, 2, 127, 128, 129, 130, 256, length])
    counted = span_blocks(spans, length, sink)
    made = create_block_mask(counted.mask_mod, 1, 8, length, length, device="cpu")
    assert counted.shape == made.shape == (1, 8, length, length)
    assert torch.equal(counted.to_dense(), made.to_dense())
    for name in ("kv_num_blocks", "full_kv_num_blocks", "q_num_blocks", "full_q_num_blocks"):
        assert torch.equal(getattr(counted, name), getattr(made, name)), name
    assert bool((counted.full_kv_num_blocks > 0).any()) == (length > 128)


class OnCuda(Tensor):
    """Queries that say that they are on a GPU."""

    is_cuda = True


@torch.inference_mode()
def test_heads_too_small_for_the_compiled_kernel_take_the_other_way():
    """Compiling it for 8 numbers per head failed inside of torch, and the search with it."""
    queries = {width: torch.zeros(1, 4, 5, width).as_subclass(OnCuda) for width in (8, 16, 64)}
    chosen = SpanAttention(make(), plan())
    assert [chosen._flexes(query) for query in queries.values()] == [False, True, True]
    flex = SpanAttention(make(), plan(), backend="flex")
    with pytest.raises(UnsupportedModel, match="at least 16 numbers, but those of this model have 8"):
        flex._flexes(queries[8])
    assert flex._flexes(queries[16])
    assert not SpanAttention(make(), plan())._flexes(torch.zeros(1, 4, 5, 64))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("family", FAMILIES)
def test_on_cuda_compiled_block_masks_compute_the_same(family):
    long = tokens(2, 256).cuda()
    chosen = plan()
    model = make(family, hidden_size=64, head_dim=16).cuda()
    with SpanAttention(model, chosen, backend="sdpa"):
        expected = logits(model, long)
    with SpanAttention(model, chosen):
        torch.testing.assert_close(logits(model, long), expected, rtol=0, atol=1e-3)


def test_a_cache_in_groups_computes_the_same_and_holds_less():
    model = make("llama grouped")
    chosen = AttentionPlan([[3, 3, 12, 12], [3] * 4, [6, 6, 3, 3]], [[0] * 4] * 3, sink=2)
    with SpanAttention(model, chosen, length=N):
        whole = logits(model, tokens())
        grouped, full = GroupedCache(model, chosen, N), DynamicCache(config=model.config)
        for cache in (grouped, full):
            parts = [logits(model, part, past_key_values=cache) for part in tokens().split([7, 5] + [1] * 12, dim=1)]
            torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=0, atol=2e-5)
    held = sum(tensor.untyped_storage().nbytes() for layer in full.layers for tensor in (layer.keys, layer.values))
    # The next query brings its own key: sinks and one key less than the span, 3 sequences, 8 numbers of 4 bytes.
    expected = sum(span - 1 + 2 for span in (3, 12, 3, 3, 6, 3)) * 3 * 8 * 4 * 2
    assert grouped.stored_bytes == expected
    assert held == 6 * N * 3 * 8 * 4 * 2
    assert grouped.get_seq_length() == N


def test_generate_takes_a_cache_in_groups():
    model = make("llama grouped")
    chosen = plan(kv_groups=2)
    settings = {"max_new_tokens": N - 8, "do_sample": False, "pad_token_id": 0}
    with SpanAttention(model, chosen, length=N):
        expected = model.generate(tokens(2, 8), **settings)
        found = model.generate(tokens(2, 8), past_key_values=GroupedCache(model, chosen, N), **settings)
        padded = torch.cat([torch.zeros(2, 1, dtype=torch.long), tokens(2, 8)], dim=1)
        mask, cache = (padded > 0).long(), GroupedCache(model, chosen, N)
        with pytest.raises(InvalidSettings, match="no padding"):
            logits(model, padded, attention_mask=mask, past_key_values=cache)
    assert torch.equal(found, expected)
    with pytest.raises(InvalidSettings, match=r"take plan\.shared\(2, 24\)"):
        GroupedCache(model, AttentionPlan([[1, 2, 3, 4]] * 3, [[0] * 4] * 3), N)


def test_what_cannot_be_steered_is_refused():
    with pytest.raises(UnsupportedModel, match="not a transformers model"):
        SpanAttention(torch.nn.Linear(2, 2))
    config = transformers.MistralConfig(
        vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
        sliding_window=8,
    )  # fmt: skip
    with pytest.raises(UnsupportedModel, match="sliding_window=8"):
        SpanAttention(transformers.MistralForCausalLM(config))
    with pytest.raises(UnsupportedModel, match="encoder"):
        SpanAttention(transformers.T5ForConditionalGeneration(transformers.T5Config(
            vocab_size=40, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0,
        )))  # fmt: skip
    model = make()
    with pytest.raises(InvalidSettings, match="2 layers of 4 heads"):
        SpanAttention(model, AttentionPlan.dense(2, 4))
    with SpanAttention(model, plan()), pytest.raises(UnsupportedModel, match="dynamic cache"):
        logits(model, tokens(), past_key_values=StaticCache(config=model.config, max_cache_len=40))


def test_a_model_that_does_not_look_up_its_attention_by_name_is_refused(monkeypatch):
    model = make()
    before = state(model)[1]
    monkeypatch.setattr(type(model), "_can_set_attn_implementation", classmethod(lambda cls: False))
    with pytest.raises(UnsupportedModel, match="does not look up its attention by name"), SpanAttention(model):
        pass
    assert state(model)[1] == before
