"""Protocols: against closed forms, the Fokker-Planck optimum, fresh noise, and themselves after a kill."""

import json
import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

import thermorun as package
from helpers import interrupted, refused, thermorun
from thermorun import free_energy, learning, protocol
from thermorun.errors import InputError, Stopped
from thermorun.potentials import Potential, double_well
from thermorun.protocol.objectives import Distance, Work, WorkVariance

SMALL = {"search_particles": 16384, "particles": 16384, "threads": 1}


@pytest.fixture(scope="module")
def trap():
    """The trap of NESTbench25: from 0 to 5 in unit time."""
    return protocol.find("trap", end=5.0, **SMALL)


def test_the_trap_finds_its_closed_form(trap):
    """Hnybida & Verret 2025, Eq. 47, from the straight line; jumps of a third each (Schmiedl & Seifert 2007)."""
    assert trap.exact["found"] == pytest.approx(25 / 3, rel=1e-3)
    for jump in (trap.first_jump, trap.last_jump):
        assert jump == pytest.approx([5 / 3], rel=0.02)
    assert abs(trap.value.z(25 / 3)) < 4
    assert trap.exact["straight line"] == pytest.approx(25 * math.exp(-1), rel=1e-3)
    assert abs(trap.values["straight line"].z(25 * math.exp(-1))) < 4
    assert trap.gains["found"].mean < -4 * trap.gains["found"].stderr
    assert trap.warnings == ()


def test_other_units():
    """Energies in kT, times in 1/mu: the same protocol at twice the mobility in half the time."""
    found = protocol.find("trap", end=1.0, tau=0.5, mobility=2.0, beta=4.0, **SMALL)
    assert found.exact["found"] == pytest.approx(1 / 3, rel=1e-3)
    assert found.first_jump == pytest.approx([1 / 3], rel=0.02)


def stiffness_of_least_work(first, last, tau):
    """Excess work and theta after the first jump, of a trap's stiffness (Schmiedl & Seifert 2007, by its variance).

    With w the variance, dw/dt = 2 - 2 k w, and between the jumps w = (1 / first) (1 + c t)^2.
    """

    def work(c):
        end = (1 + c * tau) ** 2 / first
        # k = (2 - dw/dt) / (2 w); the integral of w dk / 2 with both jumps, by parts.
        boundary = 0.5 * (last * end - 1.0)
        return boundary - math.log(1 + c * tau) + c**2 * tau / first - 0.5 * math.log(last / first)

    best = minimize_scalar(work, bounds=(-0.9 / tau, 5 / tau), method="bounded", options={"xatol": 1e-12})
    return float(best.fun), first - best.x


@pytest.mark.slow
def test_the_stiffness_finds_its_closed_form():
    wanted, jumped = stiffness_of_least_work(1.0, 3.0, 1.0)
    found = protocol.find("stiffness", start=1.0, end=3.0, search_particles=2**18, particles=16384, threads=2)
    assert found.least == pytest.approx(wanted, rel=1e-3)
    assert found.exact["found"] == pytest.approx(wanted, rel=2e-3)
    assert abs(found.value.z(wanted)) < 4
    assert found.knots[0, 0] == pytest.approx(jumped, abs=0.1)


def test_a_free_energy_of_half_the_variance(tmp_path):
    """A search cut short, whose best path is handed on as a file: Delta F stays, its variance falls."""
    ends = {"start": (2.0, 1.0), "end": (2.0, -1.0)}
    found = protocol.find(
        "double-well", **ends, tau=1.0, steps=120, knots=5, iterations=15, objective="free-energy", **SMALL
    )
    assert found.gains["found"].mean < -4 * found.gains["found"].stderr
    assert abs(found.works["found"].z(found.exact["found"])) < 4
    found.write_path(tmp_path / "path.csv", double_well.parameters)
    assert (tmp_path / "path.csv").read_text().startswith("time,barrier,tilt\n0,2,1\n0,")
    rows = tuple(map(tuple, found.path.tolist()))
    measured = free_energy.measure("double-well", path=rows, duration=1.0, steps=120, particles=8192)
    assert measured.spec.ends == {"start": (2.0, 1.0), "end": (2.0, -1.0)}
    assert abs(measured.delta_f.z(measured.exact)) < 4
    assert abs(measured.analysis.forward.z(found.exact["found"])) < 4
    driven = learning.drive("double-well", tmp_path / "path.csv", tau=1.0, steps=120, particles=8192)
    assert driven.exact_excess_work == pytest.approx(found.exact["found"], rel=1e-6)


@pytest.mark.slow
def test_bars_of_free_energies_and_double_wells():
    """The variance of BAR at equal particles is halved; the mean work is the Fokker-Planck optimum's."""
    ends = {"start": (4.0, 1.0), "end": (4.0, -1.0)}
    found = protocol.find("double-well", **ends, tau=4.0, steps=1000, objective="free-energy", search_particles=2**15)
    rows = tuple(map(tuple, found.path.tolist()))
    straight, best = (
        free_energy.measure("double-well", **ends, path=path, duration=4.0, steps=1000, particles=200_000)
        for path in (None, rows)
    )
    assert best.delta_f.stderr**2 < 0.5 * straight.delta_f.stderr**2
    assert abs(best.delta_f.z(best.exact)) < 4
    well = protocol.find("double-well", search_particles=2**18)
    assert well.least <= well.exact["found"] < well.least + 3e-4
    assert well.exact["found"] - well.least < well.value.stderr


def test_a_target_is_reached():
    found = protocol.find(
        "double-well", start=(1.0, 1.0), end=(1.0, -1.0), tau=0.3, steps=40, knots=5, iterations=30, objective="target",
        search_particles=8192, particles=8192, threads=1,
    )  # fmt: skip
    assert found.values["straight line"].mean > 0.5
    assert found.value.mean < 0.02
    assert found.knots[:, 0].min() > 0  # a barrier that would go below zero is held there
    assert "paths left the valid region" in found.warnings[0]


@pytest.mark.parametrize("objective", [Work(2.0, 0.3), WorkVariance(2.0, 0.3), "distance"])
def test_derivatives_of_objectives(objective):
    rng = np.random.default_rng(1)
    x, work = rng.normal(size=(2, 5)), rng.normal(size=5)
    if objective == "distance":
        objective = Distance(rng.normal(size=(3, 2)), rng.normal(size=6))
    _, by_x, by_work = objective.search(x, work)
    dx, dw, h = rng.normal(size=x.shape), rng.normal(size=5), 1e-6
    high, low = (objective.search(x + s * dx, work + s * dw)[0] for s in (h, -h))
    assert np.sum(by_x * dx) + np.sum(by_work * dw) == pytest.approx((high - low) / (2 * h), rel=1e-7)


def test_values_are_those_of_the_search():
    rng = np.random.default_rng(1)
    x, work = rng.normal(size=(2, 50)), rng.normal(size=50)
    distance = Distance(rng.normal(size=(3, 2)), rng.normal(size=6))

    def value(objective):
        return objective.value(np.concatenate([work[None], objective.moments(x, work)]).mean(axis=1))

    assert value(distance) == pytest.approx(distance.search(x, work)[0])
    assert math.log(1 + value(WorkVariance(2.0, 0.3))) == pytest.approx(WorkVariance(2.0, 0.0).search(x, work)[0])
    assert value(Work(2.0, 0.3)) == pytest.approx(Work(2.0, 0.0).search(x, work)[0] / 2 - 0.3)


def test_threads_resume_and_files(tmp_path, trap):
    """The same bits on two threads, and for a run that was stopped in its search."""
    again = protocol.find("trap", end=5.0, out=tmp_path / "a.h5", **SMALL | {"threads": 2})
    assert again.to_dict()["results"] == trap.to_dict()["results"]
    np.testing.assert_array_equal(again.knots, trap.knots)
    assert package.load(tmp_path / "a.h5").to_dict() == again.to_dict()


def test_stopped_and_resumed(tmp_path, monkeypatch):
    options = {"end": 1.0, "knots": 5} | SMALL
    whole = protocol.find("trap", **options, out=tmp_path / "whole.h5")
    calls, improved = [], protocol.run.improved

    def once(*given):
        calls.append(given[2])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return improved(*given)

    monkeypatch.setattr(protocol.run, "improved", once)
    with pytest.raises(Stopped, match="go on with 'thermorun resume"):
        protocol.find("trap", **options, out=tmp_path / "part.h5")
    part = package.load(tmp_path / "part.h5")
    assert len(part.rounds) == 1
    assert part.values == {}
    assert part.summary()
    resumed = package.resume(tmp_path / "part.h5", threads=2)
    assert calls == [0, 1, 1, 2]
    np.testing.assert_array_equal(resumed.knots, whole.knots)
    assert resumed.to_dict()["results"] == whole.to_dict()["results"]


def test_noise_is_not_taken_for_progress():
    """From the best path on, with few particles: nothing is gained on fresh noise, and the result says so."""
    best = tuple(zip((0.0, 0.0, 1.0, 1.0), (0.0, 1 / 3, 2 / 3, 1.0), strict=True))
    found = protocol.find("trap", end=1.0, guess=best, search_particles=4096, particles=4096, threads=1)
    assert abs(found.gains["found"].mean - found.gains["guess"].mean) < 1e-3
    few = protocol.find("trap", end=0.1, knots=3, search_particles=4096, particles=2048, threads=1)
    assert any("too few particles to tell progress from noise" in sentence for sentence in few.warnings)


def test_export_is_a_row_a_step(tmp_path, trap):
    """NESTbench25's engines: theta after each of 1,000 jumps; judged by their own steps, Euler's of 1/1000."""
    trap.export(tmp_path / "input_control_parameters_learned.dat")
    theta = np.loadtxt(tmp_path / "input_control_parameters_learned.dat")
    assert theta.shape == (1000,)
    mean, work, before = 0.0, 0.0, 0.0
    for now in theta:
        work += 0.5 * ((mean - now) ** 2 - (mean - before) ** 2)
        mean, before = mean - 1e-3 * (mean - now), now
    work += 0.5 * ((mean - 5.0) ** 2 - (mean - before) ** 2)
    assert work == pytest.approx(25 / 3, rel=1e-3)


def test_command(tmp_path):
    words = ("--from", 0, "--to", 5, "--search-particles", 16384, "--particles", 16384, "--path", "p.csv")
    run = thermorun("protocol", *words, "--export", "e.dat", "--json", folder=tmp_path)
    assert (run.returncode, run.stderr) == (0, "")
    report = json.loads(run.stdout)
    assert [row["path"] for row in report["results"]] == ["straight line", "found"]
    assert report["first_jump"] == pytest.approx([5 / 3], rel=0.02)
    assert (tmp_path / report["pictures"][0]).stat().st_size > 10_000
    assert len((tmp_path / "e.dat").read_text().splitlines()) == 1000
    driven = thermorun(
        "drive", "--potential", "trap", "--path", "p.csv", "--particles", 2000, "--json", folder=tmp_path
    )
    assert json.loads(driven.stdout)["spec"]["tau"] == 1.0
    again = thermorun("plot", report["file"], folder=tmp_path)
    assert again.returncode == 0


KINK = """
import numpy as np
import thermorun as tr
def energy(x, theta):
    return 0.5 * (x - theta[0]) ** 2
def force(x, theta):
    return np.float64(theta[0] - x) if x == x else 0.0
flat = tr.Potential("flat", lambda x, t: 0.5 * x * x + 0.0 * t[0], parameters=("a",), theta=(0.0,), target=(1.0,))
text = tr.Potential("text", lambda x, t: 0.5 * np.interp(x * x, (0.0, 1e9), (0.0, 1e9)) + t[0] * x,
                    lambda x, t: -x - t[0], lambda x, t: (np.interp(x, (-1e9, 1e9), (-1e9, 1e9)),),
                    parameters=("a",), theta=(0.0,), target=(1.0,))
"""


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--from 1 --to 1", "--from is 1 and end is the same; they must differ."),
        ("--potential stiffness --to -1", "--to leaves the valid region of stiffness: stiffness is -1;"),
        ("--knots 10", "--knots is 10; it must be one more than a power of two, as in 9, 17 or 33."),
        ("--steps 10", "--steps is 10; with 17 knots it must be at least as many."),
        ("--guess none.csv", "--guess is none.csv, which cannot be read"),
        ("--integrator leimkuhler-matthews", "Invalid value for '--integrator'"),
        ("--search-particles 1000", "--search-particles is 1000; it must be an integer of at least 4096."),
        pytest.param(
            "--potential mine.py:flat",
            "--objective is 'work', which does not change with the path of flat",
            marks=pytest.mark.slow,
        ),
        ("--potential mine.py:text", "energy cannot be differentiated where it says"),
    ],
)
def test_bad_words(tmp_path, words, sentence):
    (tmp_path / "mine.py").write_text(KINK)
    refused(thermorun("protocol", *words.split(), folder=tmp_path), sentence)
    assert [file.name for file in tmp_path.iterdir() if file.suffix == ".h5"] == []


def test_a_guess_of_another_potential():
    with pytest.raises(InputError, match="guess has rows of 3 numbers; for trap each must be a time and centre"):
        protocol.find("trap", guess=((0, 0, 1), (1, 1, 1)))


@pytest.mark.slow
def test_ctrl_c_while_searching(tmp_path):
    words = ("protocol", "--out", "a.h5", "--search-particles", "2e6", "--steps", "2000")
    late = interrupted(*words, folder=tmp_path, until=(tmp_path / "a.h5").exists)
    assert late.returncode == 130
    assert late.stderr == "thermorun: stopped; all that is done is in a.h5: go on with 'thermorun resume a.h5'.\n"


def curved(x, theta):
    return (
        theta[2] * ((x[0] - theta[0]) ** 2 + (x[1] - theta[1]) ** 2) / 2 + (x[0] ** 2 - 1) ** 2 / 2 + x[1] ** 4 / 8
        - x[0] * x[1] / 2 + x[0] ** 2 * x[1] / 4
    )  # fmt: skip


@pytest.mark.slow
def test_two_dimensions():
    """An energy given alone, three parameters, where nobody has a closed form: better than the straight line."""
    mine = Potential(
        "curved", curved, parameters=("x", "y", "stiffness"), theta=(-1.0, 0.0, 3.0), target=(1.0, 0.5, 3.0),
        dimension=2, why_invalid=lambda t: None if t[2] > 0 else "stiffness must be positive.",
    )  # fmt: skip
    found = protocol.find(mine, tau=1.0, search_particles=2**13, particles=2**16)
    assert found.gains["found"].mean < -4 * found.gains["found"].stderr
