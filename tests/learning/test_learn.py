"""Learning of any potential: theory, infinitely many particles, Eq. 53 against Eq. 54 and against gradient flow."""

import json
import os
import pickle
import signal
from dataclasses import replace

import h5py
import numpy as np
import pytest
from scipy.integrate import quad, solve_ivp
from scipy.optimize import minimize

import thermorun as tr
from helpers import in_process_of_its_own, interrupted, refused, thermorun, undrawn, z_score
from thermorun import learning, plots, potentials, runs
from thermorun.errors import InputError, RunError, Stopped
from thermorun.estimates import over_replicas
from thermorun.learning import figures, mean_field, rates
from thermorun.learning.data import most_likely, sample
from thermorun.learning.loop import SERIES, Loop
from thermorun.learning.online_metric import OnlineMetric
from thermorun.learning.problem import Problem
from thermorun.learning.spec import equal_weights
from thermorun.potentials import System
from thermorun.potentials.exact import Theory
from thermorun.streams import Noise, Streams

SMALL = {"particles": 2048, "replicas": 8, "records": 40}
SLOW = pytest.mark.slow
KT = 4.11e-21  # J

RING = """
from thermorun import Potential

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


def slowly(*names):
    return [pytest.param(name, marks=SLOW) for name in names]


def resolved(name, **fields):
    return learning.Learn(potential=name, **fields).resolved()


def theory_of(spec):
    return Theory(spec.system, [spec.start, spec.goal])


# --- Theory -----------------------------------------------------------------------------------------------------------


def test_every_built_in_has_a_target():
    assert all(potentials.load(name).target is not None for name in potentials.NAMES)


def test_closed_forms():
    """Trap and stiffness (physics of Hnybida & Verret 2025, Eqs. 60 to 62; 1/(2 k^2) and 1/(4 mu beta k^3))."""
    beta, mobility, k = 1.7, 0.6, 2.3
    trap = Theory(System("trap", beta, mobility), []).at(np.array([0.4]))
    assert (trap.fisher[0, 0], trap.friction[0, 0]) == pytest.approx((beta, 1 / mobility), rel=1e-9)
    spring = Theory(System("stiffness", beta, mobility), []).at(np.array([k]))
    wanted = 1 / (2 * k**2), 1 / (4 * mobility * beta * k**3), 1 / (2 * beta * k)
    assert (spring.fisher[0, 0], spring.friction[0, 0], spring.mean_gradient[0]) == pytest.approx(wanted, rel=1e-9)


def test_gaussian_theory_is_that_of_the_quadrature():
    potential, theta = potentials.load("trap-and-stiffness"), np.array([0.7, 2.5])
    closed = Theory(System(potential, 1.3, 0.7), [theta]).at(theta)
    integrated = Theory(System(replace(potential, quadratic=None), 1.3, 0.7), [theta]).at(theta)
    for name in ("free_energy", "mean_gradient", "fisher", "friction"):
        np.testing.assert_allclose(getattr(closed, name), getattr(integrated, name), atol=1e-9)


@pytest.mark.parametrize("name", ["gaussian", *slowly("chain")])
def test_gaussian_theory_against_particles(name):
    """g from exact draws; zeta from the response of <dE/dtheta> to a parameter that moves slowly."""
    spec = resolved(name)
    potential, here = spec.system.potential, theory_of(spec).at(spec.goal)
    x = spec.system.equilibrium(spec.goal, 50_000, seed=3)[0]
    gradients = potential.gradients(x.T, spec.goal)
    away = gradients - here.mean_gradient[:, None]
    for i in range(len(away)):
        assert abs(z_score(gradients[i], here.mean_gradient[i])) < 4
        for j in range(i + 1):
            assert abs(z_score(away[i] * away[j], here.fisher[i, j])) < 4
    # Moved at the speed v, <dE/dtheta> lags by zeta v + O(v^2); the mean of +v and -v leaves O(v^3).
    moved, speed, dt = {}, 1e-3 * np.random.default_rng(1).normal(size=len(spec.goal)), 0.01
    for sign in (1, -1):
        moved[sign] = mean_field._Gaussian(theory_of(spec), spec.goal - 15 * sign * speed)
        for n in range(1500):
            moved[sign].relax(spec.goal + (n + 0.5 - 1500) * dt * sign * speed, dt)
    lag = [sign * (moved[sign].gradient(spec.goal) - here.mean_gradient) for sign in (1, -1)]
    np.testing.assert_allclose(0.5 * (lag[0] + lag[1]), here.friction @ speed, rtol=1e-3, atol=1e-8)


OTHERS = slowly("trap", "quartic", "gaussian", "bistable", "chain", "mixture")


@pytest.mark.parametrize("name", ["trap-and-stiffness", "double-well", *OTHERS])
def test_data_have_the_means_of_their_distribution(name):
    spec = resolved(name)
    exact = theory_of(spec)
    data = exact.data(spec.goal)
    assert np.sum(data.weights) == pytest.approx(1, abs=1e-12)
    gradient = data.mean_gradient(spec.system.potential, spec.goal)
    np.testing.assert_allclose(gradient, exact.at(spec.goal).mean_gradient, atol=1e-9)


@pytest.mark.parametrize("name", ["stiffness", "double-well", *slowly("bistable")])
def test_natural_flow_of_an_exponential_family(name):
    """Along Eq. 54 the mean of dE/dtheta goes straight to that of the data, whatever the potential."""
    spec = resolved(name)
    exact, times = theory_of(spec), np.array([0.0, 0.3, 0.7, 0.95])
    flow = mean_field.natural_flow(exact, exact.data(spec.goal), spec.start, times)
    first, last = (exact.at(one).mean_gradient for one in (spec.start, spec.goal))
    for t, one in zip(times, flow, strict=True):
        np.testing.assert_allclose(exact.at(one).mean_gradient, first + t * (last - first), atol=1e-6)


# --- Infinitely many particles ----------------------------------------------------------------------------------------


def test_mean_field_of_the_trap():
    """Eqs. 12 and 13 with the schedule of Eq. 53: W_ex = 0.159234, theta(tau) = 0.993262 at mu tau = 5."""
    spec = resolved("trap", tau=5.0)
    exact = theory_of(spec)
    path = mean_field.learn(exact, exact.data(spec.goal), spec.start, spec.goal, "natural", 5.0, 800, 5.0)
    assert path.work[-1] == pytest.approx(0.159234, abs=2e-6)
    assert path.theta[-1, 0] == pytest.approx(0.993262, abs=2e-6)


def test_mean_field_of_a_stiffness_is_the_moment_equation():
    """d<x^2>/dt = 2 mu (kT - k <x^2>), dk/dt = -eta (<x^2>_data - <x^2>) / 2, dW = <x^2> dk / 2; grid and Gaussian."""
    spec = resolved("stiffness", tau=4.0)

    def velocity(t, y):
        square, k, _ = y
        eta = 1 / ((4.0 - t) / (2 * k**2) + 1 / (4 * k**3))
        speed = -eta * 0.5 * (1 / 3 - square)
        return 2 * (1 - k * square), speed, 0.5 * square * speed

    truth = solve_ivp(velocity, (0, 4), (1.0, 1.0, 0.0), rtol=1e-10, atol=1e-12).y[:, -1]
    for potential in (spec.system.potential, replace(spec.system.potential, quadratic=None)):
        exact = Theory(System(potential), [spec.start, spec.goal])
        path = mean_field.learn(exact, exact.data(spec.goal), spec.start, spec.goal, "natural", 4.0, 600, 4.0)
        assert path.theta[-1, 0] == pytest.approx(truth[1], abs=2e-4)
        assert path.work[-1] == pytest.approx(truth[2], abs=2e-4)


# --- The closed loop --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["trap-and-stiffness", "double-well", *slowly("stiffness"), *OTHERS],
)
def test_work_theta_and_bias(name):
    """Against infinitely many particles; and dL_bias/dt = d<W_ex>/dt, each measured by itself (Eqs. 18 to 20)."""
    tau = 2.0 if name == "double-well" else 6.0
    run = learning.learn(potential=name, rules="natural", tau=tau, **SMALL)["natural"]
    for row in (10, 25, -1):
        expected = run.exact["exact_excess_work"][row] + run.exact["shift"][row]
        assert abs(run.estimate("excess_work", row).z(expected)) < 4
        theta = over_replicas(run.theta[row])
        assert np.all(np.abs(theta.mean - run.exact_theta[row]) < 8 * theta.stderr + 2e-3)
    assert np.isnan(run.z) or abs(run.z) < 4
    _, work = run.rates_of("excess_work")
    _, bias = run.rates_of("bias")
    np.testing.assert_allclose(bias.mean, work.mean, atol=2e-3 * np.max(np.abs(work.mean)))
    assert np.max(np.abs(bias.mean)) > 10 * np.max(np.abs(bias.mean - work.mean))
    assert np.max(np.abs(run.series["first_law_residual"])) < 1e-12
    assert np.all(np.diff(run.series["loss"].mean(axis=1)) < 0.02)


@pytest.mark.slow
def test_shift_of_few_particles():
    """Excess work beyond that of infinitely many particles: measured with 256, plain to see, as foretold to a third."""
    rule = learning.learn(potential="stiffness", rules="natural", particles=256, replicas=64, records=10)["natural"]
    shift, seen = rule.exact["shift"][-1], rule.excess_work
    assert seen.z(rule.exact["exact_excess_work"][-1]) > 5
    assert abs(seen.mean - rule.exact["exact_excess_work"][-1] - shift) < 0.33 * shift + 4 * seen.stderr
    assert np.isnan(rule.z)  # with a shift of so many standard errors nothing is certified
    many = learning.learn(potential="stiffness", rules="natural", particles=2**14, replicas=8, records=10)["natural"]
    assert abs(many.z) < 4
    assert many.exact["shift"][-1] == pytest.approx(shift / 64)


@pytest.mark.parametrize(
    ("name", "taus"), [("stiffness", (3.0, 6.0, 12.0)), *(pytest.param("bistable", (3.0, 6.0, 12.0), marks=SLOW),)]
)
def test_theorem_1(name, taus):
    """Eq. 53 comes near Eq. 54 as tau grows, in the run as with infinitely many particles."""
    found = learning.theorem(learning.Learn(potential=name, particles=2**14, replicas=8, records=40), taus)
    assert -2.3 < found.exponent < -1.4
    for one in found.deviations:
        assert abs(one.measured.z(one.exact)) < 4
    assert found.deviations[0].measured.mean > 4 * found.deviations[0].measured.stderr
    assert found.table().render().count("\n") > 5


@pytest.mark.parametrize("name", ["stiffness", *slowly("double-well", "bistable", "quartic")])
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
    with pytest.raises(RunError, match="g and zeta are singular there; raise ridge"):
        rates.require_rate(rates.eta("natural", 1.0, 0 * fisher, 0 * friction, 1.0), 3, potentials.load("trap"))


@pytest.mark.parametrize("name", ["trap-and-stiffness", *slowly("double-well")])
def test_metric_from_particles_is_near_theory(name):
    spec = resolved(name, replicas=4)
    theta, dt = np.tile(spec.goal, (4, 1)), 0.01
    noise = Noise.of(Streams(3).part(1, 2**32))
    side = OnlineMetric(spec.system, 8192, 1, 1e-9, dt, str(spec.integrator), noise)
    side.start(theta, "float64")
    x = spec.system.equilibrium(spec.goal, 2**16, replicas=4, seed=9)
    fisher, friction = side.at(0, theta, x)
    truth = theory_of(spec).at(spec.goal)
    for found, exact in ((fisher, truth.fisher), (friction, truth.friction)):
        error = found.std(axis=0, ddof=1) / 2
        # What lies beyond the window is at most a few per cent.
        assert np.all(np.abs(found.mean(axis=0) - exact) < 8 * error + 0.05 * np.sqrt(np.outer(*[np.diag(exact)] * 2)))


def test_learning_with_a_metric_from_particles():
    run = learning.learn(potential="trap-and-stiffness", rules="natural", metric="estimated", side=1024, **SMALL)
    rule = run["natural"]
    assert rule.estimate("loss").mean < 0.01 * rule.estimate("loss", 0).mean
    assert rule.excess_work.mean == pytest.approx(rule.exact["exact_excess_work"][-1], rel=0.2)
    assert np.isnan(rule.z)
    assert "no z (?): the noise of an estimated metric" in run.summary()


def test_learning_from_samples_of_the_target():
    run = learning.learn(potential="stiffness", rules="natural", samples=500, **SMALL)
    x = Problem(run.spec).data[0]
    # Where all is learned, <x^2> is that of the sample: k = 1 / <x^2>.
    best = 1 / np.mean(x[:, 0] ** 2, axis=1)
    theta = run["natural"].theta[-1, :, 0]
    np.testing.assert_allclose(theta, best, rtol=0.15)
    assert np.corrcoef(theta, best)[0, 1] > 0.5
    assert "no z (?): each replica learns from a sample of its own" in run.summary()


# --- Units ------------------------------------------------------------------------------------------------------------


def test_si_units_give_the_numbers_of_natural_ones():
    """A trap of 1e-6 N/m that moves by 200 nm and becomes twice as stiff, in J, m and s and in its own units."""
    length = (KT / 1e-6) ** 0.5
    settings = {"potential": "trap-and-stiffness", "rules": "natural"} | SMALL
    natural = learning.learn(**settings, theta=(0.0, 1.0), target=(200e-9 / length, 2.0))["natural"]
    si = learning.learn(
        **settings, theta=(0.0, 1e-6), target=(200e-9, 2e-6), beta=1 / KT, mobility=1e6, tau=10.0
    )["natural"]  # fmt: skip
    np.testing.assert_allclose(si.theta, natural.theta * (length, 1e-6), rtol=1e-6)
    np.testing.assert_allclose(si.flow, natural.flow * (length, 1e-6), rtol=1e-6, atol=1e-6 * length * 1e-6)
    for name in ("excess_work", "loss", "bias"):
        np.testing.assert_allclose(si.series[name] / KT, natural.series[name], rtol=1e-6, atol=1e-8)
    assert si.deviation == pytest.approx(natural.deviation, rel=1e-6)
    assert si.exact["shift"][-1] / KT == pytest.approx(natural.exact["shift"][-1], rel=1e-6)
    assert si.z == pytest.approx(natural.z, abs=1e-4, nan_ok=True)


# --- Data of one's own ------------------------------------------------------------------------------------------------


def test_learning_from_data_of_ones_own(tmp_path):
    """k goes to 1 / <x^2>; array and file give the same bits; the file alone is enough to read and to go on."""
    x = np.random.default_rng(5).normal(0.0, 0.6, 400)
    best = 1 / np.mean(x**2)
    settings = {"potential": "stiffness", "rules": "natural", "particles": 4096, "replicas": 4, "records": 20}
    run = learning.learn(**settings, data=x)
    rule = run["natural"]
    assert run.spec.target[0] == pytest.approx(best, rel=1e-9)
    assert abs(over_replicas(rule.theta[-1, :, 0]).z(rule.exact_theta[-1, 0])) < 4
    assert rule.exact_theta[-1, 0] == pytest.approx(best, rel=0.03)
    # L_MLE(theta) - L_MLE(theta*) of the Gaussian with this <x^2>, at the start, where k = 1.
    assert rule.exact["exact_loss"][0] == pytest.approx(0.5 * (1 / best - 1 + np.log(best)), rel=1e-9)
    np.savetxt(tmp_path / "x.csv", x, header="position", comments="", fmt="%.17g")
    stored = learning.learn(**settings, data=tmp_path / "x.csv", out=tmp_path / "a.h5")
    np.testing.assert_array_equal(stored["natural"].theta, rule.theta)
    (tmp_path / "x.csv").unlink()
    np.testing.assert_array_equal(tr.load(tmp_path / "a.h5")["natural"].theta, rule.theta)
    np.testing.assert_array_equal(tr.resume(tmp_path / "a.h5")["natural"].theta, rule.theta)
    spec = tr.load(tmp_path / "a.h5").spec
    assert (spec.sample.name, spec.sample.points, spec.sample.fingerprint) == (
        "x.csv",
        400,
        run.spec.sample.fingerprint,
    )
    with pytest.raises(InputError, match=r"data were <400 points of x\.csv>, which are not at hand"):
        spec.run()


def test_most_likely_theta_of_a_double_well():
    """Against a search that knows nothing of ours: the mean of E over the data plus ln Z by scipy."""
    x = System("double-well").equilibrium((1.5, 0.5), 2000, seed=4)[0, 0]

    def loss(theta):
        def energy(y):
            return theta[0] * (y * y - 1) ** 2 + theta[1] * y

        return np.mean(energy(x)) + np.log(quad(lambda y: np.exp(-energy(y)), -4, 4)[0])

    truth = minimize(loss, (1.0, 0.0), method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-12}).x
    found = most_likely(System("double-well"), equal_weights(x[:, None]), (1.0, 0.0))
    np.testing.assert_allclose(found, truth, atol=1e-5)


def test_files_of_data(tmp_path):
    x = np.random.default_rng(1).normal(size=(5, 2))
    np.save(tmp_path / "a.npy", x)
    np.savez(tmp_path / "b.npz", x=x, labels=np.arange(5))
    np.savez(tmp_path / "c.npz", points=x)
    (tmp_path / "d.csv").write_text("# made by hand\nx; y\n" + "".join(f"{a!r}; {b!r}\n" for a, b in x.tolist()))
    (tmp_path / "e.csv").write_text("".join(f"{a!r} {b!r}\n" for a, b in x.tolist()))
    (tmp_path / "f.csv").write_text("x,y\n" + "".join(f"{a!r},{b!r}\n" for a, b in x.tolist()) + "\n")
    for name in ("a.npy", "b.npz", "c.npz", "d.csv", "e.csv", "f.csv"):
        found = sample("data", tmp_path / name)
        np.testing.assert_array_equal(found.x, x)
        assert found == sample("data", x)
    assert pickle.loads(pickle.dumps(found)) == found
    assert sample("data", x[:, 0]).x.shape == (5, 1)
    assert sample("data", [1, 2, 3]).points == 3


def test_bad_data(tmp_path):
    (tmp_path / "a.csv").write_text("x\n1\nthree\n")
    (tmp_path / "b.csv").write_text("1,2\n3\n")
    (tmp_path / "c.npy").write_bytes(b"nothing")
    np.savez(tmp_path / "d.npz", a=np.ones(3), b=np.ones(3))
    os.mkfifo(tmp_path / "e.csv")
    for value, sentence in [
        (tmp_path / "a.csv", r"whose line 3 is 'three', not numbers\."),
        (tmp_path / "b.csv", r"whose line 2 holds 1 numbers, not 2\."),
        (tmp_path / "c.npy", r"which holds no array that NumPy can read\."),
        (tmp_path / "d.npz", r"which holds a, b; call the points x\."),
        (tmp_path / "e.csv", r"which is no file\."),
        (tmp_path / "none.csv", r"which is no file\."),
        ("points.pdf", r"it must be an array or a file that ends in \.csv, .*\.npy, \.npz\."),
        ([1.0, np.nan], r"data holds \[nan\] as point 1; all must be finite\."),
        ([1.0], r"data holds 1 points; it must hold at least 2\."),
        (["a", "b"], r"is no array of numbers of shape \(n,\) or \(n, d\)\."),
        (np.ones((2, 2, 2)), r"is no array of numbers"),
        ([[1.0], [1.0, 2.0]], r"data cannot be made an array"),
        (np.ma.masked_array([1.0, 2.0], [False, True]), "data is masked in 1 places"),
    ]:
        with pytest.raises(InputError, match=sentence):
            learning.Learn(data=value)
    for fields, sentence in [
        ({"data": np.ones((5, 2))}, r"data hold points in 2 dimensions; double-well has 1\."),
        ({"data": np.arange(5.0), "target": (1.5, 0.5)}, "target and data are both given"),
        ({"data": np.zeros(5), "potential": "stiffness"}, "data have no most likely theta of stiffness near 1"),
    ]:
        with pytest.raises(InputError, match=sentence):
            learning.Learn(**fields).resolved()
    with pytest.raises(InputError, match="data and samples are both given"):
        learning.Learn(data=[1.0, 2.0], samples=5)


@pytest.mark.slow
def test_a_potential_without_theory(tmp_path):
    """Two dimensions and not quadratic: the metric is estimated, the data are samples, excess work is not known."""
    (tmp_path / "mine.py").write_text(RING)
    words = (
        "learn", "--potential", "mine.py:ring", "--particles", 1024, "--replicas", 4, "--tau", 2, "--steps", 400,
        "--side", 256, "--eta", 1,
    )  # fmt: skip
    target = ("--target", "1.5,0.3")
    refused(thermorun(*words, *target, folder=tmp_path), "so that its metric is not known; let it be estimated.")
    run = thermorun(*words, *target, "--metric", "estimated", "--samples", 2000, "--json", folder=tmp_path)
    assert (run.returncode, run.stderr) == (0, "")
    natural = json.loads(run.stdout)["results"][0]
    assert natural["excess_work"] is None
    assert natural["theta_final"]["mean"] == pytest.approx([1.5, 0.3], abs=0.15)
    # Data of one's own instead: their most likely theta is not known, and not needed.
    rng = np.random.default_rng(2)
    points = rng.uniform(-2.5, 2.5, (400_000, 2))
    energy = 1.5 * ((points**2).sum(axis=1) - 1) ** 2 - 0.3 * points[:, 0]
    np.save(tmp_path / "x.npy", points[rng.uniform(size=len(points)) < np.exp(-energy - 0.5)][:4000])
    run = thermorun(*words, "--metric", "estimated", "--data", "x.npy", "--rule", "natural", "--out", "a.h5",
                    folder=tmp_path)  # fmt: skip
    assert (run.returncode, run.stderr) == (0, "")
    assert "W_ex, L_bias and loss are not known (?)" in run.stdout
    (tmp_path / "mine.py").unlink()
    rule = tr.load(tmp_path / "a.h5")["natural"]
    np.testing.assert_allclose(rule.theta[-1].mean(axis=0), [1.5, 0.3], atol=0.15)
    assert np.all(np.isnan(rule.target))


# --- Files, threads, bad input ----------------------------------------------------------------------------------------

QUICK = {
    "potential": "trap-and-stiffness", "tau": 2.0, "side": 256, "refresh": 20, "particles": 1100, "replicas": 3,
    "records": 20, "target": (0.5, 1.5), "eta": 1.0,
}  # fmt: skip


def same(one, other):
    for rule in one:
        np.testing.assert_array_equal(other[rule.rule].theta, rule.theta)
        for name in SERIES:
            np.testing.assert_array_equal(other[rule.rule].series[name], rule.series[name])
        np.testing.assert_array_equal(other[rule.rule].flow, rule.flow)


def test_threads_and_files(tmp_path):
    spec = learning.Learn(**QUICK, metric="estimated", rules=("natural", "scalar", "gradient"))
    one = spec.run(threads=1)
    two = spec.run(threads=2, out=tmp_path / "a.h5")
    same(one, two)
    same(one, tr.load(tmp_path / "a.h5"))
    same(one, pickle.loads(pickle.dumps(one)))
    assert learning.Learn.from_json(one.spec.to_json()) == one.spec
    assert one.spec == one.spec.resolved()
    assert len(repr(one)) < 400
    assert len(one.to_pandas()) == 3
    assert one.to_xarray()["natural"]["theta"].dims == ("time", "replica", "parameter")
    assert two["natural"].parameters == ("centre", "stiffness")
    with pytest.raises(InputError, match="rule is 'best'; it must be one of natural, scalar, gradient"):
        two["best"]


def test_potentials_as_objects(tmp_path):
    by_name = learning.learn(**QUICK, rules="natural")
    mine = replace(potentials.load("trap-and-stiffness"), name="mine", target=None)
    assert by_name.spec.potential == "trap-and-stiffness"
    run = learning.learn(**(QUICK | {"potential": mine}), rules="natural", out=tmp_path / "a.h5")
    same(by_name, run)
    assert "Learning of mine" in tr.load(tmp_path / "a.h5").summary()
    with pytest.raises(InputError, match="target is not given; say what the data of mine are the distribution of"):
        learning.learn(potential=mine)


@pytest.mark.parametrize("metric", ["theory", "estimated"])
def test_resume_changes_no_bit(tmp_path, monkeypatch, metric):
    spec = learning.Learn(**QUICK, metric=metric)
    whole = spec.run()
    jump = Loop.jump

    def stopping(loop, n):
        if n == 71 and loop.plan.rule == "gradient":
            os.kill(os.getpid(), signal.SIGINT)
        return jump(loop, n)

    monkeypatch.setattr(Loop, "jump", stopping)
    with pytest.raises(Stopped, match=r"all that is done is in .*: go on with 'thermorun resume"):
        spec.run(out=tmp_path / "a.h5")
    monkeypatch.undo()
    assert set(tr.load(tmp_path / "a.h5").rules) == {"natural", "gradient"}
    same(whole, tr.resume(tmp_path / "a.h5"))
    assert not (tmp_path / "a.h5.checkpoint").exists()


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"potential": "well"}, "potential is 'well'"),
        ({"theta": (-1.0, 0.0)}, "theta leaves the valid region of double-well: barrier is -1; it must be positive."),
        ({"target": (1.0,)}, "target has 1 values; double-well has 2 parameters, barrier, tilt."),
        ({"rules": "best"}, "rules is 'best'; it must be one of natural, scalar, gradient."),
        ({"rules": ()}, "rules"),
        ({"metric": "best"}, "metric is 'best'; it must be one of theory, estimated."),
        ({"accuracy": 2.0}, "accuracy is 2; it must be a share between 0 and 1."),
        ({"tau": -1.0}, "tau is -1.0; it must be a positive finite number."),
        ({"integrator": "exact"}, "integrator is 'exact', but double-well is not quadratic"),
        ({"steps": 3}, "steps is 3, too few: the fastest relaxation of double-well asks for at least"),
        (
            {"potential": "trap", "steps": 3},
            "steps is 3, too few: the fastest relaxation of trap asks",
        ),
        ({"replicas": 0}, "replicas is 0; it must be an integer of at least 1."),
        ({"fingerprint": "other"}, "potential is double-well, changed since the run began"),
        ({"potential": "trap", "theta": 1, "target": 1}, "theta and target are both 1; they must differ."),
        ({"potential": "trap", "target": 0}, "theta and target are both 0; they must differ."),
        ({"tau": 1e12}, "tau is 1e+12, which takes"),
    ],
)
def test_bad_specs(fields, sentence):
    with pytest.raises(InputError) as caught:
        learning.Learn(**fields).resolved()
    assert sentence in str(caught.value)


def test_memory_that_there_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "memory_limit", lambda: 1e9)
    with pytest.raises(InputError, match=r"particles is 16000000, which takes .* GB of memory; there are 1 GB\."):
        learning.learn(potential="trap", particles=16_000_000, out=tmp_path / "a.h5")
    assert list(tmp_path.iterdir()) == []


def doubled():
    """Two parameters that do the same."""
    return potentials.exponential_family(
        "doubled", lambda x: 0.0 * x, lambda x: 0.0 * x, lambda x: (0.5 * x * x, x * x), lambda x: (x, 2.0 * x),
        ("one", "other"), (1.0, 1.0),
    )  # fmt: skip


def test_singular_metric_and_paths_out_of_the_valid_region():
    with pytest.raises(InputError, match=r"the Fisher metric of doubled .* is singular there"):
        learning.learn(potential=doubled(), target=(2.0, 1.0))
    well = replace(
        potentials.load("double-well"), name="well", why_invalid=lambda t: "too flat." if 1.2 < t[0] < 1.3 else None
    )
    with pytest.raises(InputError, match=r"the path of Eq\. 54 leaves the valid region of well: too flat\."):
        learning.learn(potential=well, target=(1.5, 0.5), rules="natural")


def test_no_rate_is_fast_enough():
    with pytest.raises(InputError, match="in which no constant eta brings trap as near to its target as asked"):
        learning.learn(potential="trap", rules="gradient", accuracy=1e-6, tau=4.0)
    with pytest.raises(InputError, match=r"accuracy is 1e-06, which natural misses at tau 4, whatever"):
        learning.learn(potential="trap", rules="natural", accuracy=1e-6, tau=4.0)
    with pytest.raises(InputError, match="accuracy is 5e-324, which natural misses at tau 4"):
        learning.learn(potential="trap", rules="natural", accuracy=5e-324, tau=4.0)


def test_theta_that_diverges():
    with pytest.raises((RunError, InputError), match=r"leaves the valid region of stiffness|diverged at step"):
        learning.learn(potential="stiffness", theta=(3.0,), target=(0.2,), rules="gradient", eta=50.0, tau=2.0)


# --- The command and its picture --------------------------------------------------------------------------------------


def test_command(tmp_path):
    words = ("learn", "--potential", "stiffness", "--particles", "1e3", "--replicas", 4, "--tau", 5, "--seed", 3)
    run = thermorun(*words, "--theorem", "4,8", "--json", "--out", "a.h5", folder=tmp_path)
    assert (run.returncode, run.stderr) == (0, "")
    report = json.loads(run.stdout)
    assert report["command"] == "learn"
    assert [entry["rule"] for entry in report["results"]] == ["natural", "gradient"]
    gradient = report["results"][1]
    assert {"eta", "excess_work", "bias_minus_excess_work"} <= gradient.keys()
    assert {"mean", "stderr", "exact", "shift", "z"} == gradient["excess_work"].keys()
    assert report["theorem"]["exponent"] < -1
    assert {"mean", "stderr", "exact", "z"} == report["theorem"]["deviations"][0]["deviation"].keys()
    assert (tmp_path / "a.png").stat().st_size > 10_000
    with undrawn():
        table = thermorun("resume", "a.h5", folder=tmp_path)
    assert "Learning of stiffness" in table.stdout
    assert "…" not in table.stdout
    assert max(map(len, table.stdout.splitlines())) <= 80
    refused(thermorun(*words, "--dt", -1, folder=tmp_path), "--dt is -1.0; it must be a positive finite number.")
    refused(thermorun(*words, "--dt", 0.1, "--steps", 5, folder=tmp_path), "dt and steps are both given")
    refused(thermorun(*words, "--theorem", 4, folder=tmp_path), "an exponent takes at least 2.")
    refused(thermorun(*words, "--rule", "naturl", folder=tmp_path), "naturl")
    refused(thermorun(*words, "--theta", "1", "--target", "1", folder=tmp_path), "are both 1; they must differ.")


def test_ctrl_c_says_how_to_go_on(tmp_path):
    words = ("learn", "--potential", "stiffness", "--particles", "20000", "--steps", "50000", "--out", "a.h5")

    def begun():
        try:
            with h5py.File(tmp_path / "a.h5", "r", locking=False) as file:
                return int(file["commits"][0]) > 1
        except (OSError, KeyError):
            return False

    run = interrupted(*words, folder=tmp_path, until=begun)
    assert run.returncode == 130
    assert run.stderr == "thermorun: stopped; all that is done is in a.h5: go on with 'thermorun resume a.h5'.\n"
    assert (tmp_path / "a.h5.checkpoint").exists()


def test_one_sentence_in_a_process_of_its_own(tmp_path):
    run = in_process_of_its_own("learn", "--potential", "trap", "--theta", 1, "--target", 1, folder=tmp_path)
    refused(run, "are both 1; they must differ.")
    assert list(tmp_path.iterdir()) == []


def test_picture():
    result = learning.learn(**QUICK, rules=("natural", "gradient"))
    figure = result.plot()
    assert len(figure.axes) == 6
    for ax in figure.axes:
        assert " / " in ax.get_ylabel()
        assert ax.get_xlabel() == "$t$ / time"
        # Each curve lies within its panel.
        low, high = ax.get_ylim()
        for line in ax.get_lines():
            values = np.asarray(line.get_ydata(), float)
            values = values[np.isfinite(values)]
            if ax.get_title() != "loss" and len(values) > 2:
                assert low <= values.min() <= values.max() <= high
    rule, ax = result["natural"], figure.axes[2]
    np.testing.assert_allclose(ax.get_lines()[0].get_ydata(), rule.series["excess_work"].mean(axis=1))
    np.testing.assert_array_equal(ax.get_lines()[1].get_ydata(), rule.exact["exact_excess_work"])
    own, axes = plots.subplots()
    figures.loss(axes, result)
    assert own.axes[0].get_yscale() == "log"
