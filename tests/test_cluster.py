"""Parts of a run on other processes: the same bits, whoever computes them, and whatever becomes of them."""

import contextlib
import os
import signal
import threading
import time

import numpy as np
import pytest

import thermorun as tr
from helpers import fails, finds_nothing, refused, sleeps, thermorun, times_out
from thermorun import cluster
from thermorun.errors import InputError, RunError
from thermorun.metric.spec import Metric

pytest.importorskip("distributed", reason="Dask is not installed: .[cluster]")
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")

# More rows than workers have in hand at once.
WORKS = {"potential": "stiffness", "start": 1.0, "end": 3.0, "duration": 0.5, "particles": 200_000, "seed": 4}
DRIVEN = {"potential": "stiffness", "tau": 0.2, "steps": 20, "particles": 70_000, "at": (0.1,), "snapshots": 3}
GRID = Metric(potential="stiffness", theta=(1.0,), grid=(("stiffness", 1.0, 3.0, 3),), particles=33 * 1024)


def assert_same(one, other):
    """Every number in two files but the times that were taken."""
    one, other = one.contents(), other.contents()
    assert one.keys() == other.keys()
    for section, datasets in one.items():
        for name, data in datasets.items():
            if "second" not in name:
                np.testing.assert_array_equal(data.values, other[section][name].values, err_msg=f"{section}/{name}")


@pytest.fixture(scope="module")
def alone():
    return tr.free_energy.measure(**WORKS), GRID.run(), tr.learning.drive(**DRIVEN)


@pytest.mark.parametrize("count", [2, pytest.param(1, marks=pytest.mark.slow), pytest.param(7, marks=pytest.mark.slow)])
def test_the_same_bits_on_any_number_of_workers(alone, count):
    with tr.workers(count):
        assert_same(tr.free_energy.measure(**WORKS), alone[0])
        assert_same(GRID.run(), alone[1])
        assert_same(tr.learning.drive(**DRIVEN), alone[2])
        with pytest.raises(InputError, match=r"^workers are given, and a run of learn has no parts to share"):
            tr.learning.learn("trap")
    assert cluster.active() is None


def kill(process):
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


def test_a_worker_that_dies_costs_nothing(alone):
    with tr.workers(2):
        client = cluster.active().client
        victim = next(iter(client.run(os.getpid).values()))
        threading.Timer(0.3, kill, (victim,)).start()
        assert_same(tr.free_energy.measure(**WORKS), alone[0])


def test_errors_and_interrupts_come_through():
    with tr.workers(1):
        with pytest.raises(RunError, match=r"item 3 diverged\."):
            list(cluster.active().each(fails, [3, 4], lambda: None))
        with pytest.raises(TimeoutError, match=r"item 5 waited\."):
            list(cluster.active().each(times_out, [5], lambda: None))
        with pytest.raises(FileNotFoundError, match=r"item 6 is not there\."):
            list(cluster.active().each(finds_nothing, [6], lambda: None))

        def stop():
            raise KeyboardInterrupt

        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            list(cluster.active().each(sleeps, [1], stop))
        assert time.monotonic() - began < 2


def test_the_command(tmp_path):
    ends = ("--potential", "stiffness", "--from", 1, "--to", 3, "--duration", 0.5)
    words = ("free-energy", *ends, "--particles", 40_000)
    run = thermorun(*words, "--workers", 1, "--out", "a.h5", folder=tmp_path)
    assert run.returncode == 0, run.stderr
    alone = tr.free_energy.measure("stiffness", start=1.0, end=3.0, duration=0.5, particles=40_000)
    assert_same(tr.load(tmp_path / "a.h5"), alone)
    refused(thermorun(*words, "--workers", 0, folder=tmp_path), "--workers is 0")
    refused(thermorun(*words, "--workers", 1000, folder=tmp_path), "--workers is 1000; it must be at most")
    refused(thermorun(*words, "--scheduler", "tcp://127.0.0.1:9", folder=tmp_path), "where none answers")
    for text in ("precious", "[1]", '{"address": 5}', "[" * 9999):
        (tmp_path / "s.json").write_text(text)
        ran = thermorun(*words, "--scheduler", "s.json", folder=tmp_path)
        refused(ran, "where none answers" if "5" in text else "a file that no Dask scheduler wrote")
    refused(thermorun(*words, "--workers", 2, "--scheduler", "x", folder=tmp_path), "give one of them")


def test_workers_that_do_not_start_are_one_sentence(monkeypatch):
    def full(**_):
        raise RuntimeError("Cluster failed to start: no room\nmore of it")

    monkeypatch.setattr("distributed.LocalCluster", full)
    with (
        pytest.raises(RunError, match=r"^2 workers did not start \(Cluster failed to start: no room\); take fewer"),
        tr.workers(2),
    ):
        pass
