"""The page on sparse attention does what it says, with a tiny model in the place of the large one."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from searchlib.objectives import SparseAttention  # noqa: E402
from searchlib.spaces import AttentionPlan  # noqa: E402

PAGE = (Path(__file__).parents[2] / "docs" / "sparse_attention.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


def test_the_programs_run_one_after_the_other(tmp_path, monkeypatch, capsys):
    with SparseAttention.smoke() as objective:
        model = objective.model
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", lambda name, **settings: model)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda name: None)
    rng = np.random.default_rng(0)
    lengths = {"search": (12, 20), "select": (24,), "holdout": (28,)}
    documents = {
        split: [(rng.integers(1, 20, n - 4).tolist(), rng.integers(1, 20, 4).tolist()) for n in every]
        for split, every in lengths.items()
    }
    names: dict[str, Any] = {"documents": documents}
    quick, deployment = BLOCKS
    # The budget of 50 evaluations is for a large model, and so are spans of thousands of tokens.
    exec(quick.replace("budget=50", "budget=12"), names)
    printed = capsys.readouterr().out
    assert "uniform" in printed
    assert "dense" in printed
    plan = AttentionPlan.load("plan.json")
    assert (plan.sink, plan.block, plan.kv_groups) == (64, 64, 2)
    assert all(plan.density(length) <= 0.5 for length in (2048, 4096, 8192, 12288, 16384))
    assert all(len(rules) <= 2 for rules in plan.distinct_rules())
    names |= {"model": model, "prompt": torch.full((1, 6), 3)}
    exec(deployment.replace("1024", "20"), names)
    assert names["reply"].shape == (1, 26)
    assert int(capsys.readouterr().out.split()[-1]) == names["cache"].stored_bytes > 0
    assert np.isfinite(model(names["reply"]).logits.detach().numpy()).all()
