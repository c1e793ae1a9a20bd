"""Ensembles against exact free energies; runs, files and pictures."""

import math
import pickle
import re

import numpy as np
import pytest
import xarray
from scipy.integrate import quad

import thermorun
from helpers import answers, z_score
from thermorun import free_energy, potentials
from thermorun.errors import InputError, RunError
from thermorun.free_energy import FreeEnergy, analyse_works, figures, run
from thermorun.free_energy.estimators import ESTIMATORS
from thermorun.free_energy.spec import default_steps, thetas
from thermorun.potentials import dynamics, sampling
from thermorun.store import is_complete

# --- Ensembles --------------------------------------------------------------------------------------------------------

# A potential of a user's own, and one in two dimensions of which nothing is known exactly.
USERS_FILE = """
import math

from numba import njit

from thermorun.potentials import Potential


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
    result = free_energy.measure(**settings(name, users_file), particles=runs * particles, seed=particles)
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


def _tilted(x, theta):
    """Two wells in two dimensions, the valley between them oblique."""
    return theta[0] * (x[0] * x[0] - 1.0) ** 2 + theta[1] * x[0] + 2.0 * x[1] * x[1] + x[0] * x[1]


def log_z_of_tilted(theta):
    """The Gaussian across leaves -x^2 / 8 along, and a constant."""
    return math.log(quad(lambda x: math.exp(-_tilted((x, -x / 4), theta)), -4, 4, epsabs=1e-14, points=(-1, 1))[0])


@pytest.mark.slow
@pytest.mark.parametrize("dimension", [1, 2])
def test_two_hundred_whole_runs_behind_a_barrier(dimension):
    """Standard errors of whole measurements, draws from equilibrium included, are calibrated."""
    start, end = (4.0 + dimension, 0.0), (4.0 + dimension, 1.0)
    if dimension == 1:
        potential, truth = "double-well", truth_by_quad(TRUTHS["double-well"], start, end, 1.0)
    else:
        potential = potentials.Potential("tilted", _tilted, parameters=("barrier", "tilt"), theta=start, dimension=2)
        truth = log_z_of_tilted(start) - log_z_of_tilted(end)
    runs = [free_energy.measure(potential, start, end, particles=1024, seed=seed) for seed in range(200)]
    z = np.array([run.delta_f.z(truth) for run in runs])
    assert 0.8 < np.mean(z**2) < 1.25
    assert abs(np.mean(z)) < 4 / math.sqrt(len(z))


def test_crooks_relation_bin_by_bin():
    result = free_energy.measure(**RUNS["double-well"], particles=200_000)
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
    result = free_energy.measure(
        potential="stiffness", start=(1.0,), end=(9.0,), duration=1.0, steps=2, particles=40_000
    )
    assert result.spec.integrator == "exact"
    assert abs(result.delta_f.z(math.log(3.0))) < 4
    assert abs(result.analysis.slope.z(1.0)) < 4


def test_mean_work_of_a_moving_trap():
    """Eq. 64, both ways: a translated trap loses nothing but the excess work."""
    result = free_energy.measure(potential="trap", start=(0.0,), end=(2.0,), duration=3.0, steps=300, particles=50_000)
    # m^2 (tau - (1 - exp(-tau))) for the speed m and mobility one (Hnybida & Verret 2025, Eq. 64).
    work = (2 / 3) ** 2 * (3.0 - (1 - math.exp(-3.0)))
    assert abs(result.analysis.forward.z(work)) < 4
    assert abs(result.analysis.reverse.z(work)) < 4
    # The works are Gaussian, and Delta F = mean - beta variance / 2.
    assert np.var(result.forward) == pytest.approx(2 * work, rel=0.03)
    assert (result.exact, result.exact_from) == (0.0, "closed form")


def test_a_step_that_is_too_long_shows(monkeypatch):
    fields = RUNS["double-well"] | {"particles": 100_000}
    fine = free_energy.measure(**fields)
    assert abs(fine.delta_f.z(fine.exact)) < 4
    assert fine.verdict.startswith("Good overlap")
    coarse = free_energy.measure(**fields, steps=28)
    assert abs(coarse.delta_f.z(coarse.exact)) > 5
    assert "standard errors from the exact value: take more than 28 steps." in coarse.verdict
    # Where nothing is exact the step itself is the only sign.
    monkeypatch.setattr(run, "exact_delta_f", lambda *arguments: (None, None))
    blind = free_energy.measure(**fields | {"particles": 1000}, steps=28)
    assert f"the default would be {fine.spec.steps}: see whether twice the steps" in blind.verdict
    assert blind.to_dict()["verdict"] == blind.warnings[0]


@pytest.mark.slow
def test_an_eighth_of_the_default_steps_does_not_show_among_a_million():
    fields = RUNS["double-well"] | {"particles": 1_000_000}
    result = free_energy.measure(**fields, steps=default_steps(FreeEnergy(**fields), FreeEnergy(**fields).system) // 8)
    assert abs(result.delta_f.z(result.exact)) < 4


def test_any_path_gives_the_same_delta_f():
    s = np.linspace(0, 1, 30)[:, None]
    path = np.array([2.0, 0.0]) + s * np.array([0.0, 1.0]) + np.sin(np.pi * s) * np.array([-1.0, 0.3])
    fields = RUNS["double-well"] | {"duration": 2.0, "particles": 50_000}
    curved = free_energy.measure(**fields, path=tuple(map(tuple, path)))
    assert abs(curved.delta_f.z(curved.exact)) < 4
    straight, path = FreeEnergy(**fields).resolved(), thetas(curved.spec)
    assert not np.allclose(path, np.resize(thetas(straight), path.shape), atol=0.1)
    np.testing.assert_array_equal(thetas(curved.spec, "reverse"), path[::-1])


def test_a_cycle_has_no_free_energy():
    cycle = ((2.0, 0.0), (2.0, 1.0), (3.0, 1.0), (2.0, 0.0))
    result = free_energy.measure(start=cycle[0], end=cycle[0], path=cycle, duration=1.0, particles=20_000)
    assert result.exact == 0
    assert abs(result.delta_f.z(0)) < 4
    assert result.forward.mean() > 0


def test_more_dimensions(users_file):
    """A Gaussian has its closed form; without one there is no exact value, and the start comes from a burn-in."""
    gaussian = free_energy.measure(
        potential="gaussian", start=(0, 0, 1, 0, 1), end=(1, 0, 2, 0.5, 1), duration=2.0, particles=40_000, seed=1
    )
    assert gaussian.exact == pytest.approx(0.5 * math.log(2 - 0.25))
    assert abs(gaussian.delta_f.z(gaussian.exact)) < 4
    unknown = free_energy.measure(
        potential=f"{users_file}:plane", start=(1.0,), end=(3.0,), duration=1.0, particles=4000
    )
    assert (unknown.exact, unknown.exact_from) == (None, None)
    # The burn-in of a single particle takes others beside it, by whose spread it knows when to end.
    one = free_energy.measure(potential=f"{users_file}:plane", start=(1.0,), end=(3.0,), duration=1.0, particles=1)
    assert one.forward.shape == (1,)
    # Along (x0 + x1) / sqrt 2 the energy is harmonic, across it a quartic is added.
    across = truth_by_quad(lambda x, theta: theta[0] * x * x / 2 + x**4, (1.0,), (3.0,), 1.0)
    assert abs(unknown.delta_f.z(0.5 * math.log(3.0) + across)) < 4
    assert "z" not in unknown.to_dict()["results"][0]["delta_f"]


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

    value, _ = free_energy.exact_delta_f(potential, start, end, beta)
    assert value == pytest.approx(truth_by_quad(plain, start, end, beta), abs=1e-8)


# --- Runs and files ---------------------------------------------------------------------------------------------------

SMALL = {"potential": "double-well", "duration": 0.3, "steps": 30, "particles": 5000, "seed": 3}


@pytest.fixture
def short_rows(monkeypatch):
    monkeypatch.setattr(run, "_ROW", 2048)


def test_results_do_not_depend_on_threads_or_the_size_of_calls(short_rows, monkeypatch):
    one, two = (free_energy.measure(**SMALL, threads=threads) for threads in (1, 2))
    monkeypatch.setattr(run, "_CALL", 2048 * 7)
    pieces = free_energy.measure(**SMALL)
    for other in (two, pieces):
        np.testing.assert_array_equal(one.forward, other.forward)
        np.testing.assert_array_equal(one.reverse, other.reverse)
    assert len(np.unique(np.concatenate([one.forward, one.reverse]))) == 10_000


def test_stopped_and_resumed(short_rows, monkeypatch, tmp_path):
    whole = free_energy.measure(**SMALL, out=tmp_path / "whole.h5")
    drive, calls = dynamics.drive, []

    def break_off(*arguments, **keywords):
        calls.append(1)
        if len(calls) == 6:  # the first compiles; then three rows forward, one reverse
            raise KeyboardInterrupt
        return drive(*arguments, **keywords)

    monkeypatch.setattr(dynamics, "drive", break_off)
    with pytest.raises(KeyboardInterrupt):
        free_energy.measure(**SMALL, out=tmp_path / "part.h5")
    monkeypatch.setattr(dynamics, "drive", drive)
    assert not is_complete(tmp_path / "part.h5")
    part = thermorun.load(tmp_path / "part.h5")
    assert (len(part.forward), len(part.reverse)) == (5000, 2048)
    resumed = free_energy.measure(**SMALL, out=tmp_path / "part.h5", resume=True)
    for result in (resumed, thermorun.load(tmp_path / "part.h5"), thermorun.load(tmp_path / "whole.h5")):
        np.testing.assert_array_equal(result.forward, whole.forward)
        np.testing.assert_array_equal(result.reverse, whole.reverse)
        assert result.first_law_residual == whole.first_law_residual
        assert result.analysis.to_dict() == whole.analysis.to_dict()
    assert resumed.exact == whole.exact


def test_file_opens_in_xarray(short_rows, tmp_path):
    result = free_energy.measure(**SMALL, out=tmp_path / "a.h5")
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


def test_in_memory_as_on_disk(short_rows):
    result = free_energy.measure(**SMALL)
    assert float(result.to_xarray().delta_f.sel(estimator="bar")) == result.delta_f.mean


def test_spec_round_trips(users_file):
    for fields in (SMALL, {"path": ((2.0, 0.0), (1.0, 1.0), (2.0, 2.0))}, settings("ripple", users_file)):
        for spec in (FreeEnergy(**fields), FreeEnergy(**fields).resolved()):
            assert FreeEnergy.from_json(spec.to_json()) == spec
            assert pickle.loads(pickle.dumps(spec)) == spec
    # NumPy's numbers are numbers, and a number is a point.
    assert FreeEnergy(particles=np.int64(7), seed=np.uint32(3), beta=np.float32(2), start=np.zeros(2)).particles == 7
    assert FreeEnergy(potential="stiffness", start=1, end=np.float64(3)).start == (1.0,)
    own = FreeEnergy(potential=potentials.load("chain"), start=(1, 1, 0), end=(2, 1, 0))
    assert own.to_dict()["potential"] == potentials.load("chain").name
    for line in ("[1]", "{", "[" * 100_000, '{"particles": true}', '{"particle": 3}', '{"seed": 1e400}'):
        with pytest.raises(InputError):
            FreeEnergy.from_json(line)


def test_a_file_is_read_without_its_potential(users_file, tmp_path):
    """Results need the file alone; to go on needs the potential that began it."""
    mine = tmp_path / "mine.py"
    mine.write_text(users_file.read_text())
    fields = settings("ripple", users_file) | {"potential": f"{mine}:ripple", "particles": 2000}
    ran = free_energy.measure(**fields, out=tmp_path / "a.h5")
    mine.write_text(
        users_file.read_text().replace("0.5 * x * x +", "0.6 * x * x +").replace("return -x +", "return -1.2 * x +")
    )
    assert thermorun.load(tmp_path / "a.h5").delta_f == ran.delta_f
    with pytest.raises(InputError, match="changed since the run began"):
        thermorun.resume(tmp_path / "a.h5", trust=True)
    mine.unlink()
    assert thermorun.load(tmp_path / "a.h5").exact == ran.exact


BAD = [
    ({"potential": "stiffness", "start": (1.0,), "end": (-1.0,)}, "end leaves the valid region of stiffness: "),
    ({"potential": "stiffness", "start": (1.0,), "end": (2.0,), "path": ((1.0,), (-3.0,), (2.0,))},
     "path leaves the valid region of stiffness"),
    ({"start": (1.0,)}, "start has 1 values; double-well has 2 parameters, barrier, tilt."),
    ({"start": (2.0, 0.0), "end": (2.0, 0.0)}, "start is (2, 0) and end is the same; they must differ"),
    ({"end": (2.0, math.nan)}, "end is nan; it must be a finite number."),
    ({"start": (2.0, 0.0), "path": ((2.0, 0.1), (2.0, 1.0))}, "path begins at (2, 0.1) and start is (2, 0); both must"),
    ({"path": ((2.0, 0.0),)}, "path holds 1 values; it must hold at least 2."),
    ({"particles": 0}, "particles is 0; it must be an integer of at least 1."),
    ({"particles": 10**12}, "it must be at most 17179869184."),
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
    monkeypatch.setattr(sampling, "equilibrium", None)
    with pytest.raises(InputError, match=re.escape(sentence)):
        free_energy.measure(**fields)


def test_bad_potentials_of_a_user(users_file, monkeypatch):
    monkeypatch.setattr(sampling, "equilibrium", None)
    with pytest.raises(InputError, match="force of steep is not minus the derivative of its energy"):
        free_energy.measure(potential=f"{users_file}:steep", start=(1.0,), end=(2.0,))
    # Nothing says that k must be positive, so that only the energy shows it.
    with pytest.raises(InputError, match=r"energy (of bowl )?does not (rise|confine)"):
        free_energy.measure(potential=f"{users_file}:bowl", start=(1.0,), end=(-1.0,))


def test_particles_that_diverge():
    with pytest.raises(RunError, match="diverged at step"):
        free_energy.measure(start=(2.0, 0.0), end=(50.0, 0.0), duration=2.0, steps=10, particles=1000)


def test_pictures_of_good_and_poor_overlap():
    good = free_energy.measure(**SMALL)
    poor = free_energy.measure(potential="trap", start=(0.0,), end=(30.0,), duration=1.0, particles=500)
    one = free_energy.measure(**SMALL | {"particles": 1})
    for result in (good, poor, one):
        figure = figures.works(result)
        figure.canvas.draw()
        assert len(figure.axes) == 3
    assert "no bin holds" in figures.works(poor).axes[1].texts[0].get_text()
