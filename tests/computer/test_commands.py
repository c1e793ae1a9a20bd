"""The commands of the thermodynamic computer, as a user types them."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

SMALL = ["--hidden", "6", "--teacher-epochs", "5", "--scale", "100", "--shots", "2"]


def thermorun(*words, cwd, code=0):
    done = subprocess.run(
        [sys.executable, "-m", "thermorun", *map(str, words)], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    return done


def test_train_classify_sweep_export(tmp_path):
    report = json.loads(thermorun("computer", "train", *SMALL, "--out", "a.h5", "--json", cwd=tmp_path).stdout)
    assert {"mean", "stderr", "stderr_images", "stderr_noise"} == set(report["accuracy"])
    assert report["accuracy"]["mean"] <= report["top2"] <= 1
    assert (report["shots"], report["kT"], report["observation_time"], report["timestep"]) == (2, 1, 0.2, 0.001)
    assert report["parameters"] == 16 * 64 + 120 + 16
    assert report["train_seconds"] > 0
    assert report["file"] == "a.h5"
    assert all((tmp_path / picture).stat().st_size > 10_000 for picture in report["pictures"])
    # The same shots again, from the file, and from the text that it is exported to.
    again = json.loads(thermorun("computer", "classify", "a.h5", "--shots", 2, "--json", cwd=tmp_path).stdout)
    assert again["accuracy"] == report["accuracy"]
    assert again["heat"] == report["heat"]
    thermorun("computer", "export", "a.h5", "a.txt", cwd=tmp_path)
    words = ("computer", "classify", "a.txt", "--dataset", "digits", "--shots", 2, "--json")
    assert json.loads(thermorun(*words, cwd=tmp_path).stdout)["accuracy"] == report["accuracy"]
    words = ("computer", "sweep", "a.h5", "--over", "temperature", "--values", "0,1", "--shots", 2, "--json")
    rows = json.loads(thermorun(*words, cwd=tmp_path).stdout)["rows"]
    assert rows[1]["accuracy"] == report["accuracy"]["mean"]
    text = thermorun("computer", "train", *SMALL, cwd=tmp_path).stdout
    assert "Thermodynamic computer trained on digits" in text
    assert "singular: regularised" in text


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("train", "--dataset", "letters"), "dataset is 'letters'"),
        (("train", "--dataset", "unlabelled.npz"), "no array 'labels'"),
        (("train", "--classes", "0,12"), "12"),
        (("train", "--connectivity", "diagonal.npy", "--hidden", "6"), "diagonal"),
        (("train", "--connectivity", "small.npy"), "shape"),
        (("train", "--teacher", "short.npz", "--hidden", "6"), "'hidden' has shape"),
        (("train", "--dt", "0.02"), "would do"),
        (("train", "--dt", "0.003"), "no whole number of steps"),
        (("train", "--method", "magic"), "method is 'magic'"),
        (("train", "--threads", "1000"), "threads"),
        (("train", "--out", "missing/a.h5"), "does not exist"),
        (("classify", "missing.h5"), "does not exist"),
        (("classify", "cut.txt", "--dataset", "digits"), "3 numbers"),
        (("classify", "words.txt", "--dataset", "digits"), "neither HDF5 nor"),
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
    done = thermorun("computer", *words, cwd=tmp_path, code=2)
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert set(tmp_path.iterdir()) == before


def test_ctrl_c_saves_and_kill_and_resume_give_the_same_bits(tmp_path):
    long = [*SMALL, "--method", "onsager-machlup", "--trajectories", "400000"]
    whole = json.loads(thermorun("computer", "train", *long, "--out", "whole.h5", "--json", cwd=tmp_path).stdout)
    for number in (signal.SIGINT, signal.SIGKILL):
        out = tmp_path / f"stopped-{number}.h5"
        run = subprocess.Popen(
            [sys.executable, "-m", "thermorun", "computer", "train", *long, "--out", str(out)],
            cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        while not out.exists() and run.poll() is None:
            time.sleep(0.05)
        time.sleep(0.5)
        run.send_signal(number)
        message = run.communicate()[1]
        if number == signal.SIGINT:
            assert run.returncode == 130
            assert "thermorun resume" in message
        rest = json.loads(thermorun("resume", out, "--json", cwd=tmp_path).stdout)
        for name in ("accuracy", "heat", "work", "action"):
            assert rest[name] == whole[name]
