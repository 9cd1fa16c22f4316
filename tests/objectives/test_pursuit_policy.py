"""The policy of a pursuit: what it sees, and that it is the network it says it is."""

import numpy as np
import pytest

from searchlib.errors import InvalidCandidate, InvalidSettings
from searchlib.objectives.pursuit_arena import BoxArena
from searchlib.objectives.pursuit_policy import PursuitNetwork, observe
from searchlib.objectives.pursuit_settings import PursuitSettings
from searchlib.objectives.pursuit_tasks import PursuitRange
from searchlib.objectives.pursuit_world import PursuitSight, rollout


def sight(dimension=2, pursuers=3, obstacles=3, worlds=4, seed=0):
    rng = np.random.default_rng(seed)
    settings = PursuitSettings(dimension=dimension, pursuers=pursuers, obstacles=obstacles)
    places = [
        rng.uniform(0, 1, (dimension, count, worlds)).astype(np.float32) for count in (pursuers, 1, 1, obstacles)
    ]  # fmt: skip
    arena = BoxArena(settings, np.full(worlds, 1.5, np.float32), places[3])
    return PursuitSight(*places[:3], arena)


def rows(network, n, seed=1):
    return network.space().sample(np.random.default_rng(seed), n)


def test_the_default_network_has_the_530_parameters_of_the_notes():
    assert PursuitNetwork().parameters == 530
    assert PursuitNetwork().space().dimension == 530
    assert PursuitNetwork(3).parameters == 19 * 16 + 16 + 16 * 16 + 16 + 16 * 3 + 3


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("hidden", [(), (7,), (16, 16), (5, 6, 7)])
def test_commands_are_those_of_torch_layers_filled_with_the_row(dimension, hidden):
    torch = pytest.importorskip("torch")
    network = PursuitNetwork(dimension, hidden)
    genes, seen = rows(network, 4), sight(dimension)
    command = network.pursuers(genes, np.array([2, 0, 3, 3])).command(seen)
    assert command.dtype == np.float32
    observations = torch.from_numpy(observe(seen))
    for world, row in enumerate([2, 0, 3, 3]):
        layers = []
        for before, after in zip(network.widths, network.widths[1:], strict=False):
            layers += [torch.nn.Linear(before, after), torch.nn.Tanh()]
        model = torch.nn.Sequential(*layers[:-1])
        torch.nn.utils.vector_to_parameters(torch.from_numpy(genes[row]), model.parameters())
        with torch.no_grad():
            expected = model(observations[..., world].T).numpy()
        expected /= np.maximum(np.linalg.norm(expected, axis=1, keepdims=True), 1)
        np.testing.assert_allclose(command[..., world].T, expected, atol=2e-6)


def test_what_is_seen_has_the_meaning_that_is_written_down():
    seen = sight()
    parts = observe(seen)
    assert parts.shape == (13, 3, 4)
    for pursuer, world in np.ndindex(3, 4):
        me, evader = seen.pursuers[:, pursuer, world], seen.evader[:, 0, world]
        mates = [seen.pursuers[:, j, world] - me for j in range(3) if j != pursuer]
        balls = [me - seen.arena.obstacles[:, j, world] for j in range(3)]
        apart = np.linalg.norm(evader - me)
        expected = [
            *((evader - me) / apart),
            *(seen.evader_velocity[:, 0, world] / 2.4),
            *(np.mean(mates, axis=0) / 0.5),
            *np.mean([-0.2 * m / (m @ m + 0.04) for m in mates], axis=0),
            *np.sum([0.1 * b / np.linalg.norm(b) / (max(np.linalg.norm(b) - 0.05, 0) + 0.1) for b in balls], axis=0),
            *(me / 1.5),
            apart / (apart + 0.5),
        ]
        np.testing.assert_allclose(parts[:, pursuer, world], expected, rtol=3e-4, atol=1e-4)


def test_the_order_of_mates_and_obstacles_does_not_matter():
    seen, turn = sight(pursuers=4, obstacles=5), [0, 3, 1, 2]
    arena = BoxArena(
        PursuitSettings(pursuers=4, obstacles=5), np.full(4, 1.5, np.float32), seen.arena.obstacles[:, ::-1].copy()
    )
    turned = PursuitSight(seen.pursuers[:, turn], seen.evader, seen.evader_velocity, arena)
    network = PursuitNetwork()
    team = network.pursuers(rows(network, 1), np.zeros(4, int))
    np.testing.assert_allclose(team.command(turned), team.command(seen)[:, turn], atol=1e-5)
    assert np.ptp(team.command(seen), axis=1).max() > 1e-3


def test_no_command_is_longer_than_1_and_short_ones_stay_short():
    network = PursuitNetwork()
    genes = rows(network, 2)
    genes[0] *= 20
    genes[1] *= 0.01
    command = network.pursuers(genes, np.array([0, 0, 1, 1])).command(sight())
    lengths = np.linalg.norm(command, axis=0)
    np.testing.assert_allclose(lengths[:, :2], 1, rtol=1e-5)
    assert lengths[:, 2:].max() < 0.1


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e18])
def test_weights_of_any_size_give_finite_commands_without_a_warning(size):
    network = PursuitNetwork()
    tasks = PursuitRange().uniform(np.random.default_rng(0), 4)
    genes = np.float32(size) * np.sign(rows(network, 1))
    outcome = rollout(PursuitSettings(steps=30), tasks, network.pursuers(genes, np.zeros(4, int)))
    assert np.isfinite(outcome.min_distance).all()
    assert outcome.over_speed.sum() == 0


def test_seen_numbers_stay_small_wherever_everyone_is():
    parts = []
    for seed in range(20):
        seen = sight(seed=seed)
        seen.pursuers[:, 1] = seen.pursuers[:, 0]  # two in one place, and one on the evader inside a ball
        seen.pursuers[:, 2] = seen.evader[:, 0]
        seen.arena.obstacles[:, 0] = seen.evader[:, 0]
        parts.append(observe(PursuitSight(seen.pursuers, seen.evader, seen.evader_velocity, seen.arena)))
    assert np.isfinite(parts).all()
    assert np.abs(parts).max() < 4


def test_rows_of_another_length_are_refused():
    with pytest.raises(InvalidCandidate, match="530 parameters, but the rows have shape"):
        PursuitNetwork().split(np.zeros((2, 529), np.float32))


def test_widths_that_are_no_numbers_are_refused():
    with pytest.raises(InvalidSettings, match="hidden"):
        PursuitNetwork(hidden=(0,))
