"""Free energies from work: estimators against exact laws of work, then ensembles against exact free energies."""

import importlib.util
import json
import math
import pickle
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import xarray
from scipy.integrate import quad
from scipy.stats import norm

from helpers import z_score
from thermorun import learning
from thermorun.errors import InputError, RunError
from thermorun.free_energy import run as switching
from thermorun.free_energy.estimators import ESTIMATORS, FEWEST, analyse_works
from thermorun.learning import figures
from thermorun.learning.trap import exact
from thermorun.potentials import dynamics as simulation
from thermorun.potentials import potential as potentials
from thermorun.store.runfile import is_complete


def gaussian_works(rng, delta_f, width, beta, forward, reverse):
    """Works of a process whose forward law is Gaussian: Crooks' relation then fixes the reverse law.

    Delta F = mean - beta variance / 2, and -W of the reverse has mean Delta F - beta variance / 2, the same variance.
    """
    loss = beta * width**2 / 2
    return delta_f + loss + width * rng.standard_normal(forward), -delta_f + loss + width * rng.standard_normal(reverse)


def answers(analyses, estimator, truth):
    """Mean and standard error of an estimator over many analyses, and its z."""
    mean = np.array([analysis[estimator].delta_f.mean for analysis in analyses])
    stderr = np.array([analysis[estimator].delta_f.stderr for analysis in analyses])
    return mean, stderr, (mean - truth) / stderr


# Widths in kT, and how many works forward and reverse.
GAUSSIAN_CASES = [(0.5, 50, 50), (1.0, 100, 100), (1.0, 60, 600), (1.5, 1000, 200), (2.0, 2000, 2000)]


@pytest.mark.parametrize(("width", "forward", "reverse"), GAUSSIAN_CASES)
def test_every_estimator_and_its_standard_error(width, forward, reverse):
    rng = np.random.default_rng(round(1000 * width) + forward)
    delta_f, beta, runs = -3.7, 2.5, 300
    analyses = [
        analyse_works(*gaussian_works(rng, delta_f, width / beta, beta, forward, reverse), beta) for _ in range(runs)
    ]
    for estimator in ESTIMATORS:
        mean, stderr, z = answers(analyses, estimator, delta_f)
        if np.any(np.isnan(stderr)):
            effective = np.array([analysis[estimator].effective for analysis in analyses])
            assert np.array_equal(np.isnan(stderr), effective < FEWEST)
            continue
        assert np.mean(np.abs(z) < 4) >= 0.95
        if not estimator.startswith("jarzynski") or np.median(stderr) * beta < 0.1:
            assert abs(np.mean(mean - delta_f)) < 4 * np.std(mean) / runs**0.5 + 0.1 * np.median(stderr), estimator
            assert 0.8 < np.mean(z**2) < 1.25, estimator
    slope = np.array([analysis.slope.z(1.0) for analysis in analyses])
    assert 0.8 < np.mean(slope**2) < 1.25
    assert all("Crooks" not in warning for analysis in analyses for warning in analysis.warnings)


def test_bar_has_the_smallest_error():
    rng = np.random.default_rng(0)
    analysis = analyse_works(*gaussian_works(rng, 1.0, 1.0, 1.0, 5000, 5000))
    assert analysis.bar.delta_f.stderr < 1.01 * min(result.delta_f.stderr for result in analysis.results)


@pytest.mark.parametrize("width", [0.3, 1.0, 3.0])
def test_overlap_and_standard_error_are_those_of_the_laws_themselves(width):
    """With infinitely many works O = 2 * integral of P_F P_R / (P_F + P_R), and BAR's error follows from it."""
    count = 200_000
    analysis = analyse_works(*gaussian_works(np.random.default_rng(1), 0.4, width, 1.0, count, count))
    forward, reverse = norm(0.4 + width**2 / 2, width), norm(0.4 - width**2 / 2, width)

    def shared(w):
        return 2 * forward.pdf(w) * reverse.pdf(w) / (forward.pdf(w) + reverse.pdf(w))

    overlap, _ = quad(shared, 0.4 - 8 * width - width**2, 0.4 + 8 * width + width**2, points=[0.4], limit=200)
    assert analysis.overlap == pytest.approx(overlap, rel=0.01)
    assert analysis.bar.delta_f.stderr == pytest.approx((2 / count * (1 / overlap - 1)) ** 0.5, rel=0.02)
    assert analysis.forward.mean == pytest.approx(0.4 + width**2 / 2, abs=5 * width / count**0.5)


@pytest.mark.parametrize("width", [1.0, 1.5])
def test_bias_of_jarzynski(width):
    rng = np.random.default_rng(2)
    runs, count = 1500, 50
    analyses = [analyse_works(*gaussian_works(rng, 0.0, width, 1.0, count, count)) for _ in range(runs)]
    for estimator, sign in (("jarzynski-forward", 1), ("jarzynski-reverse", -1)):
        mean = np.array([analysis[estimator].delta_f.mean for analysis in analyses])
        expected = np.mean([analysis[estimator].bias for analysis in analyses])
        error = np.std(mean) / runs**0.5
        assert sign * np.mean(mean) > 2 * error
        assert abs(np.mean(mean) - expected) < 4 * error + 0.3 * abs(expected)


@pytest.mark.parametrize(("width", "count"), [(3, 30), (4, 50), (5, 100), (6, 300), (8, 100), (12, 20), (40, 100)])
def test_poor_overlap_is_wide_or_unknown_and_says_so(width, count):
    rng = np.random.default_rng(width)
    analyses = [analyse_works(*gaussian_works(rng, 5.0, width, 1.0, count, count)) for _ in range(200)]
    for analysis in analyses:
        for result in analysis.results:
            assert result.delta_f.stderr > 0 or np.isnan(result.delta_f.stderr)
            assert np.isfinite(result.delta_f.stderr) or result.warning is not None
        for estimator in ("jarzynski-forward", "jarzynski-reverse"):
            assert np.isnan(analysis[estimator].delta_f.stderr)
    # Where BAR still gives an error it is right, or larger than it need be.
    _, stderr, z = answers(analyses, "bar", 5.0)
    known = np.isfinite(stderr)
    assert np.all(known == np.array([analysis.bar.effective >= 2 for analysis in analyses]))
    if np.mean(known) > 0.9:
        assert np.mean(z[known] ** 2) < 1.25
    if width >= 5:
        assert all(analysis.verdict.startswith("Poor overlap") for analysis in analyses)


@pytest.mark.parametrize(
    ("forward", "reverse"),
    [
        ([1.0], [-1.0]),
        ([1.0] * 10, [-1.0] * 10),
        ([0.0] * 4, [0.0] * 9),
        ([1.0], [0.3]),
        ([1e8], [1e8]),
        ([2.0], [1] * 99),
    ],
)
def test_works_that_do_not_tell_their_error(forward, reverse):
    analysis = analyse_works(forward, reverse)
    for result in analysis.results:
        assert np.isnan(result.delta_f.stderr)
        assert result.warning is not None
    assert min(-np.array(reverse)) <= analysis.bar.delta_f.mean <= max(forward)
    json.dumps(analysis.to_dict(), allow_nan=False)


def test_two_equal_works_of_many_do_no_harm():
    works = np.random.default_rng(3).standard_normal(1000) + 0.5
    works[:200] = works[0]
    analysis = analyse_works(works, works)
    assert analysis.bar.delta_f.mean == pytest.approx(0.0, abs=1e-9)
    assert np.isfinite(analysis.bar.delta_f.stderr)


def test_works_that_break_crooks_relation_are_seen():
    rng = np.random.default_rng(4)
    forward, reverse = gaussian_works(rng, 0.0, 1.0, 1.0, 5000, 5000)
    assert analyse_works(forward, reverse).warnings == ()
    assert "slope 0.7" in " ".join(analyse_works(forward / 0.7, reverse / 0.7).warnings)
    apart = analyse_works(0.1 * rng.random(1000), 0.1 * rng.random(1000))
    assert "never cross" in apart.verdict
    assert np.isnan(apart["crossing"].delta_f.stderr)


def test_units_and_direction():
    """Energies scale with kT, and the opposite process has the opposite Delta F."""
    forward, reverse = gaussian_works(np.random.default_rng(5), 2.0, 1.0, 1.0, 400, 300)
    here, cold = analyse_works(forward, reverse), analyse_works(forward / 7, reverse / 7, beta=7.0)
    back = analyse_works(reverse, forward)
    opposite = {"jarzynski-forward": "jarzynski-reverse", "jarzynski-reverse": "jarzynski-forward"}
    for estimator in ESTIMATORS:
        result, other = here[estimator], back[opposite.get(estimator, estimator)]
        assert cold[estimator].delta_f.mean == pytest.approx(result.delta_f.mean / 7, rel=1e-9)
        assert cold[estimator].delta_f.stderr == pytest.approx(result.delta_f.stderr / 7, rel=1e-6)
        assert other.delta_f.mean == pytest.approx(-result.delta_f.mean, rel=1e-6)
        assert other.delta_f.stderr == pytest.approx(result.delta_f.stderr, rel=1e-6)
        if result.bias is not None:
            assert other.bias == pytest.approx(-result.bias, rel=1e-6)


@pytest.mark.parametrize(
    ("forward", "reverse", "beta", "sentence"),
    [
        ([], [1.0], 1.0, r"forward has shape \(0,\); it must be a list of at least one work."),
        ([[1.0]], [1.0], 1.0, r"forward has shape \(1, 1\)"),
        ([1.0], [1.0, np.nan, np.inf], 1.0, "reverse holds 2 works that are not finite numbers."),
        ([1.0], [1.0], -1.0, "beta is -1.0; it must be a positive finite number."),
    ],
)
def test_bad_works(forward, reverse, beta, sentence):
    with pytest.raises(InputError, match=sentence):
        analyse_works(forward, reverse, beta)


@pytest.mark.skipif(
    importlib.util.find_spec("pymbar") is None, reason="pymbar, an independent BAR, is not installed: .[peers]"
)
def test_pymbar_agrees(tmp_path):
    """In a process of its own: importing pymbar changes JAX's settings and prints."""
    rng = np.random.default_rng(6)
    cases = [
        gaussian_works(rng, 1.5, width, 1.0, n, m) for width, n, m in ((1, 500, 700), (2, 300, 100), (4, 400, 400))
    ]
    np.savez(
        tmp_path / "works.npz",
        **{f"{side}{i}": works for i, pair in enumerate(cases) for side, works in zip("FR", pair, strict=True)},
    )
    code = (
        "import json, sys, numpy as np\n"
        "from pymbar import bar, bar_overlap, exp\n"
        "works = np.load('works.npz')\n"
        "found = []\n"
        "for i in range(len(works) // 2):\n"
        "    f, r = works[f'F{i}'], works[f'R{i}']\n"
        "    b = bar(f, r, uncertainty_method='MBAR')\n"
        "    one_way = [exp(f)['Delta_f'], -exp(r)['Delta_f']]\n"
        "    found.append([b['Delta_f'], b['dDelta_f'], float(bar_overlap(f, r)), *one_way])\n"
        "open('found.json', 'w').write(json.dumps(found))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    for pair, found in zip(cases, json.loads((tmp_path / "found.json").read_text()), strict=True):
        analysis = analyse_works(*pair)
        ours = [analysis.bar.delta_f.mean, analysis.bar.delta_f.stderr, analysis.overlap]
        ours += [analysis[name].delta_f.mean for name in ESTIMATORS[2:]]
        assert ours == pytest.approx(found, rel=1e-6)


# --- Ensembles --------------------------------------------------------------------------------------------------------

# A potential of a user's own, and one in two dimensions of which nothing is known exactly.
USERS_FILE = """
import math

from numba import njit

from thermorun.potentials.potential import Potential


@njit
def energy(x, theta):
    return 0.5 * x * x + theta[0] * math.cos(3.0 * x) + theta[1] * x


@njit
def force(x, theta):
    return -x + 3.0 * theta[0] * math.sin(3.0 * x) - theta[1]


@njit
def gradient(x, theta):
    return math.cos(3.0 * x), x


ripple = Potential("ripple", energy, force, gradient, ("depth", "slope"), (0.5, 0.0))
plane = Potential(
    "plane",
    lambda x, theta: 0.5 * theta[0] * (x[0] * x[0] + x[1] * x[1]) + 0.25 * (x[0] - x[1]) ** 4,
    lambda x, theta: (-theta[0] * x[0] - (x[0] - x[1]) ** 3, -theta[0] * x[1] + (x[0] - x[1]) ** 3),
    lambda x, theta: (0.5 * (x[0] * x[0] + x[1] * x[1]),),
    ("stiffness",),
    (1.0,),
    dimension=2,
)
steep = Potential("steep", lambda x, theta: theta[0] * x * x, lambda x, theta: -theta[0] * x, lambda x, theta: (x * x,),
                  ("k",), (1.0,))
bowl = Potential("bowl", lambda x, theta: theta[0] * x * x, lambda x, theta: -2.0 * theta[0] * x,
                 lambda x, theta: (x * x,), ("k",), (1.0,))
"""

RUNS = {
    "double-well": {"potential": "double-well", "start": (2.0, 0.0), "end": (2.0, 1.0), "duration": 1.0},
    "stiffness": {"potential": "stiffness", "start": (1.0,), "end": (5.0,), "duration": 0.5},
    "ripple": {"potential": "ripple", "start": (0.5, 0.0), "end": (1.0, 1.5), "duration": 1.0, "beta": 2.0},
}


@pytest.fixture(scope="module")
def users_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("user") / "mine.py"
    path.write_text(USERS_FILE)
    return path


def settings(name, users_file, **others):
    fields = dict(RUNS[name])
    if name == "ripple":
        fields["potential"] = f"{users_file}:ripple"
    return fields | others


def truth_by_quad(energy, start, end, beta):
    def log_z(theta):
        weights = [
            quad(lambda x: math.exp(-beta * energy(x, theta)), a, a + 1, epsabs=1e-14)[0] for a in range(-20, 20)
        ]
        return math.log(math.fsum(weights))

    return -(log_z(end) - log_z(start)) / beta


TRUTHS = {
    "double-well": lambda x, theta: theta[0] * (x * x - 1) ** 2 + theta[1] * x,
    "stiffness": lambda x, theta: theta[0] * x * x / 2,
    "ripple": lambda x, theta: x * x / 2 + theta[0] * math.cos(3 * x) + theta[1] * x,
}


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("particles", [100, 400])
def test_two_hundred_small_runs(name, particles, users_file):
    """Delta F within |z| < 4 of quadrature in at least 95%, and standard errors calibrated; any group is a run."""
    runs = 200
    result = learning.free_energy(**settings(name, users_file), particles=runs * particles, seed=particles)
    spec = result.spec
    truth = truth_by_quad(TRUTHS[name], spec.start, spec.end, spec.beta)
    assert result.exact == pytest.approx(truth, abs=1e-9)
    analyses = [
        analyse_works(forward, reverse, spec.beta)
        for forward, reverse in zip(result.forward.reshape(runs, -1), result.reverse.reshape(runs, -1), strict=True)
    ]
    for estimator in ESTIMATORS:
        _, stderr, z = answers(analyses, estimator, truth)
        known = np.isfinite(stderr)
        assert np.sum(np.abs(z[known]) < 4) >= 0.95 * np.sum(known)
        if estimator in ("bar", "crossing"):
            assert np.all(known)
            assert 0.8 < np.mean(z**2) < 1.25, estimator
            assert abs(np.mean(z)) < 4 / runs**0.5
    everything = result.analysis
    for estimator in ESTIMATORS:
        if everything[estimator].warning is None:
            assert abs(everything[estimator].delta_f.z(truth)) < 4
    assert abs(everything.slope.z(1.0)) < 4
    # Few of the particles that start in the narrow trap of the stiffness make the works that its wide one would need.
    assert len(everything.warnings) == (name == "stiffness")
    # Jarzynski's relation itself, and the second law that it implies.
    for works, delta_f, direction in ((result.forward, truth, "forward"), (result.reverse, -truth, "reverse")):
        if everything[f"jarzynski-{direction}"].warning is None:
            assert abs(z_score(np.exp(-spec.beta * (works - delta_f)), 1.0)) < 4
        assert np.mean(works) > delta_f
    assert result.first_law_residual < 1e-11


def test_crooks_relation_bin_by_bin():
    result = learning.free_energy(**RUNS["double-well"], particles=200_000)
    forward, mirrored = result.forward, -result.reverse
    edges = np.quantile(np.concatenate([forward, mirrored]), np.linspace(0, 1, 21))
    counts = np.array([np.histogram(works, edges)[0] for works in (forward, mirrored)])
    # The relation between the bins' probabilities is exact with the mean of exp(beta (W - Delta F)) over a bin.
    where = np.digitize(mirrored, edges[1:-1])
    factors = np.exp(mirrored - result.exact)
    expected = np.array([np.sum(factors[where == bin_]) for bin_ in range(20)])
    variance = counts[0] + np.array([np.sum(factors[where == bin_] ** 2) for bin_ in range(20)])
    z = (counts[0] - expected) / np.sqrt(variance)
    assert np.max(np.abs(z)) < 4
    assert 0.3 < np.mean(z**2) < 2


def test_exact_steps_obey_crooks_relation_however_long_they_are():
    result = learning.free_energy(
        potential="stiffness", start=(1.0,), end=(9.0,), duration=1.0, steps=2, particles=40_000
    )
    assert result.spec.integrator == "exact"
    assert abs(result.delta_f.z(math.log(3.0))) < 4
    assert abs(result.analysis.slope.z(1.0)) < 4


def test_mean_work_of_a_moving_trap():
    """Eq. 64, both ways: a translated trap loses nothing but the excess work."""
    result = learning.free_energy(potential="trap", start=(0.0,), end=(2.0,), duration=3.0, steps=300, particles=50_000)
    work = exact.work_straight_line(1.0, 3.0, 2.0 / 3.0)
    assert abs(result.analysis.forward.z(work)) < 4
    assert abs(result.analysis.reverse.z(work)) < 4
    # The works are Gaussian, and Delta F = mean - beta variance / 2.
    assert np.var(result.forward) == pytest.approx(2 * work, rel=0.03)
    assert (result.exact, result.exact_from) == (0.0, "closed form")


def test_a_step_that_is_too_long_shows(monkeypatch):
    fields = RUNS["double-well"] | {"particles": 100_000}
    fine = learning.free_energy(**fields)
    assert abs(fine.delta_f.z(fine.exact)) < 4
    assert fine.verdict.startswith("Good overlap")
    coarse = learning.free_energy(**fields, steps=28)
    assert abs(coarse.delta_f.z(coarse.exact)) > 5
    assert "standard errors from the exact value: take more than 28 steps." in coarse.verdict
    # Where nothing is exact the step itself is the only sign.
    monkeypatch.setattr(switching, "exact_delta_f", lambda *arguments: (None, None))
    blind = learning.free_energy(**fields | {"particles": 1000}, steps=28)
    assert f"the default would be {fine.spec.steps}: see whether twice the steps" in blind.verdict
    assert blind.to_dict()["verdict"] == blind.warnings[0]


@pytest.mark.slow
def test_an_eighth_of_the_default_steps_does_not_show_among_a_million():
    fields = RUNS["double-well"] | {"particles": 1_000_000}
    result = learning.free_energy(**fields, steps=learning.FreeEnergy(**fields).default_steps() // 8)
    assert abs(result.delta_f.z(result.exact)) < 4


def test_any_path_gives_the_same_delta_f():
    s = np.linspace(0, 1, 30)[:, None]
    path = np.array([2.0, 0.0]) + s * np.array([0.0, 1.0]) + np.sin(np.pi * s) * np.array([-1.0, 0.3])
    fields = RUNS["double-well"] | {"duration": 2.0, "particles": 50_000}
    curved = learning.free_energy(**fields, path=tuple(map(tuple, path)))
    assert abs(curved.delta_f.z(curved.exact)) < 4
    straight = learning.FreeEnergy(**fields)
    assert not np.allclose(curved.spec.thetas(), np.resize(straight.thetas(), curved.spec.thetas().shape), atol=0.1)
    np.testing.assert_array_equal(curved.spec.thetas("reverse"), curved.spec.thetas()[::-1])


def test_more_dimensions(users_file):
    """A Gaussian has its closed form; without one there is no exact value, and the start comes from a burn-in."""
    gaussian = learning.free_energy(
        potential="gaussian", start=(0, 0, 1, 0, 1), end=(1, 0, 2, 0.5, 1), duration=2.0, particles=40_000, seed=1
    )
    assert gaussian.exact == pytest.approx(0.5 * math.log(2 - 0.25))
    assert abs(gaussian.delta_f.z(gaussian.exact)) < 4
    unknown = learning.free_energy(
        potential=f"{users_file}:plane", start=(1.0,), end=(3.0,), duration=1.0, particles=4000
    )
    assert (unknown.exact, unknown.exact_from) == (None, None)
    # The burn-in of a single particle takes others beside it, by whose spread it knows when to end.
    one = learning.free_energy(potential=f"{users_file}:plane", start=(1.0,), end=(3.0,), duration=1.0, particles=1)
    assert one.forward.shape == (1,)
    # Along (x0 + x1) / sqrt 2 the energy is harmonic, across it a quartic is added.
    across = truth_by_quad(lambda x, theta: theta[0] * x * x / 2 + x**4, (1.0,), (3.0,), 1.0)
    assert abs(unknown.delta_f.z(0.5 * math.log(3.0) + across)) < 4
    assert unknown.to_dict()["results"][0]["z"] is None


@pytest.mark.parametrize(
    ("name", "start", "end"),
    [
        ("double-well", (1.0, -1.0), (3.0, 0.5)),
        ("double-well", (1.0, 0.0), (60.0, 0.1)),
        ("quartic", (1.0,), (4.0,)),
        ("trap-and-stiffness", (0, 1), (2, 3)),
        ("mixture", (-1.5, 1.5, 0.0), (-1.0, 3.0, 2.0)),
        ("bistable", (1.0, 0.0), (4.0, 1.0)),
    ],
)
@pytest.mark.parametrize("beta", [0.3, 4.0])
def test_exact_free_energies(name, start, end, beta):
    """Closed forms and quadrature against scipy's quad; closed forms against our quadrature too."""
    potential = potentials.load(name)
    functions = potential.energy
    energy = functions.py_func if hasattr(functions, "py_func") else functions

    def plain(x, theta):
        return float(energy(x, theta)) if name != "mixture" else float(potential.energies(np.array([x]), theta)[0])

    value, _ = switching.exact_delta_f(potential, start, end, beta)
    assert value == pytest.approx(truth_by_quad(plain, start, end, beta), abs=1e-8)


# --- Runs and files ---------------------------------------------------------------------------------------------------

SMALL = {"potential": "double-well", "duration": 0.3, "steps": 30, "particles": 5000, "seed": 3}


@pytest.fixture
def short_rows(monkeypatch):
    monkeypatch.setattr(switching, "_ROW", 2048)


def test_results_do_not_depend_on_threads_or_the_size_of_calls(short_rows, monkeypatch):
    one, two = (learning.free_energy(**SMALL, threads=threads) for threads in (1, 2))
    monkeypatch.setattr(switching, "_CALL", 2048 * 7)
    pieces = learning.free_energy(**SMALL)
    for other in (two, pieces):
        np.testing.assert_array_equal(one.forward, other.forward)
        np.testing.assert_array_equal(one.reverse, other.reverse)
    assert len(np.unique(np.concatenate([one.forward, one.reverse]))) == 10_000


def test_stopped_and_resumed(short_rows, monkeypatch, tmp_path):
    whole = learning.free_energy(**SMALL, out=tmp_path / "whole.h5")
    drive, calls = simulation.drive, []

    def break_off(*arguments, **keywords):
        calls.append(1)
        if len(calls) == 6:  # the first compiles; then three rows forward, one reverse
            raise KeyboardInterrupt
        return drive(*arguments, **keywords)

    monkeypatch.setattr(simulation, "drive", break_off)
    with pytest.raises(KeyboardInterrupt):
        learning.free_energy(**SMALL, out=tmp_path / "part.h5")
    monkeypatch.setattr(simulation, "drive", drive)
    assert not is_complete(tmp_path / "part.h5")
    part = switching.load(tmp_path / "part.h5")
    assert (len(part.forward), len(part.reverse)) == (5000, 2048)
    resumed = learning.free_energy(**SMALL, out=tmp_path / "part.h5", resume=True)
    for result in (resumed, switching.load(tmp_path / "part.h5"), switching.load(tmp_path / "whole.h5")):
        np.testing.assert_array_equal(result.forward, whole.forward)
        np.testing.assert_array_equal(result.reverse, whole.reverse)
        assert result.first_law_residual == whole.first_law_residual
        assert result.analysis.to_dict() == whole.analysis.to_dict()
    assert resumed.exact == whole.exact


def test_file_opens_in_xarray(short_rows, tmp_path):
    result = learning.free_energy(**SMALL, out=tmp_path / "a.h5")
    with xarray.open_dataset(tmp_path / "a.h5", engine="h5netcdf") as table:
        assert list(table.estimator.values) == list(ESTIMATORS)
        assert float(table.delta_f.sel(estimator="bar")) == result.delta_f.mean
        assert float(table.delta_f_stderr.sel(estimator="bar")) == result.delta_f.stderr
    with xarray.open_dataset(tmp_path / "a.h5", group="reverse", engine="h5netcdf") as works:
        assert works.work.shape == (3, 2048)
        assert works.work.attrs["units"] == "energy"
        np.testing.assert_array_equal(works.work.values.ravel()[:5000], result.reverse)
        assert np.all(np.isnan(works.work.values.ravel()[5000:]))
        # dE = W + Q, on the average of the rows too.
        assert np.all(works.first_law_residual < 1e-12)


def test_spec_round_trips(users_file):
    for fields in (SMALL, {"path": ((2.0, 0.0), (1.0, 1.0), (2.0, 2.0))}, settings("ripple", users_file)):
        spec = learning.FreeEnergy(**fields)
        assert learning.FreeEnergy.from_json(spec.to_json()) == spec
        assert pickle.loads(pickle.dumps(spec)) == spec
    own = learning.FreeEnergy(potential=potentials.chain(3), start=(1, 1, 0), end=(2, 1, 0))
    assert learning.FreeEnergy.from_json(own.to_json(), potentials.chain(3)).to_json() == own.to_json()
    with pytest.raises(InputError, match=r"potential is 'chain-3'; it must be one of"):
        learning.FreeEnergy.from_json(own.to_json())
    with pytest.raises(InputError, match=r"potential chain-4 is not the one that the run began with"):
        learning.FreeEnergy.from_json(own.to_json(), potentials.chain(4))
    with pytest.raises(InputError, match="is not that of a free-energy run"):
        learning.FreeEnergy.from_json("[1]")


BAD = [
    ({"potential": "stiffness", "start": (1.0,), "end": (-1.0,)}, "end leaves the valid region of stiffness: "),
    ({"potential": "stiffness", "start": (1.0,), "end": (2.0,), "path": ((1.0,), (-3.0,), (2.0,))},
     "path leaves the valid region of stiffness"),
    ({"start": (1.0,)}, "start has 1 values; double-well has 2 parameters, barrier, tilt."),
    ({"start": (2.0, 0.0), "end": (2.0, 0.0)}, "start and end are both (2, 0); they must differ."),
    ({"end": (2.0, math.nan)}, "end holds numbers that are not finite"),
    ({"path": ((2.0, 0.1), (2.0, 1.0))}, "path begins at (2, 0.1) and start is (2, 0); both must be equal."),
    ({"path": ((2.0, 0.0),)}, "path has shape (1, 2); it must be two points or more, a row each."),
    ({"particles": 0}, "particles is 0; it must be an integer of at least 1."),
    ({"particles": 10**12}, "GB of memory; this machine has"),
    ({"steps": 0}, "steps is 0; it must be an integer of at least 1."),
    ({"duration": 0.0}, "duration is 0.0; it must be a positive finite number."),
    ({"duration": 1e9}, "shorten the duration."),
    ({"beta": -1.0}, "beta is -1.0; it must be a positive finite number."),
    ({"integrator": "exact"}, "integrator is 'exact', but double-well is not quadratic; take another."),
    ({"integrator": "verlet"}, "integrator is 'verlet'; it must be one of"),
    ({"precision": "float16"}, "precision is 'float16'; it must be one of float32, float64."),
    ({"seed": -1}, "seed is -1; it must be an integer of at least 0."),
    ({"potential": "hill"}, "potential is 'hill'; it must be one of trap, stiffness"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "sentence"), BAD)
def test_bad_input_before_the_ensemble_runs(fields, sentence, monkeypatch):
    monkeypatch.setattr(simulation, "equilibrium", None)
    with pytest.raises(InputError, match=re.escape(sentence)):
        learning.free_energy(**fields)


def test_bad_potentials_of_a_user(users_file, monkeypatch):
    monkeypatch.setattr(simulation, "equilibrium", None)
    with pytest.raises(InputError, match="force of steep is not minus the derivative of its energy"):
        learning.free_energy(potential=f"{users_file}:steep", start=(1.0,), end=(2.0,))
    # Nothing says that k must be positive, so that only the energy shows it.
    with pytest.raises(InputError, match=r"energy (of bowl )?does not (rise|confine)"):
        learning.free_energy(potential=f"{users_file}:bowl", start=(1.0,), end=(-1.0,))


def test_particles_that_leave_the_finite_numbers():
    with pytest.raises(RunError, match="left the finite numbers at step"):
        learning.free_energy(start=(2.0, 0.0), end=(50.0, 0.0), duration=2.0, steps=10, particles=1000)


def test_pictures_of_good_and_poor_overlap():
    good = learning.free_energy(**SMALL)
    poor = learning.free_energy(potential="trap", start=(0.0,), end=(30.0,), duration=1.0, particles=500)
    one = learning.free_energy(**SMALL | {"particles": 1})
    for result in (good, poor, one):
        figure = figures.work_distributions(result)
        figure.canvas.draw()
        assert len(figure.axes) == 3
    assert "no bin holds" in figures.work_distributions(poor).axes[1].texts[0].get_text()


# --- Command line -----------------------------------------------------------------------------------------------------


def thermorun(*words, folder):
    return subprocess.run(
        [sys.executable, "-m", "thermorun", *map(str, words)], cwd=folder, capture_output=True, text=True, check=False
    )


def test_command(tmp_path, users_file):
    words = ("--from", "1,0.5", "--to", "2,-1", "--duration", 0.5, "--steps", 100, "--particles", 5000, "--seed", 5)
    run = thermorun("free-energy", *words, "--json", "--threads", 1, folder=tmp_path)
    assert (run.returncode, run.stderr) == (0, "")
    report = json.loads(run.stdout)
    assert [row["estimator"] for row in report["results"]] == list(ESTIMATORS)
    assert abs(report["results"][0]["z"]) < 4
    wanted = {"start": [1, 0.5], "end": [2, -1], "duration": 0.5, "steps": 100, "particles": 5000, "integrator": "heun"}
    assert {name: report["spec"][name] for name in wanted} == wanted
    assert (report["seed"], report["threads"], report["exact_from"]) == (5, 1, "quadrature")
    assert (tmp_path / report["pictures"][0]).stat().st_size > 10_000
    again = thermorun("resume", report["file"], folder=tmp_path)
    assert again.returncode == 0
    for word in (*ESTIMATORS, "verdict  Good overlap", "z", "effective works", f"file     {report['file']}"):
        assert word in again.stdout
    assert "…" not in again.stdout
    mine = thermorun(
        "free-energy", "--potential", f"{users_file}:ripple", "--from", "0.5,0", "--to", "1,-1", "--particles", 2000,
        "--json", folder=tmp_path,
    )  # fmt: skip
    assert abs(json.loads(mine.stdout)["results"][0]["z"]) < 4


def test_poor_overlap_on_the_command_line(tmp_path):
    words = ("--potential", "trap", "--from", 0, "--to", 20, "--duration", 1, "--particles", 1000)
    run = thermorun("free-energy", *words, folder=tmp_path)
    assert run.returncode == 0
    assert "verdict  Poor overlap" in run.stdout
    assert "nan" not in run.stdout
    report = json.loads(thermorun("free-energy", *words, "--json", folder=tmp_path).stdout)
    assert [row["delta_f"]["stderr"] for row in report["results"]] == [None] * 4


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--potential stiffness --from 1 --to -1", "end leaves the valid region of stiffness: stiffness is -1;"),
        ("--from 2,1 --to 2,1", "start and end are both (2, 1); they must differ."),
        ("--from 2", "start has 1 values; double-well has 2 parameters, barrier, tilt."),
        ("--from 2;1", "start is '2;1'; give numbers with commas between, as in 1,-0.5."),
        ("--potential no.py:mine", "the file no.py does not exist."),
        ("--duration -1", "duration is -1.0; it must be a positive finite number."),
        ("--out no/where.h5", "the folder no does not exist."),
        ("--resume --out none.h5", "there is nothing to resume."),
    ],
)
def test_bad_words(tmp_path, words, sentence):
    run = thermorun("free-energy", *words.split(), folder=tmp_path)
    assert run.returncode == 2
    assert run.stdout == ""
    assert run.stderr.startswith("thermorun: ")
    assert sentence in run.stderr
    assert run.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_says_how_to_go_on(tmp_path):
    words = ("free-energy", "--out", "a.h5", "--particles", "2000000", "--steps", "3000")
    with subprocess.Popen(
        [sys.executable, "-m", "thermorun", *words], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as process:
        while not (tmp_path / "a.h5").exists() and process.poll() is None:
            time.sleep(0.01)
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
    assert process.returncode == 130
    assert said == "thermorun: stopped; all that is done is in a.h5: go on with 'thermorun resume a.h5'.\n"
