"""Work of any potential along a path, against exact values that know neither particles nor our kernels."""

import json

import numpy as np
import pytest
from scipy.linalg import eigh_tridiagonal

import thermorun as package
from helpers import refused, thermorun
from thermorun import learning
from thermorun.errors import InputError
from thermorun.learning.driven.exact import mean_work
from thermorun.learning.driven.spec import Drive, staircase
from thermorun.learning.trap import exact, protocols
from thermorun.potentials import NAMES, System

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
    rows = np.array([(0.0, 2.0, 0.0), (1.0, 2.0, 1.5), (2.0, 2.0, 0.0)])
    x = np.linspace(-2.9, 2.9, 121)
    stairs, waits = staircase(rows, 100)
    energies = [system.potential.energies(x[:, None], tuple(theta)) for theta in stairs]
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
    found, how = mean_work(system, rows)
    assert how == "Fokker-Planck"
    assert found == pytest.approx(work, rel=2e-3)
    result = learning.drive("double-well", rows, **SMALL)
    assert result.delta_f == pytest.approx(0.0, abs=1e-12)
    assert abs(result.excess_work.z(found)) < 4


@pytest.mark.parametrize(
    "name", ["stiffness", "double-well", *(pytest.param(n, marks=pytest.mark.slow) for n in OTHERS)]
)
def test_defaults_run_for_every_potential(name):
    result = learning.drive(name, tau=0.5, particles=2048, steps=400, threads=1)
    assert np.isfinite(result.work.mean)
    assert result.excess_work is None or result.excess_work.mean > -4 * result.work.stderr
    if result.exact_work is not None:
        assert abs(result.work.z(result.exact_work)) < 4


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
        ({"tau": "5"}, "tau is '5'; it must be a positive finite number"),
        ({"tau": 1e12}, "shorten tau"),
    ],
)
def test_bad_input(fields, sentence):
    with pytest.raises(InputError, match=sentence):
        Drive(**fields).resolved()
