"""Every parser of this library as a function of bytes: what the fuzzer feeds and the seeds replay.

A target reads the bytes as somebody else's file or text. It returns, or raises one of our exceptions.
"""

import contextlib
import io
import json
import pathlib
import sqlite3
import tempfile

import numpy as np

from searchlib import EvaluationCache, RandomSearch, search
from searchlib.additive_profile import AdditiveProfile
from searchlib.errors import SearchlibError
from searchlib.json_data import parsed_json
from searchlib.migration import migrate
from searchlib.repair import repaired
from searchlib.space import space_from_json
from searchlib.spaces import AttentionPlan, Binary, BitPlan, SolverSchedule
from searchlib.study import Study

__all__ = ["PARSERS", "SEEDS", "parse"]

TESTS = pathlib.Path(__file__).parents[1]

#: Where files are put that a parser wants to open.
FOLDER = pathlib.Path(tempfile.mkdtemp(prefix="fuzz"))


def of_file(suffix, read):
    """A target whose bytes lie in a file."""

    def target(data):
        path = FOLDER / f"file{suffix}"
        path.write_bytes(data)
        return read(path)

    return target


def of_text(read):
    """A target whose bytes are text, whatever they are."""
    return lambda data: read(data.decode("utf-8", "surrogateescape"))


def space(data):
    return space_from_json(parsed_json("the space", data))


def schedule(text):
    return SolverSchedule.from_json(text)


def item_subset(path):
    from searchlib.objectives.item_subset import ItemSubset

    return ItemSubset.load(path)


def score_matrix(path):
    from searchlib.objectives.score_matrix import ScoreMatrix

    return ScoreMatrix.read(path)


def harness_log(data):
    from searchlib.objectives.score_matrix import ScoreMatrix

    for model in "ab":
        folder = FOLDER / "log" / model
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "samples_task_2024-01-01.jsonl").write_bytes(data)
    return ScoreMatrix.from_lm_eval({model: FOLDER / "log" / model for model in "ab"})


def expert_plan(path):
    from searchlib.objectives.expert_plan import ExpertPlan

    return ExpertPlan.load(path)


def quantization_plan(path):
    from searchlib.objectives.quantized_model import QuantizationPlan

    return QuantizationPlan.load(path)


def checkpoint(path):
    from searchlib.objectives.checkpoint_files import read_checkpoint

    return read_checkpoint(path)


def sharded_checkpoint(data):
    from searchlib.objectives.checkpoint_files import read_checkpoint

    folder = FOLDER / "shards"
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors.index.json").write_bytes(data)
    return read_checkpoint(folder)


def adapter(data):
    from searchlib.objectives.checkpoint_files import read_checkpoint

    folder = FOLDER / "adapter"
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_bytes(data)
    return read_checkpoint(folder)


def exemplars(text):
    from searchlib.objectives.exemplar_operators import read_exemplars

    return read_exemplars(text, 2)


def rationale(text):
    from searchlib.objectives.teaching_format import math_parse, yes_or_no

    return math_parse(text), yes_or_no(text)


def study(path):
    for log in path.parent.glob(f"{path.name}-*"):  # of the bytes before
        log.unlink()
    with Study.open(path) as opened:
        return opened.result()


def damaged_study(path):
    sound = FOLDER / "sound.db"
    for old in (*path.parent.glob(f"{path.name}-*"), *FOLDER.glob("sound.db*")):
        old.unlink()
    return repaired(path, sound)


def older_study(path):
    for old in path.parent.glob(f"{path.name}[-.]*"):  # logs, and what was kept
        old.unlink()
    return migrate(path)


def evaluation_cache(path):
    for log in path.parent.glob(f"{path.name}-*"):
        log.unlink()
    with EvaluationCache(path) as opened:
        return len(opened), list(opened.read([b"x" * 16]))


#: By name, functions of bytes.
PARSERS = {
    "space": space,
    "solver schedule": of_text(schedule),
    "bit plan": of_text(BitPlan.from_json),
    "attention plan": of_file(".json", AttentionPlan.load),
    "additive profile": of_file(".npz", AdditiveProfile.load),
    "item subset": of_file(".json", item_subset),
    "scores as text": of_file(".csv", score_matrix),
    "scores as arrays": of_file(".npz", score_matrix),
    "scores of the harness": harness_log,
    "expert plan": of_file(".safetensors", expert_plan),
    "quantization plan": of_file(".json", quantization_plan),
    "checkpoint": of_file(".safetensors", checkpoint),
    "torch checkpoint": of_file(".pt", checkpoint),
    "index of shards": sharded_checkpoint,
    "adapter": adapter,
    "exemplars": of_text(exemplars),
    "rationale": of_text(rationale),
    "study": of_file(".db", study),
    "damaged study": of_file(".damaged.db", damaged_study),
    "older study": of_file(".older.db", older_study),
    "evaluation cache": of_file(".cache", evaluation_cache),
}


def parse(name, data):
    """What a parser makes of bytes, or how it refuses them; anything else that it raises goes through."""
    try:
        return PARSERS[name](data)
    except SearchlibError as refusal:
        return refusal


_SCHEDULE = {"sigmas": [10.0, 1.0], "steps": [{"order": 1, "prediction": "data"}], "analytic_first_step": False}
_PLAN = {"alphas": [[8, 0]], "betas": [[0, 0.5]], "sink": 0, "block": 1, "kv_groups": 1}
_SUBSET = {"items": ["a"], "models": ["m", "n", "o"], "subset_scores": [0, 0.5, 1], "full_scores": [0.1, 0.5, 0.9],
           "noise": 0.1}  # fmt: skip
_TENSOR = {"name": "a", "kind": "weight", "rows": 4, "columns": 64, "group": None, "macs": 0.0}
_QUANTIZED = {"plan": {"weight": {"a": 4}}, "tensors": [_TENSOR], "full": "", "symmetric": False, "measured": []}
_BASE = {"model_type": "mixtral", "experts": 4, "layers": ["model.layers.0.mlp"], "numbers": [0]}
_SAMPLES = b"""{"doc_id": 1, "metrics": ["acc"], "acc": 1.0}
{"doc_id": 2, "metrics": ["acc"], "acc": 0.0}
"""


def arrays(**given):
    file = io.BytesIO()
    np.savez(file, **given)
    return file.getvalue()


def safetensors(metadata=None, **tensors):
    from safetensors.numpy import save

    return save(tensors, metadata)


def torch_file():
    import torch

    file = io.BytesIO()
    torch.save({"a": torch.ones(2)}, file)
    return file.getvalue()


def plan_file():
    return safetensors({"format": "searchlib expert plan", "version": "1", "plan": json.dumps({"base": _BASE})},
                       router=np.ones((1, 2, 4), np.float32), merging=np.ones((1, 2, 4), np.float32))  # fmt: skip


def study_file():
    path = FOLDER / "seed.db"
    search(sum, RandomSearch(), space=Binary(6), budget=6, seed=0, study=path)
    return path.read_bytes()


def older_study_file():
    path = FOLDER / "older seed.db"
    path.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript((TESTS / "format_1.sql").read_text(encoding="utf-8"))
    return path.read_bytes()


def cache_file():
    path = FOLDER / "seed cache.db"
    search(sum, RandomSearch(), space=Binary(6), budget=6, seed=0, cache=path)
    return path.read_bytes()


#: For every parser, makers of bytes from which the fuzzer sets out.
SEEDS = {
    "space": [
        lambda: b'{"space": "Subset", "n": 4, "k": 2}',
        lambda: b'{"space": "Product", "parts": [["a", {"space": "Binary", "n": 2}]]}',
    ],
    "solver schedule": [lambda: json.dumps(_SCHEDULE).encode()],
    "bit plan": [
        lambda: b'{"weight": {"a": 4, "b": "4@32"}}',
        lambda: b'{"activation": {"a": [4, 8]}, "ranges": [500]}',
    ],
    "attention plan": [lambda: json.dumps(_PLAN).encode()],
    "additive profile": [lambda: arrays(loss=np.array([[1.0, 0.0]]), costs=np.zeros((0, 1, 2)), budgets=np.zeros(0),
                                        metrics=np.array(["loss"]), part_names=np.array(["a"]),
                                        option_names=np.array(["b", "c"]))],
    "item subset": [lambda: json.dumps(_SUBSET).encode()],
    "scores as text": [lambda: b"model,a,b\nm,1,0\nn,0.5,\n"],
    "scores as arrays": [lambda: arrays(scores=np.eye(3), models=np.array(["a", "b", "c"]))],
    "scores of the harness": [lambda: _SAMPLES],
    "expert plan": [plan_file],
    "quantization plan": [lambda: json.dumps(_QUANTIZED).encode()],
    "checkpoint": [lambda: safetensors(a=np.ones((2, 3), np.float32), b=np.ones(5, np.int8))],
    "torch checkpoint": [torch_file],
    "index of shards": [lambda: b'{"weight_map": {"a": "model-1.safetensors"}}'],
    "adapter": [lambda: b'{"peft_type": "LORA", "r": 2, "lora_alpha": 4}'],
    "exemplars": [lambda: b"<START>Question: 1\nAnswer: 2\n\nQuestion: 2\nAnswer: 4<END>"],
    "rationale": [lambda: b"So it is 42.\n\n[[Final Answer]]:\n$42$\n", lambda: b"yes"],
    "study": [study_file],
    "damaged study": [study_file],
    "older study": [older_study_file],
    "evaluation cache": [cache_file],
}  # fmt: skip
