"""The self-test says what is wrong, and only then."""

import json

import numpy as np
import pytest

from helpers import thermorun
from thermorun import selftest

QUICK = ("known random numbers", "normals", "trap", "threads", "file", "processor", "memory", "cache")


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(selftest, "_CHECKS", {name: selftest._CHECKS[name] for name in QUICK})


def test_a_sound_machine_passes(quick, tmp_path):
    run = thermorun("selftest", "--json", folder=tmp_path)
    report = json.loads(run.stdout)
    assert (run.returncode, report["passed"], run.stderr) == (0, True, "")
    assert [one["check"] for one in report["results"]] == list(QUICK)
    assert all(one["passed"] and one["said"] for one in report["results"])


@pytest.mark.slow
def test_all_checks_pass(tmp_path):
    run = thermorun("selftest", folder=tmp_path)
    assert run.returncode == 0, run.stdout
    assert "All is well." in run.stdout


@pytest.mark.parametrize(
    ("check", "broken", "sentence"),
    [
        ("known random numbers", "random.philox_words", "should be [1713891541"),
        ("normals", "random.fill_normals", "beyond 4"),
        ("trap", "tr.learning.excess_work", "RuntimeError: nothing runs"),
        ("threads", "_works", "differ"),
        ("memory", "memory_limit", "GB of memory"),
    ],
)
def test_what_is_wrong_is_said(quick, monkeypatch, tmp_path, check, broken, sentence):
    def spoilt(*given, **more):
        if broken == "random.philox_words":
            given[2][:] = 0
        elif broken == "random.fill_normals":
            given[0][:] = np.random.default_rng(0).normal(0.01, 1.0, given[0].size)
        elif broken == "memory_limit":
            return 1e8
        elif broken == "_works":
            return np.random.default_rng(more["threads"]).random(3)
        else:
            raise RuntimeError("nothing runs")
        return None

    place, _, name = broken.rpartition(".")
    target = selftest
    for part in filter(None, place.split(".")):
        target = getattr(target, part)
    monkeypatch.setattr(target, name, spoilt)
    run = thermorun("selftest", folder=tmp_path)
    assert run.returncode == 1
    (line,) = [line for line in run.stdout.splitlines() if line.strip().startswith(check)]
    assert "WRONG" in line
    assert sentence in line
