"""The command line as a user meets it: a process, its output, its exit code."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from thermorun import learning
from thermorun.learning.trap import protocols as schedules

README = Path(__file__).parents[2] / "README.md"
SMALL = ("--particles", "4096", "--steps", "50")


def thermorun(*words, folder):
    return subprocess.run(
        [sys.executable, "-m", "thermorun", *map(str, words)], cwd=folder, capture_output=True, text=True, check=False
    )


def test_json_is_one_object_and_nothing_else(tmp_path):
    run = thermorun("excess-work", "--json", "--out", "a.h5", "--seed", 3, "--threads", 1, *SMALL, folder=tmp_path)
    assert run.returncode == 0
    assert run.stderr == ""
    report = json.loads(run.stdout)
    assert [entry["protocol"] for entry in report["results"]] == list(schedules.NAMES[:4])
    for entry in report["results"]:
        work = entry["excess_work"]
        assert abs(work["mean"] - entry["exact"]) < 6 * work["stderr"]
        assert {"theta_final", "u_final", "first_law_residual", "particle_steps_per_second"} <= entry.keys()
        assert entry["first_law_residual"] < 1e-6
    assert (report["seed"], report["threads"], report["precision"]) == (3, 1, "float32")
    assert report["file"] == "a.h5"
    assert learning.ExcessWork(**report["spec"]).to_json() == learning.load(tmp_path / "a.h5").spec.to_json()
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_table_and_default_names(tmp_path):
    run = thermorun("excess-work", *SMALL, folder=tmp_path)
    assert run.returncode == 0
    for name in schedules.NAMES[:4]:
        assert name in run.stdout
    assert "…" not in run.stdout
    assert re.search(r"0\.159234 .* 0\.160270 64", run.stdout)
    (file,) = tmp_path.glob("excess-work-*.h5")
    assert f"file     {file.name}" in run.stdout
    # The same command again makes the same run again.
    assert thermorun("excess-work", *SMALL, folder=tmp_path).returncode == 0


@pytest.mark.parametrize("figure", [1, 5])
def test_figures(tmp_path, figure):
    run = thermorun(
        "excess-work", "--figure", figure, "--json", "--particles", 4096, "--precision", "float64", folder=tmp_path
    )
    report = json.loads(run.stdout)
    assert report["spec"]["snapshots"] == 20
    assert Path(tmp_path / report["pictures"][0]).exists()
    assert report["results"][0]["first_law_residual"] < 1e-10


def test_options_reach_the_spec(tmp_path):
    run = thermorun(
        "excess-work", "--protocol", "discontinuous", "--protocol", "constant", "--mobility", 2, "--beta", 3,
        "--tau", 4, "--theta0", 1, "--target", 5, "--u0", 0.5, "--use-target",
        "--eta", 0.25, "--particles", 100, "--replicas", 7,
        "--steps", 30, "--integrator", "euler-maruyama", "--precision", "float64", "--samples", 50, "--minibatch", 5,
        "--keep-work", "--check-dt", "--json", folder=tmp_path,
    )  # fmt: skip
    report = json.loads(run.stdout)
    wanted = {
        "protocols": ["discontinuous", "constant"], "mobility": 2, "beta": 3, "tau": 4, "theta0": 1, "target": 5,
        "u0": 0.5, "use_target": True, "eta": 0.25, "particles": 100, "replicas": 7, "steps": 30,
        "integrator": "euler-maruyama", "precision": "float64", "samples": 50, "minibatch": 5, "keep_work": True,
    }  # fmt: skip
    assert {name: report["spec"][name] for name in wanted} == wanted
    assert [check["protocol"] for check in report["time_step"]] == ["discontinuous", "constant"]
    assert len(report["pictures"]) == 3


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--mobility -1", "mobility is -1.0; it must be a positive finite number."),
        ("--beta 0", "beta is 0.0; it must be a positive finite number."),
        ("--tau nan", "tau is nan; it must be a positive finite number."),
        ("--steps 0", "steps is 0; it must be an integer of at least 1."),
        ("--theta0 nan", "theta0 is nan; it must be a finite number."),
        ("--protocol continuous --u0 5", "exists only for theta* < theta0 < u0 or u0 < theta0 < theta*."),
        ("--protocol discontinuous --u0 2", "then say use_target."),
        ("--integrator euler-maruyama --steps 2", "take at least 3 steps, or the exact integrator."),
        ("--particles many", "Invalid value for '--particles': 'many' is not a valid integer."),
        ("--figure 7", "Invalid value for '--figure': 7 is not in the range 1<=x<=6."),
        ("--protocol best", "protocol is 'best'; it must be one of"),
        ("--out no/where.h5", "the folder no does not exist."),
        ("--resume --out none.h5", "there is nothing to resume."),
        ("--threads 1000", "threads is 1000; it must be between 1 and"),
        ("--colour", "No such option"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(tmp_path, words, sentence):
    run = thermorun("excess-work", *words.split(), folder=tmp_path)
    assert run.returncode == 2
    assert run.stdout == ""
    assert run.stderr.startswith("thermorun: ")
    assert sentence in run.stderr
    assert run.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_file_of_another_run(tmp_path):
    assert thermorun("excess-work", "--out", "a.h5", *SMALL, folder=tmp_path).returncode == 0
    other = thermorun("excess-work", "--out", "a.h5", "--seed", 1, *SMALL, folder=tmp_path)
    assert (other.returncode, "already holds another run (seed 0, not 1)" in other.stderr) == (2, True)
    resumed = thermorun("excess-work", "--out", "a.h5", "--resume", "--seed", 1, *SMALL, folder=tmp_path)
    assert (resumed.returncode, "another spec (seed 0, not 1)" in resumed.stderr) == (2, True)
    assert thermorun("resume", "a.h5", folder=tmp_path).returncode == 0
    assert thermorun("resume", "b.h5", folder=tmp_path).returncode == 2


def test_ctrl_c_says_how_to_go_on(tmp_path):
    words = ("excess-work", "--out", "a.h5", "--particles", "2000000", "--protocol", "constant", "--steps", "3000")
    with subprocess.Popen(
        [sys.executable, "-m", "thermorun", *words], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as process:
        while not (tmp_path / "a.h5").exists():
            time.sleep(0.01)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
    assert process.returncode == 130
    assert said == "thermorun: stopped; all that is done is in a.h5: go on with 'thermorun resume a.h5'.\n"
    assert (tmp_path / "a.h5.checkpoint").exists()


def test_help_names_what_there_is():
    run = thermorun("excess-work", "--help", folder=".")
    for name in (*schedules.NAMES, "--check-dt", "--json"):
        assert name in run.stdout


def test_readme_examples_run(tmp_path):
    examples = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    for example, printed in zip(examples, ("0.14", "", "", "±", "overlap", "±", "±"), strict=True):
        assert len(example.strip().splitlines()) <= 12
        run = subprocess.run([sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        assert printed in run.stdout


def test_importing_thermorun_imports_nothing_heavy():
    code = "import sys, thermorun.cli; print([m for m in ('numba', 'scipy', 'h5py', 'matplotlib') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ))
    assert run.stdout == "[]\n"
