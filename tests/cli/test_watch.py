"""Looking at a run while it goes on."""

import subprocess
import sys

import h5py

from helpers import refused, thermorun

RUN = ("excess-work", "--protocol", "constant", "--particles", "4096", "--steps", "50", "--seed", "3")


def test_a_run_under_way_is_followed_to_its_end(tmp_path):
    """A process makes a file, waits until it was looked at, and goes on."""
    words = (
        "from thermorun import free_energy, progress, runs; runs.CHECKPOINT_EVERY = 0.0\n"
        "old = runs.Session.advance\n"
        "def advance(self, amount):\n"
        "    old(self, amount); print('row', flush=True); sys.stdin.readline()\n"
        "runs.Session.advance = advance\n"
        "free_energy.measure('stiffness', start=1.0, end=3.0, particles=4096, seed=4, out='run.h5')"
    )
    command = [sys.executable, "-c", f"import sys\n{words}"]
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=tmp_path, **streams) as process:
        process.stdout.readline()
        with subprocess.Popen(
            [sys.executable, "-m", "thermorun", "watch", "run.h5", "--every", "0.1"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            text=True,
        ) as watching:
            first = watching.stdout.readline()
            process.communicate("\n" * 100)
            out, _ = watching.communicate(timeout=60)
    assert process.returncode == watching.returncode == 0
    assert " of " in first
    assert "Delta F" in out


def test_a_complete_file_is_shown_at_once(tmp_path, monkeypatch):
    thermorun(*RUN, "--out", "run.h5", folder=tmp_path)
    (tmp_path / "run.png").unlink()
    lines = thermorun("watch", "run.h5", "--pictures", folder=tmp_path)
    assert lines.returncode == 0
    assert "constant" in lines.stdout
    assert (tmp_path / "run.png").exists()
    monkeypatch.setenv("FORCE_COLOR", "1")  # to the drawing library, a terminal
    screen = thermorun("watch", "run.h5", folder=tmp_path)
    assert screen.returncode == 0
    assert "\u2588" * 24 in screen.stdout


def test_what_stopped_is_told(tmp_path):
    thermorun(*RUN, "--out", "run.h5", folder=tmp_path)
    with h5py.File(tmp_path / "run.h5", "r+") as file:
        file["commits"][0] = 0
    stopped = thermorun("watch", "run.h5", folder=tmp_path)
    assert stopped.returncode == 1
    assert "thermorun resume run.h5" in stopped.stderr
    refused(thermorun("watch", "none.h5", folder=tmp_path), "none.h5 does not exist")
