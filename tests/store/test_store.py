"""Files: watched while written, killed at any instant, resumed to the last bit."""

import os
import pickle
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray

import thermorun
from thermorun import learning
from thermorun.errors import InputError, RunError
from thermorun.store import Axis, RunFile, Variable, inspect

# Long enough to be caught in the middle, short enough for a test.
FIELDS = {
    "protocols": ("discontinuous", "straight-line", "constant"), "particles": 30_000, "replicas": 2, "steps": 400,
    "records": 40, "snapshots": 4, "keep_work": True,
}  # fmt: skip
RUN = f"""
import sys
from thermorun import learning, runs
runs.CHECKPOINT_EVERY = 0.0
learning.ExcessWork(**{FIELDS!r}).run(out=sys.argv[1], chunk=600_000)
"""
# A run so fast may end between two looks at its file.
SLOWER = "import time; pause = runs.Session.pause; runs.Session.pause = lambda *one: (time.sleep(0.02), pause(*one))"


def contents(path):
    """Every dataset of a file but the timing, the checksums of its table, and the places in the file."""
    found = {}
    with h5py.File(path, "r") as file:
        file.visititems(lambda name, item: found.update({name: item[()]} if isinstance(item, h5py.Dataset) else {}))
    for name in ("particle_steps_per_second", "checksums/crc32", "checksums/extents", "checksums/seal"):
        found.pop(name)
    return found


def rows(path):
    """How many are committed."""
    with h5py.File(path, "r", locking=False) as file:
        return sum(file["commits"])


def assert_same_contents(one, other):
    first, second = contents(one), contents(other)
    assert first.keys() == second.keys()
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name], err_msg=name)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "undisturbed.h5"
    learning.excess_work(out=path, **FIELDS)
    return path


@pytest.mark.parametrize("share", [0.02, *(pytest.param(s, marks=pytest.mark.slow) for s in (0.3, 0.6)), 0.95])
def test_killed_runs_open_and_resume_to_the_last_bit(tmp_path, undisturbed, share):
    path = tmp_path / "killed.h5"
    total = sum(contents(undisturbed)["commits"])
    with subprocess.Popen([sys.executable, "-c", RUN, str(path)]) as process:
        while process.poll() is None:
            if path.exists():
                with h5py.File(path, "r") as watched:  # a reader may look at any time
                    if sum(watched["commits"]) >= share * total:
                        process.send_signal(signal.SIGKILL)
                        break
            time.sleep(0.002)
    assert process.returncode == -signal.SIGKILL
    done = thermorun.load(path)
    assert sum(contents(path)["commits"]) < total
    for protocol in done:
        assert np.all(np.isfinite(protocol.series["work"]))
    learning.excess_work(out=path, resume=True, threads=1, **FIELDS)
    assert_same_contents(path, undisturbed)
    assert not path.with_name("killed.h5.checkpoint").exists()


def test_a_torn_checkpoint_costs_time_and_nothing_else(tmp_path, undisturbed):
    path = tmp_path / "torn.h5"
    with subprocess.Popen([sys.executable, "-c", RUN, str(path)]) as process:
        checkpoint = Path(f"{path}.checkpoint")
        while not checkpoint.exists() and process.poll() is None:
            time.sleep(0.002)
        process.kill()
    data = checkpoint.read_bytes()
    checkpoint.write_bytes(data[: len(data) // 2])
    learning.excess_work(out=path, resume=True, **FIELDS)
    assert_same_contents(path, undisturbed)


def test_ctrl_c_saves_and_resumes(tmp_path, undisturbed):
    path = tmp_path / "interrupted.h5"
    code = RUN.replace("CHECKPOINT_EVERY = 0.0", "CHECKPOINT_EVERY = 1e9; " + SLOWER)
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not (path.exists() and rows(path) > 20):
            time.sleep(0.002)
        process.send_signal(signal.SIGINT)
    assert path.with_name("interrupted.h5.checkpoint").exists()
    learning.excess_work(out=path, resume=True, **FIELDS)
    assert_same_contents(path, undisturbed)


def test_xarray_reads_it_without_us(undisturbed):
    table = xarray.open_dataset(undisturbed, engine="h5netcdf")
    assert table.excess_work.sel(protocol="constant").item() == pytest.approx(0.25, abs=0.02)
    assert table.attrs["schema_version"] == 2
    assert learning.ExcessWork.from_json(table.attrs["spec"]) == learning.ExcessWork(**FIELDS).resolved()
    series = xarray.open_dataset(undisturbed, group="constant", engine="h5netcdf")
    assert series.work.dims == ("time", "replica")
    assert series.work.attrs["units"] == "energy"
    np.testing.assert_allclose(series.work.mean("replica") - series.exact_work, 0, atol=0.03)
    snapshots = xarray.open_dataset(undisturbed, group="constant/snapshots", engine="h5netcdf")
    np.testing.assert_allclose(snapshots.density.integrate("x"), 1, atol=1e-3)


def test_loading_gives_back_what_ran(tmp_path):
    fields = FIELDS | {"steps": 20, "particles": 2048}
    ran, path = learning.excess_work(out=tmp_path / "run.h5", **fields), tmp_path / "run.h5"
    loaded = thermorun.load(path)
    assert loaded.to_dict() == ran.to_dict()
    for label, protocol in ran.protocols.items():
        np.testing.assert_array_equal(protocol.particle_work, loaded[label].particle_work)
        np.testing.assert_array_equal(protocol.density, loaded[label].density)
    # A finished run may be made again, or resumed, with the same result.
    learning.excess_work(out=path, **fields)
    again = learning.excess_work(out=path, resume=True, **fields)
    assert again["constant"].excess_work == ran["constant"].excess_work


SMALL = {"protocols": "constant", "particles": 1024, "steps": 10, "records": 1}


def test_refuses_a_file_that_holds_something_else(tmp_path, monkeypatch):
    path = tmp_path / "run.h5"
    learning.excess_work(out=path, **SMALL)
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"already holds another run \(steps 10, not 20\)"):
        learning.excess_work(out=path, **SMALL | {"steps": 20})
    with pytest.raises(InputError, match=r"another spec \(seed 0, not 1\)"):
        learning.excess_work(out=path, resume=True, seed=1, **SMALL)
    assert path.read_bytes() == before
    (tmp_path / "text.h5").write_text("no")
    with pytest.raises(InputError, match="holds something that is not a run"):
        learning.excess_work(out=tmp_path / "text.h5", **SMALL)
    with h5py.File(tmp_path / "other.h5", "w"):
        pass
    with pytest.raises(InputError, match="not of a run"):
        thermorun.load(tmp_path / "other.h5")
    monkeypatch.setattr(inspect, "SCHEMA_VERSION", 99)
    with pytest.raises(InputError, match="schema version 2; this version reads 99"):
        thermorun.load(path)


def test_refuses_to_start_over_an_unfinished_run(tmp_path):
    path = tmp_path / "run.h5"
    learning.excess_work(out=path, **SMALL)
    with h5py.File(path, "r+") as file:
        file["commits"][0] = 1
    with pytest.raises(InputError, match="beginning of this run; resume it"):
        learning.excess_work(out=path, **SMALL)


@pytest.mark.parametrize("where", ["missing/run.h5", "."])
def test_refuses_a_path_that_cannot_be_written(tmp_path, where):
    with pytest.raises(InputError, match="out is"):
        learning.excess_work(out=tmp_path / where, **SMALL)
    assert list(tmp_path.iterdir()) == []


def test_truncated_file_is_said_to_be_broken(tmp_path):
    path = tmp_path / "run.h5"
    learning.excess_work(out=path, **SMALL)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputError, match="cut short"):
        thermorun.load(path)


def test_a_full_disk_is_reported_and_what_is_committed_stays(tmp_path):
    """A limit on the size of files stands for the full disk."""
    path = tmp_path / "full.h5"
    with RunFile.create(path, "test", "{}", 0, 1) as file:
        file.add_section("a", [Axis("row", np.arange(4), "1", "row")], [Variable("v", ("row",), "1", "value")])
        file.publish({"a": 4})
        file.write("a", 0, {"v": np.array([1.0, 2.0])})
        file.wait()
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        try:
            file.checkpoint({"x": np.zeros(10_000)})
            with pytest.raises(RunError, match=r"File too large.*make room and resume"):
                file.wait()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, previous)
        assert file.committed("a") == 2
        assert file.read("a")["v"].tolist()[:2] == [1.0, 2.0]
        assert file.load_checkpoint() is None


WRITER = """
import sys
import numpy as np
from thermorun.store import Axis, RunFile, Variable
rows = int(sys.argv[2])
with RunFile.create(sys.argv[1], "test", "{}", 0, 1) as file:
    axes = [Axis("row", np.arange(rows), "1", "row"), Axis("column", np.arange(50), "1", "column")]
    file.add_section("a", axes, [Variable("v", ("row", "column"), "1", "value")])
    file.publish({"a": rows})
    for row in range(rows):
        file.write("a", row, {"v": np.full((1, 50), float(row))})
        file.wait()
"""


@pytest.mark.parametrize("reads", [200, pytest.param(10_000, marks=pytest.mark.slow)])
def test_readers_watch_a_run_of_another_process(tmp_path, reads):
    """Plain h5py and xarray, as the page on files says: rows that are counted are whole, at every one of many looks."""
    path, counts = tmp_path / "watched.h5", []
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(100 * reads)]) as process:
        while process.poll() is None and len(counts) < reads:
            if not path.exists():
                continue
            if len(counts) % 20:
                with h5py.File(path, "r", locking=False) as file:
                    counts.append(int(file["commits"][0]))
                    rows = slice(max(0, counts[-1] - 1000), counts[-1])
                    values = file["a/v"][rows]
            else:
                with xarray.open_dataset(path, engine="h5netcdf", cache=False) as root:
                    counts.append(int(root.commits.sel(section="a")))
                with xarray.open_dataset(path, group="a", engine="h5netcdf", cache=False) as section:
                    rows = slice(max(0, counts[-1] - 1000), counts[-1])
                    values = section.v.isel(row=rows).values
            assert np.all(values == np.arange(rows.start, rows.stop)[:, None])
        process.kill()
    assert len(counts) == reads
    assert counts == sorted(counts)
    assert counts[-1] > counts[0]


def test_rows_are_there_before_they_are_counted(tmp_path):
    """Whoever watches never finds a counted row that is not written."""
    path = tmp_path / "watched.h5"
    with RunFile.create(path, "test", "{}", 0, 1) as file:
        file.add_section("a", [Axis("row", np.arange(500), "1", "row")], [Variable("v", ("row",), "1", "value")])
        assert not path.exists()
        file.publish({"a": 500})
        for row in range(500):
            file.write("a", row, {"v": np.array([float(row)])})
            if row % 50 == 0:
                with h5py.File(path, "r", locking=False) as watched:
                    count = watched["commits"][0]
                    np.testing.assert_array_equal(watched["a/v"][:count], np.arange(count))
    assert not os.path.exists(f"{path}.part")


def test_a_run_without_a_file_holds_the_same(tmp_path):
    """In memory and on disk: the same arrays, in xarray too."""
    fields = FIELDS | {"steps": 20, "particles": 2048}
    kept, stored = learning.excess_work(**fields), learning.excess_work(out=tmp_path / "run.h5", **fields)
    timing = "particle_steps_per_second"
    for section, datasets in stored.contents().items():
        for name, one in datasets.items():
            if name != timing:
                np.testing.assert_array_equal(kept.contents()[section][name].values, one.values, err_msg=name)
    tree = kept.to_xarray()
    assert tree["constant"].work.dims == ("time", "replica")
    assert tree["constant"].work.attrs["units"] == "energy"
    np.testing.assert_array_equal(tree["constant"].work, stored.to_xarray()["constant"].work)
    assert pickle.loads(pickle.dumps(kept)).to_dict()["results"] == kept.to_dict()["results"]


@pytest.mark.parametrize("damage", ["dataset removed", "scalar", "text", "shorter", "spec", "attribute", "group"])
def test_a_damaged_file_is_told(tmp_path, damage):
    """What was taken out or changed by hand ends in one sentence that names the file."""
    path = tmp_path / "run.h5"
    learning.excess_work(out=path, **SMALL)
    with h5py.File(path, "r+") as file:
        if damage == "spec":
            file.attrs["spec"] = "[" * 50_000
        elif damage == "attribute":
            del file.attrs["command"]
        else:
            del file["constant/work"]
            if damage == "scalar":
                file["constant/work"] = 1.0
            elif damage == "text":
                file["constant/work"] = "work"
            elif damage == "shorter":
                file["constant/work"] = np.zeros((1, 1))
            elif damage == "group":
                file.create_group("constant/work")
    with pytest.raises(InputError):
        thermorun.load(path).to_dict()
