"""The command `free-energy` as a user meets it."""

import json

import numpy as np
import pytest

from helpers import gaussian_works, in_process_of_its_own, interrupted, refused, thermorun, undrawn
from thermorun.free_energy.estimators import ESTIMATORS
from thermorun.free_energy.works import read_works


def test_command(tmp_path):
    words = ("--from", "1,0.5", "--to", "2,-1", "--duration", 0.5, "--steps", 100, "--particles", 5000, "--seed", 5)
    run = in_process_of_its_own("free-energy", *words, "--json", "--threads", 1, folder=tmp_path)
    assert (run.returncode, run.stderr) == (0, "")
    report = json.loads(run.stdout)
    assert [row["estimator"] for row in report["results"]] == list(ESTIMATORS)
    assert abs(report["results"][0]["delta_f"]["z"]) < 4
    wanted = {"start": [1, 0.5], "end": [2, -1], "duration": 0.5, "steps": 100, "particles": 5000, "integrator": "heun"}
    assert {name: report["spec"][name] for name in wanted} == wanted
    assert (report["seed"], report["threads"], report["exact_from"]) == (5, 1, "quadrature")
    assert (tmp_path / report["pictures"][0]).stat().st_size > 10_000
    again = thermorun("resume", report["file"], folder=tmp_path)
    assert again.returncode == 0
    for word in (*ESTIMATORS, "verdict  Good overlap", "z", "eff. works", f"file     {report['file']}"):
        assert word in again.stdout
    assert "…" not in again.stdout


def test_poor_overlap_on_the_command_line(tmp_path):
    words = ("--potential", "trap", "--from", 0, "--to", 20, "--duration", 1, "--particles", 1000)
    run = thermorun("free-energy", *words, folder=tmp_path)
    assert run.returncode == 0
    assert "verdict  Poor overlap" in run.stdout
    assert "nan" not in run.stdout
    with undrawn():
        report = json.loads(thermorun("free-energy", *words, "--json", folder=tmp_path).stdout)
    assert [row["delta_f"]["stderr"] for row in report["results"]] == [None] * 4


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--potential stiffness --from 1 --to -1", "--to leaves the valid region of stiffness: stiffness is -1;"),
        ("--from 2,1 --to 2,1", "--from is (2, 1) and end is the same; they must differ"),
        ("--from 2", "--from has 1 values; double-well has 2 parameters, barrier, tilt."),
        ("--from 2;1", "Invalid value for '--from': '2;1'; give numbers with commas between, as in 1,-0.5."),
        ("--potential no.py:mine", "the file no.py does not exist."),
        ("--duration -1", "--duration is -1.0; it must be a positive finite number."),
        ("--integrator verlet", "Invalid value for '--integrator': 'verlet' is not one of"),
        ("--particles 1e20", "--particles is 100000000000000000000; it must be at most 17179869184."),
        ("--particles 1e10", "GB of memory"),
        ("--out no/where.h5", "the folder no does not exist."),
        ("--resume --out none.h5", "there is nothing to resume."),
        ("--works none.csv", "works is none.csv, which is no file."),
        ("--threads 99", "--threads is 99; it must be at most"),
    ],
)
def test_bad_words(tmp_path, words, sentence):
    refused(thermorun("free-energy", *words.split(), folder=tmp_path), sentence)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["csv", "txt", "npy", "npz"])
def test_works_of_ones_own(tmp_path, kind):
    forward, reverse = gaussian_works(np.random.default_rng(1), 1.5, 1.0, 1.0, 3000, 3000)
    file = tmp_path / f"works.{kind}"
    if kind == "npz":
        np.savez(file, forward=forward, reverse=reverse)
    elif kind == "npy":
        np.save(file, np.stack([forward, reverse], axis=1))
    elif kind == "csv":
        np.savetxt(file, np.stack([forward, reverse], axis=1), delimiter=",", header="F,R", comments="")
    else:
        np.savetxt(file, forward)
    run = thermorun("free-energy", "--works", file.name, "--json", folder=tmp_path)
    report = json.loads(run.stdout)
    for row in report["results"]:
        assert abs(row["delta_f"]["mean"] - 1.5) < 4 * row["delta_f"]["stderr"]
    assert len(report["results"]) == (2 if kind == "txt" else 4)
    assert "Delta F / energy" in thermorun("free-energy", "--works", file.name, folder=tmp_path).stdout


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "--works is w.csv, which holds no numbers."),
        ("forward,reverse\n", "--works is w.csv, which holds no numbers."),
        ("1.5,-1\nnan,-1\n2,-0.5\n", "holds 1 works that are NaN or -inf;"),
        ("1.5,-1\n2,nan\n2,-0.5\n", "holds 1 works that are NaN or -inf;"),
        ("1,2,3\n4,5,6\n", "it must hold one column or two."),
    ],
)
def test_files_without_works(tmp_path, content, sentence):
    (tmp_path / "w.csv").write_text(content)
    refused(thermorun("free-energy", "--works", "w.csv", folder=tmp_path), sentence)


def test_works_of_two_numbers(tmp_path):
    """What ends the shorter column is missing, with commas or without."""
    for text in ("1,-1\n2,-2\n3,\n4,\n", "1 -1\n2 -2\n3\n4\n", "F;R\n1,0;-1,0\n2;-2\n3;\n4;\n"):
        (tmp_path / "w.csv").write_text(text)
        forward, reverse = read_works(tmp_path / "w.csv")
        assert (forward.tolist(), reverse.tolist()) == ([1, 2, 3, 4], [-1, -2])


def test_a_path_from_a_file(tmp_path):
    """Out and back: Delta F is zero, and the exact value says so."""
    np.savetxt(tmp_path / "path.csv", [[2.0, 0.0], [2.0, 1.0], [2.0, 0.0]], delimiter=",")
    run = thermorun(
        "free-energy", "--path", "path.csv", "--particles", 4000, "--duration", 0.5, "--json", folder=tmp_path
    )
    report = json.loads(run.stdout)
    assert report["exact"] == 0
    assert abs(report["results"][0]["delta_f"]["z"]) < 4


def test_ctrl_c_tells_the_truth_in_every_phase(tmp_path):
    """At once, while nothing is there to save; and with the file under way, how to go on."""
    words = ("free-energy", "--out", "a.h5", "--particles", "2000000", "--steps", "3000")
    early = interrupted(*words, folder=tmp_path, until=lambda: True)
    assert early.returncode in (130, -2)  # -2 before there is a program at all
    assert not (tmp_path / "a.h5").exists()
    late = interrupted(*words, folder=tmp_path, until=(tmp_path / "a.h5").exists)
    assert late.returncode == 130
    assert late.stderr == "thermorun: stopped; all that is done is in a.h5: go on with 'thermorun resume a.h5'.\n"
