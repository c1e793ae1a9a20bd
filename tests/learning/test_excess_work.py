"""Runs of the trap against exact values, and themselves cut, threaded and resumed otherwise."""

import functools
import json
import pickle

import numpy as np
import pytest
from scipy.stats import kstest

import naive
import thermorun
from helpers import z_score
from thermorun import learning
from thermorun.errors import InputError, RunError, Stopped
from thermorun.learning import ExcessWork, Path, Tabulated
from thermorun.learning.trap import exact, protocols
from thermorun.learning.trap.plan import Plan
from thermorun.runs import Session

# One default size of the command, and one that proves as much in an eighth of the time.
MILLION, MANY = 2**20, 2**17

# Threads wait for each other at every step, which costs more than it gives in runs as small as these.
run_alone = functools.partial(learning.excess_work, threads=1)


def assert_exact(result, particles):
    """Work, theta and u at tau within four standard errors of the truth, and the errors themselves right."""
    for protocol in result:
        truth = protocol.exact
        spread = 4 / (2 * protocol.excess_work.dof) ** 0.5
        assert protocol.excess_work.stderr == pytest.approx(truth.stderr[-1], rel=spread), protocol.label
        for name, value in (("work", truth.work), ("theta", truth.theta), ("u", truth.u)):
            estimate = protocol.estimate(name)
            assert abs(estimate.mean - value[-1]) < 4 * estimate.stderr + 1e-7, (protocol.label, name)
        variance = np.mean(protocol.series["variance"][-1])
        expected = 1 / result.spec.beta * (1 - 1 / particles)
        assert abs(variance - expected) < 4 * expected * (2 / particles) ** 0.5


@pytest.mark.parametrize(
    ("figure", "particles"),
    [*((figure, MANY) for figure in learning.FIGURES), pytest.param(6, MILLION, marks=pytest.mark.slow)],
)
def test_many_particles_reproduce_the_paper(figure, particles):
    fields = learning.FIGURES[figure] | {"snapshots": 0, "records": 10}
    result = run_alone(particles=particles, **fields)
    assert_exact(result, particles)
    for plan in Plan.of(result.spec):
        _, _, work = plan.scheme.mean_field(plan.trap, plan.u0)
        assert abs(work[-1] - plan.exact.work[-1]) < 0.5 * result[plan.label].excess_work.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("name", "other"), [("slow-driving", 0.160270), ("constant", 0.248316)])
def test_sixteen_million_particles_tell_the_truth_from_the_papers_limit(name, other):
    protocol = run_alone(protocols=name, particles=2**24)[name]
    work = protocol.excess_work
    assert abs(work.z(protocol.exact.work[-1])) < 4
    assert abs(work.z(other)) > 4


def test_open_loop_and_the_users_own_protocols():
    several = (
        "straight-line",
        Path(times=(0.0, 2.0, 2.0, 5.0), thetas=(0.2, 0.5, 0.8, 0.8)),
        Tabulated.of(lambda t: 0.3 + 0.1 * t, 5.0, [(0.0, 0.1), (1.2345, 0.2), (5.0, 0.1)]),
        Tabulated.of([0.2, 0.4, 0.3], 5.0),
    )
    result = run_alone(several, particles=2**15)
    assert list(result.protocols) == ["straight-line", "path", "tabulated", "tabulated-2"]
    assert_exact(result, 2**15)


def test_every_recorded_time_agrees_with_the_exact_curve():
    for protocol in run_alone(particles=2**16, records=20, steps=500):
        stderr = protocol.exact.stderr
        late = stderr > 1e-6
        z = (protocol.series["work"][:, 0] - protocol.exact.work)[late] / stderr[late]
        assert np.max(np.abs(z)) < 4
        np.testing.assert_allclose(np.sqrt(protocol.series["var_work"][late, 0]), stderr[late], rtol=0.25)
        assert protocol.series["work"][0, 0] == 0


def test_bias_of_the_objective_is_the_excess_work():
    """dL_bias = d<W_ex> (Eqs. 18-20), as two measurements: the gradient's quadrature and the particles' work."""
    for precision, residual in (("float32", 1e-6), ("float64", 1e-12)):
        for protocol in run_alone(particles=2**13, precision=precision):
            work, bias = protocol.series["work"], protocol.series["bias"]
            np.testing.assert_allclose(bias, work, atol=1e-5)
            assert not np.array_equal(bias, work)
            assert protocol.first_law_residual < residual


def test_precision_of_the_noise_cannot_be_seen():
    """float32, float64 and a double-precision Box-Muller on the same words: far closer than the standard error."""
    runs = {p: run_alone(particles=4096, precision=p) for p in ("float32", "float64")}
    for label, double in runs["float64"].protocols.items():
        stderr = double.excess_work.stderr
        assert abs(runs["float32"][label].excess_work.mean - double.excess_work.mean) < 1e-4 * stderr
    spec = ExcessWork(protocols="constant", particles=4096, steps=50, precision="float64", records=1)
    (plan,) = Plan.of(spec)
    start, dynamics = (plan.streams(purpose).first for purpose in ("start", "dynamics"))
    x = plan.u0 + naive.normals(spec.seed, start, 0, 4096)
    theta, work = 0.0, 0.0
    for n, (gain, pull, kick) in enumerate(plan.scheme.steps):
        new = theta - gain * (x.mean() - 1.0)
        work += (new - theta) * ((new + theta) / 2 - x.mean())
        theta = new
        x += pull * (theta - x) + kick * naive.normals(spec.seed, dynamics, n, 4096)
    ours = spec.run(threads=1)["constant"].excess_work
    assert abs(ours.mean - work) < 1e-4 * ours.stderr


def test_errors_from_within_a_replica_are_those_between_replicas():
    """Particles share theta, so the spread of their works is not the error; the jackknife over parts is."""
    particles, replicas = 8 * 1024, 300
    result = run_alone(
        protocols=("constant", "discontinuous"), particles=particles, replicas=replicas, steps=200, records=1, tau=3.0
    )
    for protocol in result:
        works = protocol.series["work"][-1]
        truth = protocol.exact
        assert truth.work[-1] > truth.limit[-1]
        assert abs(z_score(works, truth.work[-1])) < 4
        within = np.mean(protocol.series["var_work"][-1])
        spread = np.var(works, ddof=1)
        assert spread == pytest.approx(within, rel=4 * (2 / replicas) ** 0.5)
        assert spread == pytest.approx(replicas * truth.stderr[-1] ** 2, rel=4 * (2 / replicas) ** 0.5)
        assert protocol.excess_work.stderr == pytest.approx(truth.stderr[-1], rel=0.1)
        assert protocol.to_dict()["stderr_between_replicas"] == pytest.approx((spread / replicas) ** 0.5)


def test_a_single_small_replica_does_not_invent_an_error():
    for fields, reason in (({"particles": 16}, "16 particles"), ({"samples": 5}, "data of its own")):
        result = run_alone("constant", steps=20, records=1, **{"particles": 1000} | fields)
        assert np.isnan(result["constant"].excess_work.stderr)
        assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["results"][0]["excess_work"]["stderr"] is None
        (note,) = [note for note in result.tables()[0].notes if note.startswith("± ?: one replica")]
        assert reason in note


def test_finite_data_and_minibatches_add_their_noise():
    """theta* becomes a sample's mean, so theta spreads by 1/sqrt(samples); minibatches add more."""
    common = {"protocols": "discontinuous", "particles": 4096, "replicas": 400, "steps": 100, "records": 1}
    exact_data = run_alone(**common)["discontinuous"]
    sampled = run_alone(samples=100, **common)["discontinuous"]
    batched = run_alone(samples=100, minibatch=10, **common)["discontinuous"]
    theta = {name: run.series["theta"][-1] for name, run in (("e", exact_data), ("s", sampled), ("b", batched))}
    assert np.var(theta["s"]) == pytest.approx(np.var(theta["e"]) + 1 / 100, rel=4 * (2 / 400) ** 0.5)
    assert abs(z_score(theta["s"], 1.0)) < 4
    # Both runs have the same samples; what the batches add is independent of them.
    assert np.var(theta["b"] - theta["s"]) > 10 * np.var(theta["e"])
    assert sampled.excess_work.stderr == pytest.approx(np.std(sampled.series["work"][-1], ddof=1) / 20)
    given = run_alone(samples=(0.5, 2.5), **common)["discontinuous"]
    assert abs(z_score(given.series["theta"][-1], 1.5)) < 4


def test_minibatch_noise_alone():
    """With gain g_n the target's noise adds sum g_n^2 / m to theta's variance where x does not move."""
    spec = ExcessWork(
        protocols="constant", mobility=1e-9, tau=1.0, samples=(-1.0, 1.0), minibatch=4, particles=1024, replicas=2000,
        steps=20, records=1, target=0.0,
    )  # fmt: skip
    run = spec.run(threads=1)["constant"]
    gains = Plan.of(spec)[0].scheme.steps[:, 0]
    # x stays where it was drawn, so theta drifts with u, which varies by 1/1024 between replicas.
    expected = np.sum(gains**2) / 4 + np.sum(gains) ** 2 / 1024
    assert np.var(run.series["theta"][-1]) == pytest.approx(expected, rel=4 * (2 / 2000) ** 0.5)


def test_each_particles_work():
    """The second pass sees the same particles; open loop from equilibrium obeys Jarzynski and has a Gaussian work."""
    result = run_alone(("constant", "straight-line"), particles=2**15, keep_work=True, precision="float64", steps=500)
    for protocol in result:
        assert protocol.particle_work.mean() == pytest.approx(protocol.excess_work.mean, abs=1e-9)
        assert protocol.particle_heat.mean() == pytest.approx(protocol.series["heat"][-1, 0], abs=1e-9)
    line = result["straight-line"]
    work = line.particle_work[0]
    assert abs(z_score(np.exp(-work), 1.0)) < 4
    law = (line.exact.work[-1], line.exact.stderr[-1] * work.size**0.5)
    assert kstest(work, "norm", args=law).pvalue > 1e-4
    mean, stderr = work.mean(), work.std(ddof=1) / work.size**0.5
    assert line.excess_work.mean == pytest.approx(mean)
    assert line.excess_work.stderr == pytest.approx(stderr)


def test_snapshots_are_the_distribution_of_x():
    protocol = run_alone(particles=2**18, **learning.FIGURES[4])["discontinuous"]
    width = protocol.density_x[1] - protocol.density_x[0]
    counts = protocol.density * width * 2**18
    truth = exact.moments(protocol.spec.trap, protocol.protocol, protocol.density_time)
    for row, mean in enumerate(truth.u):
        expected = np.exp(-0.5 * (protocol.density_x - mean) ** 2) / (2 * np.pi) ** 0.5 * width * 2**18
        full = expected > 20
        chi2 = np.sum((counts[row, full] - expected[full]) ** 2 / expected[full])
        assert abs(chi2 - full.sum()) < 5 * (2 * full.sum()) ** 0.5


CUT = {
    "protocols": ("discontinuous", "straight-line"), "particles": 5000, "replicas": 2, "steps": 60, "records": 7,
    "snapshots": 3, "keep_work": True, "check_dt": True,
}  # fmt: skip


def assert_same(result, other):
    """Every number that a file holds, but for speeds."""
    ours, theirs = result.contents(), other.contents()
    assert ours.keys() == theirs.keys()
    for section, datasets in ours.items():
        for name, one in datasets.items():
            if name not in ("particle_steps_per_second", "commits"):
                np.testing.assert_array_equal(one.values, theirs[section][name].values, err_msg=f"{section}/{name}")


@pytest.mark.parametrize(("threads", "chunk"), [(1, 1), (2, 70_000), (1, 10**9)])
def test_neither_threads_nor_chunks_change_a_bit(threads, chunk):
    spec = ExcessWork(**CUT)
    assert_same(spec.run(threads=2), spec.run(threads=threads, chunk=chunk))


@pytest.mark.parametrize("pause", [1, 7, 9, 12, 25])
def test_a_run_that_was_stopped_anywhere_goes_on(tmp_path, monkeypatch, pause):
    """As Ctrl-C does it: at the n-th place where a run may stop, the state is saved and the run ends."""
    spec, calls, original = ExcessWork(**CUT), [], Session.pause

    def stop(self, state=None):
        calls.append(None)
        if len(calls) == pause:
            self.interrupt.pending = True
        original(self, state)

    monkeypatch.setattr(Session, "pause", stop)
    with pytest.raises(Stopped, match="go on with 'thermorun resume"):
        spec.run(out=tmp_path / "a.h5", chunk=100_000, threads=1)
    monkeypatch.setattr(Session, "pause", original)
    part = thermorun.load(tmp_path / "a.h5")
    assert len(part.time_steps) < 2
    assert any(words in part.summary() for words in ("only until t", "not begun", "half the step are not complete"))
    assert_same(thermorun.resume(tmp_path / "a.h5", threads=1), spec.run(threads=1))
    assert not (tmp_path / "a.h5.checkpoint").exists()


def test_seeds_and_replicas_and_protocols_have_their_own_noise():
    def works(**fields):
        run = run_alone(particles=2048, steps=20, records=1, **fields)
        return [work for protocol in run for work in protocol.series["work"][-1]]

    lots = (
        works(protocols="constant", replicas=3)
        + works(protocols="constant", seed=2**64 - 1)
        + works(protocols=("constant", "constant"))[1:]
    )
    assert len(set(lots)) == len(lots)
    assert works(protocols=("continuous", "constant"))[1] == lots[0]


def test_divergence_is_reported_with_step_and_cure():
    with pytest.raises(RunError, match=r"tabulated diverged at step \d+ in replica 0; take more steps"):
        run_alone(Tabulated.of([-20000.0], 5.0), particles=10, steps=1000)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"particles": 0}, "particles is 0"),
        ({"particles": 2**35}, "particles is 34359738368; it must be at most"),
        ({"particles": 1.5}, "particles is 1.5"),
        ({"particles": 2**33, "precision": "float64", "protocols": "straight-line"}, "GB of memory"),
        ({"snapshots": 10**30}, "snapshots is 1000000000000000000000000000000; it must be at most"),
        ({"snapshots": 2**31}, "snapshots is 2147483648, of .* bins in all, which takes"),
        ({"steps": 0}, "steps is 0"),
        ({"steps": 10**9}, "steps is 1000000000; it must be at most"),
        ({"replicas": -1}, "replicas is -1"),
        ({"records": 0}, "records is 0"),
        ({"seed": 2**64}, "seed is 18446744073709551616; it must be at most"),
        ({"eta": float("nan")}, "eta is nan"),
        ({"integrator": "rk4"}, "integrator is 'rk4'"),
        ({"precision": "float16"}, "precision is 'float16'"),
        ({"protocols": ()}, "protocols holds 0 values; it must hold at least 1"),
        ({"protocols": "best"}, "protocols is 'best'; it must be one of discontinuous"),
        ({"tau": "5"}, "tau is '5'; it must be a positive finite number"),
        ({"protocols": Path(times=(0, 1), thetas=(0, 1))}, "tau is 5.0 and the protocol 'path' ends at 1.0"),
        ({"samples": ()}, "samples holds 0 values"),
        ({"samples": "numbers.pdf"}, "samples is numbers.pdf; it must be an array or a file that ends in"),
        ({"samples": 1.5}, "samples is 1.5; it must be an integer"),
        ({"target": 1e7}, "precision is 'float32', which knows positions that are 1e\\+07 apart to 1"),
        ({"steps": 10**8, "replicas": 10**4, "particles": 1}, "steps is 1 x 10000 x 100000000, which takes .* GB"),
        ({"minibatch": 2}, "give samples as well"),
        ({"samples": (1.0, float("nan"))}, "only finite numbers"),
        ({"threads": 0}, "threads is 0"),
        ({"resume": True}, "resume needs out"),
        ({"integrator": "euler-maruyama", "steps": 2}, "Euler-Maruyama is stable only below 2"),
    ],
)
def test_bad_input(fields, sentence):
    with pytest.raises(InputError, match=sentence):
        learning.excess_work(**fields)


def test_specs_travel():
    spec = ExcessWork(
        protocols=("constant", Tabulated.of(np.cos, 5.0, [(2.0, 0.1)]), Path(times=(0.0, 5.0), thetas=(0.0, 1.0))),
        samples=np.array([0.5, 1.5]), particles=np.int64(2048), tau=np.float32(5),
    )  # fmt: skip
    assert ExcessWork.from_json(spec.to_json()) == spec
    assert pickle.loads(pickle.dumps(spec)) == spec
    assert spec.steps is None
    assert spec.resolved().steps == 1000
    for line, sentence in (
        ('{"what": 1}', "what is no field of a run of excess-work"),
        ('{"protocols": [{"name": "best"}]}', "protocol is 'best'; it must be one of"),
        ('{"protocols": [{"name": "constant", "slope": 1}]}', "is not one of ours"),
        ("[]", "is not that of a run of excess-work"),
    ):
        with pytest.raises(InputError, match=sentence):
            ExcessWork.from_json(line)


def test_results_travel(tmp_path):
    """What is read from a file, from memory, and after pickling, is the same; xarray and pandas take it."""
    spec = ExcessWork(**CUT)
    ours = spec.run(out=tmp_path / "a.h5", threads=1)
    assert_same(ours, spec.run(threads=1))
    for other in (thermorun.load(tmp_path / "a.h5"), spec.run(threads=1), pickle.loads(pickle.dumps(ours))):
        rows = [row | {"particle_steps_per_second": 0} for row in other.rows()]
        assert rows == [row | {"particle_steps_per_second": 0} for row in ours.rows()]
        assert other.time_steps == ours.time_steps
        np.testing.assert_array_equal(other["straight-line"].particle_work, ours["straight-line"].particle_work)
    tree = ours.to_xarray()
    assert tree["discontinuous/snapshots/density"].dims == ("snapshot_time", "x")
    assert tree["discontinuous/work"].attrs["units"] == "energy"
    assert len(ours.to_pandas()) == len(ours) == 2
    assert len(repr(ours)) < 300
    with pytest.raises(InputError, match="protocol is 'best'"):
        ours["best"]


def test_half_the_step():
    result = run_alone("constant", particles=2**14, steps=50, integrator="euler-maruyama", check_dt=True)
    (check,) = result.time_steps
    # Euler-Maruyama is of first order: halving the step removes half of the bias.
    assert abs(check.difference.z(check.bias / 2)) < 4
    assert abs(check.bias) > 1e-3
    assert result.to_dict()["time_step"] == [check.to_dict()]
    assert "50 steps against 100" in result.summary()


@pytest.mark.parametrize("far", [1e5, -1e7, 1e12])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_a_trap_far_from_zero_is_the_same_trap(far, precision):
    """The same numbers as about zero, up to what positions out there can say."""
    fields = {"particles": 4096, "steps": 50, "records": 5, "snapshots": 2, "precision": precision}
    several = ("discontinuous", "constant", "continuous")
    near = run_alone((*several, Path(times=(0, 5), thetas=(0, 1))), **fields)
    away = run_alone((*several, Path(times=(0, 5), thetas=(far, far + 1))), theta0=far, target=far + 1, **fields)
    for one, other in zip(near, away, strict=True):
        for name in ("work", "heat", "variance", "var_work", "bias"):
            np.testing.assert_allclose(other.series[name], one.series[name], rtol=0, atol=1e-9 + 1e-15 * abs(far))
        for name in ("u", "theta"):
            np.testing.assert_allclose(other.series[name] - far, one.series[name], atol=1e-9 + 1e-15 * abs(far))
        np.testing.assert_allclose(other.exact.work, one.exact.work, atol=1e-9 + 1e-15 * abs(far))
        np.testing.assert_allclose(other.density_x - far, one.density_x, atol=1e-9 + 1e-15 * abs(far))


def test_far_out_in_single_precision_is_right():
    """theta0 = 1e7: 1.768 +- 0.012 where 0.142857 is right, once."""
    result = run_alone("discontinuous", theta0=1e7, target=10000001, particles=65536)["discontinuous"]
    assert abs(result.excess_work.z(1 / 7 + 2 / 65536)) < 4
    assert result.excess_work.stderr < 0.004


@pytest.mark.parametrize("particles", [10, 100, 1024])
def test_the_exact_value_is_that_of_so_many_particles(particles):
    for protocol in run_alone(particles=particles, replicas=400, steps=200, records=1):
        assert abs(protocol.excess_work.z(protocol.exact_work)) < 4
        if particles == 10:
            assert abs(protocol.excess_work.z(protocol.exact.limit[-1])) > 4


def test_the_exact_value_is_that_of_such_data():
    """Of a drawn sample, of a given one; and none with minibatches, with a word why."""
    several = ("discontinuous", "constant", "straight-line")
    for samples in (3, (0.2, 2.4, 1.9)):
        drawn = run_alone(several, particles=2048, replicas=400, steps=200, records=1, samples=samples)
        for protocol in drawn:
            assert abs(protocol.excess_work.z(protocol.exact_work)) < 4
            if protocol.label != "straight-line":
                assert abs(protocol.excess_work.z(protocol.exact.limit[-1])) > 4 or samples != 3
    batched = run_alone(several, particles=64, replicas=8, steps=50, samples=3, minibatch=2)
    assert batched["constant"].exact_work is None
    assert batched["straight-line"].exact_work is not None
    assert "exact ?: the noise of minibatches" in batched.summary()


@pytest.mark.parametrize("particles", [1024, 1500, 2048])
def test_standard_errors_of_small_runs_are_calibrated(particles):
    """200 replicas as runs of their own: z as it is printed has unit variance, and is never wild."""
    run = run_alone(("discontinuous", "constant"), particles=particles, replicas=400, steps=200, records=1)
    dof = run.spec.degrees_of_freedom
    assert dof >= 31
    for protocol in run:
        error = np.sqrt(protocol.series["var_work"][-1])
        z = (protocol.series["work"][-1] - protocol.exact_work) / error
        assert abs(np.mean(z**2) - dof / (dof - 2)) < 4 * (2 / 400) ** 0.5
        assert np.max(np.abs(z)) < 5
        assert protocol.excess_work.dof == 400 * dof


def test_samples_from_files(tmp_path):
    values = np.array([0.5, 2.5, -1.0])
    np.save(tmp_path / "a.npy", values)
    (tmp_path / "a.csv").write_text("x\n0.5\n2.5\n-1\n")
    for file in ("a.npy", "a.csv"):
        assert ExcessWork(samples=str(tmp_path / file)).samples == (0.5, 2.5, -1.0)
    np.save(tmp_path / "b.npy", np.ones((3, 2)))
    with pytest.raises(InputError, match="holds 2 numbers a point; the trap has one"):
        ExcessWork(samples=tmp_path / "b.npy")


def test_names_of_the_protocols_are_all_known():
    built = ExcessWork(protocols=protocols.NAMES).built()
    assert list(built) == [protocol.name for protocol in built.values()] == list(protocols.NAMES)


def test_more_records_than_steps_are_one_at_every_step():
    few = {"particles": 64, "replicas": 2, "steps": 3, "protocols": "straight-line"}
    every, more = (learning.excess_work(records=records, **few)["straight-line"] for records in (3, 10**30))
    np.testing.assert_array_equal(every.time, more.time)
    for name, values in every.series.items():
        np.testing.assert_array_equal(values, more.series[name])
