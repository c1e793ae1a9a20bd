"""The commands of the latent cycles, as a user types them."""

import json
import shutil

import numpy as np
import pytest

import thermorun as package
from helpers import in_process_of_its_own, interrupted, refused, thermorun, undrawn

FAST = ("--models", 2, "--epochs", 3, "--steps-per-epoch", 4, "--chain-steps", 5, "--samples", 32, "--count-steps", 999)


def command(*words, folder):
    """What a command that must succeed prints as JSON."""
    done = thermorun("cycles", *words, "--json", folder=folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A folder with a file of words as labels, and the file of a study of it."""
    folder = tmp_path_factory.mktemp("study")
    words = np.array(["ape", "bee", "cat"])
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 200)
    x = random.random((200, 4, 5)) < 0.2 + 0.3 * labels[:, None, None]
    np.savez(folder / "own.npz", x=x, labels=words[labels])
    done = in_process_of_its_own(
        "cycles", "train", *FAST, "--dataset", "own.npz", "--out", "study.h5", "--json", folder=folder
    )
    assert (done.returncode, done.stderr) == (0, "")
    return folder, json.loads(done.stdout)


def test_train(study):
    folder, report = study
    assert report["command"] == "cycles"
    assert (report["file"], report["seed"], report["spec"]["hidden"]) == ("study.h5", 0, 6)
    assert report["data"]["classes"] == ["ape", "bee", "cat"]
    assert report["spec"]["dataset"] == str((folder / "own.npz").resolve())
    for number, model in enumerate(report["results"]):
        assert (model["model"], model["seed"]) == (number, number)
        for name in ("log_likelihood", "entropy_production", "decorrelation_time", "mean_diagonal", "kl"):
            assert set(model[name]) == {"mean", "stderr"}
        assert set(model["entropy_production_counted"]) == {"skip", "half", "one"}
        assert sum(model["occupancy"]["mean"]) == pytest.approx(1)
        assert set(model["state_class"]) <= {"ape", "bee", "cat"}
    assert not any(name.endswith("_stderr") for name in report["results"][0])


def test_a_file_stands_alone(study, tmp_path):
    """Moved to a place without its data, everything but other data can be had from it."""
    folder, report = study
    shutil.copy(folder / "study.h5", tmp_path / "moved.h5")
    with undrawn():
        text = thermorun("cycles", "analyse", "moved.h5", "--model", 0, folder=tmp_path)
    assert text.returncode == 0
    assert "Latent cycles on own.npz" in text.stdout
    assert max(map(len, text.stdout.splitlines())) <= 80
    own = ("--dataset", folder / "own.npz")
    again = command("analyse", "moved.h5", *own, "--sigma", "counted", "--model", 1, folder=tmp_path)
    assert again["results"] == report["results"]
    assert again["sigma"] == "counted, + 1/2"
    wanted = {"training", "indicators", "autocorrelation", "portrait-model-1", "cycle-model-1"}
    assert {name.removeprefix("moved-").removesuffix(".png") for name in again["pictures"]} == wanted
    assert all((tmp_path / picture).stat().st_size > 10_000 for picture in again["pictures"])
    with undrawn():
        more = command("analyse", "moved.h5", "--samples", 64, "--out", "more.h5", "--model", 0, folder=tmp_path)
    assert more["spec"]["samples"] == 64
    assert more["results"] != report["results"]
    assert package.resume(tmp_path / "moved.h5").rows() == report["results"]
    np.savez(tmp_path / "own.npz", x=np.eye(20).reshape(20, 4, 5))
    other = thermorun("cycles", "analyse", "moved.h5", "--dataset", "own.npz", folder=tmp_path)
    refused(other, "--dataset own.npz is not the one of this study: its fingerprint is")


def test_images_never_take_the_place_of_a_strangers_file(study, tmp_path):
    shutil.copy(study[0] / "study.h5", tmp_path / "study.h5")
    drawn = command("sample", "study.h5", "--chains", 20, "--out", "fantasies", folder=tmp_path)
    assert (drawn["command"], drawn["file"], drawn["spec"]["chains"]) == ("cycles sample", "fantasies.npz", 20)
    with np.load(tmp_path / "fantasies.npz") as images:
        assert images["x"].shape == (20, 4, 5)
        first = images["x"]
    shares = drawn["results"][0]["class_frequency"]
    assert set(shares) == {"ape", "bee", "cat"}
    assert sum(shares.values()) == pytest.approx(1)
    other = thermorun("cycles", "sample", "study.h5", "--chains", 21, "--out", "fantasies", folder=tmp_path)
    refused(other, "--out is fantasies.npz, which already holds something else; name another file.")
    assert command("sample", "study.h5", "--chains", 20, "--out", "fantasies", folder=tmp_path)["seed"] == 0
    with np.load(tmp_path / "fantasies.npz") as images:
        np.testing.assert_array_equal(images["x"], first)
    again = command("train", *FAST, "--dataset", "fantasies", "--out", "again.h5", folder=tmp_path)
    assert again["data"]["points"] == 20


def test_going_on_is_the_longer_study(study, tmp_path):
    file = study[0] / "study.h5"
    longer = command("continue", file, "--epochs", 5, "--out", "longer.h5", folder=tmp_path)
    whole = command(
        "train", *FAST, "--epochs", 5, "--grow-epochs", 3, "--dataset", study[0] / "own.npz", "--out", "whole.h5",
        folder=tmp_path,
    )  # fmt: skip
    assert longer["results"] == whole["results"]
    assert longer["spec"] | {"keep_every": 0} == whole["spec"] | {"keep_every": 0}
    refused(thermorun("cycles", "continue", file, "--epochs", 2, folder=tmp_path), "--epochs is 2; ")
    words = ("train", *FAST, "--epochs", 9, "--dataset", study[0] / "own.npz", "--resume", "--out", file)
    refused(thermorun("cycles", *words, folder=tmp_path), f"thermorun cycles continue {file} --epochs 9")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("train --dataset letters", "--dataset is 'letters'; it must be digits, mnist-012, mnist, or a file or folder"),
        ("train --classes 0,12", "--classes asks for 12, which digits does not have"),
        ("train --classes zero", "--classes asks for zero, which digits does not have"),
        ("train --encoding bits --hidden 65", "--hidden is 65; it must be between 1 and 64"),
        ("train --encoding sofmax", "'sofmax' is not one of 'softmax', 'sigmoid', 'bits'."),
        ("train --minibatch 0:5", "--minibatch is 0; it must be an integer of at least 1."),
        ("train --minibatch many", "'many'; give two sizes, first and last, as in 16:160."),
        ("train --minibatch 1:2:3", "--minibatch is (1, 2, 3); it must be two sizes"),
        ("train --chain-steps 1", "--chain-steps is 1; it must be an integer of at least 2."),
        ("train --decay 1", "--decay is 1; it must be at least 0 and below 1."),
        ("train --seed 1e20", "--seed is 100000000000000000000; it must be at most"),
        ("train --threads 1000", "--threads is 1000; it must be at most"),
        ("train --models 1e6 --hidden 4000", "GB of memory"),
        ("train --chain-steps 1e8 --hidden 4000 --epochs 3 --steps-per-epoch 4", "--chain-steps is 100000000"),
        ("train --out missing/study.h5", "the folder missing does not exist."),
        ("train --out .", "--out is ., which is a folder; name a file."),
        ("train --resume", "there is nothing to resume."),
        ("analyse missing.h5", "missing.h5 does not exist."),
        ("sample missing.h5", "missing.h5 does not exist."),
        ("sample STUDY --seed 100000000000000000000", "--seed is 100000000000000000000; it must be at most"),
        ("sample STUDY --chains 0", "--chains is 0; it must be an integer of at least 1."),
        ("sample STUDY --model 7", "--model is 7; it must be at most 1."),
        ("sample STUDY --out no/f", "--out is no/f.npz, but the folder no does not exist."),
        ("sample STUDY --out .", "--out is ., which is a folder; name a file."),
        ("analyse STUDY --model -1", "model is -1; it must be an integer of at least 0."),
        ("analyse STUDY --sigma mean", "'mean' is not one of 'averaged', 'counted'."),
        ("analyse STUDY --out a.h5", "--out is a.h5; it needs samples"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(study, tmp_path, words, sentence):
    given = [str(study[0] / "study.h5") if word == "STUDY" else word for word in words.split()]
    refused(thermorun("cycles", *given, folder=tmp_path), sentence)
    assert list(tmp_path.iterdir()) == []


@undrawn()
def test_ctrl_c_saves_and_resume_gives_the_same_bits(tmp_path):
    long = ("--models", "2", "--epochs", "300", "--steps-per-epoch", "20", "--samples", "32", "--count-steps", "999")
    whole = command("train", *long, "--out", "whole.h5", folder=tmp_path)
    stopped = interrupted("cycles", "train", *long, "--out", "a.h5", folder=tmp_path, until=(tmp_path / "a.h5").exists)
    assert stopped.returncode == 130
    assert stopped.stderr == "thermorun: stopped; all that is done is in a.h5: go on with 'thermorun resume a.h5'.\n"
    table = thermorun("plot", "a.h5", folder=tmp_path)
    assert table.returncode == 0
    refused(thermorun("cycles", "sample", "a.h5", folder=tmp_path), "a.h5 holds an unfinished study")
    rest = json.loads(thermorun("resume", "a.h5", "--json", folder=tmp_path).stdout)
    assert rest["results"] == whole["results"]
