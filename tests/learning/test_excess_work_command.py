"""The command of the learned trap."""

import json
import re

import numpy as np
import pytest

import thermorun as package
from helpers import in_process_of_its_own, interrupted, refused, thermorun
from thermorun.learning.trap.protocols import NAMES

SMALL = ("--particles", "4096", "--steps", "50", "--threads", "1")


def test_json(tmp_path):
    run = in_process_of_its_own("excess-work", "--json", "--out", "a.h5", "--seed", 3, *SMALL, folder=tmp_path)
    assert (run.returncode, run.stderr) == (0, "")
    report = json.loads(run.stdout)
    assert [entry["protocol"] for entry in report["results"]] == list(NAMES[:4])
    for entry in report["results"]:
        assert entry["excess_work"].keys() == {"mean", "stderr", "exact", "z"}
        assert abs(entry["excess_work"]["z"]) < 4
        assert abs(entry["theta_final"]["z"]) < 4
        assert entry["first_law_residual"] < 1e-6
    assert (report["seed"], report["threads"], report["file"], report["pictures"]) == (3, 1, "a.h5", ["a.png"])
    assert report["spec"] == package.load(tmp_path / "a.h5").spec.to_dict()


def test_table(tmp_path):
    run = thermorun("excess-work", *SMALL, folder=tmp_path)
    assert run.returncode == 0
    assert max(map(len, run.stdout.splitlines())) <= 80
    for name in NAMES[:4]:
        assert name in run.stdout
    assert re.search(r"0\.159\d+ .* 0\.16027 \(64\)", run.stdout)
    assert "file     excess-work-4-protocols-seed0.h5" in run.stdout


@pytest.mark.parametrize("figure", range(1, 7))
def test_figures_of_the_paper(tmp_path, figure):
    words = ("--figure", figure, "--json", "--particles", 2048, "--precision", "float64", "--threads", 1)
    report = json.loads(thermorun("excess-work", *words, folder=tmp_path).stdout)
    assert report["spec"]["snapshots"] == (0 if figure == 6 else 20)
    assert (tmp_path / report["pictures"][0]).stat().st_size > 10_000
    assert report["results"][0]["first_law_residual"] < 1e-10
    assert abs(report["results"][0]["excess_work"]["z"]) < 4


def test_options_reach_the_spec(tmp_path):
    np.save(tmp_path / "x.npy", [4.0, 6.0])
    run = thermorun(
        "excess-work", "--protocol", "discontinuous", "--protocol", "constant", "--mobility", 2, "--beta", 3,
        "--tau", 4, "--theta0", 1, "--target", 5, "--u0", 0.5, "--use-target",
        "--eta", 0.25, "--particles", "1e2", "--replicas", 7, "--records", 5, "--snapshots", 2,
        "--steps", 30, "--integrator", "euler-maruyama", "--precision", "float64", "--samples", "x.npy",
        "--minibatch", 5, "--keep-work", "--check-dt", "--json", "--threads", 1, folder=tmp_path,
    )  # fmt: skip
    report = json.loads(run.stdout)
    wanted = {
        "protocols": ["discontinuous", "constant"], "mobility": 2, "beta": 3, "tau": 4, "theta0": 1, "target": 5,
        "u0": 0.5, "use_target": True, "eta": 0.25, "particles": 100, "replicas": 7, "steps": 30, "records": 5,
        "snapshots": 2, "integrator": "euler-maruyama", "precision": "float64", "samples": [4.0, 6.0], "minibatch": 5,
        "keep_work": True, "check_dt": True, "seed": 0,
    }  # fmt: skip
    assert report["spec"] == wanted
    assert [check["protocol"] for check in report["time_step"]] == ["discontinuous", "constant"]
    assert len(report["pictures"]) == 2


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--mobility -1", "--mobility is -1.0; it must be a positive finite number."),
        ("--beta 0", "--beta is 0.0; it must be a positive finite number."),
        ("--tau nan", "--tau is nan; it must be a positive finite number."),
        ("--steps 0", "--steps is 0; it must be an integer of at least 1."),
        ("--theta0 nan", "--theta0 is nan; it must be a finite number."),
        ("--protocol continuous --u0 5", "exists only for theta* < theta0 < u0 or u0 < theta0 < theta*."),
        ("--protocol discontinuous --u0 2", "then say use_target."),
        ("--integrator euler-maruyama --steps 2", "take at least 3 steps, or the exact integrator."),
        ("--particles many", "'many' is no whole number, as in 1000000, 1e6 or 2^20."),
        ("--figure 7", "Invalid value for '--figure': 7 is not in the range 1<=x<=6."),
        ("--protocol discontinous", "'discontinous' is not one of 'discontinuous'"),
        ("--samples no.csv", "--samples is no.csv, which is no file."),
        ("--target 1e7", "--precision is 'float32', which knows positions that are 1e+07 apart to 1"),
        ("--minibatch 3", "--minibatch is 3, but there is no finite sample; give samples as well."),
    ],
)
def test_bad_input(tmp_path, words, sentence):
    refused(thermorun("excess-work", *words.split(), folder=tmp_path), sentence)
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_and_resume_with_the_time_step_check(tmp_path):
    """What was stopped in the middle goes on with ``--check-dt`` as it began, which ``resume`` used to drop."""
    words = ("excess-work", "--out", "a.h5", "--particles", "200000", "--protocol", "constant", "--check-dt")
    file = tmp_path / "a.h5"
    stopped = interrupted(*words, "--threads", 1, folder=tmp_path, until=file.exists)
    assert (stopped.returncode, stopped.stdout) == (130, "")
    assert stopped.stderr == "thermorun: stopped; all that is done is in a.h5: go on with 'thermorun resume a.h5'.\n"
    resumed = thermorun("resume", "a.h5", "--json", "--threads", 1, folder=tmp_path)
    report = json.loads(resumed.stdout)
    assert report["results"][0]["complete"]
    assert [check["protocol"] for check in report["time_step"]] == ["constant"]
    assert abs(report["results"][0]["excess_work"]["z"]) < 4
