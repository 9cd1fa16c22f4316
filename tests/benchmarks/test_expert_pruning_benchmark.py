import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from benchmarks import expert_pruning
from benchmarks.__main__ import main
from benchmarks.expert_pruning import PRESETS
from searchlib.objectives import ExpertPlan
from searchlib.objectives.answer_scoring import AnswerScorer
from searchlib.objectives.expert_pruning import ExpertPruning


@pytest.mark.slow
def test_the_smoke_preset_prints_a_table_and_writes_its_json_and_plot(tmp_path, capsys):
    assert main(["expert_pruning", "--preset", "smoke", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    written = json.loads((tmp_path / "expert_pruning.json").read_text())
    methods = {row["method"]: row["metrics"] for row in written["rows"]}
    for name in ("full", "random", "frequency", "soft activation", "naee", *PRESETS["smoke"].settings[0].methods):
        assert name in printed
        assert 0 <= methods[name]["holdout_accuracy"]["mean"] <= 1
    assert len(methods["random"]["holdout_accuracy"]["values"]) == 30
    assert methods["prune + merge"]["evaluations"]["values"] == [60]
    assert [claim["holds"] for claim in written["claims"]] == [True]
    assert (tmp_path / "expert_pruning.png").read_bytes().startswith(b"\x89PNG")


def test_every_method_is_given_one_thread(monkeypatch):
    import torch

    used = set()
    score = AnswerScorer.score

    def counted(self, columns=None):
        used.add(torch.get_num_threads())
        return score(self, columns)

    monkeypatch.setattr(AnswerScorer, "score", counted)
    monkeypatch.setattr(expert_pruning, "small_objective", lambda *_, **settings: ExpertPruning.smoke())
    setting = expert_pruning.Setting("smoke", 2)
    preset = expert_pruning.Preset(1, (setting,), evaluations=12)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        expert_pruning._references(preset, setting)
        assert used == {1}
        for method in ("released loop", "prune + merge"):
            expert_pruning._searched(preset, setting, method, 0)
        assert used == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_waiting_threads_do_not_keep_busy_cores_busy():
    own = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    environment = {name: value for name, value in os.environ.items() if name not in own}
    command = [sys.executable, "-m", "benchmarks", "expert_pruning", "--help"]
    done = subprocess.run(command, env=environment | {"OMP_DISPLAY_ENV": "verbose"}, cwd=Path(__file__).parents[2],
                          capture_output=True, text=True, check=True)  # fmt: skip
    if "GOMP_SPINCOUNT" not in done.stderr:
        pytest.skip("this OpenMP does not display how long it spins")
    assert "GOMP_SPINCOUNT = '0'" in done.stderr


def test_the_full_preset_searches_a_checkpoint_of_ones_own(tmp_path, capsys):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    with ExpertPruning.smoke() as objective:
        objective.model.save_pretrained(tmp_path / "model")
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(20)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(tmp_path / "model")
    rng = np.random.default_rng(0)
    with open(tmp_path / "cases.jsonl", "w", encoding="utf-8") as stream:
        for _ in range(20):
            prompt = " ".join(f"w{i}" for i in rng.integers(2, 20, size=4))
            print(json.dumps({"prompt": prompt, "answer": " w3", "options": [" w3", " w4"]}), file=stream)
    arguments = ["--model", str(tmp_path / "model"), "--cases", str(tmp_path / "cases.jsonl"), "--keep", "2"]
    out = tmp_path / "out"
    preset = ["--preset", "full", "--seeds", "1", "--budget", "24", "--out", str(out)]
    assert main(["expert_pruning", *preset, *arguments]) == 0
    assert "prune + merge" in capsys.readouterr().out
    assert ExpertPlan.load(out / "plan-0").keep == 2
    assert (out / "expert_pruning-0.db").exists()


def test_the_full_preset_names_the_option_that_is_missing(tmp_path):
    with pytest.raises(SystemExit, match="--model"):
        main(["expert_pruning", "--preset", "full", "--out", str(tmp_path)])
