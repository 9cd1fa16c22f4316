"""Episodes of discs beside JaxMARL's own environment, and the objective that ranks teams by them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

pytest.importorskip("jax")
pytest.importorskip("jaxmarl")

import jax

from searchlib import Budget, EvolutionStrategy, FreshCases, search
from searchlib.cases import Split
from searchlib.errors import InvalidSettings
from searchlib.objectives.navigation import Navigation
from searchlib.objectives.navigation_controller import ProportionalSteering
from searchlib.objectives.navigation_layouts import NavigationLayouts, random_layouts
from searchlib.objectives.navigation_orca import OrcaSteering
from searchlib.objectives.navigation_physics import disc_environment
from searchlib.objectives.navigation_settings import NavigationSettings
from searchlib.objectives.navigation_sight import NavigationSight
from searchlib.space import Candidates
from searchlib.testing import check_objective

# One team size and one law, so that one loop is compiled.
SETTINGS = NavigationSettings(steps=25, start_speed=1.5, pillars=4)
RULE = ProportionalSteering()
AGENTS = 4


def navigation(**changes):
    given = {"executor": RULE, "search": 12, "select": 4, "holdout": 6, "collision_steps": 1.0, **changes}
    return Navigation(SETTINGS, AGENTS, **given)


def layouts_of(n, split=Split.SEARCH, seed=0):
    return random_layouts(SETTINGS, AGENTS, n, np.random.default_rng(seed), split=split)


def test_an_episode_is_the_one_that_the_environment_itself_plays():
    layouts, row = layouts_of(3), np.array([0.2, -0.3])
    outcome, paths = navigation().play(layouts, row[None], record=True)
    env = disc_environment(SETTINGS, AGENTS)
    for world in range(3):
        one = layouts.take([world])
        _, state = env.reset(jax.random.PRNGKey(0))
        place = np.concatenate([one.starts[0], one.pillars[0]])
        speed = np.concatenate([one.velocities[0], np.zeros_like(one.pillars[0])])
        state = state.replace(p_pos=np.float32(place), p_vel=np.float32(speed))
        goals = one.goals[0][paths.goals[0, world]]
        for now in range(int(outcome.steps[world])):
            np.testing.assert_allclose(paths.agents[now, world], state.p_pos[:AGENTS], atol=1e-4)
            sight = NavigationSight(
                *(np.asarray(part)[None, None] for part in (state.p_pos[:AGENTS], state.p_vel[:AGENTS], goals)),
                one.pillars[None],
            )  # fmt: skip
            x, y = RULE.command(row[None], sight, SETTINGS, np)[0, 0].T
            # Its actions are shares of a force to the left, right, below and above.
            actions = np.stack([0 * x, (-x).clip(0), x.clip(0), (-y).clip(0), y.clip(0)], axis=-1)
            _, state, *_ = env.step_env(
                jax.random.PRNGKey(1), state, {f"agent_{i}": actions[i] for i in range(AGENTS)}
            )  # fmt: skip
        np.testing.assert_allclose(paths.agents[int(outcome.steps[world]), world], state.p_pos[:AGENTS], atol=1e-4)


def test_what_happened_is_what_the_paths_show():
    layouts = layouts_of(40)
    outcome, paths = navigation().play(layouts, np.array([[0.0, 0.0], [-3.0, 0.0]]), record=True)
    assert len(outcome) == 80
    both = NavigationLayouts.of([*layouts, *layouts])
    assert 5 < outcome.success.sum() < 80
    for world in range(80):
        walked = paths.agents[:, world]
        apart = np.linalg.norm(walked[:, :, None] - both.goals[world][None, None], axis=-1)
        occupied = (apart <= 0.15).any(axis=1)[1:]
        done = occupied.all(axis=1)
        steps = int(done.argmax()) + 1 if done.any() else 25
        assert outcome.steps[world] == steps
        assert outcome.success[world] == done.any()
        assert outcome.covered[world] == pytest.approx(occupied.mean(axis=1)[:steps].max())
        mates = np.linalg.norm(walked[:, :, None] - walked[:, None], axis=-1)[1 : steps + 1]
        pairs = np.triu_indices(AGENTS, 1)
        assert outcome.collisions[world] == (mates[:, *pairs] < 0.2).sum()
        assert outcome.collisions_per_step[world] == pytest.approx(outcome.collisions[world] / steps)
        np.testing.assert_array_equal(walked[steps:], np.broadcast_to(walked[steps], walked[steps:].shape))


def test_it_keeps_the_contract_of_objectives_to_the_last_bit():
    check_objective(navigation(), tolerance=0, cases=3)


def test_worlds_do_not_depend_on_their_company_and_scores_are_steps_and_collisions():
    objective = navigation()
    rows, layouts = objective.space.sample(np.random.default_rng(0), 5), layouts_of(40)
    outcome, _ = objective.play(layouts, rows)
    scores = objective.evaluate(Candidates(objective.space, rows), layouts.cases())
    np.testing.assert_allclose(scores, (outcome.steps + 1.25 * outcome.collisions).reshape(5, 40))
    some, _ = objective.play(layouts.take([39, 4]), rows[[3]])
    for name in ("steps", "collisions", "covered"):
        np.testing.assert_array_equal(getattr(some, name), getattr(outcome, name).reshape(5, 40)[3, [39, 4]])


def test_goals_are_decided_on_again_and_each_stays_with_one_agent():
    layouts = layouts_of(30)
    told = []

    def watched(objective):
        decide = objective.decide

        def count(matcher):
            def decided(*given):
                told.append(len(given[0]))
                return decide(matcher)(*given)

            return decided

        objective.decide = count
        return objective

    for every, least in ((None, 1), (4, 3)):
        told.clear()
        objective = watched(navigation(every=every, matcher="bottleneck"))
        _, paths = objective.play(layouts, np.zeros((1, 2)), record=True)
        assert least <= len(told) <= (1 if every is None else 7)
        permutation = np.broadcast_to(np.arange(AGENTS), paths.goals.shape)
        np.testing.assert_array_equal(np.sort(paths.goals, axis=-1), permutation)
        changed = (paths.goals[1:] != paths.goals[:-1]).any(axis=(1, 2))
        assert not changed.any() if every is None else changed[3::4].any() and not changed[:3].any()


def test_a_search_finds_gains_that_are_better_than_careless_ones():
    held_out = layouts_of(40, Split.HOLDOUT)
    objective = navigation(search=64, collision_steps=0.0, holdout=held_out)
    strategy = EvolutionStrategy(method="openai", population=16, sigma=1.0)
    result = search(
        objective, strategy, seed=0, budget=Budget(evaluations=160), batch_size=16, shortlist=1, cases=FreshCases(16),
        seeds=[np.array([-2.0, 1.0], np.float32)],
    )  # fmt: skip
    found, careless = objective.play(held_out, np.stack([result.row, [-2.0, 1.0]]))[0].steps.reshape(2, -1)
    assert found.mean() < careless.mean() - 2


def test_each_half_learns_while_the_other_is_as_it_is():
    layouts = layouts_of(8)
    matching = navigation(learns="matcher", steering=np.zeros(2))
    assert matching.space.dimension == matching.matcher.parameters
    squares = matching.play(layouts, np.zeros((2, matching.space.dimension)))[0].steps
    given = navigation().play(layouts, np.zeros((1, 2)))[0].steps
    np.testing.assert_array_equal(squares.reshape(2, 8), np.stack([given, given]))
    names = matching.references()
    assert {"hungarian", "bottleneck", "bottleneck, informed", "random"} <= set(names)
    scores = {name: matching.evaluate_reference(name, layouts.cases()) for name in names}
    assert scores["bottleneck"].mean() < scores["random"].mean()
    assert navigation().fingerprint() != navigation(matcher="bottleneck").fingerprint()


def test_what_cannot_be_meant_is_refused():
    for wrong, said in (
        ({"learns": "both"}, "learns"), ({"matcher": "nearest"}, "assignments"),
        ({"inner_loop": np.zeros(3)}, "40 finite"),
        ({"search": layouts_of(4), "holdout": layouts_of(4)}, "seeds"),
    ):  # fmt: skip
        with pytest.raises(InvalidSettings, match=said):
            navigation(**wrong)
    flying = NavigationSettings.flying()
    with pytest.raises(InvalidSettings, match="inner_loop="):
        Navigation(flying)
    with pytest.raises(InvalidSettings, match="ORCA"):
        Navigation(flying, inner_loop=np.zeros(40), executor=OrcaSteering())
    with pytest.raises(InvalidSettings, match="nothing to play"):
        navigation().play(layouts_of(0), np.zeros((1, 2)))
    with pytest.raises(InvalidSettings, match="2 dimensions"):
        navigation().play(random_layouts(flying, AGENTS, 1, np.random.default_rng(0)), np.zeros((1, 2)))


def test_nothing_is_said_while_the_environment_is_loaded(capsys):
    disc_environment(dataclasses.replace(SETTINGS, pillars=0), 2)
    assert capsys.readouterr() == ("", "")
