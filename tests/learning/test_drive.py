"""Work of any potential along a path, against exact values that know neither particles nor our kernels."""

import dataclasses
import json

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.linalg import eigh_tridiagonal
from scipy.stats import norm

import thermorun as package
from helpers import refused, thermorun, z_score
from thermorun import learning, potentials
from thermorun.errors import InputError
from thermorun.learning.driven.spec import Drive
from thermorun.learning.trap import exact, protocols
from thermorun.potentials import NAMES, Periodic, Potential, System
from thermorun.potentials.path_means import means
from thermorun.potentials.staircase import staircase

SMALL = {"particles": 8192, "threads": 1}
# Each potential is compiled once more: a quadratic one and one in one dimension stand for the rest.
OTHERS = [name for name in NAMES if name not in ("stiffness", "double-well")]
JUMPS = ((0.0, 0.2), (1.0, 0.5), (1.0, 0.9), (3.0, 1.0))


def test_the_trap_is_that_of_the_moment_equations():
    """Paths with jumps, at both ends too: the same exact work as excess-work has, and the particles agree."""
    for rows in (((0.0, 0.0), (5.0, 1.0)), JUMPS, ((0, 0), (0, 0.3), (2, 0.6), (2, 1))):
        times, thetas = zip(*rows, strict=True)
        trap = learning.Trap(tau=float(times[-1]), theta0=float(thetas[0]), target=1.0)
        path = protocols.Path(times=times, thetas=thetas)
        wanted = exact.moments(trap, path, [0.0, times[-1], times[-1]]).work[-1]
        result = learning.drive("trap", rows, **SMALL)
        assert result.exact_excess_work == pytest.approx(wanted, rel=1e-6)
        assert result.delta_f == 0.0
        assert abs(result.excess_work.z(wanted)) < 4
        assert result.first_law_residual < 1e-10


def test_fokker_planck_is_a_master_equation():
    """On a coarse grid of its own, by eigenvectors of its rates, for a double well that is tilted and back."""
    system = System("double-well")
    rows = np.array([(0.0, 2.0, 0.0, 1.0), (1.0, 2.0, 1.5, 1.0), (2.0, 2.0, 0.0, 1.0)])
    x = np.linspace(-2.9, 2.9, 121)
    stairs = staircase(rows, 100)
    waits = stairs.waits
    energies = [system.potential.energies(x[:, None], tuple(theta)) for theta in stairs.theta]
    density, work = np.exp(-energies[0]), 0.0
    density /= density.sum()
    for old, new, wait in zip(energies[:-1], energies[1:], [*waits, 0.0], strict=True):
        work += density @ (new - old)
        # Detailed balance makes the rates symmetric between densities over the square root of that of equilibrium.
        leave, rise, rate = np.zeros(len(x)), 0.5 * np.diff(new), 1 / (x[1] - x[0]) ** 2
        leave[:-1] += rate * np.exp(-rise)
        leave[1:] += rate * np.exp(rise)
        values, vectors = eigh_tridiagonal(-leave, np.full(len(x) - 1, rate))
        root = np.exp(-0.5 * (new - new.min()))
        density = root * (vectors @ (np.exp(values * wait) * (vectors.T @ (density / root))))
    found = means(system, rows)
    assert found.how == "Fokker-Planck"
    assert found.work == pytest.approx(work, rel=2e-3)
    result = learning.drive("double-well", rows[:, :-1], **SMALL)
    assert result.delta_f == pytest.approx(0.0, abs=1e-12)
    assert abs(result.work.z(found.work)) < 4


@pytest.mark.parametrize(
    "name", ["stiffness", "double-well", *(pytest.param(n, marks=pytest.mark.slow) for n in OTHERS)]
)
def test_defaults_run_for_every_potential(name):
    """At one temperature and while it rises, with histograms of every component of x."""
    settings = {"tau": 0.5, "particles": 2048, "steps": 400, "at": (0.25,), "bins": 30, "threads": 1}
    result = learning.drive(name, **settings)
    assert np.isfinite(result.work.mean)
    assert result.excess_work is None or result.excess_work.mean > -4 * result.work.stderr
    heated = learning.drive(name, kT=(1.0, 1.5), **settings)
    known = [
        (result.work, result.exact_work), (result.heat, result.exact_heat), (heated.work, heated.exact_work),
        (heated.heat, heated.exact_heat), (heated.entropy_production, heated.exact_entropy_production),
    ]  # fmt: skip
    for found, truth in known:
        assert truth is None or abs(found.z(truth)) < 4
    for seen in (result.histograms, heated.histograms):
        assert seen.count.sum(axis=-1).min() > 0.99 * 2048
        if seen.exact is not None:
            shares = seen.exact * np.diff(seen.edges, axis=1)
            common = 2048 * shares > 5
            square = np.sum((seen.count - 2048 * shares)[common] ** 2 / (2048 * shares[common]))
            assert square < common.sum() + 4 * np.sqrt(2 * common.sum())


# Time, stiffness and kT: heating while it stiffens, a jump of both, then back to the first kT.
HEATED = np.array([(0.0, 1.0, 0.5), (1.0, 2.0, 1.5), (1.0, 3.0, 1.0), (2.0, 3.0, 0.5)])


def heated_moments():
    """Work, heat, integral of dQ/kT and final variance of E = k x^2 / 2 along ``HEATED``, by an ODE solver.

    dv/dt = 2 mu (kT - k v),   dW/dt = v dk/dt / 2,   dQ/dt = k dv/dt / 2
    """
    total, stiffness = np.array([HEATED[0, 2] / HEATED[0, 1], 0.0, 0.0, 0.0]), HEATED[0, 1]
    for piece in (HEATED[:2], HEATED[2:]):
        total[1] += 0.5 * (piece[0, 1] - stiffness) * total[0]
        stiffness = piece[1, 1]

        def slope(t, state, piece=piece):
            now, kt = (np.interp(t, piece[:, 0], piece[:, column]) for column in (1, 2))
            rise = 2 * (kt - now * state[0])
            stiffening = (piece[1, 1] - piece[0, 1]) / (piece[1, 0] - piece[0, 0])
            return rise, 0.5 * state[0] * stiffening, 0.5 * now * rise, 0.5 * now * rise / kt

        total = solve_ivp(slope, piece[:, 0], total, rtol=1e-11, atol=1e-13).y[:, -1]
    return total


def test_a_bath_whose_temperature_follows_a_path():
    """Work, heat and entropy production against an ODE; the integral fluctuation theorem; nothing of free energies."""
    variance, work, heat, absorbed = heated_moments()
    # Both ends have equilibrium energy kT / 2, and E/kT at the end is k v / 2 kT.
    reduced = 0.5 * HEATED[-1, 1] * variance / HEATED[-1, 2] - 0.5 - absorbed
    delta = 0.5 * np.log((HEATED[-1, 1] / HEATED[-1, 2]) / (HEATED[0, 1] / HEATED[0, 2]))
    result = learning.drive("stiffness", HEATED[:, :2], HEATED[:, 2], particles=40_000, at=(0.5, 2.0), threads=1)
    assert (result.delta_f, result.excess_work) == (None, None)
    assert result.delta_reduced == pytest.approx(delta)
    assert result.exact_work == pytest.approx(work, rel=1e-6)
    assert result.exact_heat == pytest.approx(heat, rel=1e-6)
    assert result.exact_entropy_production == pytest.approx(reduced - delta, rel=1e-6)
    assert abs(result.work.z(work)) < 4
    assert abs(result.heat.z(heat)) < 4
    assert abs(result.entropy_production.z(reduced - delta)) < 4
    assert result.first_law_residual < 1e-10
    assert abs(z_score(np.exp(delta - result.reduced_work_of_each), 1.0)) < 4
    shares = result.histograms.count[1, 0] / result.histograms.particles
    wanted = np.diff(norm.cdf(result.histograms.edges[0], scale=np.sqrt(variance)))
    np.testing.assert_allclose(result.histograms.exact[1, 0] * np.diff(result.histograms.edges[0]), wanted, atol=1e-6)
    common = wanted > 1e-3
    square = 40_000 * np.sum((shares - wanted)[common] ** 2 / wanted[common])
    assert square < common.sum() + 4 * np.sqrt(2 * common.sum())


def test_only_the_bath_changes():
    """No work is done, and at kT and back the first law closes; a quench of the bath is an instantaneous heat flow."""
    rows = ((0.0, 2.0, 0.3), (0.0, 2.0, 0.3), (1.0, 2.0, 0.3))
    result = learning.drive("double-well", rows, (0.5, 1.5, 1.5), steps=200, particles=8192, at=(0.0, 1.0), threads=1)
    assert not result.work_of_each.any()
    assert result.exact_work == 0.0
    assert abs(result.heat.z(result.exact_heat)) < 4
    assert abs(result.entropy_production.z(result.exact_entropy_production)) < 4
    assert abs(z_score(np.exp(result.delta_reduced - result.reduced_work_of_each), 1.0)) < 4


def test_fokker_planck_knows_what_gaussian_moments_know():
    """The two exact ways, of one and the same potential: means, and the distribution at two times."""
    rows = np.array([(0.0, 1.0, 0.5), (1.0, 2.0, 1.5), (1.0, 3.0, 1.0), (2.0, 3.0, 0.5)])
    system = System("stiffness", beta=2.0)
    unknown = System(dataclasses.replace(system.potential, quadratic=None, free_energy=None), beta=2.0)
    edges = np.linspace(-2, 2, 21)[None]
    gaussian, grid = (means(one, rows, (0.7, 2.0), edges) for one in (system, unknown))
    assert (gaussian.how, grid.how) == ("Gaussian moments", "Fokker-Planck")
    for name in ("work", "heat", "reduced_work"):
        assert getattr(grid, name) == pytest.approx(getattr(gaussian, name), rel=1e-5)
    np.testing.assert_allclose(grid.shares, gaussian.shares, atol=1e-6)


def test_histograms_and_snapshots(tmp_path):
    """Against Boltzmann's distribution and Fokker-Planck; works do not depend on them."""
    kept = {"at": (0.0, 1.0), "bins": 40, "snapshots": 5}
    result = learning.drive("double-well", tau=1.0, steps=200, **kept, **SMALL, out=tmp_path / "a.h5")
    found = result.histograms
    np.testing.assert_allclose(found.time, (0.0, 1.0))
    x = np.linspace(-3, 3, 4001)
    weights = np.exp(-((x * x - 1) ** 2))
    below = np.interp(found.edges[0], x, np.cumsum(weights) / weights.sum())
    np.testing.assert_allclose(found.exact[0, 0] * np.diff(found.edges[0]), np.diff(below), atol=1e-3)
    common = found.exact > 0.01
    z = (found.density - found.exact)[common] / found.stderr[common]
    assert np.sum(z**2) < len(z) + 4 * np.sqrt(2 * len(z))
    assert found.count.sum(axis=-1).min() > 0.999 * 8192
    assert result.snapshots.shape == (2, 5, 1)
    plain = learning.drive("double-well", tau=1.0, steps=200, **SMALL)
    np.testing.assert_array_equal(plain.work_of_each, result.work_of_each)
    tree = result.to_xarray()
    assert tree["histograms"]["density"].dims == ("time", "dimension", "bin")
    assert tree["snapshots"]["x"].attrs["units"] == "length"
    np.testing.assert_array_equal(tree["snapshots"]["x"].values, result.snapshots)
    np.testing.assert_array_equal(tree["histograms"]["density"].values, found.density)
    assert list(package.load(tmp_path / "a.h5").figures()) == ["", "x"]
    checks = result.checks()
    assert all(checks.values())
    assert any(words.startswith("histograms: densities add up") for words in checks)


@pytest.mark.slow
@pytest.mark.parametrize("domain", [Periodic(-np.pi, np.pi), (-1.0, np.inf)])
def test_histograms_end_where_the_domain_does(domain):
    """On a circle and behind a wall, while the bath warms; against Fokker-Planck there."""
    potential = Potential(
        "bounded", lambda x, t: t[0] * (1 - np.cos(x)) + 0.05 * t[1] * x * x, parameters=("depth", "bowl"),
        theta=(1.0, 2.0), target=(3.0, 2.0), domain=domain,
    )  # fmt: skip
    result = learning.drive(potential, kT=(0.5, 1.0), tau=1.0, particles=40_000, at=(0.0, 1.0), bins=40, threads=1)
    found = result.histograms
    assert found.edges[0, 0] == (-1.0 if isinstance(domain, tuple) else -np.pi)
    assert found.count.sum(axis=-1).min() > 0.999 * 40_000
    wanted = 40_000 * found.exact * np.diff(found.edges, axis=1)
    common = wanted > 5
    assert np.sum((found.count - wanted)[common] ** 2 / wanted[common]) < common.sum() + 4 * np.sqrt(2 * common.sum())
    assert abs(result.work.z(result.exact_work)) < 4
    assert abs(result.heat.z(result.exact_heat)) < 4
    assert abs(z_score(np.exp(result.delta_reduced - result.reduced_work_of_each), 1.0)) < 4


def test_files_and_the_command(tmp_path):
    (tmp_path / "path.csv").write_text("t,theta\n" + "\n".join(f"{t},{theta}" for t, theta in JUMPS) + "\n")
    words = ("drive", "--potential", "trap", "--path", "path.csv", "--particles", "4096", "--threads", 1)
    report = json.loads(thermorun(*words, "--json", "--out", "a.h5", folder=tmp_path).stdout)
    (row,) = report["results"]
    assert abs(row["excess_work"]["z"]) < 4
    assert report["pictures"] == ["a.png"]
    loaded = package.load(tmp_path / "a.h5")
    assert loaded.spec.path == JUMPS
    assert loaded.rows() == report["results"]
    again = learning.drive("trap", JUMPS, particles=4096, threads=1)
    np.testing.assert_array_equal(again.work_of_each, loaded.work_of_each)
    shown = thermorun(*words, folder=tmp_path).stdout
    assert "W_ex = <W> - Delta F" in shown
    assert max(map(len, shown.splitlines())) <= 80
    refused(thermorun("drive", "--path", "no.csv", folder=tmp_path), "--path is no.csv")


def test_a_column_of_kt_in_the_file(tmp_path):
    np.savetxt(tmp_path / "path.csv", HEATED[:, [0, 2, 1]], delimiter=",", header="time,kT,stiffness")
    words = ("drive", "--potential", "stiffness", "--path", "path.csv", "--particles", "4096", "--threads", 1)
    report = json.loads(thermorun(*words, "--at", "1,2", "--json", "--out", "a.h5", folder=tmp_path).stdout)
    assert report["spec"]["kT"] == HEATED[:, 2].tolist()
    assert report["spec"]["path"] == HEATED[:, :2].tolist()
    assert report["pictures"] == ["a.png", "a-x.png"]
    assert abs(report["results"][0]["entropy_production"]["z"]) < 4
    shown = thermorun(*words, folder=tmp_path).stdout
    assert "entropy production" in shown
    assert "W_ex" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    sentence = "kT is given, and path is path.csv, which has a column of it"
    refused(thermorun(*words, "--kT", "1,1,1,1", folder=tmp_path), sentence)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (
            {"path": ((0, 1), (1, 2))},
            "path has rows of 2 numbers; for double-well each must be a time",
        ),
        ({"path": ((0, 1, 0), (1, 2))}, "path holds rows of different lengths"),
        ({"path": ((1, 1, 0), (2, 2, 0))}, r"path has times \(1, 2\); they must ascend from 0"),
        ({"path": ((0, 1, 0),)}, "path holds 1 values; it must hold at least 2"),
        ({"potential": "stiffness", "path": ((0, 1), (1, -1))}, "path"),
        ({"kT": (1, 2, 3)}, "kT holds 3 values; it must hold one for each of the path's 2 rows"),
        ({"kT": (1, -1)}, "kT is -1; it must be a positive finite number"),
        ({"kT": (2, 1), "beta": 3.0}, "beta is 3 and kT begins at 2; leave one of them out"),
        ({"at": (6.0,)}, "at holds 6; it must be within tau, which is 5"),
        ({"snapshots": 5}, "snapshots is 5; it needs at"),
        ({"snapshots": 50, "particles": 10, "at": 1.0}, "snapshots is 50 and particles 10"),
        ({"tau": "5"}, "tau is '5'; it must be a positive finite number"),
        ({"tau": 1e12}, "shorten tau"),
    ],
)
def test_bad_input(fields, sentence):
    with pytest.raises(InputError, match=sentence):
        Drive(**fields).resolved()


def test_excess_work_has_one_name(tmp_path):
    """With a potential or a path of one's own it is that of whatever is driven, in Python and on the command line."""
    rows = ((0.0, 1.0), (1.0, 3.0))
    wanted = learning.drive("stiffness", rows, particles=2048, seed=4)
    found = learning.excess_work(potential=potentials.load("stiffness"), path=rows, particles=2048, seed=4)
    assert found.excess_work == wanted.excess_work
    assert abs(found.excess_work.z(found.exact_excess_work)) < 4
    assert learning.excess_work(potential="trap", particles=2048).spec == learning.drive("trap", particles=2048).spec
    np.savetxt(tmp_path / "p.csv", rows, delimiter=",")
    words = ("--path", "p.csv", "--particles", 2048, "--seed", 4, "--json")
    ran = thermorun("excess-work", "--potential", "stiffness", *words, folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    report = json.loads(ran.stdout)
    assert report["command"] == "drive"
    assert report["results"][0]["excess_work"]["mean"] == wanted.excess_work.mean
    with pytest.raises(InputError, match="replicas belongs to learning a trap; with potential or path there are"):
        learning.excess_work(potential="stiffness", replicas=3)
    ran = thermorun("excess-work", "--path", "p.csv", "--replicas", 3, folder=tmp_path)
    refused(ran, "--replicas belongs to learning a trap")
