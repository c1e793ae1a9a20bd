"""The scripts of this folder, small: they say what each is about, and how to run it large."""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.parametrize(
    "words",
    [
        ("full_disk.py", "--trials", 8, "--kinds", "free-energy", "excess-work"),
        ("damage.py", "--trials", 24, "--kinds", "free-energy", "excess-work"),
        ("lines.py", "--trials", 20, "--kinds", "free-energy"),
    ],
    ids=lambda words: words[0],
)
def test_small(words, tmp_path):
    run = subprocess.run(
        [sys.executable, HERE / words[0], *map(str, words[1:])],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
