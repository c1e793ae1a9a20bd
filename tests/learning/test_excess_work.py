"""Learning runs against the exact law."""

import json
import pickle

import numpy as np
import pytest
from scipy.stats import kstest

from helpers import z_score
from thermorun import learning
from thermorun.learning import Path, Tabulated
from thermorun.learning.trap import protocols as schedules
from thermorun.learning.trap.plan import Plan

MILLION = 2**20


def assert_exact(result, particles, replicas=1):
    """Work, theta and u at tau within four standard errors of the truth, and the errors themselves right."""
    for protocol in result:
        truth = protocol.exact
        predicted = truth.stderr(particles, replicas)[-1]
        assert protocol.excess_work.stderr == pytest.approx(predicted, rel=0.1), protocol.label
        for name, value in (("work", truth.work), ("theta", truth.theta), ("u", truth.u)):
            estimate = protocol.estimate(name)
            assert abs(estimate.mean - value[-1]) < 4 * estimate.stderr + 1e-7, (protocol.label, name)
        variance = np.mean(protocol.series["variance"][-1])
        expected = 1 / result.spec.beta * (1 - 1 / particles)
        assert abs(variance - expected) < 4 * expected * (2 / particles / replicas) ** 0.5


@pytest.mark.parametrize("figure", learning.FIGURES)
def test_a_million_particles_reproduce_the_paper(figure):
    fields = learning.FIGURES[figure] | {"snapshots": 0}
    result = learning.excess_work(particles=MILLION, **fields)
    assert_exact(result, MILLION)
    for plan in Plan.of(result.spec):
        _, _, work = plan.scheme.mean_field(result.spec.trap, plan.u0)
        assert abs(work[-1] - plan.exact.work[-1]) < 0.5 * result[plan.label].excess_work.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("name", "other"), [("slow-driving", 0.160270), ("constant", 0.248316)])
def test_sixteen_million_particles_tell_the_truth_from_the_papers_limit(name, other):
    protocol = learning.excess_work(protocols=name, particles=2**24)[name]
    work = protocol.excess_work
    assert abs(work.z(protocol.exact.work[-1])) < 4
    assert abs(work.z(other)) > 4


def test_open_loop_and_the_users_own_protocols():
    protocols = (
        "straight-line",
        Path(times=(0.0, 2.0, 2.0, 5.0), thetas=(0.2, 0.5, 0.8, 0.8)),
        Tabulated.of(lambda t: 0.3 + 0.1 * t, 5.0, [(0.0, 0.1), (1.2345, 0.2), (5.0, 0.1)]),
        Tabulated.of([0.2, 0.4, 0.3], 5.0),
    )
    result = learning.excess_work(protocols=protocols, particles=2**18)
    assert list(result.protocols) == ["straight-line", "path", "tabulated", "tabulated-2"]
    assert_exact(result, 2**18)


def test_every_recorded_time_agrees_with_the_exact_curve():
    for protocol in learning.excess_work(particles=2**18, records=20):
        stderr = protocol.exact.stderr(2**18)
        late = stderr > 1e-6
        z = (protocol.series["work"][:, 0] - protocol.exact.work)[late] / stderr[late]
        assert np.max(np.abs(z)) < 4
        np.testing.assert_allclose(np.sqrt(protocol.series["var_work"][late, 0]), stderr[late], rtol=0.25)
        assert protocol.series["work"][0, 0] == 0


def test_bias_of_the_objective_is_the_excess_work():
    """dL_bias = d<W_ex> (Eqs. 18-20), as two measurements: the gradient's quadrature and the particles' work."""
    for precision, residual in (("float32", 1e-6), ("float64", 1e-12)):
        for protocol in learning.excess_work(particles=2**16, precision=precision):
            work, bias = protocol.series["work"], protocol.series["bias"]
            np.testing.assert_allclose(bias, work, atol=5e-6)
            assert not np.array_equal(bias, work)
            assert protocol.first_law_residual < residual


def test_precision_of_the_noise_cannot_be_seen():
    """float32, float64 and a double-precision Box-Muller on the same words: far closer than the standard error."""
    import naive

    runs = {p: learning.excess_work(particles=4096, precision=p) for p in ("float32", "float64")}
    for label, double in runs["float64"].protocols.items():
        stderr = double.excess_work.stderr
        assert abs(runs["float32"][label].excess_work.mean - double.excess_work.mean) < 1e-4 * stderr
    plan = Plan.of(learning.ExcessWork(protocols="constant", particles=4096, steps=50, precision="float64", records=1))[
        0
    ]
    x = plan.u0 + naive.normals(plan.spec.seed, int(plan.stream(1)), 0, 4096)
    theta, work = 0.0, 0.0
    for n, (gain, pull, kick) in enumerate(plan.scheme.steps):
        new = theta - gain * (x.mean() - 1.0)
        work += (new - theta) * ((new + theta) / 2 - x.mean())
        theta = new
        x += pull * (theta - x) + kick * naive.normals(plan.spec.seed, int(plan.stream(0)), n, 4096)
    ours = learning.excess_work(plan.spec)["constant"].excess_work
    assert abs(ours.mean - work) < 1e-4 * ours.stderr


def test_errors_from_within_a_replica_are_those_between_replicas():
    """Particles share theta, so the spread of their works is not the error; the jackknife over blocks is."""
    particles, replicas = 16 * 1024, 300
    result = learning.excess_work(
        protocols=("constant", "discontinuous"), particles=particles, replicas=replicas, steps=200, records=1, tau=3.0
    )
    for protocol in result:
        works = protocol.series["work"][-1]
        truth = protocol.exact
        assert abs(z_score(works, truth.work[-1] + truth.work_shift[-1] / particles)) < 4
        within = np.mean(protocol.series["var_work"][-1])
        spread = np.var(works, ddof=1)
        assert spread == pytest.approx(within, rel=4 * (2 / replicas) ** 0.5)
        assert spread == pytest.approx(truth.covariance[-1, 2, 2] / particles, rel=4 * (2 / replicas) ** 0.5)
        assert protocol.excess_work.stderr == pytest.approx(truth.stderr(particles, replicas)[-1], rel=0.1)
        assert protocol.to_dict()["stderr_between_replicas"] == pytest.approx((spread / replicas) ** 0.5)


def test_a_single_small_replica_does_not_invent_an_error():
    result = learning.excess_work(protocols="constant", particles=1000, steps=20, records=1)
    estimate = result["constant"].excess_work
    assert np.isnan(estimate.stderr)
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["results"][0]["excess_work"]["stderr"] is None


def test_finite_data_and_minibatches_add_their_noise():
    """theta* becomes a sample's mean, so theta spreads by 1/sqrt(samples); minibatches add more."""
    common = {"protocols": "discontinuous", "particles": 4096, "replicas": 400, "steps": 100, "records": 1}
    exact_data = learning.excess_work(**common)["discontinuous"]
    sampled = learning.excess_work(samples=100, **common)["discontinuous"]
    batched = learning.excess_work(samples=100, minibatch=10, **common)["discontinuous"]
    theta = {name: run.series["theta"][-1] for name, run in (("e", exact_data), ("s", sampled), ("b", batched))}
    assert np.var(theta["s"]) == pytest.approx(np.var(theta["e"]) + 1 / 100, rel=4 * (2 / 400) ** 0.5)
    assert abs(z_score(theta["s"], 1.0)) < 4
    # Both runs have the same samples; what the batches add is independent of them.
    assert np.var(theta["b"] - theta["s"]) > 10 * np.var(theta["e"])
    assert sampled.excess_work.stderr == pytest.approx(np.std(sampled.series["work"][-1], ddof=1) / 20)
    given = learning.excess_work(samples=(0.5, 2.5), **common)["discontinuous"]
    assert abs(z_score(given.series["theta"][-1], 1.5)) < 4


def test_minibatch_noise_alone():
    """With gain g_n the target's noise adds sum g_n^2 / m to theta's variance where x does not move."""
    spec = learning.ExcessWork(
        protocols="constant", mobility=1e-9, tau=1.0, samples=(-1.0, 1.0), minibatch=4, particles=1024, replicas=2000,
        steps=20, records=1, target=0.0,
    )  # fmt: skip
    run = learning.excess_work(spec)["constant"]
    gains = Plan.of(spec)[0].scheme.steps[:, 0]
    # x stays where it was drawn, so theta drifts with u, which varies by 1/1024 between replicas.
    expected = np.sum(gains**2) / 4 + np.sum(gains) ** 2 / 1024
    assert np.var(run.series["theta"][-1]) == pytest.approx(expected, rel=4 * (2 / 2000) ** 0.5)


def test_each_particles_work():
    """The second pass sees the same particles; open loop from equilibrium obeys Jarzynski and has a Gaussian work."""
    result = learning.excess_work(
        protocols=("constant", "straight-line"), particles=2**17, keep_work=True, precision="float64"
    )
    for protocol in result:
        assert protocol.particle_work.mean() == pytest.approx(protocol.excess_work.mean, abs=1e-9)
        assert protocol.particle_heat.mean() == pytest.approx(protocol.series["heat"][-1, 0], abs=1e-9)
    line = result["straight-line"]
    work = line.particle_work[0]
    assert abs(z_score(np.exp(-work), 1.0)) < 4
    law = (line.exact.work[-1], line.exact.covariance[-1, 2, 2] ** 0.5)
    assert kstest(work, "norm", args=law).pvalue > 1e-4
    mean, stderr = work.mean(), work.std(ddof=1) / work.size**0.5
    assert line.excess_work.mean == pytest.approx(mean)
    assert line.excess_work.stderr == pytest.approx(stderr)


def test_snapshots_are_the_law_of_x():
    protocol = learning.excess_work(particles=2**18, **learning.FIGURES[4])["discontinuous"]
    width = protocol.density_x[1] - protocol.density_x[0]
    counts = protocol.density * width * 2**18
    truth = learning.exact.moments(protocol.spec.trap, protocol.protocol, protocol.density_time)
    for row, mean in enumerate(truth.u):
        expected = np.exp(-0.5 * (protocol.density_x - mean) ** 2) / (2 * np.pi) ** 0.5 * width * 2**18
        full = expected > 20
        chi2 = np.sum((counts[row, full] - expected[full]) ** 2 / expected[full])
        assert abs(chi2 - full.sum()) < 5 * (2 * full.sum()) ** 0.5


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("chunk", [1, 70_000, 10**9])
def test_neither_threads_nor_chunks_change_a_bit(threads, chunk):
    fields = {
        "protocols": ("discontinuous", "straight-line"), "particles": 5000, "replicas": 2, "steps": 60, "records": 7,
        "snapshots": 3, "keep_work": True,
    }  # fmt: skip
    reference = learning.excess_work(**fields)
    other = learning.excess_work(threads=threads, chunk=chunk, **fields)
    for label, protocol in reference.protocols.items():
        for name, values in protocol.series.items():
            np.testing.assert_array_equal(values, other[label].series[name], err_msg=name)
        np.testing.assert_array_equal(protocol.density, other[label].density)
        np.testing.assert_array_equal(protocol.particle_work, other[label].particle_work)


def test_seeds_and_replicas_and_protocols_have_their_own_noise():
    def works(**fields):
        run = learning.excess_work(particles=2048, steps=20, records=1, **fields)
        return [work for protocol in run for work in protocol.series["work"][-1]]

    lots = (
        works(protocols="constant", replicas=3)
        + works(protocols="constant", seed=2**64 - 1)
        + works(protocols=("constant", "constant"))[1:]
    )
    assert len(set(lots)) == len(lots)
    assert works(protocols=("continuous", "constant"))[1] == lots[0]


def test_blow_up_is_reported_with_step_and_cure():
    spec = learning.ExcessWork(protocols="constant", theta0=1e39, target=-1e39, particles=10, steps=10)
    with pytest.raises(
        RuntimeError, match=r"constant left the finite numbers at step \d+ in replica 0; take more steps"
    ):
        learning.excess_work(spec)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"particles": 0}, "particles is 0"),
        ({"particles": 2**35}, "particles is 34359738368; it must be at most"),
        ({"particles": 1.5}, "particles is 1.5"),
        ({"particles": 2**33, "precision": "float64", "protocols": "straight-line"}, "GB of memory"),
        ({"steps": 0}, "steps is 0"),
        ({"steps": 10**9}, "steps is 1000000000; it must be at most"),
        ({"replicas": -1}, "replicas is -1"),
        ({"records": 0}, "records is 0"),
        ({"seed": 2**64}, "seed is 18446744073709551616; it must be below"),
        ({"eta": float("nan")}, "eta is nan"),
        ({"integrator": "rk4"}, "integrator is 'rk4'"),
        ({"precision": "float16"}, "precision is 'float16'"),
        ({"protocols": ()}, "protocols is empty"),
        ({"minibatch": 2}, "give samples as well"),
        ({"samples": (1.0, float("nan"))}, "only finite numbers"),
        ({"threads": 0}, "threads is 0"),
        ({"resume": True}, "resume needs out"),
        ({"integrator": "euler-maruyama", "steps": 2}, "Euler-Maruyama is stable only below 2"),
    ],
)
def test_bad_input(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        learning.excess_work(**fields)


def test_specs_travel():
    spec = learning.ExcessWork(
        protocols=("constant", Tabulated.of(np.cos, 5.0, [(2.0, 0.1)]), Path(times=(0.0, 5.0), thetas=(0.0, 1.0))),
        samples=(0.5, 1.5),
    )
    assert learning.ExcessWork.from_json(spec.to_json()) == spec
    assert pickle.loads(pickle.dumps(spec)) == spec
    with pytest.raises(ValueError, match="is not that of an excess-work run"):
        learning.ExcessWork.from_json('{"protocols": [], "what": 1}')


def test_half_the_step():
    spec = learning.ExcessWork(protocols="constant", particles=2**14, steps=50, integrator="euler-maruyama")
    result = learning.excess_work(spec)
    (check,) = learning.compare_steps(result, learning.halve_step(spec))
    # Euler-Maruyama is of first order: halving the step removes half of the bias.
    assert abs(check.difference.z(check.bias / 2)) < 4
    assert abs(check.bias) > 1e-3


def test_estimates_merge():
    from thermorun.estimates import Estimate

    works = np.random.default_rng(3).normal(size=30)
    whole = Estimate(works.mean(), 30**-0.5, 30)
    merged = Estimate(works[:10].mean(), 10**-0.5, 10).merge(Estimate(works[10:].mean(), 20**-0.5, 20))
    assert merged.mean == pytest.approx(whole.mean)
    assert merged.stderr == pytest.approx(whole.stderr)
    assert str(Estimate(0.142857, 0.00069)) == "0.14286 ± 0.00069"
    assert str(Estimate(0.5, float("nan"))) == "0.5 ± ?"


def test_names_of_the_protocols_are_all_known():
    assert [protocol.name for protocol in learning.ExcessWork(protocols=schedules.NAMES).built().values()] == list(
        schedules.NAMES
    )
