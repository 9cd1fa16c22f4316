"""A benchmark's table, its JSON file, its claims and the command line around them."""

from __future__ import annotations

import io
import json
import platform
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import benchmarks.__main__ as command_line
from benchmarks.table import Table, environment, paired_bootstrap, paired_lower_bound
from searchlib.errors import InvalidSettings

FAKE = '''
from benchmarks.table import Table

DESCRIPTION: str = "a benchmark that exists for this test only"


def add_arguments(parser):
    parser.add_argument("--holds", choices=("yes", "no", "later"), default="yes")


def run(arguments):
    table = Table("fake", arguments.preset, arguments.seeds)
    for seed in range(arguments.seeds):
        table.add("sort", "ours", accuracy=0.5 + seed, seconds=seed)
    table.add("sort", "random", accuracy=float("nan"))
    holds, preset = arguments.holds == "yes", "paper" if arguments.holds == "later" else None
    table.claim("ours is better", value=0.5, bound=0.0, interval=(0.1, None), n=3, test="t", holds=holds, preset=preset)
    return table
'''


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A benchmark module in a folder of its own, known to the command line beside one that does not exist."""
    (tmp_path / "fake_benchmark.py").write_text(FAKE)
    (tmp_path / "torn_benchmark.py").write_text('DESCRIPTION = "needs what is not there"\nimport no_such_library')
    monkeypatch.syspath_prepend(str(tmp_path))
    known = {"fake": "fake_benchmark", "torn": "torn_benchmark", "absent": "benchmarks.there_is_no_such_module"}
    monkeypatch.setattr(command_line, "BENCHMARKS", known)
    yield tmp_path / "out"
    sys.modules.pop("fake_benchmark", None)


def run(out, *words: str) -> int:
    return command_line.main(["fake", "--out", str(out), *words])


def strict_json(path):
    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def test_the_file_has_exactly_the_promised_shape(fake, capsys):
    assert run(fake, "--preset", "smoke", "--seeds", "2") == 0
    written = strict_json(fake / "fake.json")
    assert list(written) == ["benchmark", "preset", "seeds", "environment", "seconds", "rows", "claims"]
    assert (written["benchmark"], written["preset"], written["seeds"]) == ("fake", "smoke", 2)
    assert written["seconds"] >= 0
    assert written["rows"] == [
        {
            "task": "sort",
            "method": "ours",
            "metrics": {
                "accuracy": {"mean": 1.0, "std": pytest.approx(np.std([0.5, 1.5], ddof=1)), "values": [0.5, 1.5]},
                "seconds": {"mean": 0.5, "std": pytest.approx(np.std([0, 1], ddof=1)), "values": [0.0, 1.0]},
            },
        },
        {
            "task": "sort",
            "method": "random",
            "metrics": {"accuracy": {"mean": None, "std": None, "values": [None]}},
        },
    ]
    assert written["claims"] == [
        {
            "claim": "ours is better",
            "value": 0.5,
            "bound": 0.0,
            "interval": [0.1, None],
            "n": 3,
            "test": "t",
            "preset": "smoke",
            "holds": True,
        }
    ]
    assert [path.name for path in fake.iterdir()] == ["fake.json"]
    printed = capsys.readouterr()
    assert re.search(r"sort +ours +1 ± 0\.71 +0\.5 ± 0\.71", printed.out)
    assert "holds: ours is better" in printed.out
    assert re.search(r"fake \(smoke\) +\d+\.\d s  sort: ours", printed.err)


@pytest.mark.parametrize(("holds", "status"), [("yes", 0), ("no", 3), ("later", 0)])
def test_the_status_says_whether_the_claims_of_the_preset_hold(fake, capsys, holds, status):
    assert run(fake, "--holds", holds) == status
    printed = capsys.readouterr().out
    assert "random" in printed, "the table is printed whatever the claims say"
    assert ("DOES NOT HOLD" in printed) == (holds == "no")
    assert ("not shown at this size" in printed) == (holds == "later")
    assert strict_json(fake / "fake.json")["claims"][0]["holds"] == (holds == "yes")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["nothing"], "there is no benchmark 'nothing', choose one of"),
        (["fake", "--preset", "huge"], "invalid choice: 'huge'"),
        (["fake", "--seeds", "0"], "must be a whole number of at least 1, but is '0'"),
        (["fake", "--holds", "perhaps"], "invalid choice: 'perhaps'"),
        (["absent"], "the benchmark absent cannot be imported"),
        (["torn"], "No module named 'no_such_library'"),
    ],
)
def test_wrong_usage_has_status_2_and_says_why(fake, capsys, words, complaint):
    assert command_line.main(words) == 2
    assert complaint in capsys.readouterr().err
    assert not fake.exists()


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_the_listing_survives_modules_that_are_missing_or_broken(fake, capsys, words):
    assert command_line.main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "  fake    a benchmark that exists for this test only" in lines
    assert "  torn    needs what is not there" in lines
    assert "  absent  (not available here)" in lines


def test_help_shows_the_options_of_the_benchmark(fake, capsys):
    assert command_line.main(["fake", "--help"]) == 0
    printed = capsys.readouterr().out
    assert "--holds" in printed
    assert "--preset {smoke,small,paper,full}" in printed


def test_seeds_follow_from_the_preset(fake):
    for preset, seeds in command_line.SEEDS.items():
        run(fake, "--preset", preset)
        assert strict_json(fake / "fake.json")["seeds"] == seeds


def test_listing_the_real_benchmarks_imports_none_of_them():
    code = (
        "import sys, benchmarks.__main__ as line; assert line.main([]) == 0;"
        "heavy = {'torch', 'transformers', 'nevergrad', 'pymoo', 'scipy.stats'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    root = str(Path(command_line.__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=False)
    assert done.returncode == 0, done.stderr
    for name in command_line.BENCHMARKS:
        assert name in done.stdout


def test_the_environment_tells_versions_but_not_whose_computer_it_is():
    facts = environment()
    assert set(facts) == {"python", "machine", "cpus", "versions"}
    assert facts["versions"]["numpy"] == np.__version__
    text = json.dumps(facts)
    assert platform.node() not in text
    assert "/" not in text


def test_values_that_are_missing_or_infinite_are_null_and_left_out_of_the_mean(tmp_path):
    table = Table("gaps", "smoke", 3)
    for value in (1.0, None, np.float32(3.0), np.inf):
        table.add("t", "m", x=value)
    table.claim("c", value=np.nan, n=np.int64(2), test="t", holds=np.bool_(True), interval=(np.nan, np.float64(1)))
    written = strict_json(table.write(tmp_path))
    assert written["rows"][0]["metrics"]["x"]["values"] == [1.0, None, 3.0, None]
    assert written["rows"][0]["metrics"]["x"]["mean"] == 2.0
    assert written["claims"][0]["value"] is None
    assert written["claims"][0]["interval"] == [None, 1.0]
    assert written["claims"][0]["holds"] is True


def test_a_table_prints_to_any_stream_with_columns_aligned(capsys):
    table = Table("shown", "small", 1)
    table.add("reverse", "ours", accuracy=0.98765, cost=3)
    table.add("t", "a rather long name", accuracy=1)
    stream = io.StringIO()
    table.print(stream)
    assert stream.getvalue().splitlines() == [
        "shown, preset small, 1 seed",
        "",
        "task     method              accuracy  cost",
        "-------  ------------------  --------  ----",
        "reverse  ours                  0.9877     3",
        "t        a rather long name         1     -",
    ]
    assert capsys.readouterr().out == ""


def test_an_unknown_preset_is_refused():
    with pytest.raises(InvalidSettings, match="preset must be one of smoke, small, paper, full, but got 'tiny'"):
        Table("x", "tiny", 1)


@pytest.mark.parametrize("level", [0.9, 0.95])
def test_the_lower_bound_is_that_of_the_paired_t_test(level):
    differences = np.random.default_rng(0).normal(0.3, 1.0, 12)
    n = len(differences)
    expected = differences.mean() - stats.t.ppf(level, n - 1) * differences.std(ddof=1) / np.sqrt(n)
    bound = paired_lower_bound(differences, level)
    assert bound == pytest.approx(expected)
    # the bound is where the one-sided test stops rejecting
    p = stats.ttest_1samp(differences, bound, alternative="greater").pvalue
    assert p == pytest.approx(1 - level)


def test_the_lower_bound_covers_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = [paired_lower_bound(rng.normal(0.0, 1.0, 5)) <= 0.0 for _ in range(1000)]
    assert 0.93 < np.mean(covered) < 0.97


def test_differences_that_are_all_equal_are_their_own_bound():
    assert paired_lower_bound([0.25, 0.25, 0.25]) == 0.25


def test_the_bootstrap_of_a_mean_agrees_with_the_t_interval_on_many_pairs():
    rng = np.random.default_rng(2)
    second = rng.normal(0, 1, 400)
    first = second + rng.normal(0.2, 0.5, 400)
    interval = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert paired_bootstrap(first, second) == pytest.approx((interval.low, interval.high), abs=0.01)
    assert paired_bootstrap(first, second) == paired_bootstrap(first, second)
    # pairs are kept together: apart, the common part would widen the interval four times
    low, high = paired_bootstrap(first, second, resamples=500)
    assert high - low < 0.12


def test_the_bootstrap_takes_other_statistics_and_degenerate_differences():
    rng = np.random.default_rng(3)
    values = rng.normal(0, 1, 100)
    assert paired_bootstrap(values + 1.0, values, statistic=np.median, resamples=200) == pytest.approx((1.0, 1.0))


@pytest.mark.parametrize("values", [[], [1.0], [1.0, float("nan")]])
def test_an_interval_needs_two_finite_values(values):
    with pytest.raises(InvalidSettings, match="at least two finite values are needed for an interval"):
        paired_lower_bound(values)
    with pytest.raises(InvalidSettings, match="at least two finite values are needed for an interval"):
        paired_bootstrap(values, values)


def test_a_bootstrap_of_unequal_lengths_is_refused():
    with pytest.raises(InvalidSettings, match="pairs are needed, but there are 2 values and 3 values"):
        paired_bootstrap([1, 2], [1, 2, 3])


def test_progress_is_one_line_per_row_not_per_value(capsys):
    table = Table("fake", "smoke", 3)
    for _ in range(30):
        table.add("sort", "random", accuracy=0.5)
    for _ in range(2):
        for method in ("ours", "theirs"):
            table.add("sort", method, accuracy=0.5)
    said = [line.split(" s  ")[1] for line in capsys.readouterr().err.splitlines()]
    # the third of the 30 would be the last one of a row with a value per seed
    assert said == ["sort: random"] * 2 + ["sort: ours", "sort: theirs"] * 2


def test_a_terminal_sees_every_value(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    table = Table("fake", "smoke", 3)
    for _ in range(5):
        table.add("sort", "random", accuracy=0.5)
    assert capsys.readouterr().err.count("sort: random") == 5
