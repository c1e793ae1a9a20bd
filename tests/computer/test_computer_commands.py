"""The commands of the thermodynamic computer, as a user types them."""

import json
import signal
import time

import numpy as np
import pytest

from helpers import in_process_of_its_own, interrupted, refused, thermorun, undrawn

SMALL = ["--hidden", "6", "--teacher-epochs", "5", "--scale", "100", "--shots", "2"]
LONG = ["computer", "train", *SMALL, "--method", "onsager-machlup", "--trajectories", "80000"]


def said(run):
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@undrawn()  # but for the first, in a process of its own
def test_train_classify_sweep_export(tmp_path):
    report = said(in_process_of_its_own("computer", "train", *SMALL, "--out", "a.h5", "--json", folder=tmp_path))
    row = report["results"][0]
    assert row["accuracy"]["mean"] <= row["top2"]["mean"] <= 1
    assert (row["shots"], row["kT"], row["observation_time"], row["timestep"]) == (2, 1, 0.2, 0.001)
    assert row["parameters"] == 16 * 64 + 120 + 16
    assert row["train_seconds"] > 0
    assert report["file"] == "a.h5"
    assert all((tmp_path / picture).stat().st_size > 10_000 for picture in report["pictures"])
    # The same shots again, from the file, and from the text that it is exported to.
    again = said(thermorun("computer", "classify", "a.h5", "--shots", 2, "--json", folder=tmp_path))
    assert again["results"][0]["accuracy"] == row["accuracy"]
    assert len(again["answers"]) == 599
    assert thermorun("computer", "export", "a.h5", "a.txt", folder=tmp_path).returncode == 0
    words = ("computer", "classify", "a.txt", "--dataset", "digits", "--shots", 2, "--json")
    assert said(thermorun(*words, folder=tmp_path))["results"][0]["accuracy"] == row["accuracy"]
    words = ("computer", "sweep", "a.h5", "--over", "temperature", "--values", "0,1", "--shots", 2, "--json")
    assert said(thermorun(*words, folder=tmp_path))["results"][1]["accuracy"] == row["accuracy"]
    words = ("computer", "sweep", "a.h5", "--over", "connectivity", "--values", "feed-forward", "--shots", 1)
    assert "feed-forward" in thermorun(*words, folder=tmp_path).stdout
    text = thermorun("computer", "train", *SMALL, folder=tmp_path)
    assert "Thermodynamic computer trained on digits" in text.stdout
    assert "singular: solved" in text.stdout
    assert "computer-digits-seed0.h5" in text.stdout
    assert max(map(len, text.stdout.splitlines())) <= 80
    assert "accuracy" in thermorun("resume", "a.h5", folder=tmp_path).stdout
    assert thermorun("plot", "a.h5", "--format", "svg", folder=tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("train", "--dataset", "letters"), "dataset is 'letters'"),
        (("train", "--dataset", "unlabelled.npz"), "holds no labels"),
        (("train", "--dataset", "missing.npz"), "does not exist"),
        (("train", "--classes", "0,12"), "12"),
        (("train", "--connectivity", "diagonal.npy", "--hidden", "6"), "diagonal"),
        (("train", "--connectivity", "small.npy"), "shape"),
        (("train", "--teacher", "short.npz", "--hidden", "6"), "'hidden' has shape"),
        (("train", "--dt", "0.02"), "would do"),
        (("train", "--dt", "0.003"), "no whole number of steps"),
        (("train", "--method", "magic"), "'magic' is not one of"),
        (("train", "--threads", "1000"), "threads"),
        (("train", "--out", "missing/a.h5"), "does not exist"),
        (("train", "--shots", "1e8"), "--shots is 100000000"),
        (("classify", "missing.h5"), "does not exist"),
        (("classify", "cut.txt", "--dataset", "digits"), "3 numbers"),
        (("classify", "words.txt", "--dataset", "digits"), "neither HDF5 nor"),
        (("classify", "cut.txt", "--dt", "nan"), "--dt is nan"),
        (("classify", "cut.txt", "--observation-time", "inf"), "--observation-time is inf"),
        (("sweep", "missing.h5"), "does not exist"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(tmp_path, words, sentence):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "unlabelled.npz", x=rng.random((9, 4)))
    np.save(tmp_path / "diagonal.npy", np.ones((80, 80), np.uint8))
    np.save(tmp_path / "small.npy", np.zeros((10, 10), np.uint8))
    np.savez(tmp_path / "short.npz", hidden=np.zeros((10, 6)), logits=np.zeros((10, 10)))
    (tmp_path / "cut.txt").write_text("1.0 2.0 3.0")
    (tmp_path / "words.txt").write_text("not a machine")
    before = set(tmp_path.iterdir())
    refused(thermorun("computer", *words, folder=tmp_path), sentence)
    assert set(tmp_path.iterdir()) == before


@pytest.fixture(scope="module")
@undrawn()
def whole(tmp_path_factory):
    return said(thermorun(*LONG, "--out", "whole.h5", "--json", folder=tmp_path_factory.mktemp("whole")))


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
@undrawn()
def test_ctrl_c_saves_and_kill_and_resume_give_the_same_bits(tmp_path, whole, number):
    out = tmp_path / "stopped.h5"
    stopped = interrupted(
        *LONG, "--out", out, folder=tmp_path, until=lambda: out.exists() or time.sleep(0.1), number=number
    )
    if number == signal.SIGINT:
        assert stopped.returncode == 130
        assert "thermorun resume" in stopped.stderr
    rest = said(thermorun("resume", out, "--json", folder=tmp_path))
    for name in ("accuracy", "heat", "work", "action"):
        assert rest["results"][0][name] == whole["results"][0][name]


@pytest.mark.parametrize(
    "words",
    [
        ("sweep", "a.h5", "--shots", "100000"),
        pytest.param(
            ("classify", "a.h5", "--shots", "2000", "--observation-time", "8"), id="classify", marks=pytest.mark.slow
        ),
    ],
)
@undrawn()
def test_ctrl_c_is_heard_in_every_phase(tmp_path, words):
    assert thermorun("computer", "train", *SMALL, "--out", "a.h5", folder=tmp_path).returncode == 0
    out = tmp_path / "long.h5"
    sent = []

    def until():
        if out.exists():
            sent.append(time.monotonic())
        return out.exists()

    stopped = interrupted("computer", *words, "--out", out, folder=tmp_path, until=until)
    # Within two seconds, on a machine with nothing else to do; the runs would take minutes.
    assert time.monotonic() - sent[0] < 20
    assert stopped.returncode == 130
    assert f"go on with 'thermorun resume {out}'" in stopped.stderr
