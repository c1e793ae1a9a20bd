"""Compiling ahead: work in a process of its own, which never stands in the way of a run."""

import time
from pathlib import Path

import pytest

from thermokernels import _jit
from thermorun.ahead import compiled_ahead
from thermorun.cycles.training import expectation


@pytest.mark.parametrize("compiled", [False, True])
def test_work_is_done_unless_all_is_compiled(compiled, tmp_path, monkeypatch):
    monkeypatch.setattr(_jit, "is_compiled", lambda last: compiled)
    with compiled_ahead(None, Path.touch, tmp_path / "done") as wait:
        wait()
    assert (tmp_path / "done").exists() is not compiled


def test_what_fails_or_takes_too_long_stands_in_nobodys_way(monkeypatch):
    monkeypatch.setattr(_jit, "is_compiled", lambda last: False)
    with compiled_ahead(None, int, "no number") as wait:
        wait()
    began = time.monotonic()
    with compiled_ahead(None, time.sleep, 300):
        pass
    assert time.monotonic() - began < 60
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    with compiled_ahead(None, time.sleep, 300) as wait:
        wait()


def test_one_thread_begins_nothing(on_threads, tmp_path):
    def block():
        with compiled_ahead(expectation, Path.touch, tmp_path / "done") as wait:
            wait()

    on_threads(1, block)
    assert not (tmp_path / "done").exists()
