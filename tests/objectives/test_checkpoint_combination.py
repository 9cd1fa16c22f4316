"""Searching combinations of checkpoints, against closed forms, brute force, peft and diffusers."""

import copy
import json
import re
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
pytest.importorskip("cma")

from safetensors.torch import save_file  # noqa: E402
from torch import nn  # noqa: E402

from searchlib import CMAES, Evolution, GaussNewton, Search, Split, search  # noqa: E402
from searchlib.errors import InvalidSettings, StudyMismatch, UnsupportedModel  # noqa: E402
from searchlib.objectives import (  # noqa: E402
    CaseLoss,
    CheckpointCombination,
    CheckpointStore,
    FrechetDistance,
    GeneratedImages,
    NoiseCases,
    PipelineSampler,
)
from searchlib.objectives.checkpoint_store import blocks_by_prefix  # noqa: E402
from searchlib.testing import check_objective  # noqa: E402

pytestmark = [
    pytest.mark.usefixtures("_one_thread"),
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),  # asked for by peft
]

K = 6


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 3)
        self.norm = nn.BatchNorm1d(3)
        self.drop = nn.Dropout(0.5)
        self.last = nn.Linear(3, 2)

    def forward(self, x):
        return self.last(self.drop(self.norm(self.first(x))))


def net(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Net()


def states(dtype=torch.float32, count=K):
    return [{n: t.to(dtype) if t.is_floating_point() else t for n, t in net(s).state_dict().items()}
            for s in range(1, count + 1)]  # fmt: skip


def draws(n, seed=0, width=4):
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed)).tolist()


def squared(model, cases):
    return model(torch.tensor(cases)).square().sum(dim=1)


CASES = {"search": draws(20), "select": draws(5, 1), "holdout": draws(10, 2)}


def judge(loss=squared):
    return CaseLoss(loss, CASES)


def traces(model):
    """Everything that must be as before: objects, memory, bits, modes and hooks."""
    tensors = {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers())}
    kept = {n: (id(t), t.data_ptr(), t.requires_grad, t.detach().numpy().tobytes()) for n, t in tensors.items()}
    return kept, [(m.training, len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]


def value_of(state, cases, loss=squared):
    """The mean loss of a model with these weights, without any of our code."""
    model = net().eval()
    model.load_state_dict(state)
    with torch.no_grad():
        return float(loss(model, cases).mean())


def combined(alpha, parts):
    """A combination tensor by tensor, in float64; statistics and counts of the newest."""
    return {
        name: sum(float(a) * part[name].double() for a, part in zip(alpha, parts, strict=True)).float()
        if tensor.is_floating_point() and "running" not in name else tensor
        for name, tensor in parts[-1].items()
    }  # fmt: skip


def test_the_contract_holds():
    check_objective(CheckpointCombination.smoke())


@pytest.mark.parametrize("blocks", [None, ["first", "last"]])
def test_the_contract_holds_for_a_network(blocks, tmp_path):
    paths = [tmp_path / f"{i}.safetensors" for i in range(K)]
    for path, state in zip(paths, states(), strict=True):
        save_file(state, path)
    objective = CheckpointCombination(net, paths, judge(), blocks=blocks, compare_with={"another": paths[0]})
    check_objective(objective)


class Linear(nn.Module):
    """A model that is its weights."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(5))

    def forward(self, x):
        return x @ self.weight


def iterates(n, seed=0):
    """Noisy iterates of an optimizer on the way to 1."""
    rng = np.random.default_rng(seed)
    way = np.linspace(0.2, 0.8, n)[:, None]
    return [{"weight": torch.tensor(row, dtype=torch.float32)} for row in way + 0.1 * rng.normal(size=(n, 5))]


def apart(model, cases):
    inputs = torch.tensor(cases)
    return (model(inputs) - inputs.sum(dim=1)) ** 2


def least_squares(parts, cases):
    """The best affine combination: a linear system with one Lagrange multiplier."""
    inputs = np.array(cases)
    outputs = inputs @ np.stack([part["weight"].double().numpy() for part in parts]).T
    n = len(parts)
    system = np.block([[outputs.T @ outputs, np.ones((n, 1))], [np.ones((1, n)), np.zeros((1, 1))]])
    alpha = np.linalg.solve(system, np.append(outputs.T @ inputs.sum(axis=1), 1.0))[:n]
    return alpha, float(((outputs @ alpha - inputs.sum(axis=1)) ** 2).mean())


def test_the_optimum_of_a_quadratic_model_is_reached():
    parts, cases = iterates(5), {"search": draws(30, width=5), "holdout": draws(30, 1, width=5)}
    alpha, optimum = least_squares(parts, cases["search"])
    assert (alpha < 0).any()
    objective = CheckpointCombination(Linear(), parts, CaseLoss(apart, cases))
    result = search(objective, CMAES(), budget=900, seed=0)
    np.testing.assert_allclose(result.best.coefficients, alpha, atol=0.02)
    assert optimum - 1e-6 < result.value < optimum + 1e-4 * result.history.values[0, 0]
    assert sum(result.best.coefficients) == pytest.approx(1)
    assert result.holdout.against("best EMA").difference < 0


def test_blocks_have_coefficients_of_their_own():
    parts = states()
    objective = CheckpointCombination(net(), parts, judge(), blocks=["first", "last"])
    assert objective.space.blocks == 3  # what no prefix names is a last block
    row = objective.space.canonical(objective.space.sample(np.random.default_rng(0), 1))[0]
    alphas = row.reshape(3, K)
    block = {"first": 0, "last": 1, "norm": 2}
    wanted = {name: combined(alphas[block[name.split(".")[0]]], parts)[name] for name in parts[0]}
    with objective:
        found = objective.observe(row, objective.cases(Split.SEARCH)).mean()
    assert found == pytest.approx(value_of(wanted, CASES["search"]), rel=1e-4)
    best = objective.artifact(objective.space.decode(row))
    assert best.recipe()["coefficients"] == alphas.tolist()
    for name, tensor in best.state_dict().items():
        torch.testing.assert_close(tensor, wanted[name], rtol=1e-4, atol=1e-6)


def test_better_blocks_are_found_than_one_set_of_coefficients_gives():
    values = [search(CheckpointCombination(net(), states(), judge(), blocks=blocks), CMAES(1.5), budget=500).value
              for blocks in (None, ["first"])]  # fmt: skip
    assert values[1] < values[0]


@pytest.mark.parametrize("training", [True, False, "mixed"])
def test_the_model_is_as_it_was_after_a_search(training):
    model = net()
    model.train(bool(training))
    if training == "mixed":
        model.norm.eval()  # frozen statistics, as fine-tuning leaves them
    before = traces(model)
    objective = CheckpointCombination(model, states(), judge(), compare_with={"another": states()[0]})
    result = search(objective, budget=30)
    assert {row.name for row in result.holdout.rows[1:]} == {"last checkpoint", "average", "best EMA", "another"}
    assert traces(model) == before


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_the_model_is_as_it_was_after_an_exception_in_the_judge(error):
    model, calls = net(), []

    def loss(own, cases):
        calls.append(own.training)
        if len(calls) in (9, 10):  # in a chunk, and when its first candidate is tried again alone
            raise error("in the middle")
        return squared(own, cases)

    before = traces(model)
    result = search(CheckpointCombination(model, states(), judge(loss)), budget=30)
    assert len(calls) >= 9
    assert not any(calls)
    if error is RuntimeError:
        assert result.history.failures == 1
    assert traces(model) == before


def test_a_model_that_does_not_fit_is_left_as_it_was():
    model = nn.Sequential(nn.Linear(4, 3), nn.Dropout())
    objective = CheckpointCombination(model, states(), judge())
    with pytest.raises(UnsupportedModel):
        objective.__enter__()
    assert model.training


def test_references_are_what_their_names_say(tmp_path):
    parts, other = states(), net(77).state_dict()
    save_file(other, tmp_path / "model.safetensors")
    objective = CheckpointCombination(net(), parts, judge(), compare_with={"fully trained": tmp_path})
    with objective:
        cases = objective.cases(Split.HOLDOUT)
        found = {name: objective.evaluate_reference(name, cases).mean() for name in objective.references()}
        again = objective.evaluate_reference("last checkpoint", cases).mean()
    assert again == found["last checkpoint"]
    averages = {}
    for decay in (0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99):  # the grid of CheckpointCoefficients.baselines
        weights = decay ** np.arange(K - 1, -1, -1)
        averages[decay] = combined(weights / weights.sum(), parts)
    best = min(averages, key=lambda decay: value_of(averages[decay], CASES["search"]))
    wanted = {
        "last checkpoint": parts[-1],
        "average": combined(np.full(K, 1 / K), parts),
        "best EMA": averages[best],
        "fully trained": other,
    }
    assert list(found) == list(wanted)
    for name, state in wanted.items():
        assert found[name] == pytest.approx(value_of(state, CASES["holdout"]), rel=1e-4), name


def test_the_best_ema_is_the_best_also_where_more_is_better():
    def accuracy(model, cases):
        return -squared(model, cases)

    least = CheckpointCombination(net(), states(), judge())
    most = CheckpointCombination(net(), states(), CaseLoss(accuracy, CASES, direction="maximize"))
    with least:
        one = least.best_ema()
    with most:
        np.testing.assert_array_equal(one, most.best_ema())
    result = search(most, budget=40)
    assert result.value >= result.history.values[~np.isnan(result.history.values)][0]


def test_seeds_begin_the_search_and_the_winner_is_no_worse():
    objective = CheckpointCombination(net(), states(), judge())
    run = Search(objective, budget=40)
    records = list(run)
    seeds = objective.seeds()
    np.testing.assert_array_equal(run.history.population[: len(seeds)], seeds)
    assert len(seeds) > 5
    assert records[-1].best_value <= run.history.values[: len(seeds)].min()


@pytest.fixture(scope="module")
def adapted(tmp_path_factory):
    """A small transformers model and the folders of four peft adapters of it."""
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    config = transformers.LlamaConfig(vocab_size=20, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                                      num_attention_heads=2, num_key_value_heads=1)  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        base = transformers.LlamaForCausalLM(config).eval()
    folders, merged = [], []
    for seed in range(4):
        settings = peft.LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "down_proj"])
        model = peft.get_peft_model(copy.deepcopy(base), settings)
        with torch.no_grad():
            for number, (name, parameter) in enumerate(model.named_parameters()):
                if "lora_" in name:
                    generator = torch.Generator().manual_seed(10 * number + seed)
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)
        folder = tmp_path_factory.mktemp("adapters") / f"checkpoint-{seed}"
        model.save_pretrained(folder)
        folders.append(folder)
        merged.append(model.merge_and_unload().state_dict())
    return base, folders, merged


TEXTS = torch.randint(0, 20, (12, 6), generator=torch.Generator().manual_seed(0)).tolist()


def perplexity(model, texts):
    tokens = torch.tensor(texts)
    logits = model(tokens).logits[:, :-1]
    return nn.functional.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none").mean(dim=1)


def test_adapters_of_peft_are_combined_on_their_base_model(adapted, tmp_path):
    base, folders, merged = adapted
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    objective = CheckpointCombination(
        base, folders, CaseLoss(perplexity, {"search": TEXTS[:6], "holdout": TEXTS[6:]}),
        compare_with={"first": folders[0]},
    )  # fmt: skip
    result = search(objective, budget=60)
    alpha = result.best.coefficients
    other = copy.deepcopy(base)
    for name, state in {"search": None, "first": merged[0]}.items():
        wanted = state or {key: sum(a * part[key].double() for a, part in zip(alpha, merged, strict=True)).float()
                           for key in merged[0]}  # fmt: skip
        other.load_state_dict(wanted)
        with torch.no_grad():
            loss = float(perplexity(other, TEXTS[:6] if name == "search" else TEXTS[6:]).mean())
        found = result.value if name == "search" else result.holdout.against("first").value
        assert found == pytest.approx(loss, rel=1e-4), name
    for name, tensor in base.state_dict().items():
        assert torch.equal(tensor, before[name])
    result.best.save_pretrained(tmp_path / "out")
    again = type(base).from_pretrained(tmp_path / "out", local_files_only=True)
    for name, tensor in result.best.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor, rtol=0, atol=0)


def test_half_precision_checkpoints_are_combined_in_single_precision():
    parts = states(torch.float16)
    objective = CheckpointCombination(net(), parts, judge())
    row = objective.space.sample(np.random.default_rng(0), 1)[0]
    with objective:
        found = objective.observe(row, objective.cases(Split.SEARCH)).mean()
    full = [{name: tensor.float() for name, tensor in part.items()} for part in parts]
    assert found == pytest.approx(value_of(combined(row, full), CASES["search"]), rel=1e-4)
    best = objective.artifact(objective.space.decode(row))
    assert best.state_dict()["first.weight"].dtype == torch.float16
    model = best.apply(net())
    assert model.first.weight.dtype == torch.float32
    with torch.no_grad():
        assert float(squared(model.eval(), CASES["search"]).mean()) == pytest.approx(found, rel=1e-2)


def test_a_half_precision_model_is_scored_in_its_own_precision():
    model = net().to(torch.bfloat16)

    def loss(own, cases):
        assert own.first.weight.dtype == torch.bfloat16
        return own(torch.tensor(cases, dtype=torch.bfloat16)).square().sum(dim=1)

    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    result = search(CheckpointCombination(model, states(), judge(loss)), budget=20)
    assert result.history.failures == 0
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


def unet(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return diffusers.UNet2DModel(
            sample_size=4, in_channels=1, out_channels=1, block_out_channels=(8,), norm_num_groups=4,
            down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",), layers_per_block=1,
        ).eval()  # fmt: skip


@pytest.fixture
def digits(tmp_path):
    """A pipeline, the folders of three checkpoints of its U-Net, and a judge by Fréchet distance."""
    pipe = diffusers.DDIMPipeline(unet(), diffusers.DDIMScheduler(clip_sample=False))
    folders = [tmp_path / f"checkpoint-{step}" / "unet" for step in (1, 2, 3)]
    for seed, folder in enumerate(folders, start=1):
        unet(seed).save_pretrained(folder)
    reference = np.random.default_rng(0).uniform(size=(60, 3))
    score = FrechetDistance(lambda images: images.flatten(1)[:, :3], reference)
    return pipe, folders, GeneratedImages(PipelineSampler(pipe, num_inference_steps=2), score, NoiseCases(8, 4))


def test_a_winner_is_saved_as_a_pipeline_that_samples_the_same(digits, tmp_path):
    pipe, folders, own = digits
    objective = CheckpointCombination.from_checkpoints(pipe, folders, own)
    assert isinstance(objective.algorithm(100), GaussNewton)
    result = search(objective, budget=20)
    before = traces(pipe.unet)
    result.best.save_pretrained(tmp_path / "out")
    assert traces(pipe.unet) == before
    loaded = diffusers.DDIMPipeline.from_pretrained(tmp_path / "out", local_files_only=True)
    wanted = result.best.state_dict()
    assert loaded.unet.state_dict().keys() == wanted.keys()
    for name, tensor in loaded.unet.state_dict().items():
        assert torch.equal(tensor, wanted[name]), name
    theirs = GeneratedImages(PipelineSampler(loaded, num_inference_steps=2), own.score, own.noises)
    cases = own.cases(Split.SEARCH)
    value = theirs.aggregate(theirs.observe(loaded.unet, cases)[None])[0, 0]
    assert value == pytest.approx(result.value, rel=1e-3)
    recipe = json.loads((tmp_path / "out" / "checkpoint_coefficients.json").read_text())
    assert recipe["coefficients"] == list(result.best.coefficients)
    assert [str(folder) in label for folder, label in zip(folders, recipe["checkpoints"], strict=True)] == [True] * 3


PROGRAM = next(
    program
    for program in re.findall(
        r"```python\n(.*?)```", (Path(__file__).parents[2] / "README.md").read_text("utf-8"), flags=re.DOTALL
    )
    if "CheckpointCombination" in program
)


def test_the_program_in_the_readme_runs(digits, tmp_path, monkeypatch):
    pipe, folders, _ = digits
    monkeypatch.chdir(tmp_path)
    for folder in folders:
        (tmp_path / "run" / folder.parent.name).mkdir(parents=True)
        folder.rename(tmp_path / "run" / folder.parent.name / "unet")
    small = PROGRAM.replace("search=1000, holdout=5000", "search=8, holdout=4").replace("budget=200", "budget=12")
    assert small.count("=8, ") == small.count("=12,") == 1
    names = {"pipe": pipe, "features": lambda images: images.flatten(1)[:, :3], "real_images": torch.rand(9, 1, 4, 4)}
    exec(small, names)
    loaded = diffusers.DDIMPipeline.from_pretrained(tmp_path / "combined", local_files_only=True)
    weights = names["result"].best.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in loaded.unet.state_dict().items())


def test_an_unknown_component_is_refused_with_those_there_are(digits):
    pipe, folders, own = digits
    with pytest.raises(InvalidSettings, match=r"no component 'vae'.*\['unet'\]"):
        CheckpointCombination.from_checkpoints(pipe, folders, own, component="vae")


def test_a_model_without_save_pretrained_says_what_to_do(tmp_path):
    result = search(CheckpointCombination(net(), states(), judge()), budget=10)
    with pytest.raises(InvalidSettings, match="state_dict"):
        result.best.save_pretrained(tmp_path)
    save_file(result.best.state_dict(), tmp_path / "model.safetensors")
    assert result.best.apply(net()).training
    assert "6 checkpoints" in str(result.best)


@pytest.mark.parametrize("algorithm", [CMAES(1.5), GaussNewton(), Evolution(population=6)], ids=repr)
def test_a_study_goes_on_bit_for_bit(digits, tmp_path, algorithm):
    pipe, folders, own = digits

    def run(name, stop_after=None):
        objective = CheckpointCombination.from_checkpoints(pipe, folders, own, batch=2)
        search = Search(objective, algorithm, budget=24, study=tmp_path / name, batch_size=4)
        for number, _ in enumerate(search, start=1):
            if number == stop_after:
                break
        digest = search.history.digest
        search.close()
        return digest

    whole = run("whole.db")
    assert run("stopped.db", 3) != whole
    assert run("stopped.db") == whole


def test_other_checkpoints_are_another_study(tmp_path):
    search(CheckpointCombination(net(), states(), judge()), budget=8, study=tmp_path / "s.db")
    changed = states()
    changed[2]["first.bias"] += 1
    with pytest.raises(StudyMismatch, match="checkpoints"):
        search(CheckpointCombination(net(), changed, judge()), budget=8, study=tmp_path / "s.db")


def test_what_cannot_be_meant_is_refused():
    parts = states()
    with pytest.raises(InvalidSettings, match="at least 2 checkpoints, but got 1"):
        CheckpointCombination(net(), parts[:1], judge())
    with pytest.raises(InvalidSettings, match="must not name 'average'"):
        CheckpointCombination(net(), parts, judge(), compare_with={"average": parts[0]})
    with pytest.raises(InvalidSettings, match=r"judge must be GeneratedImages\(…\) or CaseLoss\(…\)"):
        CheckpointCombination(net(), parts, squared)
    store = CheckpointStore.open(parts, blocks=blocks_by_prefix(parts[0], ["first", ""]))
    with pytest.raises(InvalidSettings, match=r"blocks= to CheckpointStore\.open"):
        CheckpointCombination(net(), store, judge(), blocks=["first"])
    assert CheckpointCombination(net(), store, judge()).space.blocks == 2
    with pytest.raises(InvalidSettings, match="batch"):
        CheckpointCombination(net(), parts, judge(), batch=0)
    with pytest.raises(InvalidSettings, match="not open"):
        CheckpointCombination(net(), parts, judge()).observe(np.full(K, 1 / K), judge().cases(Split.SEARCH))
    with pytest.raises(InvalidSettings, match="function that returns"):
        search(CheckpointCombination(net(), parts, judge()), budget=8, workers=2)
