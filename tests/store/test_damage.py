"""Files that are damaged, forged or of strangers: told in a sentence before a number is used; and the way back."""

import contextlib
import errno
import json
import os
from io import FileIO

import h5py
import numpy as np
import pytest

import thermorun as tr
from helpers import refused, sealed_anew, thermorun
from thermorun.errors import DamagedFile, InputError, RunError
from thermorun.store import Axis, RunFile, Variable, checkpoints, disk, faults, read_spec, repair, survey

ROWS = 40


VALUES = np.random.default_rng(0).random((ROWS, 3))


def written(path, rows=ROWS, finish=True):
    """A file of one section with two datasets, of which ``rows`` are written, and a whole one beside."""
    with RunFile.create(path, "test", "{}", 0, 1) as file:
        axes = [Axis("row", np.arange(ROWS), "1", "row"), Axis("column", np.arange(3), "1", "column")]
        rows_of = [Variable("v", ("row", "column"), "1", "v"), Variable("n", ("row",), "1", "n", "int64")]
        file.add_section("a", axes, rows_of)
        file.add_section("b", axes[1:], [Variable(name, ("column",), "1", name) for name in ("early", "late")])
        file.write_whole("b", {"early": np.arange(3.0)})
        file.publish({"a": ROWS})
        for row in range(rows):
            file.write("a", row, {"v": VALUES[row : row + 1], "n": np.array([row])})
        if finish:
            file.write_whole("b", {"late": np.arange(3.0)})
            file.finish()


def changed(path, name, place, value):
    """One number of a file, changed behind its back."""
    with h5py.File(path, "r+") as file:
        file[name][place] = value


def read(path):
    with RunFile.open_to_read(path) as file:
        return file.read("a"), file.read("b"), file.contents()


@pytest.mark.parametrize(
    ("name", "place", "sentence"),
    [
        ("a/v", (7, 1), "a/v is not as it was written in row 7; 'thermorun repair"),
        ("a/n", 39, "a/n is not as it was written in row 39"),
        ("a/row", 3, "a/row is not as it was written"),
        ("b/early", 0, "b/early is not as it was written"),
        ("b/late", 2, "b/late is not as it was written"),
        ("checksums/a/crc32", (5, slice(None)), "is not as it was written"),
        ("commits", 0, "counts 99 of 40 rows"),
        ("checksums/finished", 0, "though the run was finished"),
    ],
)
def test_a_changed_number_is_told(tmp_path, name, place, sentence):
    path = tmp_path / "run.h5"
    written(path)
    assert faults(path) == []
    changed(path, name, place, 99)
    with pytest.raises(DamagedFile, match=sentence):
        read(path)
    assert faults(path) != []


@pytest.mark.parametrize("value", ["[" * 9999, "many", np.zeros(3)], ids=["deep", "word", "several"])
def test_an_attribute_of_another_kind_is_told(tmp_path, value):
    path = tmp_path / "run.h5"
    written(path)
    with h5py.File(path, "r+") as file:
        file.attrs["images"] = value
    sealed_anew(path)
    with RunFile.open_to_read(path) as file:
        for kind in (int, json.loads):
            with pytest.raises(DamagedFile, match="changed by hand"):
                file.noted("images", kind)
        assert file.noted("others", int) is None


def test_every_flipped_bit_is_told_or_harmless(tmp_path):
    """Of a file's bytes 400 at random, in each a bit: the numbers come out as they were, or not at all."""
    path, rng = tmp_path / "run.h5", np.random.default_rng(1)
    written(path)
    whole, (a, b, _), told = path.read_bytes(), read(path), 0
    for place in rng.integers(0, len(whole), 400).tolist():
        data = bytearray(whole)
        data[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        try:
            one, other, _ = read(path)
        except InputError:
            told += 1
            continue
        for name, values in [*one.items(), *other.items()]:
            np.testing.assert_array_equal(values, {**a, **b}[name])
    assert told > 200  # of the rest, most fall into chunks that are longer than the rows that there are


def test_rows_beyond_the_count_and_torn_wholes_read_as_if_never_written(tmp_path):
    path = tmp_path / "run.h5"
    written(path, rows=10, finish=False)
    changed(path, "a/v", (20, 0), 5.0)
    changed(path, "b/late", slice(0, 2), 7.0)
    a, b, _ = read(path)
    np.testing.assert_array_equal(a["v"][:10], VALUES[:10])
    assert np.isnan(a["v"][10:]).all()
    assert np.isnan(b["late"]).all()
    changed(path, "commits", 0, 12)
    with pytest.raises(DamagedFile, match="counts 12 rows, but row 10 was never written"):
        read(path)


def test_repair_goes_back_to_the_last_good_row(tmp_path):
    path = tmp_path / "run.h5"
    written(path)
    assert repair(path) == []
    changed(path, "a/v", (7, 1), 99)
    changed(path, "a/n", 12, 99)
    assert repair(path) == ["a: 7 of 40 rows are good, and the run goes on after them"]
    assert faults(path) == []
    with RunFile.reopen(path, "{}") as file:
        assert file.committed("a") == 7
    changed(path, "b/early", 0, 99)
    with pytest.raises(DamagedFile, match="cannot be repaired: b/early"):
        repair(path)


def _link(file, name):
    file[name] = h5py.SoftLink("/commits")


def _external(file, name):
    file[name] = h5py.ExternalLink("victim.h5", "/x")


def _virtual(file, name):
    layout = h5py.VirtualLayout((ROWS,), "i8")
    layout[...] = h5py.VirtualSource("victim.h5", "x", (ROWS,))
    file.create_virtual_dataset(name, layout)


def _elsewhere(file, name):
    file.create_dataset(name, shape=(ROWS,), dtype="i8", external=[("victim.txt", 0, 8 * ROWS)])


def _circle(file, name):
    file[name] = file["/"]


def _filtered(file, name):
    file.create_dataset(name, shape=(ROWS,), dtype="i8", chunks=(ROWS,), compression="gzip")


def _endless(file, name):
    file.create_dataset(name, shape=(2**40,), dtype="i8", chunks=(2**20,))


def _complex(file, name):
    file[name] = np.zeros(ROWS, complex)


def _gone(file, name):
    pass


FORGED = {
    _link: "is a link", _external: "is a link", _virtual: "other files", _elsewhere: "other files",
    _circle: "another name", _filtered: "a filter", _endless: "declares 8796093022208 bytes", _complex: "complex128",
    _gone: "a/n is missing",
}  # fmt: skip


@pytest.mark.parametrize("forge", FORGED)
def test_what_leads_out_of_a_file_is_refused(tmp_path, forge):
    """Also where the seal is that of the forged structure: nothing outside is read, and nothing written."""
    path, victim = tmp_path / "run.h5", tmp_path / "victim.txt"
    written(path)
    victim.write_bytes(b"x" * 8 * ROWS)
    with h5py.File(path, "r+") as file:
        del file["a/n"]
        forge(file, "a/n")
    with pytest.raises(DamagedFile, match="its structure"):
        read(path)
    sealed_anew(path)
    for use in (read, lambda path: RunFile.reopen(path, "{}"), repair, survey if forge is not _gone else read):
        with pytest.raises(DamagedFile, match=FORGED[forge]):
            use(path)
    assert victim.read_bytes() == b"x" * 8 * ROWS


def test_a_pipe_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    refused(thermorun("plot", "pipe", folder=tmp_path), "is no file that holds a run")


def test_a_checkpoint_ahead_of_the_rows_is_not_used(tmp_path):
    """Older rows beside a newer checkpoint, as a power cut or a copy of a live run leaves them."""
    path = tmp_path / "run.h5"
    with RunFile.create(path, "test", "{}", 0, 1) as file:
        file.add_section("a", [Axis("row", np.arange(4), "1", "row")], [Variable("v", ("row",), "1", "v")])
        file.publish({"a": 4})
        file.write("a", 0, {"v": np.array([1.0])})
        file.wait()
        older = path.read_bytes()
        file.write("a", 1, {"v": np.array([2.0])})
        file.checkpoint({"x": np.array(2)})
        file.wait()
        assert file.load_checkpoint() == {"x": 2}
    path.write_bytes(older)
    with RunFile.reopen(path, "{}") as file:
        assert file.committed("a") == 1
        assert file.load_checkpoint() is None
    assert "ahead" in survey(path).checkpoint


def test_rows_are_on_the_disk_before_the_checkpoint_is(tmp_path, monkeypatch):
    order = []
    sync, move = os.fsync, os.replace
    monkeypatch.setattr(disk.os, "fsync", lambda descriptor: (order.append("sync"), sync(descriptor)))
    monkeypatch.setattr(checkpoints.os, "replace", lambda *names: (order.append("name"), move(*names)))
    with RunFile.create(tmp_path / "run.h5", "test", "{}", 0, 1) as file:
        file.add_section("a", [Axis("row", np.arange(4), "1", "row")], [Variable("v", ("row",), "1", "v")])
        file.publish({"a": 4})
        file.write("a", 0, {"v": np.array([1.0])})
        file.wait()
        order.clear()
        file.checkpoint({"x": np.array(1)})
        file.wait()
    assert order == ["sync", "sync", "name", "sync"]  # rows; checkpoint, its name; the folder


@pytest.mark.parametrize("kind", ["array", "text", "empty"])
def test_a_checkpoint_of_another_kind_is_not_used(tmp_path, kind):
    path = tmp_path / "run.h5"
    written(path, rows=3, finish=False)
    with open(f"{path}.checkpoint", "wb") as stream:
        if kind == "array":
            np.save(stream, np.zeros(3))
        elif kind == "text":
            stream.write(b"no")
    with RunFile.reopen(path, "{}") as file:
        assert file.load_checkpoint() is None


def test_a_disk_that_fills_up_at_any_write(tmp_path, monkeypatch):
    """Whatever write fails, HDF5 closes the file, and what was counted is there."""
    left = 0

    class Full(FileIO):
        def write(self, data):
            nonlocal left
            left -= 1
            if left < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data)

    monkeypatch.setattr(disk, "FileIO", Full)
    told = []
    for room in [*range(0, 60, 5), *range(60, 400, 34)]:
        path, left = tmp_path / f"{room}.h5", room
        try:
            written(path)
        except RunError as error:
            told.append((path.exists(), str(error)))
        left = 10**9
        if path.exists():
            with RunFile.open_to_read(path) as file:
                count = file.committed("a")
                np.testing.assert_array_equal(file.read("a")["v"][:count], VALUES[:count])
    assert len(told) > 5
    for there, sentence in told:
        assert "No space left on device" in sentence
        assert ("make room and resume" if there else "make room and begin again") in sentence
    assert not list(tmp_path.glob("*.part"))


OWN = """
from pathlib import Path
from thermorun import Potential
Path(__file__).with_name("ran").touch()
mine = Potential("mine", lambda x, t: 0.5 * t[0] * x**2, lambda x, t: -t[0] * x, lambda x, t: (0.5 * x**2,),
                 parameters=("k",), theta=(1.0,), target=(2.0,))
"""


@pytest.fixture(scope="module")
def strangers(tmp_path_factory):
    """The file of a run of somebody's own potential, stopped before its end, and the potential's file."""
    folder = tmp_path_factory.mktemp("strangers")
    (folder / "own.py").write_text(OWN)
    path = folder / "run.h5"
    run = {"potential": f"{folder}/own.py:mine", "particles": 40_000, "tau": 0.1, "steps": 10}
    result = tr.learning.drive(**run, path=[[0, 1], [1, 2]], out=path)
    changed(path, "particles/work", (1, 0), 0.0)
    repair(path)
    return path, result.summary()


def test_a_file_runs_no_code_unless_it_is_trusted(strangers):
    path, _ = strangers
    ran = path.with_name("ran")
    ran.unlink()
    tr.load(path).summary()
    thermorun("plot", path, folder=path.parent)
    thermorun("inspect", path, folder=path.parent)
    thermorun("verify", path, folder=path.parent)
    refused(thermorun("resume", path, folder=path.parent), "run.h5 would run code: its potential is ")
    with pytest.raises(InputError, match="would run code"):
        tr.resume(path)
    assert not ran.exists()


def test_it_is_resumed_with_the_potential_or_with_trust(strangers):
    path, before = strangers
    rest = path.read_bytes()
    for how in ({"trust": True}, {"potential": f"{path.parent}/own.py:mine"}):
        path.write_bytes(rest)
        assert first_lines(tr.resume(path, **how).summary()) == first_lines(before)
    with pytest.raises(InputError, match="changed since the run began"):
        tr.resume(path, potential="stiffness")


def first_lines(text):
    """What a table says but for the speed."""
    return [line for line in text.splitlines() if "particle-steps" not in line and "/s" not in line]


def test_commands_about_files(tmp_path):
    fields = {"protocols": "constant", "particles": 1024, "steps": 10, "records": 4, "snapshots": 2}
    tr.learning.excess_work(out=tmp_path / "run.h5", **fields)
    found = json.loads(thermorun("inspect", "run.h5", "--json", folder=tmp_path).stdout)
    assert (found["command"], found["complete"], found["checkpoint"]) == ("excess-work", True, "none")
    assert found["sections"][0] == {"section": "constant", "rows": 5, "of": 5}
    good = thermorun("verify", "run.h5", folder=tmp_path)
    assert good.returncode == 0
    assert "first law" in good.stdout
    assert "densities add up to one" in good.stdout
    assert thermorun("repair", "run.h5", folder=tmp_path).stdout == "nothing to repair\n"
    before = (tmp_path / "run.h5").read_bytes()
    changed(tmp_path / "run.h5", "constant/work", (3, 0), 99.0)
    bad = thermorun("verify", "run.h5", "--json", folder=tmp_path)
    assert bad.returncode == 1
    assert json.loads(bad.stdout)["good"] is False
    refused(thermorun("plot", "run.h5", folder=tmp_path), "constant/work is not as it was written in row 3")
    assert "constant: 3 of 5 rows are good" in thermorun("repair", "run.h5", folder=tmp_path).stdout
    assert "not complete" in thermorun("inspect", "run.h5", folder=tmp_path).stdout
    assert thermorun("resume", "run.h5", folder=tmp_path).returncode == 0
    with h5py.File(tmp_path / "run.h5") as file:
        (tmp_path / "whole.h5").write_bytes(before)
        with h5py.File(tmp_path / "whole.h5") as other:
            np.testing.assert_array_equal(file["constant/work"], other["constant/work"])


def test_verify_knows_the_first_law(tmp_path):
    """Numbers that were forged with their checksums still have to obey physics."""
    path = tmp_path / "run.h5"
    tr.learning.excess_work(out=path, protocols="constant", particles=1024, steps=10, records=4)
    with RunFile.reopen(path, read_spec(path)) as file:
        rows = file.read("constant")
        names = ("work", "heat", "energy_change", "first_law_residual")
        file.write("constant", 0, {name: rows[name] + (name == "work") for name in names})
    assert faults(path) == []
    run = thermorun("verify", path, folder=tmp_path)
    assert run.returncode == 1
    assert "BAD   constant: first law of the means" in run.stdout


def test_commands_for_the_terminal_never_leave_a_file(tmp_path):
    path = tmp_path / "run.h5"
    with contextlib.suppress(InputError):
        written(path)
    with h5py.File(path, "r+") as file:
        file.attrs["command"] = "\x1b[2Jevil\x07"
    sealed_anew(path)
    for words in (("plot", path), ("resume", path), ("verify", path), ("inspect", path)):
        run = thermorun(*words, folder=tmp_path)
        assert "\x1b" not in run.stdout + run.stderr
        assert "\x07" not in run.stdout + run.stderr
