"""Whole runs: points, drives, files, stopping and going on, the command line."""

import json
import os
import pickle
import signal

import numpy as np
import pytest

import thermorun as package
from helpers import in_process_of_its_own, refused, thermorun
from thermorun import metric
from thermorun.errors import InputError, Stopped
from thermorun.learning.trap import exact
from thermorun.metric import Drive, Metric, friction, protocols
from thermorun.potentials import System

SMALL = {"particles": 8192, "work_particles": 4096, "seed": 5}


@pytest.fixture(scope="module")
def driven(tmp_path_factory):
    out = tmp_path_factory.mktemp("metric") / "a.h5"
    return metric.drive("trap", end=1.0, taus=(2.0, 4.0, 8.0), particles=8192, work_particles=2**18, out=out)


def test_measured_work_is_the_predicted_one_up_to_the_square_of_the_rate(driven):
    assert driven.geodesic.length == pytest.approx(1.0)
    for work in driven.works:
        assert abs(work.excess_work.z(work.exact)) < 4
    for work in driven.of("geodesic"):
        assert work.predicted == pytest.approx(1 / work.tau)
        assert work.exact == pytest.approx(exact.work_straight_line(1.0, work.tau, 1 / work.tau), rel=1e-3)
    # W_ex - 1 / tau = -(1 - e^-tau) / tau^2 for the trap: the fit feels the exponential at tau = 2.
    gaps = [(1 - np.exp(-tau)) / tau**2 for tau in (2.0, 4.0)]
    expected = np.log(gaps[0] / gaps[1]) / np.log(2)
    assert abs(driven.exponent().z(expected)) < 4
    assert driven.exact_exponent() == pytest.approx(2.0, abs=0.05)
    for best in driven.least:
        assert best.excess_work == pytest.approx(1 / (best.tau + 2), rel=5e-4)


def test_a_result_is_read_from_its_file(driven):
    again = package.load(driven.file)
    assert again.to_dict() == driven.to_dict()
    assert pickle.loads(pickle.dumps(again)).to_dict() == driven.to_dict()
    tree = again.to_xarray()
    assert tree["points"]["friction"].dims == ("point", "parameter", "other")
    assert tree["works"]["excess_work"].sel(protocol="line").shape == (3,)
    np.testing.assert_array_equal(
        tree["works"]["excess_work"].values.ravel(), [work.excess_work.mean for work in driven.works]
    )
    assert list(driven.figures()) == ["", "protocols"]
    assert [row["protocol"] for row in driven.rows()] == [*metric.protocols.PROTOCOLS] * 3
    assert all(len(line) <= 80 for line in driven.summary(80).splitlines())


def same(one, two):
    """Equal to the last bit, apart from where and on how many threads."""
    reports = [result.to_dict() | {"file": None, "threads": None} for result in (one, two)]
    return json.dumps(reports[0]) == json.dumps(reports[1])


STOPPED = {"potential": "trap", "grid": (("centre", 0.0, 1.0, 2),), "taus": (1.0,), "particles": 33 * 1024}
STOPPED |= {"work_particles": 4096, "seed": 5}


@pytest.fixture(scope="module")
def whole():
    return metric.drive(**STOPPED, threads=1)


@pytest.mark.parametrize("after", [1, 3, 6, 8])
def test_a_stopped_run_goes_on_to_the_same_numbers(tmp_path, monkeypatch, whole, after):
    """Ctrl-C in the first pilot, between batches of a point, between points, between drives."""
    calls = []

    def counted(function):
        def call(*arguments, **options):
            calls.append(1)
            if len(calls) == after + 1:  # the first compiles
                os.kill(os.getpid(), signal.SIGINT)
            return function(*arguments, **options)

        return call

    out = tmp_path / "a.h5"
    with monkeypatch.context() as patched:
        patched.setattr(System, "drive", counted(System.drive))
        patched.setattr(friction.Ensemble, "rows", counted(friction.Ensemble.rows))
        with pytest.raises(Stopped, match=r"^stopped; all that is done is in .*a.h5: go on with"):
            metric.drive(**STOPPED, out=out)
    part = package.load(out)
    assert len(part.points) < 2 or len(part.works) < 3
    part.summary()
    assert same(whole, package.resume(out))
    assert same(whole, package.resume(out))


def test_stopping_while_planning_leaves_nothing(tmp_path, monkeypatch):
    def stop(*arguments):
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(protocols, "geodesic", stop)
    with pytest.raises(Stopped, match="stopped before there was anything to save"):
        metric.drive("trap", end=1.0, out=tmp_path / "a.h5", **SMALL)
    assert list(tmp_path.iterdir()) == []


def test_memory_and_file_hold_the_same(tmp_path):
    options = {"potential": "trap", "theta": 0.3, "particles": 8192, "seed": 1}
    memory, disk = metric.measure(**options), metric.measure(**options, out=tmp_path / "a.h5")
    assert same(memory, disk)
    for one in ("fisher", "friction_stderr", "relaxation_exact", "dt"):
        np.testing.assert_array_equal(memory.to_xarray()["points"][one], disk.to_xarray()["points"][one])
    assert memory[0].theta == (0.3,)
    assert len(memory) == 1
    assert memory.friction[0, 0] == memory[0].friction[0, 0]
    assert memory.friction.dof == 7
    row = memory.rows()[0]
    assert row["theta"] == {"centre": 0.3}
    assert row["friction"]["exact"] == 1.0
    assert abs(row["friction"]["z"]) < 4


def test_specs_say_what_is_wrong_before_any_work():
    with pytest.raises(InputError, match=r"^potential is trap, changed since the run began; restore it"):
        Metric(fingerprint="0").resolved()
    with pytest.raises(InputError, match=r"^grid of tilt is 1; it must be an integer of at least 2"):
        Metric(potential="double-well", grid=("tilt", 0.0, 1.0, 1))
    with pytest.raises(InputError, match=r"^grid holds \('tilt', 0.0\); each axis must be"):
        Metric(grid=(("tilt", 0.0),))
    with pytest.raises(InputError, match=r"^end is 0, which is theta itself; it must be another point"):
        Drive(end=0.0).resolved()
    found = Drive(potential="double-well", end=(1, 1)).resolved()
    assert found.theta == (1.0, 0.0)
    assert found.resolved() == found
    assert Drive.from_json(found.to_json()) == found


def test_a_step_that_does_not_follow_the_fastest_relaxation_is_refused():
    with pytest.raises(InputError, match=r"^dt is 0.3, too long for heun: .* asks for at most 0.2"):
        metric.measure("trap", dt=0.3)
    metric.Metric("trap", dt=0.6, integrator="exact").resolved()
    with pytest.raises(InputError, match=r"^dt is 0.15, too long for heun: .* at theta = .0, 1.75."):
        Drive("trap-and-stiffness", dt=0.15, end=(0.0, 4.0)).resolved()


def test_command_line(tmp_path):
    words = ["metric", "--grid", "centre=0:1:2", "--geodesic-to", "1", "--tau", "2", "--particles", 16384]
    words += ["--work-particles", 4096, "--out", "a.h5", "--json"]
    run = in_process_of_its_own(*words, folder=tmp_path)
    assert run.returncode == 0, run.stderr
    report = json.loads(run.stdout)
    assert len(report["points"]) == 2
    for row in report["points"]:
        assert abs(row["friction"]["z"]) < 4
        assert abs(row["fisher"]["z"]) < 4
    assert [work["protocol"] for work in report["results"]] == ["geodesic", "line", "optimal"]
    assert report["pictures"] == ["a.png", "a-protocols.png"]
    again = thermorun("resume", "a.h5", folder=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "slow driving" in again.stdout
    assert max(map(len, again.stdout.splitlines())) <= 80


USER = """
from thermorun.potentials import Potential
def energy(x, theta): return 0.5 * (theta[0] + theta[1]) * x * x
def force(x, theta): return -(theta[0] + theta[1]) * x
def gradient(x, theta): return (0.5 * x * x, 0.5 * x * x)
twice = Potential("twice", energy, force, gradient, ("a", "b"), (1.0, 1.0))
"""


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--potential stiffness --theta -1", "stiffness is -1; it must be positive."),
        ("--potential stiffness --geodesic-to -1", "stiffness is -1; it must be positive."),
        ("--potential stiffness --grid stiffness=-1:2:4", "grid leaves the valid region of stiffness"),
        ("--potential user.py:twice", "the Fisher metric of twice (a, b) is singular there"),
        ("--grid centre=1:2", "'centre=1:2'; give name=first:last:count, as in tilt=-1:1:9."),
        ("--grid tilt=0:1:3", "grid names 'tilt'"),
        ("--grid centre=0:1:1", "it must be an integer of at least 2."),
        ("--grid centre=1:1:3", "grid gives centre 3 values from 1 to 1; they must differ."),
        ("--geodesic-to 0", "--geodesic-to is 0, which is theta itself"),
        ("--geodesic-to 1,2", "--geodesic-to has 2 values"),
        ("--tau 3", "--tau is given, but --geodesic-to is not"),
        ("--geodesic-to 1 --tau -3", "is -3.0; it must be a positive finite number."),
        ("--particles 9000", "--particles is 9000; it must be a multiple of 1024."),
        ("--particles 1024", "--particles is 1024; it must be an integer of at least 8192."),
        ("--potential double-well --integrator exact", "not quadratic"),
        ("--precision float16", "float16"),
        ("--dt 9", "--dt is 9, too long for heun"),
        ("--dt 1e-5", "--dt is 1e-05, too short: the longest trajectories that are tried would end before ten"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(tmp_path, words, sentence):
    (tmp_path / "user.py").write_text(USER)
    run = thermorun("metric", *words.split(), folder=tmp_path)
    refused(run, sentence)
    assert not list(tmp_path.glob("*.h5*"))
