"""The scripts of this folder, small: they say what each is about, and how to run it large."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from thermokernels import random

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import battery  # noqa: E402  (a script of this folder)


@pytest.mark.parametrize(
    "words",
    [
        ("kills.py", "--trials", 3, "--kinds", "free-energy", "shard", "excess-work"),
        ("full_disk.py", "--trials", 8, "--kinds", "free-energy", "excess-work"),
        ("damage.py", "--trials", 12, "--kinds", "free-energy", "excess-work"),
        ("lines.py", "--trials", 8, "--kinds", "free-energy"),
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


def test_the_battery_gets_the_words_of_runs():
    """Those that uniforms of the same streams, steps and particles are made of, in three orders."""
    words = np.empty((2, 3, 2048), np.uint32)
    battery.fill(words, 5, 7)
    uniforms = np.empty(2048)
    for stream in range(2):
        for step in range(3):
            random.fill_uniforms(uniforms, np.uint64(5), np.uint64(stream), 7 + step)
            np.testing.assert_array_equal((words[stream, step] + 0.5) * 2.0**-32, uniforms)
