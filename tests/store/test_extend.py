"""More of the same into the same file: to the bit what a run gives that had so many from the start."""

import numpy as np
import pytest

import thermorun as package
from helpers import refused, same_contents, thermorun
from thermorun import computer, cycles, free_energy, learning
from thermorun.errors import InputError, Stopped
from thermorun.store import RunFile


def test_particles(tmp_path):
    """Rows that are whole are kept, and only those that were not there are run."""
    path = tmp_path / "a.h5"
    settings = {"potential": "stiffness", "duration": 0.2, "steps": 4, "seed": 3, "threads": 1}
    small = free_energy.measure(**settings, particles=40_000, out=path)
    before = small.contents()["forward"]["seconds"].values
    larger = package.extend(path, particles=70_000, threads=1)
    same_contents(larger, free_energy.measure(**settings, particles=70_000))
    after = larger.contents()["forward"]["seconds"].values
    assert after[0] == before[0]
    assert after[1] != before[1]
    assert package.load(path).spec.particles == 70_000


def test_particles_along_a_path_with_histograms(tmp_path):
    settings = {"potential": "stiffness", "kT": (1.0, 2.0), "tau": 0.2, "steps": 4, "at": (0.1,), "snapshots": 3}
    learning.drive(**settings, particles=33_000, out=tmp_path / "a.h5", threads=1)
    ran = thermorun("extend", "a.h5", "--particles", "7e4", "--threads", 1, folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    same_contents(package.load(tmp_path / "a.h5"), learning.drive(**settings, particles=70_000, threads=1))


def test_replicas(tmp_path):
    """In closed loop with each replica's own data, and along a path; with works, histograms and half steps."""
    path = learning.Path(times=(0.0, 1.0), thetas=(0.0, 1.0))
    settings = {"protocols": ("discontinuous", path), "tau": 1.0, "steps": 20, "records": 5, "samples": 50}
    settings |= {"particles": 2000, "keep_work": True, "snapshots": 2, "check_dt": True, "threads": 1}
    learning.excess_work(**settings, replicas=2, out=tmp_path / "a.h5")
    same_contents(package.extend(tmp_path / "a.h5", replicas=5), learning.excess_work(**settings, replicas=5))


@pytest.mark.slow
def test_replicas_of_learning(tmp_path):
    """With data drawn for each replica, and the metric estimated by a side ensemble of its own."""
    settings = {"potential": "stiffness", "rules": "natural", "metric": "estimated", "samples": 100, "side": 512}
    settings |= {"tau": 1.0, "records": 5, "particles": 1500, "threads": 1}
    learning.learn(**settings, replicas=2, out=tmp_path / "a.h5")
    same_contents(package.extend(tmp_path / "a.h5", replicas=5), learning.learn(**settings, replicas=5))


def test_shots(tmp_path):
    """Of a training, whose machine is not trained again, and of a classification with it."""
    settings = {"classes": (0, 1), "hidden": 4, "teacher_epochs": 2, "scale": 50.0, "threads": 1}
    computer.train(**settings, shots=1, out=tmp_path / "t.h5")
    same_contents(package.extend(tmp_path / "t.h5", shots=3), computer.train(**settings, shots=3))
    computer.classify(tmp_path / "t.h5", shots=1, out=tmp_path / "c.h5", threads=1)
    same_contents(package.extend(tmp_path / "c.h5", shots=3), computer.classify(tmp_path / "t.h5", shots=3, threads=1))


@pytest.mark.slow
def test_machines_and_pictures(tmp_path):
    """Machines of several rules that learn and make more; more pictures of machines that do not learn again."""
    settings = {"rules": ("closed-form", "online"), "hidden": 8, "dt": 0.01, "rounds": 3}
    path = tmp_path / "a.h5"
    before = computer.generate(**settings, machines=1, pictures=6, out=path, threads=1).seconds
    larger = package.extend(path, machines=2, threads=1)
    same_contents(larger, computer.generate(**settings, machines=2, pictures=6, threads=1))
    assert np.array_equal(larger.seconds[:2], before)
    more = thermorun("extend", "a.h5", "--pictures", 70, "--machines", 3, folder=tmp_path)
    assert more.returncode == 0, more.stderr
    result = package.load(path)
    same_contents(result, computer.generate(**settings, machines=3, pictures=70, threads=1))
    assert np.array_equal(result.seconds[:4], larger.seconds)


def test_epochs(tmp_path):
    settings = {"models": 2, "hidden": 3, "steps_per_epoch": 2, "samples": 64, "count_steps": 1000, "keep_every": 2}
    X = np.random.default_rng(0).random((60, 9)) < 0.3
    cycles.train(X, **settings, epochs=3, out=tmp_path / "a.h5", threads=1)
    longer = cycles.train(X, **settings, epochs=6, grow_epochs=3, threads=1)
    same_contents(package.extend(tmp_path / "a.h5", epochs=6), longer)


def test_a_killed_extension_is_resumed(tmp_path, monkeypatch):
    """After Ctrl-C the file holds the beginning of the larger run."""
    path = tmp_path / "a.h5"
    settings = {"potential": "stiffness", "duration": 0.2, "steps": 4, "threads": 1}
    free_energy.measure(**settings, particles=33_000, out=path)
    write = RunFile.write

    def stop(self, section, first, rows):
        if (section, first) == ("reverse", 1):
            raise KeyboardInterrupt
        write(self, section, first, rows)

    monkeypatch.setattr(RunFile, "write", stop)
    with pytest.raises(Stopped, match="go on with 'thermorun resume"):
        package.extend(path, particles=70_000)
    monkeypatch.undo()
    with pytest.raises(InputError, match="holds the beginning of a run; go on with 'thermorun resume"):
        package.extend(path, particles=80_000)
    same_contents(package.resume(path), free_energy.measure(**settings, particles=70_000))


def test_what_cannot_grow(tmp_path):
    free_energy.measure("stiffness", steps=4, particles=2048, out=tmp_path / "a.h5", threads=1)
    for words, sentence in (
        (("--shots", 5), "--shots cannot grow; of a run of free-energy particles can"),
        (("--particles", 1024), "--particles is 1024; the file holds 2048, and it must be more"),
        ((), "nothing is to grow; of a run of free-energy particles can"),
    ):
        refused(thermorun("extend", "a.h5", *words, folder=tmp_path), sentence)
    refused(thermorun("extend", "b.h5", "--shots", 5, folder=tmp_path), "b.h5")
