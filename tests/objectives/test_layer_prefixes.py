import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from searchlib.objectives.layer_prefixes import LayerPrefixes  # noqa: E402

pytestmark = pytest.mark.usefixtures("_one_thread")

SETTINGS = {
    "vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "bos_token_id": None,
    "eos_token_id": None, "pad_token_id": 0,
}  # fmt: skip


def make(name, **changes):
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**SETTINGS | changes)
    return getattr(transformers, f"{name}ForCausalLM")(config).eval()


def tokens(seed=0):
    return torch.randint(1, 40, (2, 10), generator=torch.Generator().manual_seed(seed))


@torch.inference_mode()
def test_starting_at_any_layer_gives_the_models_own_logits():
    model = make("Llama")
    prefixes, ids, keep = LayerPrefixes(model), tokens(), torch.tensor([3, 9])
    assert prefixes.works
    expected = model(ids).logits[:, keep]
    for first in (0, 1, 3, 2, 9):
        assert torch.equal(prefixes.logits(ids, first, keep), expected)
    assert prefixes.layers_run == 4 + 3 + 1 + 2 + 1  # nothing begins after the last layer
    assert len(model.model.layers) == 4
    assert not any(module._forward_pre_hooks for module in model.modules())


@torch.inference_mode()
def test_what_changes_in_later_layers_is_seen():
    model = make("Llama")
    prefixes, ids, keep = LayerPrefixes(model), tokens(), torch.arange(10)
    before = prefixes.logits(ids, 0, keep)
    model.model.layers[2].mlp.down_proj.weight.mul_(-3)
    assert torch.equal(prefixes.logits(ids, 2, keep), model(ids).logits)
    assert not torch.equal(prefixes.logits(ids, 2, keep), before)


@torch.inference_mode()
def test_other_tokens_start_from_the_beginning():
    model = make("Llama")
    prefixes, keep = LayerPrefixes(model), torch.arange(10)
    prefixes.logits(tokens(), 0, keep)
    assert torch.equal(prefixes.logits(tokens(1), 3, keep), model(tokens(1)).logits)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("Granite", {"embedding_multiplier": 3.0}),
        ("GPTNeoX", {"num_key_value_heads": None}),
        ("Llama", {"vocab_size": 2}),
    ],
)
@torch.inference_mode()
def test_models_that_cannot_start_in_the_middle_run_whole(name, changes):
    model = make(name, **changes)
    prefixes, keep = LayerPrefixes(model), torch.arange(10)
    assert not prefixes.works
    ids = tokens().clamp(max=model.config.vocab_size - 1)
    for first in (0, 2):
        assert torch.equal(prefixes.logits(ids, first, keep), model(ids).logits)


def test_reuse_can_be_declined():
    assert not LayerPrefixes(make("Llama"), reuse=False).works
