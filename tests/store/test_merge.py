"""Shards of a run, put together: to the bit what one process writes, whatever happened to them on the way."""

import json
import shutil

import h5py
import numpy as np
import pytest

import thermorun as package
from helpers import interrupted, refused, same_contents, sealed_anew, thermorun
from thermorun import computer, cycles, free_energy, learning, metric
from thermorun.errors import DamagedFile, InputError
from thermorun.store import RunFile, layout, survey
from thermorun.store.shards import joined


def merged(spec, folder, *, shards=3, **more):
    """A run in shards, put together in the file ``whole.h5``."""
    files = [folder / f"{k}.h5" for k in range(1, shards + 1)]
    for k, path in enumerate(files, 1):
        spec.run(out=path, shard=(k, shards), threads=1, **more)
    return package.merge(files[::-1], folder / "whole.h5", threads=1)


def same_as_whole(spec, folder, **more):
    """The merged file holds what one process writes, is complete, and reads as it does."""
    ours = merged(spec, folder, **more)
    theirs = spec.run(threads=1, **{name: one for name, one in more.items() if name != "shards"})
    same_contents(ours, theirs)
    found = survey(ours.file)
    assert found.complete
    assert "part" not in found.facts
    ran = thermorun("verify", "whole.h5", folder=folder)
    assert ran.returncode == 0, ran.stdout
    return ours


ROWS = {"potential": "stiffness", "steps": 4, "seed": 3, "particles": 70_000}


def test_rows_of_particles(tmp_path):
    """More of them can be added to what was put together, and its picture drawn."""
    spec = free_energy.FreeEnergy(**ROWS, duration=0.2)
    same_as_whole(spec, tmp_path)
    larger = package.extend(tmp_path / "whole.h5", particles=100_000, threads=1)
    same_contents(larger, spec.replace(particles=100_000).run(threads=1))
    assert thermorun("plot", "whole.h5", folder=tmp_path).returncode == 0


def test_rows_of_a_drive(tmp_path):
    """With histograms, which all rows share, and snapshots, which are the first's."""
    spec = learning.Drive(**ROWS, kT=(1.0, 2.0), tau=0.2, at=(0.1,), snapshots=3)
    same_as_whole(spec, tmp_path)


def test_replicas(tmp_path):
    """In closed loop with each replica's own data, and along a path; with works, histograms and half steps."""
    path = learning.Path(times=(0.0, 1.0), thetas=(0.0, 1.0))
    settings = {"protocols": ("discontinuous", path), "tau": 1.0, "steps": 20, "records": 5, "samples": 50}
    settings |= {"particles": 2000, "keep_work": True, "snapshots": 2, "check_dt": True, "replicas": 5}
    spec = learning.ExcessWork(**settings)
    same_as_whole(spec, tmp_path)
    same_contents(package.extend(tmp_path / "whole.h5", replicas=6, threads=1), spec.replace(replicas=6).run(threads=1))


def test_replicas_of_learning(tmp_path):
    settings = {"potential": "stiffness", "rules": "natural", "metric": "estimated", "samples": 100, "side": 512}
    same_as_whole(learning.Learn(**settings, tau=1.0, records=5, particles=1500, replicas=4), tmp_path)


def test_models(tmp_path):
    """Each study is of its own models; the ceiling above the best of all is found once they are together."""
    settings = {"hidden": 3, "steps_per_epoch": 2, "samples": 64, "count_steps": 1000, "keep_every": 2, "epochs": 3}
    x = np.random.default_rng(0).random((60, 9)) < 0.3
    np.save(tmp_path / "x.npy", x)
    spec = cycles.CycleStudy(dataset=str(tmp_path / "x.npy"), models=4, **settings)
    result = same_as_whole(spec, tmp_path)
    undone(tmp_path / "3.h5", "analysis")
    assert package.resume(tmp_path / "3.h5", threads=1).part.first == 2
    assert result.attainable["log_likelihood"] > result["log_likelihood"].mean.max() - 1e-9


def test_starts(tmp_path):
    """Of a ceiling; data given as arrays are in every shard, which goes on without them."""
    x = np.random.default_rng(0).random((60, 9)) < 0.3
    spec = cycles.CycleCeiling(states=3, restarts=4, steps=8)
    data = cycles.ceiling(x, states=3, restarts=1, steps=1, threads=1).data
    same_as_whole(spec, tmp_path, data=data)
    means = []
    for begin_again in (False, True):
        if begin_again:
            undone(tmp_path / "2.h5", "climb")
            package.resume(tmp_path / "2.h5", threads=1)
        with h5py.File(tmp_path / "2.h5") as file:
            means.append(file["climb/means"][()])
    np.testing.assert_array_equal(*means)


def undone(path, section):
    """The file of a moment when none of a section's rows was complete."""
    with h5py.File(path, "r+") as file:
        index = list(file["section"].asstr()).index(section)
        file["commits"][index], file["checksums"]["finished"][0] = 0, 0


@pytest.mark.slow
def test_values_of_a_sweep(tmp_path):
    """Each has trajectories of its own, or a machine; where all are read from the same ones, nothing is cut."""
    computer.train(classes=(0, 1), hidden=4, teacher_epochs=2, scale=50.0, shots=1, threads=1, out=tmp_path / "t.h5")
    given = {"file": str(tmp_path / "t.h5"), "shots": 2}
    (tmp_path / "sweep").mkdir()
    spec = computer.Sweep(**given, over="temperature", values=(0.0, 0.5, 1.0, 2.0))
    same_as_whole(spec, tmp_path / "sweep")
    (tmp_path / "names").mkdir()
    named = computer.Sweep(**given, over="connectivity", values=("all-to-all", "feed-forward"))
    same_as_whole(named, tmp_path / "names", shards=2)
    undone(tmp_path / "sweep" / "3.h5", "sweep")
    package.resume(tmp_path / "sweep" / "3.h5", threads=1)
    (tmp_path / "sweep" / "whole.h5").unlink()
    files = [tmp_path / "sweep" / f"{k}.h5" for k in (1, 2, 3)]
    same_contents(package.merge(files, tmp_path / "sweep" / "whole.h5", threads=1), spec.run(threads=1))
    with pytest.raises(InputError, match="sweep over observation-time reads all values from the same trajectories"):
        computer.Sweep(**given).run(out=tmp_path / "a.h5", shard=(1, 2))


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (computer.Classification, {}),
        pytest.param(computer.Energy, {"drives": (0.5, 1.0)}, marks=pytest.mark.slow),
    ],
)
def test_shots(tmp_path, kind, settings):
    """Of a classification, which is answered once all are there; of cycles in time."""
    machine = tmp_path / "t.h5"
    computer.train(classes=(0, 1), hidden=4, teacher_epochs=2, scale=50.0, threads=1, shots=1, out=machine)
    same_as_whole(kind(file=str(machine), shots=4, **settings), tmp_path)


@pytest.mark.slow
def test_machines_that_draw(tmp_path):
    same_as_whole(computer.Generation(machines=3, hidden=4, pictures=4), tmp_path)


def test_a_shard_that_was_stopped_goes_on(tmp_path):
    """By the words that began it, with --resume, or by its file; a complete one is not run again."""
    words = ["free-energy", "--potential", "stiffness", "--duration", "0.2", "--steps", "2000", "--seed", "3"]
    words += ["--particles", "140000", "--threads", "1"]
    first, second = tmp_path / "free-energy-stiffness-seed3-shard1of2.h5", tmp_path / "b.h5"
    assert interrupted(*words, "--shard", "1/2", folder=tmp_path, until=first.exists).returncode == 130
    assert not survey(first).complete
    ran = thermorun("resume", first.name, "--threads", 1, folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert "Shard" in ran.stdout
    ran = interrupted(*words, "--shard", "2/2", "--out", "b.h5", folder=tmp_path, until=second.exists)
    assert ran.returncode == 130
    ran = thermorun(*words, "--shard", "1/2", "--out", "b.h5", "--resume", folder=tmp_path)
    assert ran.returncode == 2
    assert "b.h5 holds rows 2 to 4 of 5" in ran.stderr
    for _ in range(2):
        ran = thermorun(*words, "--shard", "2/2", "--out", "b.h5", "--resume", folder=tmp_path)
        assert ran.returncode == 0, ran.stderr
    ran = thermorun("merge", first.name, "b.h5", "--out", "whole.h5", "--threads", 1, folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    spec = free_energy.FreeEnergy(potential="stiffness", duration=0.2, steps=2000, seed=3, particles=140_000)
    same_contents(package.load(tmp_path / "whole.h5"), spec.run(threads=1))


def test_refusals(tmp_path):
    """One sentence, and no file."""
    spec = free_energy.FreeEnergy(**ROWS | {"particles": 140_000}, duration=0.2)
    for k in range(1, 6):
        spec.run(out=tmp_path / f"{k}.h5", shard=(k, 5), threads=1)
    spec.run(out=tmp_path / "half.h5", shard=(1, 2), threads=1)
    spec.run(out=tmp_path / "all.h5", threads=1)
    spec.replace(seed=4).run(out=tmp_path / "seed.h5", shard=(2, 5), threads=1)
    spec.replace(particles=150_000).run(out=tmp_path / "more.h5", shard=(2, 5), threads=1)
    learning.Drive(**ROWS, tau=0.2).run(out=tmp_path / "drive.h5", shard=(2, 2), threads=1)
    shutil.copy(tmp_path / "2.h5", tmp_path / "begun.h5")
    with h5py.File(tmp_path / "begun.h5", "r+") as file:
        file["commits"][0], file["checksums"]["finished"][0] = 0, 0
    shutil.copy(tmp_path / "2.h5", tmp_path / "bad.h5")
    with h5py.File(tmp_path / "bad.h5", "r+") as file:
        file["forward/work"][0, 5] += 1
    for words, sentence in [
        (("1", "2", "4", "5"), "none of the files holds row 2 of 5; run that shard too."),
        (("2", "3", "4", "5"), "holds row 0 of 5; run"),
        (("1", "2"), "holds rows 2 to 4 of 5; run"),
        (("half", "2", "3", "4", "5"), "half.h5 and 2.h5 overlap: both hold row 1 of 5."),
        (("1", "2", "3", "3", "4", "5"), "3.h5 is given twice"),
        (("1", "2", "all"), "all.h5 holds a whole run, not a shard of one."),
        (("1", "seed", "3", "4", "5"), "seed.h5 is of another run than 1.h5 (seed 4, not 3)."),
        (("1", "more", "3", "4", "5"), "(particles 150000, not 140000)"),
        (("1", "drive", "3", "4", "5"), "1.h5 is of a run of free-energy, and drive.h5 of drive."),
        (("1", "begun", "3", "4", "5"), "begun.h5 is not complete; go on with 'thermorun resume begun.h5' first."),
        (("1", "bad", "3", "4", "5"), "bad.h5 is damaged: forward/work is not as it was written in row 0"),
    ]:
        files = [f"{name}.h5" for name in words]
        refused(thermorun("merge", *files, "--out", "whole.h5", folder=tmp_path), sentence)
    assert not list(tmp_path.glob("*whole*"))
    refused(thermorun("merge", "1.h5", "--out", "1.h5", folder=tmp_path), "holds rows 1 to 4 of 5; run")
    five = [f"{k}.h5" for k in range(1, 6)]
    refused(thermorun("merge", *five, "--out", "1.h5", folder=tmp_path), "1.h5, which is one of the shards")
    refused(thermorun("plot", "1.h5", folder=tmp_path), "1.h5 holds row 0 of 5 of a run; 'thermorun merge' puts it")
    refused(thermorun("extend", "1.h5", "--particles", "2e5", folder=tmp_path), "holds row 0 of 5 of a run")
    with pytest.raises(InputError, match=r"already holds row 0 of 5 of this run"):
        spec.run(out=tmp_path / "1.h5", threads=1)
    with pytest.raises(InputError, match=r"already holds row 1 of 5 of this run"):
        spec.run(out=tmp_path / "2.h5", shard=(1, 5), threads=1)
    before = (tmp_path / "2.h5").stat().st_mtime_ns
    spec.run(out=tmp_path / "2.h5", shard=(2, 5), threads=1)  # as any complete run may be run again
    assert (tmp_path / "2.h5").stat().st_mtime_ns > before
    with pytest.raises(InputError, match=r"already holds all of this run"):
        spec.run(out=tmp_path / "all.h5", shard=(1, 5), threads=1)


def test_what_a_stranger_says_of_its_part(tmp_path):
    """Is compared with what there is, and told in one sentence."""
    spec = free_energy.FreeEnergy(**ROWS, duration=0.2)
    for k in (1, 2):
        spec.run(out=tmp_path / f"{k}.h5", shard=(k, 2), threads=1)
    for name, value in [("versions", "no"), ("seed", "x"), ("threads", "many"), ("part", '["row", 0, 2, 3]')]:
        shutil.copy(tmp_path / "1.h5", tmp_path / "forged.h5")
        with h5py.File(tmp_path / "forged.h5", "r+") as file:
            file.attrs[name] = value
        sealed_anew(tmp_path / "forged.h5")
        ran = thermorun("merge", "forged.h5", "2.h5", "--out", "whole.h5", folder=tmp_path)
        refused(ran, "overlap" if name == "part" else "changed by hand")
    with pytest.raises(DamagedFile, match="does not hold rows 0 to 1 of 3"):
        RunFile.open_to_read(tmp_path / "forged.h5")
    assert not (tmp_path / "whole.h5").exists()


def test_seconds_add_up():
    """Also where one shard does what is done once for all."""
    both = joined("row", ("part",), "s", [np.array([1.0, 2.0, np.nan]), np.array([3.0, np.nan, np.nan])])
    np.testing.assert_array_equal(both, [4.0, 2.0, np.nan])


def test_other_versions_are_refused(tmp_path, monkeypatch):
    """Bits of another version of a library may differ."""
    spec = free_energy.FreeEnergy(**ROWS, duration=0.2)
    spec.run(out=tmp_path / "1.h5", shard=(1, 2), threads=1)
    known = layout._made_with()
    versions = json.dumps(json.loads(known["versions"]) | {"numba": "0.1"})
    monkeypatch.setattr(layout, "_made_with", lambda: known | {"versions": versions})
    spec.run(out=tmp_path / "2.h5", shard=(2, 2), threads=1)
    with pytest.raises(InputError, match=r"1.h5 was made with numba .*, and .*2.h5 with 0.1: their bits may differ"):
        package.merge([tmp_path / "1.h5", tmp_path / "2.h5"], tmp_path / "whole.h5")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("free-energy --shard 3/2", "shard is 3; it must be"),
        ("free-energy --shard 0/2", "shard is 0; it must be"),
        ("free-energy --shard 1/9 --particles 70000", "shard is 1/9, and the run has 3 rows; take fewer shards."),
        ("free-energy --shard half", "give a number and that of all shards, as in 2/8."),
        ("learn --theorem 5,10 --shard 1/2", "--theorem is told from a whole run"),
        ("metric --shard 1/2", "No such option"),
    ],
)
def test_shards_that_cannot_be(tmp_path, words, sentence):
    ran = thermorun(*words.split(), folder=tmp_path)
    assert ran.returncode == 2
    assert sentence in ran.stderr
    assert not list(tmp_path.iterdir())


def test_a_run_without_parts_or_without_a_file(tmp_path):
    with pytest.raises(InputError, match="a run of metric cannot be cut into shards"):
        metric.Metric().run(out=tmp_path / "a.h5", shard=(1, 2))
    with pytest.raises(InputError, match="it needs out"):
        free_energy.FreeEnergy().run(shard=(1, 2))
