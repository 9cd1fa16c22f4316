"""Coefficients against exact integrals and the exact solution of an ordinary differential equation."""

import math
import time
from fractions import Fraction

import numpy as np
import pytest
from scipy.integrate import quad, solve_ivp

from searchlib.errors import InvalidSettings
from searchlib.objectives.solver_formulas import compile_schedule, phi, taylor_weights
from searchlib.spaces import SolverSchedule, SolverSchedules, SolverStep


@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize("h", [-20.0, -1.5, -0.999, -1e-3, -1e-9, 0.0, 1e-12, 1e-4, 0.5, 1.0, 8.0])
def test_phi_is_its_integral(k, h):
    # φ_k(h) = ∫_0^1 e^{(1-u)h} u^{k-1} / (k-1)! du (DPM-Solver, arXiv 2206.00927, equation B.1)
    expected, _ = quad(lambda u: math.exp((1 - u) * h) * u ** (k - 1) / math.factorial(k - 1), 0, 1, epsabs=0)
    assert phi(k, h) == pytest.approx(expected, rel=1e-11)


def test_taylor_weights_differentiate_polynomials_exactly():
    distances = (0.7, -0.4, -1.3)
    for derivative in (1, 2, 3):
        weights = taylor_weights(distances, derivative)
        for power in (1, 2, 3):
            estimate = sum(weight * d**power for weight, d in zip(weights, distances, strict=True))
            expected = math.factorial(power) if power == derivative else 0.0
            assert estimate == pytest.approx(expected, abs=1e-12)


def test_a_step_of_order_3_integrates_a_quadratic_data_prediction_exactly():
    sigmas = (4.0, 2.5, 1.2, 0.5)
    schedule = SolverSchedule(sigmas, (SolverStep(), SolverStep(2), SolverStep(3)))
    update = compile_schedule(schedule)[2].predictor
    lam = [-math.log(sigma) for sigma in sigmas]

    def data(at):
        return 0.3 + 0.5 * at - 0.2 * at**2

    # y_t = (r_t/r_s) y_s + ∫ e^{-(λ_t - λ)} x0(λ) dλ: variation of constants
    integral, _ = quad(lambda at: math.exp(-(lam[3] - at)) * data(at), lam[2], lam[3])
    combined = sum(weight * data(lam[point]) for point, weight in zip(update.points, update.weights, strict=True))
    assert combined == pytest.approx(integral, rel=1e-12)
    assert update.scale == sigmas[3] / sigmas[2]


def test_a_corrector_of_order_1_integrates_a_linear_noise_prediction_exactly():
    sigmas = (3.0, 1.4, 0.7)
    schedule = SolverSchedule(sigmas, (SolverStep(1, "noise", corrector=True), SolverStep()))
    first, second = compile_schedule(schedule)
    lam = [-math.log(sigma) for sigma in sigmas]

    def noise(at):
        return 1.1 - 0.4 * at

    y = 0.8
    predicted = y * first.predictor.scale + first.predictor.weights[0] * noise(lam[0])
    added = zip(second.corrector.points, second.corrector.weights, strict=True)
    corrected = predicted + sum(weight * noise(lam[point]) for point, weight in added)
    # y_t = y_s - ∫ e^{-λ} ε(λ) dλ
    integral, _ = quad(lambda at: math.exp(-at) * noise(at), lam[0], lam[1])
    assert corrected == pytest.approx(y - integral, rel=1e-12)
    assert predicted != pytest.approx(y - integral, rel=1e-3)


def test_a_step_to_zero_ends_at_its_data_prediction():
    steps = compile_schedule(SolverSchedule((4.0, 1.0, 0.0), (SolverStep(1, corrector=True), SolverStep(1, "noise"))))
    y, noise = 3.0, 0.5
    update = steps[1].predictor
    assert update.scale * y + update.weights[0] * noise == y - 1.0 * noise
    assert compile_schedule(SolverSchedule((4.0, 0.0), (SolverStep(),)))[0].predictor.weights == (1.0,)


def test_tiny_steps_have_finite_weights_that_change_nothing_suddenly():
    def weights(gap):
        sigmas = (2.0, 1.0, math.exp(-gap))
        schedule = SolverSchedule(sigmas, (SolverStep(), SolverStep(2, relaxation="bh2")))
        return np.array(compile_schedule(schedule)[1].predictor.weights) / gap

    for gap in (1e-3, 1e-6, 1e-9, 1e-12):
        # To first order in h: y + h x0, for whatever derivative.
        assert np.allclose(weights(gap), (1.0, 0.0), atol=2 * gap + 1e-3 * (gap < 1e-10))


def gaussian_mixture(y, r):
    """Noise prediction of the mixture ½N(-1, 0.3²) + ½N(1.5, 0.5²) at y = data + r·noise: exact."""
    means, scales = np.array([-1.0, 1.5]), np.array([0.3, 0.5])
    variance = scales**2 + r**2
    log = -0.5 * (y[:, None] - means) ** 2 / variance - 0.5 * np.log(variance)
    weight = np.exp(log - log.max(axis=1, keepdims=True))
    weight /= weight.sum(axis=1, keepdims=True)
    score = (weight * (means - y[:, None]) / variance).sum(axis=1)
    return -r * score


def sampled(schedule, y):
    """The loop of a sampler in y, with numpy."""
    samples, noises, datas = [], [], []
    for step in compile_schedule(schedule):
        noises.append(gaussian_mixture(y, step.sigma))
        datas.append(y - step.sigma * noises[-1])
        samples.append(y)
        for update in (step.corrector, step.predictor):
            if update is None:
                continue
            values = datas if update.prediction == "data" else noises
            y = update.scale * samples[update.start]
            y = y + sum(w * values[p] for p, w in zip(update.points, update.weights, strict=True))
            if update is step.corrector:
                samples[-1] = y
    return y


START, END = 5.0, 0.3
NOISES = START * np.array([-1.3, -0.4, 0.2, 0.9, 1.7])


@pytest.fixture(scope="module")
def exact():
    """dy/dr = ε(y, r), the probability-flow equation, by SciPy."""
    solution = solve_ivp(lambda r, y: gaussian_mixture(y, r), (START, END), NOISES, rtol=1e-12, atol=1e-13,
                         method="DOP853")  # fmt: skip
    return solution.y[:, -1]


def rate(exact, steps_of, *, base=40):
    """Measured order: by how much halving the steps shrinks the error. Short first steps start the history."""
    errors = []
    for count in (base, 2 * base):
        h = math.log(START / END) / count
        ends = [START, START * math.exp(-(h**2)), START * math.exp(-2 * h**2)]
        sigmas = (*ends, *np.geomspace(ends[-1], END, count + 1)[1:])
        schedule = SolverSchedule(sigmas, tuple(steps_of(index, len(sigmas) - 1) for index in range(len(sigmas) - 1)))
        errors.append(np.abs(sampled(schedule, NOISES) - exact).max())
    return math.log2(errors[0] / errors[1])


def multistep(order, **decisions):
    return lambda index, count: SolverStep(min(order, index + 1), **decisions)


@pytest.mark.parametrize("prediction", ["data", "noise"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_taylor_steps_converge_with_their_order(exact, order, prediction):
    assert rate(exact, multistep(order, prediction=prediction)) == pytest.approx(order, abs=0.25)


@pytest.mark.parametrize("kind", ["bh1", "bh2"])
@pytest.mark.parametrize("prediction", ["data", "noise"])
def test_relaxations_of_unipc_keep_order_2(exact, prediction, kind):
    assert rate(exact, multistep(2, prediction=prediction, relaxation=kind)) == pytest.approx(2, abs=0.3)


@pytest.mark.parametrize("prediction", ["data", "noise"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_a_corrector_adds_one_order(exact, order, prediction):
    def steps(index, count):
        return SolverStep(min(order, index + 1), prediction, corrector=index < count - 1)

    assert rate(exact, steps, base=160) == pytest.approx(order + 1, abs=0.25)


def test_half_the_second_derivative_or_one_point_loses_order_3(exact):
    assert rate(exact, multistep(3, second_scale=0.5)) == pytest.approx(2, abs=0.3)
    assert rate(exact, multistep(3, points=None)) > 2.7

    def low(index, count):
        return SolverStep(min(3, index + 1), points=1 if index > 1 else None)

    assert rate(exact, low) == pytest.approx(2, abs=0.3)


def test_singlestep_order_2_converges_with_order_2(exact):
    def steps(index, count):
        return SolverStep(1) if index % 2 == 0 else SolverStep(2, relaxation="bh2", start=-2)

    assert rate(exact, steps) == pytest.approx(2, abs=0.35)


def test_starting_in_the_middle_clips_the_history():
    schedule = SolverSchedule(
        (8.0, 4.0, 2.0, 1.0, 0.5, 0.25), (SolverStep(), SolverStep(2), *(SolverStep(3, start=-2) for _ in range(3)))
    )
    whole, middle = compile_schedule(schedule), compile_schedule(schedule, 2)
    assert [len(step.predictor.points) for step in middle] == [1, 2, 3]
    assert [step.predictor.start for step in middle] == [2, 2, 3]
    assert middle[2] == whole[4]
    assert all(point >= 2 for step in middle for point in step.predictor.points)
    with pytest.raises(InvalidSettings, match="a step from 0 to 4"):
        compile_schedule(schedule, 5)


def test_ten_steps_compile_in_less_than_a_millisecond():
    space = SolverSchedules(10, 80.0, (0.002, 0.003), min_nfe=10, analytic_first_step=False)
    values = [space.decode(row) for row in space.sample(np.random.default_rng(0), 50)]
    best = math.inf
    for _ in range(3):
        compile_schedule.cache_clear()
        start = time.process_time()
        for value in values:
            compile_schedule(value)
        best = min(best, (time.process_time() - start) / len(values))
    assert best < 1e-3


def test_exact_weights_by_hand():
    # λ steps of log 2: DDIM in data halves y and adds half of x0.
    step = compile_schedule(SolverSchedule((2.0, 1.0), (SolverStep(),)))[0]
    assert (Fraction(step.predictor.scale), Fraction(step.predictor.weights[0])) == (Fraction(1, 2), Fraction(1, 2))
