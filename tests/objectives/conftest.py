"""Tiny mixture-of-experts models of many families, and a tiny tokenizer, for the tests of this folder."""

from __future__ import annotations

import string
from typing import Any

import pytest

E = 8
SHARED = {
    "vocab_size": 48,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_experts_per_tok": 2,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": 0,
}
QWEN3 = SHARED | {"intermediate_size": 48, "moe_intermediate_size": 24, "num_experts": E, "head_dim": 8}
DEEPSEEK = SHARED | {
    "num_key_value_heads": 4,
    "intermediate_size": 40,
    "moe_intermediate_size": 24,
    "n_routed_experts": E,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}
GROUPED = {"n_group": 4, "topk_group": 2, "routed_scaling_factor": 1.5}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "mixtral": ("Mixtral", SHARED | {"intermediate_size": 48, "num_local_experts": E}),
    "qwen2-moe": (
        "Qwen2Moe",
        SHARED
        | {
            "intermediate_size": 48,
            "moe_intermediate_size": 24,
            "shared_expert_intermediate_size": 40,
            "num_experts": E,
            "mlp_only_layers": [0],
        },
    ),
    "qwen3-moe": ("Qwen3Moe", QWEN3 | {"norm_topk_prob": True}),
    "qwen3-moe-unnormalized": ("Qwen3Moe", QWEN3 | {"norm_topk_prob": False}),
    "olmoe": ("Olmoe", SHARED | {"intermediate_size": 24, "num_experts": E}),
    "deepseek-v2": ("DeepseekV2", DEEPSEEK),
    "deepseek-v2-groups": ("DeepseekV2", DEEPSEEK | GROUPED | {"topk_method": "group_limited_greedy"}),
    "deepseek-v3": ("DeepseekV3", DEEPSEEK | GROUPED),
    "granite": ("GraniteMoe", SHARED | {"intermediate_size": 24, "num_local_experts": E}),
}


@pytest.fixture
def _one_thread():
    """Tensors this small lose more to waiting threads than they gain."""
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=FAMILIES)
def family(request):
    """A test that takes it runs once for every family, of 8 experts each."""
    return request.param


@pytest.fixture(scope="session")
def build():
    """A function that makes a tiny model of a family, its settings and its type changed at will."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")

    def make(family, dtype=None, **changes):
        """A tiny model whose routers and experts are far from their small default weights."""
        name, settings = FAMILIES[family]
        torch.manual_seed(0)
        config = getattr(transformers, f"{name}Config")(**settings | changes)
        model = getattr(transformers, f"{name}ForCausalLM")(config)
        with torch.no_grad():
            for path, parameter in model.named_parameters():
                if path.endswith(("gate.weight", "router.weight")):
                    parameter.normal_()
                elif ".experts." in path:
                    parameter.normal_(std=0.3)
            for path, buffer in model.named_buffers():
                if path.endswith("e_score_correction_bias"):
                    buffer.normal_(std=0.3)
        return model.to(dtype or torch.float32).eval()

    return make


@pytest.fixture
def mixtral(build):
    return build("mixtral")


@pytest.fixture
def tokens():
    torch = pytest.importorskip("torch")
    return torch.randint(1, 48, (4, 9), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def make_tokenizer():
    """A function that makes a tokenizer of letters."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")

    def make(*, template: str | None = None, merges: bool = False):
        """One token per character (per pair ``ab`` too, with merges); ``template`` dresses what it encodes."""
        words = ["<pad>", "</s>", "<s>", "<unk>", " ", "ab", *string.ascii_lowercase]
        vocabulary = {word: i for i, word in enumerate(words)}
        tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
        pattern = tokenizers.Regex("ab|." if merges else ".")
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Split(pattern, behavior="isolated")
        tokenizer.decoder = tokenizers.decoders.Fuse()
        if template:
            tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
                single=template, special_tokens=[("<s>", vocabulary["<s>"]), ("</s>", vocabulary["</s>"])]
            )
        return transformers.PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", bos_token="<s>", unk_token="<unk>"
        )

    return make
