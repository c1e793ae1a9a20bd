"""The commands of the latent cycles, as a user types them."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

FAST = ["--models", "2", "--epochs", "3", "--steps-per-epoch", "4", "--chain-steps", "5", "--samples", "32"]


def thermorun(*words, cwd, code=0):
    done = subprocess.run(
        [sys.executable, "-m", "thermorun", *map(str, words)], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    return done


def test_train_sample_analyse(tmp_path):
    report = json.loads(thermorun("cycles", "train", *FAST, "--out", "study.h5", "--json", cwd=tmp_path).stdout)
    assert report["spec"]["dataset"] == "digits"
    assert report["train_seconds"] > 0
    assert report["file"] == "study.h5"
    for number, model in enumerate(report["models"]):
        assert model["seed"] == number
        assert set(model["entropy_production"]) == {"mean", "stderr"}
        assert {"log_likelihood", "decorrelation_time", "mean_diagonal", "kl", "occupancy"} <= set(model)
        assert sum(model["occupancy"]) == pytest.approx(1)
    analysed = json.loads(thermorun("cycles", "analyse", "study.h5", "--json", cwd=tmp_path).stdout)
    assert analysed["models"] == report["models"]
    assert all((tmp_path / picture).stat().st_size > 10_000 for picture in analysed["pictures"])
    assert {"fig2", "fig4", "fig3", "cycle"} <= {p.split("-")[1].split(".")[0] for p in analysed["pictures"]}
    drawn = json.loads(thermorun("cycles", "sample", "study.h5", "--chains", 20, "--json", cwd=tmp_path).stdout)
    with np.load(tmp_path / drawn["file"]) as images:
        assert images["x"].shape == (20, 8, 8)
    text = thermorun("cycles", "analyse", "study.h5", "--samples", 48, cwd=tmp_path).stdout
    assert "Latent cycles on digits" in text
    thermorun("cycles", "train", *FAST, "--dataset", drawn["file"], "--out", "again.h5", cwd=tmp_path)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("train", "--dataset", "letters"), "dataset is 'letters'"),
        (("train", "--classes", "0,12"), "12"),
        (("train", "--classes", "zero"), "classes"),
        (("train", "--encoding", "bits", "--hidden", "65"), "hidden is 65"),
        (("train", "--minibatch", "0:5"), "minibatch"),
        (("train", "--minibatch", "many"), "minibatch"),
        (("train", "--chain-steps", "1"), "chain_steps"),
        (("train", "--threads", "1000"), "threads"),
        (("train", "--out", "missing/study.h5"), "does not exist"),
        (("analyse", "missing.h5"), "does not exist"),
        (("sample", "missing.h5"), "does not exist"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(tmp_path, words, sentence):
    done = thermorun("cycles", *words, cwd=tmp_path, code=2)
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_data_that_are_not_bits(tmp_path):
    np.save(tmp_path / "grey.npy", np.arange(12).reshape(3, 4))
    done = thermorun("cycles", "train", "--dataset", "grey.npy", cwd=tmp_path, code=2)
    assert "0 and 1" in done.stderr


def test_ctrl_c_saves_and_kill_and_resume_give_the_same_bits(tmp_path):
    long = ["--models", "2", "--epochs", "400", "--steps-per-epoch", "20", "--samples", "32", "--keep-every", "400"]
    whole = json.loads(thermorun("cycles", "train", *long, "--out", "whole.h5", "--json", cwd=tmp_path).stdout)
    for number in (signal.SIGINT, signal.SIGKILL):
        out = tmp_path / f"stopped-{number}.h5"
        run = subprocess.Popen(
            [sys.executable, "-m", "thermorun", "cycles", "train", *long, "--out", str(out)],
            cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"COLUMNS": "200"},
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
        assert rest["models"] == whole["models"]
