"""The thread that writes: rows that come quickly are written together, and nothing else changes."""

import threading

import numpy as np
import pytest

from thermorun.store import Axis, RunFile, Variable
from thermorun.store.writer import Rows, Writer, joined


def rows(section, first, count=1, **more):
    return Rows(section, first, {"v": np.arange(first, first + count, dtype=float), **more})


def same(one, other):
    assert one[:2] == other[:2]
    assert one.values.keys() == other.values.keys()
    for name, values in one.values.items():
        np.testing.assert_array_equal(values, other.values[name])
        assert values.dtype == other.values[name].dtype


def test_rows_that_go_on_become_one():
    found = joined([rows("a", 0), rows("b", 5), rows("a", 1, 2), rows("a", 4), rows("a", 2), rows("b", 6)])
    for one, other in zip(found, [rows("a", 0, 3), rows("a", 4), rows("a", 2), rows("b", 5, 2)], strict=True):
        same(one, other)


def test_others_are_kept_apart():
    several = [rows("a", 0), rows("a", 1, w=np.zeros(1)), Rows("a", 2, {"v": np.zeros(1, np.float32)})]
    assert len(joined(several)) == 3


def test_all_is_done_in_order():
    done = []
    writer = Writer(lambda several: done.append([(one.section, one.first, one.end) for one in several]))
    for first in range(3):
        writer.put(rows("a", first))
    writer.put(lambda: done.append("whole"))
    writer.put(rows("a", 3))
    writer.wait()
    assert done == [[("a", 0, 3)], "whole", [("a", 3, 4)]]
    writer.put(rows("a", 4))
    writer.close()
    assert done[-1] == [("a", 4, 5)]


def test_rows_that_nobody_waits_for_are_written_soon():
    there = threading.Event()
    writer = Writer(lambda several: there.set())
    writer.put(rows("a", 0))
    assert there.wait(5)
    writer.close()


def test_what_goes_wrong_is_told_once_and_what_follows_is_not_done():
    done = []

    def fail():
        raise OSError("full")

    writer = Writer(done.append)
    writer.put(fail)
    writer.put(rows("a", 0))
    writer.put(lambda: done.append("whole"))
    with pytest.raises(OSError, match="full"):
        writer.wait()
    assert done == []
    writer.put(lambda: done.append("later"))
    writer.wait()
    writer.close()
    assert done == ["later"]


def test_a_hundred_rows_are_committed_together(tmp_path, monkeypatch):
    """And are what a file holds whose rows were written one by one."""
    commits = []
    commit = RunFile._commit
    monkeypatch.setattr(RunFile, "_commit", lambda file, counts: (commits.append(counts), commit(file, counts)))
    values = np.random.default_rng(0).normal(size=(100, 3))
    for name, wait in (("joined", False), ("single", True)):
        commits.clear()
        with RunFile.create(tmp_path / name, "test", "{}", 0, 1) as file:
            axes = [Axis("row", np.arange(100), "1", "row"), Axis("column", np.arange(3), "1", "column")]
            file.add_section("a", axes, [Variable("v", ("row", "column"), "1", "value")])
            file.publish({"a": 100})
            for row in range(100):
                file.write("a", row, {"v": values[row : row + 1]})
                if wait:
                    file.wait()
            file.finish()
        assert len(commits) == 100 if wait else len(commits) < 20
        with RunFile.open_to_read(tmp_path / name) as file:
            assert file.complete
            np.testing.assert_array_equal(file.read("a")["v"], values)
