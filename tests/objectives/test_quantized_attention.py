"""Keys and values with few bits, where attention reads them."""

import contextlib

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from transformers import AttentionInterface, DynamicCache, GPT2Config, LlamaConfig, MistralConfig  # noqa: E402

from searchlib.errors import InvalidSettings, UnsupportedModel  # noqa: E402
from searchlib.objectives.fake_quantize import fake_quantize  # noqa: E402
from searchlib.objectives.quantized_attention import QuantizedAttention  # noqa: E402
from searchlib.spaces import BitPlan  # noqa: E402

SIZES = {"vocab_size": 40, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "max_position_embeddings": 64}  # fmt: skip
NAMES = ("model.layers.0.self_attn", "model.layers.1.self_attn")


def llama(attention="sdpa", **settings):
    torch.manual_seed(0)
    config = LlamaConfig(**SIZES | settings, attn_implementation=attention)
    return transformers.LlamaForCausalLM(config).eval()


def tokens(batch=2, length=12):
    return torch.randint(40, (batch, length), generator=torch.Generator().manual_seed(3))


def logits(model, ids=None, **settings):
    with torch.inference_mode():
        return model(tokens() if ids is None else ids, **settings).logits


def kv(bits, names=NAMES):
    return BitPlan(kv=dict.fromkeys(names, bits))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_full_precision_changes_nothing_and_fewer_bits_do(attention):
    model = llama(attention)
    own = logits(model)
    with QuantizedAttention(model) as quantized:
        assert torch.equal(logits(model), own)
        quantized.set(kv(16))
        assert torch.equal(logits(model), own)
        errors = []
        for bits in (8, 4, 2):
            quantized.set(kv(bits))
            errors.append(float((logits(model) - own).square().mean()))
        assert 0 < errors[0] < errors[1] / 10 < errors[2] / 10
        quantized.check()
    assert torch.equal(logits(model), own)


def test_it_is_attention_over_rounded_keys_and_values():
    """Against one layer written out by hand: rotary embedding, rounding, softmax."""
    model = llama(num_hidden_layers=1)
    layer, inner = model.model.layers[0], model.model
    ids = tokens()
    with QuantizedAttention(model) as quantized:
        quantized.set(BitPlan(kv={f"{NAMES[0]}.key": "3@4", f"{NAMES[0]}.value": 4}))
        made = logits(model, ids)
    with torch.inference_mode():
        x = inner.embed_tokens(ids)
        normed = layer.input_layernorm(x)
        heads = {n: getattr(layer.self_attn, f"{n}_proj")(normed).view(2, 12, -1, 8).transpose(1, 2) for n in "qkv"}
        cos, sin = inner.rotary_emb(x, torch.arange(12)[None])
        rotate = transformers.models.llama.modeling_llama.apply_rotary_pos_emb
        query, key = rotate(heads["q"], heads["k"], cos, sin)
        key = fake_quantize(key, 3, group=4).repeat_interleave(2, dim=1)
        value = fake_quantize(heads["v"], 4).repeat_interleave(2, dim=1)
        scores = (query @ key.transpose(2, 3)) / 8**0.5
        scores = scores.masked_fill(~torch.ones(12, 12, dtype=torch.bool).tril(), -torch.inf)
        x = x + layer.self_attn.o_proj((scores.softmax(-1) @ value).transpose(1, 2).reshape(2, 12, 32))
        x = x + layer.mlp(layer.post_attention_layernorm(x))
        expected = model.lm_head(inner.norm(x))
    assert torch.allclose(made, expected, atol=1e-5)
    assert not torch.allclose(made, logits(model, ids), atol=1e-3)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_no_token_sees_the_future(attention):
    model = llama(attention)
    ids = tokens()
    other = ids.clone()
    other[:, 7:] = (other[:, 7:] + 1) % 40
    with QuantizedAttention(model) as quantized:
        quantized.set(kv(4))
        first, second = logits(model, ids), logits(model, other)
    assert torch.allclose(first[:, :7], second[:, :7], atol=1e-5)
    assert not torch.allclose(first[:, 7:], second[:, 7:], atol=1e-2)


def test_padding_on_the_left_is_not_seen():
    model = llama()
    ids = tokens(batch=1)
    padded = torch.cat([torch.zeros(1, 3, dtype=torch.long), ids], dim=1)
    mask = torch.cat([torch.zeros(1, 3), torch.ones(1, 12)], dim=1).long()
    places = (mask.cumsum(1) - 1).clamp(min=0)
    with QuantizedAttention(model) as quantized:
        quantized.set(kv(4))
        alone, beside = logits(model, ids), logits(model, padded, attention_mask=mask, position_ids=places)
    assert torch.allclose(alone, beside[:, 3:], atol=1e-4)


def test_decoding_with_a_cache_is_one_pass_over_the_text():
    model = llama()
    ids = tokens(batch=1)
    with QuantizedAttention(model) as quantized:
        quantized.set(kv(4))
        whole, cache, steps = logits(model, ids), DynamicCache(config=model.config), []
        for place in range(12):
            steps.append(logits(model, ids[:, place : place + 1], past_key_values=cache))
    assert torch.allclose(torch.cat(steps, dim=1), whole, atol=1e-4)


def test_a_sliding_window_stays_a_sliding_window():
    torch.manual_seed(0)
    model = transformers.MistralForCausalLM(MistralConfig(**SIZES, sliding_window=4)).eval()
    ids = tokens()
    other = ids.clone()
    other[:, 0] = (other[:, 0] + 1) % 40
    with QuantizedAttention(model) as quantized:
        quantized.set(kv(8))
        first, second = logits(model, ids), logits(model, other)
        # Two layers of windows of 4 see 6 tokens back.
        assert torch.allclose(first[:, 8:], second[:, 8:], atol=1e-5)
        assert not torch.allclose(first[:, :4], second[:, :4], atol=1e-2)
        quantized.set(kv(16))
        full = logits(model, ids)
    assert torch.equal(full, logits(model, ids))


def test_everything_is_put_back_and_other_models_are_left_alone():
    model, other = llama(), llama()
    before, own = dict(AttentionInterface._global_mapping), logits(other)
    with contextlib.suppress(ZeroDivisionError), QuantizedAttention(model) as quantized:
        quantized.set(kv(2))
        assert torch.equal(logits(other), own)
        raise ZeroDivisionError
    assert dict(AttentionInterface._global_mapping) == before
    assert model.config._attn_implementation == "sdpa"
    assert torch.equal(logits(model), own)


def test_two_models_at_once_have_their_own_bits():
    model, other = llama(), llama()
    with QuantizedAttention(model) as first, QuantizedAttention(other) as second:
        first.set(kv(2))
        second.set(kv(4))
        both = logits(model), logits(other)
    with QuantizedAttention(model) as first:
        for bits, made in zip((2, 4), both, strict=True):
            first.set(kv(bits))
            assert torch.equal(logits(model), made)


def test_gpt2_is_quantized_like_any_other():
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_positions=32)
    model = transformers.GPT2LMHeadModel(config).eval()
    own = logits(model)
    with QuantizedAttention(model) as quantized:
        quantized.set(kv(3, ("transformer.h.0.attn", "transformer.h.1.attn")))
        assert not torch.allclose(logits(model), own, atol=1e-4)
        quantized.check()
        assert quantized.shapes == {"transformer.h.0.attn": (2, 8, 8), "transformer.h.1.attn": (2, 8, 8)}


def test_a_layer_whose_attention_never_comes_by_is_refused():
    model = llama()
    with QuantizedAttention(model) as quantized:
        quantized.set(kv(4, ("model.layers.0.mlp",)))
        logits(model)
        with pytest.raises(UnsupportedModel, match="does not look up its attention by name"):
            quantized.check()
        with pytest.raises(InvalidSettings, match="no module of the model"):
            quantized.set(kv(4, ("elsewhere",)))
    with pytest.raises(UnsupportedModel, match="no transformers model"):
        QuantizedAttention(torch.nn.Linear(2, 2))


def test_two_models_may_be_left_in_any_order():
    first, second = llama(), llama()
    own, before = logits(second), AttentionInterface._global_mapping["sdpa"]
    outer, inner = QuantizedAttention(first), QuantizedAttention(second)
    with contextlib.ExitStack() as late:
        with outer:
            late.enter_context(inner)
            inner.set(kv(2))
            rounded = logits(second)
        assert not torch.equal(rounded, own)
        assert torch.equal(logits(second), rounded)
        assert torch.equal(logits(first), own)
    assert torch.equal(logits(second), own)
    assert AttentionInterface._global_mapping["sdpa"] is before
