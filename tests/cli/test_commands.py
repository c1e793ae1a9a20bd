"""What every command does alike."""

import json
import re
import subprocess
import sys
from pathlib import Path

import h5py
import pytest
from click.testing import CliRunner

from helpers import in_process_of_its_own, refused, thermorun, undrawn
from thermorun.cli import _COMMANDS
from thermorun.cli import thermorun as group

SMALL = ("--particles", "4096", "--steps", "50", "--duration", "0.2")


def every_command():
    """Names of all commands, with those of groups."""
    import click

    for name in _COMMANDS:
        command = group.get_command(click.Context(group), name)
        if isinstance(command, click.Group):
            yield from ((name, inner) for inner in command.commands)
        else:
            yield (name,)


EVERY = list(every_command())


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_help(words):
    """It fits 80 columns, tells what each option is for, and names no Python."""
    shown = CliRunner().invoke(group, [*words, "--help"], terminal_width=80)
    assert shown.exit_code == 0
    assert max(map(len, shown.output.splitlines())) <= 80
    assert "None" not in shown.output
    short = CliRunner().invoke(group, [*words[:-1], "--help"], terminal_width=80).output
    assert "..." not in short.replace("number,...", "").replace("k,k,...", "").replace("ARGS]...", "")


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_unknown_options_are_told(words, tmp_path):
    refused(thermorun(*words, "--colour", folder=tmp_path), "No such option")
    assert list(tmp_path.iterdir()) == []


def test_overflow_is_our_sentence_and_not_numpys(tmp_path):
    run = thermorun("free-energy", "--beta", 1e30, "--steps", 5, "--duration", 0.1, folder=tmp_path)
    assert run.returncode == 2
    assert run.stderr.startswith("thermorun: --precision is 'float64'")
    assert run.stderr.count("\n") == 1


def test_did_you_mean(tmp_path):
    refused(thermorun("excess-works", folder=tmp_path), "excess-works")
    run = thermorun("free-energy", "--precision", "float16", folder=tmp_path)
    refused(run, "'float16' is not one of 'float32', 'float64'")


@undrawn()
def test_default_names_say_what_is_in_a_file(tmp_path):
    """And do not collide: the same run again has the same name, another one has another."""
    words = ("free-energy", *SMALL, "--json")
    names = [
        json.loads(thermorun(*words, *more, folder=tmp_path).stdout)["file"]
        for more in ((), (), ("--beta", "2"), ("--seed", "5"))
    ]
    assert names[0] == names[1]
    assert len(set(names)) == 3
    assert "free-energy-double-well" in names[0]
    assert "seed5" in names[3]


def test_json_is_one_object_and_nothing_else(tmp_path):
    run = in_process_of_its_own("free-energy", "--json", "--out", "a.h5", "--seed", 3, *SMALL, folder=tmp_path)
    assert (run.returncode, run.stderr) == (0, "")
    report = json.loads(run.stdout)
    assert {"command", "results", "spec", "seed", "threads", "file", "pictures"} <= report.keys()
    assert (report["seed"], report["file"], report["pictures"]) == (3, "a.h5", ["a.png"])


@undrawn()
def test_files_of_other_runs_and_of_others(tmp_path):
    assert thermorun("free-energy", "--out", "a.h5", *SMALL, folder=tmp_path).returncode == 0
    other = thermorun("free-energy", "--out", "a.h5", "--seed", 1, *SMALL, folder=tmp_path)
    refused(other, "already holds another run (seed 0, not 1)")
    refused(
        thermorun("free-energy", "--out", "a.h5", "--resume", "--seed", 1, *SMALL, folder=tmp_path), "(seed 0, not 1)"
    )
    assert thermorun("resume", "a.h5", folder=tmp_path).returncode == 0
    refused(thermorun("resume", "b.h5", folder=tmp_path), "b.h5")
    (tmp_path / "text.h5").write_text("no")
    refused(thermorun("resume", "text.h5", folder=tmp_path), "cannot be read as HDF5")
    refused(thermorun("plot", "text.h5", folder=tmp_path), "cannot be read as HDF5")
    with h5py.File(tmp_path / "other.h5", "w"):
        pass
    refused(thermorun("resume", "other.h5", folder=tmp_path), "not of a run")
    refused(thermorun("free-energy", "--out", ".", *SMALL, folder=tmp_path), "which is a folder")


def test_pictures_never_replace_what_is_not_ours(tmp_path):
    (tmp_path / "a.png").write_bytes(b"precious")
    run = thermorun("free-energy", "--out", "a.h5", *SMALL, folder=tmp_path)
    assert run.returncode == 0
    assert "Delta F" in run.stdout
    assert "a.png is there already and not a picture of ours; it was left alone." in run.stderr
    assert (tmp_path / "a.png").read_bytes() == b"precious"
    for kind in ("pdf", "svg", "png"):
        run = thermorun("plot", "a.h5", "--format", kind, "--folder", ".", folder=tmp_path)
        assert (tmp_path / "a.pdf").exists()
        assert run.returncode == (1 if kind == "png" else 0)
        # Ours may be replaced.
        if kind != "png":
            assert thermorun("plot", "a.h5", "--format", kind, folder=tmp_path).returncode == 0


def test_data_never_end_as_a_picture(tmp_path):
    """A file whose ending is a picture's holds the data, and the picture goes elsewhere or nowhere."""
    run = thermorun("free-energy", "--out", "run.png", *SMALL, folder=tmp_path)
    assert run.returncode == 2 or h5py.is_hdf5(tmp_path / "run.png")


@undrawn()
def test_tables_fit_eighty_columns(tmp_path):
    run = thermorun("free-energy", *SMALL, folder=tmp_path)
    lines = run.stdout.split("file ")[0].splitlines()
    assert max(map(len, lines)) <= 80
    assert not re.search(r"\d\.$", "\n".join(lines), re.MULTILINE)


def test_version(tmp_path):
    run = thermorun("--version", folder=tmp_path)
    assert (run.returncode, run.stdout.startswith("thermorun, version ")) == (0, True)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("more", [[], ["--json"]])
def test_an_output_that_is_full_is_one_sentence(tmp_path, more):
    (tmp_path / "w.csv").write_text("\n".join(map(str, range(40))))
    words = [sys.executable, "-m", "thermorun", "free-energy", "--works", "w.csv", *more]
    with open("/dev/full", "w") as full:
        run = subprocess.run(words, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert run.returncode == 1
    assert run.stderr.startswith("thermorun: the output cannot be written (No space left on device);")
    assert run.stderr.count("\n") == 1
