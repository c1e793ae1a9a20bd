"""Learning of general potentials: theory, mean field, Eq. 53 against Eq. 54 and against plain gradient flow."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from helpers import z_score
from thermorun import learning
from thermorun.errors import InputError, RunError
from thermorun.learning import mean_field as meanfield
from thermorun.learning import rates
from thermorun.learning import run as closed_loop
from thermorun.learning import spec as general
from thermorun.potentials import dynamics as simulation
from thermorun.potentials import exact as theory
from thermorun.potentials import potential as potentials

POTENTIALS = tuple(general.TARGETS)
SMALL = {"particles": 2048, "replicas": 8, "records": 40}


RING = """
from thermorun.learning import Potential

ring = Potential(
    "ring",
    lambda x, theta: theta[0] * (x[0] ** 2 + x[1] ** 2 - 1) ** 2 - theta[1] * x[0],
    lambda x, theta: (
        -4 * theta[0] * x[0] * (x[0] ** 2 + x[1] ** 2 - 1) + theta[1],
        -4 * theta[0] * x[1] * (x[0] ** 2 + x[1] ** 2 - 1),
    ),
    lambda x, theta: ((x[0] ** 2 + x[1] ** 2 - 1) ** 2, -x[0]),
    ("barrier", "pull"),
    (1.0, 0.0),
    dimension=2,
)
"""


def theory_of(spec):
    return theory.Theory(spec.built(), spec.beta, spec.mobility, [spec.start, spec.goal])


# --- Theory -----------------------------------------------------------------------------------------------------------


def test_every_built_in_has_a_target():
    assert POTENTIALS == potentials.NAMES


def test_closed_forms():
    """Trap and stiffness (physics of Hnybida & Verret 2025, Eqs. 60 to 62; 1/(2 k^2) and 1/(4 mu beta k^3))."""
    beta, mobility, k = 1.7, 0.6, 2.3
    trap = theory.Theory(potentials.load("trap"), beta, mobility, []).at(np.array([0.4]))
    assert (trap.fisher[0, 0], trap.friction[0, 0]) == pytest.approx((beta, 1 / mobility), rel=1e-9)
    spring = theory.Theory(potentials.load("stiffness"), beta, mobility, []).at(np.array([k]))
    wanted = 1 / (2 * k**2), 1 / (4 * mobility * beta * k**3), 1 / (2 * beta * k)
    assert (spring.fisher[0, 0], spring.friction[0, 0], spring.mean_gradient[0]) == pytest.approx(wanted, rel=1e-9)


def test_gaussian_theory_is_that_of_the_quadrature():
    potential, theta = potentials.load("trap-and-stiffness"), np.array([0.7, 2.5])
    closed = theory.Theory(potential, 1.3, 0.7, [theta]).at(theta)
    integrated = theory.Theory(replace(potential, quadratic=None), 1.3, 0.7, [theta]).at(theta)
    for name in ("free_energy", "mean_gradient", "fisher", "friction"):
        np.testing.assert_allclose(getattr(closed, name), getattr(integrated, name), atol=1e-9)


@pytest.mark.parametrize("name", ["gaussian", "chain"])
def test_gaussian_theory_against_particles(name):
    """g from exact draws; zeta from the response of <dE/dtheta> to a parameter that moves slowly."""
    spec = general.Learn(potential=name)
    potential, here = spec.built(), theory_of(spec).at(spec.goal)
    x = simulation.equilibrium(potential, spec.goal, 50_000, seed=3)[0]
    gradients = potential.gradients(x.T, spec.goal)
    away = gradients - here.mean_gradient[:, None]
    for i in range(len(away)):
        assert abs(z_score(gradients[i], here.mean_gradient[i])) < 4
        for j in range(i + 1):
            assert abs(z_score(away[i] * away[j], here.fisher[i, j])) < 4
    # Moved at the speed v, <dE/dtheta> lags by zeta v + O(v^2); the mean of +v and -v leaves O(v^3).
    law, speed, dt = {}, 1e-3 * np.random.default_rng(1).normal(size=len(spec.goal)), 0.01
    for sign in (1, -1):
        law[sign] = meanfield._Gaussian(theory_of(spec), spec.goal - 15 * sign * speed)
        for n in range(1500):
            law[sign].relax(spec.goal + (n + 0.5 - 1500) * dt * sign * speed, dt)
    lag = [sign * (law[sign].gradient(spec.goal) - here.mean_gradient) for sign in (1, -1)]
    np.testing.assert_allclose(0.5 * (lag[0] + lag[1]), here.friction @ speed, rtol=1e-3, atol=1e-8)


def test_data_has_the_means_of_its_law():
    for name in POTENTIALS:
        spec = general.Learn(potential=name)
        exact = theory_of(spec)
        data = exact.data(spec.goal)
        assert np.sum(data.weights) == pytest.approx(1, abs=1e-12)
        gradient = data.mean_gradient(spec.built(), spec.goal)
        np.testing.assert_allclose(gradient, exact.at(spec.goal).mean_gradient, atol=1e-9)


@pytest.mark.parametrize("name", ["stiffness", "double-well", "bistable"])
def test_natural_flow_of_an_exponential_family(name):
    """Along Eq. 54 the mean of dE/dtheta goes straight to that of the data, whatever the potential."""
    spec = general.Learn(potential=name)
    exact, times = theory_of(spec), np.array([0.0, 0.3, 0.7, 0.95])
    flow = theory.natural_flow(exact, exact.data(spec.goal), spec.start, times)
    first, last = (exact.at(one).mean_gradient for one in (spec.start, spec.goal))
    for t, one in zip(times, flow, strict=True):
        np.testing.assert_allclose(exact.at(one).mean_gradient, first + t * (last - first), atol=1e-6)


# --- Mean field -------------------------------------------------------------------------------------------------------


def test_mean_field_of_the_trap():
    """Eqs. 12 and 13 with the schedule of Eq. 53: W_ex = 0.159234, theta(tau) = 0.993262 at mu tau = 5."""
    spec = general.Learn(potential="trap", tau=5.0)
    exact = theory_of(spec)
    path = meanfield.learn(exact, exact.data(spec.goal), spec.start, spec.goal, "natural", 5.0, 800, 5.0)
    assert path.work[-1] == pytest.approx(0.159234, abs=2e-6)
    assert path.theta[-1, 0] == pytest.approx(0.993262, abs=2e-6)


def test_mean_field_of_a_stiffness_is_the_moment_equation():
    """d<x^2>/dt = 2 mu (kT - k <x^2>), dk/dt = -eta (<x^2>_data - <x^2>) / 2, dW = <x^2> dk / 2; grid and Gaussian."""
    spec = general.Learn(potential="stiffness", tau=4.0)

    def slope(t, y):
        square, k, _ = y
        eta = 1 / ((4.0 - t) / (2 * k**2) + 1 / (4 * k**3))
        speed = -eta * 0.5 * (1 / 3 - square)
        return 2 * (1 - k * square), speed, 0.5 * square * speed

    truth = solve_ivp(slope, (0, 4), (1.0, 1.0, 0.0), rtol=1e-10, atol=1e-12).y[:, -1]
    for potential in (spec.built(), replace(spec.built(), quadratic=None)):
        exact = theory.Theory(potential, 1.0, 1.0, [spec.start, spec.goal])
        path = meanfield.learn(exact, exact.data(spec.goal), spec.start, spec.goal, "natural", 4.0, 600, 4.0)
        assert path.theta[-1, 0] == pytest.approx(truth[1], abs=2e-4)
        assert path.work[-1] == pytest.approx(truth[2], abs=2e-4)


# --- The closed loop --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", POTENTIALS)
def test_work_theta_and_bias_of_every_built_in(name):
    """Against infinitely many particles; and dL_bias/dt = d<W_ex>/dt, each measured by itself (Eqs. 18 to 20)."""
    run = learning.learn(potential=name, rules="natural", tau=6.0, steps=None, **SMALL)["natural"]
    for row in (10, 25, -1):
        # With 8 replicas the spread is known to a quarter: Student's t at this |t| is as rare as |z| = 4.
        assert abs(run.estimate("excess_work", row).z(run.exact["exact_excess_work"][row])) < 8
        error = run.theta[row].std(axis=0, ddof=1) / np.sqrt(8)
        assert np.all(np.abs(run.theta[row].mean(axis=0) - run.exact_theta[row]) < 8 * error + 2e-3)
    _, work, error = run.rates_of("excess_work")
    _, bias, _ = run.rates_of("bias")
    np.testing.assert_allclose(bias, work, atol=2e-3 * np.max(np.abs(work)))
    assert np.max(np.abs(bias)) > 10 * np.max(np.abs(bias - work))
    assert np.max(np.abs(run.series["first_law_residual"])) < 1e-12
    assert np.all(np.diff(run.series["loss"].mean(axis=1)) < 0.02)


def test_theorem_1():
    """Eq. 53 comes near Eq. 54 as tau grows, in the run as with infinitely many particles."""
    spec = general.Learn(potential="bistable", particles=2**15, replicas=8, records=40)
    passages, exponent = learning.theorem(spec, (3.0, 6.0, 12.0))
    assert -2.3 < exponent < -1.4
    for passage in passages:
        assert abs(passage.measured.z(passage.deviation)) < 8
    assert passages[0].measured.mean > 8 * passages[0].measured.stderr


@pytest.mark.parametrize("name", ["stiffness", "double-well", "bistable", "quartic"])
def test_eq_53_costs_less_than_gradient_flow(name):
    """At the same time and the same final accuracy, in potentials that the paper did not solve."""
    accuracy = 0.02
    result = learning.learn(potential=name, tau=8.0, accuracy=accuracy, **SMALL)
    natural, gradient = result["natural"], result["gradient"]
    for rule in result:
        assert rule.exact["exact_loss"][-1] == pytest.approx(accuracy * rule.exact["exact_loss"][0], rel=0.02)
    assert natural.constant > 8.0
    difference = gradient.excess_work.mean - natural.excess_work.mean
    assert difference > 4 * np.hypot(gradient.excess_work.stderr, natural.excess_work.stderr)
    assert gradient.exact["exact_excess_work"][-1] > 1.3 * natural.exact["exact_excess_work"][-1]


def test_matrix_and_scalar_rates():
    fisher, friction = np.array([[2.0, 0.5], [0.5, 1.0]]), np.array([[1.0, 0.2], [0.2, 3.0]])
    matrix = rates.eta("natural", 1.5, fisher, friction, 2.0)
    np.testing.assert_allclose(np.linalg.inv(matrix), 1.5 / 2.0 * fisher + friction)
    scalar = rates.eta("scalar", 1.5, fisher, friction, 2.0)
    assert scalar[0, 0] == pytest.approx(np.linalg.eigvalsh(matrix)[0])
    np.testing.assert_array_equal(scalar, scalar[0, 0] * np.eye(2))


def test_estimated_metric_is_near_theory():
    spec = general.Learn(potential="double-well", metric="estimated", replicas=4)
    potential, theta = spec.built(), np.tile(spec.goal, (4, 1))
    side = rates.Estimated(potential, 1.0, 1.0, 8192, 1, 1e-9, 0.01, "heun", 3, 2**40)
    side.start(theta, "float64")
    x = simulation.equilibrium(potential, spec.goal, 2**16, replicas=4, seed=9)
    fisher, friction = side.at(0, theta, x)
    truth = theory_of(spec).at(spec.goal)
    for found, exact in ((fisher, truth.fisher), (friction, truth.friction)):
        error = found.std(axis=0, ddof=1) / 2
        # What lies beyond the window is at most a few per cent.
        assert np.all(np.abs(found.mean(axis=0) - exact) < 8 * error + 0.05 * np.sqrt(np.outer(*[np.diag(exact)] * 2)))


def test_learning_with_an_estimated_metric():
    run = learning.learn(potential="trap-and-stiffness", rules="natural", metric="estimated", side=1024, **SMALL)
    rule = run["natural"]
    assert rule.estimate("loss").mean < 0.01 * rule.estimate("loss", 0).mean
    assert rule.excess_work.mean == pytest.approx(rule.exact["exact_excess_work"][-1], rel=0.2)


def test_learning_from_samples():
    run = learning.learn(potential="stiffness", rules="natural", samples=500, **SMALL)["natural"]
    x = closed_loop.Problem(run.spec).data[0]
    # Where all is learned, <x^2> is that of the sample: k = 1 / <x^2>.
    best = 1 / np.mean(x[:, 0] ** 2, axis=1)
    np.testing.assert_allclose(run.theta[-1, :, 0], best, rtol=0.15)
    assert np.corrcoef(run.theta[-1, :, 0], best)[0, 1] > 0.5


def test_a_potential_without_theory(tmp_path):
    """Two dimensions and not quadratic: the metric is estimated, the data are samples, excess work is not known."""
    (tmp_path / "mine.py").write_text(RING)
    words = ("--target", "1.5,0.3", "--particles", 1024, "--replicas", 4, "--tau", 2, "--steps", 400, "--side", 256)
    run = thermorun("learn", "--potential", "mine.py:ring", *words, folder=tmp_path)
    assert run.returncode == 2
    assert "so that its metric is not known; let it be estimated." in run.stderr
    more = ("--metric", "estimated", "--samples", 2000, "--eta", 1)
    run = thermorun("learn", "--potential", "mine.py:ring", *words, *more, "--json", folder=tmp_path)
    assert (run.returncode, run.stderr) == (0, "")
    natural = json.loads(run.stdout)["results"][0]
    assert natural["excess_work"] is None
    assert natural["theta_final"] == pytest.approx([1.5, 0.3], abs=0.15)


# --- Files, threads, bad input ----------------------------------------------------------------------------------------


def test_threads_and_files(tmp_path):
    spec = general.Learn(
        potential="double-well", tau=2.0, steps=200, metric="estimated", side=1024, refresh=40, **SMALL
    )
    one = learning.learn(spec, threads=1)
    two = learning.learn(spec, threads=2, out=tmp_path / "a.h5")
    stored = learning.load_learned(tmp_path / "a.h5")
    for rule in spec.rules:
        for result in (two, stored):
            np.testing.assert_array_equal(result[rule].theta, one[rule].theta)
            for name in general.SERIES:
                np.testing.assert_array_equal(result[rule].series[name], one[rule].series[name])
        np.testing.assert_array_equal(stored[rule].flow, one[rule].flow)
    assert general.Learn.from_json(spec.to_json()) == spec


@pytest.mark.parametrize("metric", ["theory", "estimated"])
def test_resume_changes_no_bit(tmp_path, monkeypatch, metric):
    spec = general.Learn(
        potential="double-well", tau=2.0, steps=200, metric=metric, side=1024, refresh=20, rules=("natural",), **SMALL
    )
    whole = learning.learn(spec)["natural"]
    jump = closed_loop._Run._jump

    def stopping(run, n):
        if n == 71:
            raise MemoryError
        jump(run, n)

    monkeypatch.setattr(closed_loop._Run, "_jump", stopping)
    with pytest.raises(MemoryError):
        learning.learn(spec, out=tmp_path / "a.h5", checkpoint_every=0.0)
    monkeypatch.setattr(closed_loop._Run, "_jump", jump)
    again = learning.learn(spec, out=tmp_path / "a.h5", resume=True)["natural"]
    np.testing.assert_array_equal(again.theta, whole.theta)
    for name in general.SERIES:
        np.testing.assert_array_equal(again.series[name], whole.series[name])


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"potential": "well"}, "potential is 'well'; it must be one of trap"),
        ({"theta": (-1.0, 0.0)}, "theta leaves the valid region of double-well: barrier is -1; it must be positive."),
        ({"target": (1.0,)}, "target has 1 values; double-well has 2 parameters, barrier, tilt."),
        ({"rules": "best"}, "rule is 'best'; it must be one of natural, scalar, gradient."),
        ({"metric": "best"}, "metric is 'best'; it must be one of theory, estimated."),
        ({"accuracy": 2.0}, "accuracy is 2.0; it must be a share between 0 and 1."),
        ({"tau": -1.0}, "tau is -1.0; it must be a positive finite number."),
        ({"integrator": "exact"}, "integrator is 'exact', but double-well is not quadratic"),
        ({"steps": 3}, "steps is 3, too few for heun"),
        ({"replicas": 0}, "replicas is 0; it must be an integer of at least 1."),
        ({"fingerprint": "other"}, "potential is 'double-well', which was changed since the run began."),
    ],
)
def test_bad_specs(fields, sentence):
    with pytest.raises(InputError) as caught:
        general.Learn(**fields)
    assert sentence in str(caught.value)


def _doubled():
    """Two parameters that do the same."""
    return learning.exponential_family(
        "doubled", lambda x: 0.0 * x, lambda x: 0.0 * x, lambda x: (0.5 * x * x, x * x), lambda x: (x, 2.0 * x),
        ("one", "other"), (1.0, 1.0),
    )  # fmt: skip


def test_singular_metric_and_paths_out_of_the_valid_region(monkeypatch):
    monkeypatch.setattr(potentials, "load", lambda name: _doubled())
    with pytest.raises(InputError, match=r"the Fisher metric of doubled .* is singular there"):
        learning.learn(potential="doubled", target=(2.0, 1.0))
    monkeypatch.undo()
    well = replace(
        potentials.load("double-well"), why_invalid=lambda theta: "too flat." if 1.2 < theta[0] < 1.3 else None
    )
    monkeypatch.setattr(potentials, "load", lambda name: well)
    with pytest.raises(InputError, match=r"the path of Eq\. 54 leaves the valid region of double-well: too flat\."):
        learning.learn(potential="double-well", target=(1.5, 0.5), rules="natural")


def test_no_rate_is_fast_enough():
    with pytest.raises(InputError, match="in which no constant eta brings trap as near to its target as asked"):
        learning.learn(potential="trap", rules="gradient", accuracy=1e-6, tau=4.0)
    with pytest.raises(InputError, match=r"accuracy is 1e-06, which natural misses at tau 4, whatever"):
        learning.learn(potential="trap", rules="natural", accuracy=1e-6, tau=4.0)


def test_learning_its_way_out():
    with pytest.raises((RunError, InputError), match=r"leaves the valid region of stiffness|learned its way out"):
        learning.learn(potential="stiffness", theta=(3.0,), target=(0.2,), rules="gradient", eta=50.0, tau=2.0)


# --- The command ------------------------------------------------------------------------------------------------------


def thermorun(*words, folder):
    return subprocess.run(
        [sys.executable, "-m", "thermorun", *map(str, words)], cwd=folder, capture_output=True, text=True, check=False
    )


def test_command(tmp_path):
    words = ("learn", "--potential", "stiffness", "--particles", 1024, "--replicas", 4, "--tau", 5, "--seed", 3)
    run = thermorun(*words, "--theorem", "4,8", "--json", "--out", "a.h5", folder=tmp_path)
    assert (run.returncode, run.stderr) == (0, "")
    report = json.loads(run.stdout)
    assert [entry["rule"] for entry in report["results"]] == ["natural", "gradient"]
    assert {"eta", "excess_work", "exact_excess_work", "bias_minus_excess_work"} <= report["results"][1].keys()
    assert report["theorem"]["exponent"] < -1
    assert (tmp_path / "a.png").stat().st_size > 10_000
    table = thermorun("resume", "a.h5", folder=tmp_path)
    assert "Learning of stiffness" in table.stdout
    assert "…" not in table.stdout
    assert thermorun(*words, "--dt", -1, folder=tmp_path).stderr == (
        "thermorun: dt is -1.0; it must be a positive finite number.\n"
    )
    assert thermorun(*words, "--theta", "a", folder=tmp_path).returncode == 2


def test_ctrl_c_says_how_to_go_on(tmp_path):
    words = ("learn", "--potential", "stiffness", "--particles", "200000", "--steps", "50000", "--out", "a.h5")
    with subprocess.Popen(
        [sys.executable, "-m", "thermorun", *words], cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=os.environ
    ) as process:
        while not (tmp_path / "a.h5").exists():
            time.sleep(0.05)
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
    assert process.returncode == 130
    assert said == "thermorun: stopped; all that is done is in a.h5: go on with 'thermorun resume a.h5'.\n"
    assert Path(tmp_path / "a.h5.checkpoint").exists()
