"""Other processes and threads: forks, pools, two runs at once, signals that a shell ignores."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

from helpers import in_process_of_its_own
from thermorun import free_energy
from thermorun.errors import InputError, RunError, Stopped

FIELDS = {"potential": "stiffness", "start": 1.0, "end": 2.0, "duration": 0.2, "particles": 1000}


def measured(seed):
    return free_energy.measure(**FIELDS, seed=seed).delta_f.mean


def test_a_fork_after_a_run_is_refused_in_a_sentence():
    """Where OpenMP had run, a forked child would be ended by it, and a pool would wait for ever."""
    code = (
        "import multiprocessing, numba, sys\n"
        "from test_processes import measured\n"
        "from thermorun.errors import RunError\n"
        "measured(0)\n"
        "if numba.threading_layer() != 'omp': sys.exit(0)\n"
        "with multiprocessing.get_context('fork').Pool(1) as pool:\n"
        "    try:\n"
        "        pool.map(measured, [1, 2])\n"
        "    except RunError as error:\n"
        "        sys.exit(0 if 'forked' in str(error) else 1)\n"
        "sys.exit(2)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path])}
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", code], env=environment, timeout=120, check=False)
    assert run.returncode == 0


def test_a_spawned_pool_gives_the_same_numbers(tmp_path):
    script = tmp_path / "pool.py"
    script.write_text(
        "import multiprocessing\n"
        "from thermorun import free_energy\n"
        f"def measured(seed): return free_energy.measure(**{FIELDS!r}, seed=seed).delta_f.mean\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        print(pool.map(measured, [3]) == [measured(3)])\n"
    )
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=True)
    assert run.stdout == "True\n"


def test_two_threads_at_once():
    found = {}
    runs = [threading.Thread(target=lambda seed=seed: found.update({seed: measured(seed)})) for seed in (1, 2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert found == {seed: measured(seed) for seed in (1, 2)}


@pytest.mark.skipif(os.name == "nt", reason="no such signals")
def test_an_ignored_interrupt_stays_ignored():
    """As behind '&' in a script."""
    code = (
        "import os, signal\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from thermorun.progress import interruptible\n"
        "with interruptible() as interrupt:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    print(interrupt.pending)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_wait_for_a_safe_moment(number):
    from thermorun.progress import interruptible

    with interruptible() as interrupt:
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
        interrupt.pending, interrupt.at_once = False, False
        os.kill(os.getpid(), number)
        with pytest.raises(KeyboardInterrupt):
            interrupt.check()


def test_an_interrupt_that_a_compiler_swallows_is_none_of_its_errors():
    """Numba loses a KeyboardInterrupt in a callback of LLVM's, and then finds that there is nothing compiled."""
    from thermorun.runs import session

    def compiles(signalled):
        with session():
            if signalled:
                with contextlib.suppress(KeyboardInterrupt):
                    os.kill(os.getpid(), signal.SIGINT)
            raise RuntimeError("no compiled object yet")

    with pytest.raises(RuntimeError, match="no compiled object"):
        compiles(signalled=False)
    with pytest.raises(Stopped, match="stopped before there was anything to save"):
        compiles(signalled=True)


def test_sigterm_before_a_run_is_one_sentence(monkeypatch, capsys):
    from thermorun import cli

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(cli.thermorun, "main", lambda *given, **more: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit) as left:
        cli.main([])
    assert left.value.code == 130
    assert capsys.readouterr().err == "thermorun: stopped.\n"
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_signal_that_was_swallowed_before_a_run_stops_it():
    from thermorun.progress import interruptible
    from thermorun.runs import session

    with interruptible():
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Stopped), session() as under_way:
            under_way.interrupt.check()


def pressed(code, *numbers):
    """A process that runs ``code`` in a command's place, sent signals once it says that it is ready, a second apart."""
    head = (
        "import hashlib, sys, time, thermorun.__main__ as entry, thermorun.cli as cli\n"
        "from thermorun.runs import session\n"
        "def deaf(): hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)  # no signal ends that\n"
        "def ready(): print('ready', flush=True)\n"
        "def work(*given, **more):\n"
    )
    words = [sys.executable, "-c", f"{head}{textwrap.indent(code, '    ')}\ncli.thermorun.main = work\nentry.main()\n"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stdout.readline() == "ready\n"
        began = time.monotonic()
        for number in numbers:
            run.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                run.wait(1.0)
        said = run.stderr.read()
    return run.returncode, said, time.monotonic() - began


@pytest.mark.skipif(os.name == "nt", reason="no such signals")
@pytest.mark.parametrize(
    "code",
    [
        "ready(); deaf()",
        "with session(): ready(); deaf()",
        "with session() as run:\n run.interrupt.at_once = False\n ready(); time.sleep(30)",
        "with session():\n try: ready(); time.sleep(30)\n except KeyboardInterrupt: time.sleep(30)",
    ],
    ids=["deaf", "deaf in a run", "never asks", "swallows"],
)
def test_a_command_that_does_not_hear_is_ended(code):
    """In a kernel, or in a compiler, or where a library takes the exception for its own."""
    returncode, said, seconds = pressed(code, signal.SIGTERM)
    assert (returncode, said[:18], said.count("\n")) == (130, "thermorun: stopped", 1)
    assert seconds < 10  # of a machine that may be busy


@pytest.mark.skipif(os.name == "nt", reason="no such signals")
def test_a_command_that_saves_is_waited_for_but_not_after_a_second_signal():
    code = (
        "with session() as run:\n run.interrupt.at_once = False\n ready()\n"
        " while not run.interrupt.pending: time.sleep(.1)\n"
        " try: run.pause()\n except KeyboardInterrupt:\n  SAVE\n  print('saved', file=sys.stderr)\n  raise"
    )  # fmt: skip
    assert pressed(code.replace("SAVE", "time.sleep(2.5)"), signal.SIGINT)[:2] == (130, "saved\nthermorun: stopped.\n")
    returncode, said, _ = pressed(code.replace("SAVE", "deaf()"), signal.SIGINT, signal.SIGINT)
    assert (returncode, said[:18], said.count("\n")) == (130, "thermorun: stopped", 1)


@pytest.mark.skipif(os.name == "nt", reason="no such signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_while_the_command_line_is_imported(number):
    """An import that is interrupted may end in anything."""
    code = (
        "import os, sys, thermorun.__main__ as entry\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == 'click': os.kill(os.getpid(), {int(number)})\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "entry.main()\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (130, "thermorun: stopped.\n")


def test_a_command_whose_import_was_interrupted_is_stopped(monkeypatch, capsys):
    """An extension module calls that a failed initialization."""
    from thermorun import cli

    def imports(*given, **more):
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            raise ImportError("initialization failed") from None

    monkeypatch.setattr(cli.thermorun, "main", imports)
    with pytest.raises(SystemExit) as left:
        cli.main([])
    assert (left.value.code, capsys.readouterr().err) == (130, "thermorun: stopped.\n")


def test_two_runs_never_share_a_file(tmp_path):
    """The second of two that began at once, with other settings, is refused; neither overwrites the other."""
    from thermorun.store import Axis, RunFile, Variable

    path = tmp_path / "same.h5"
    with (
        RunFile.create(path, "test", '{"seed": 0}', 0, 1) as one,
        RunFile.create(path, "test", '{"seed": 1}', 1, 1) as two,
    ):
        for file in (one, two):
            file.add_section("a", [Axis("row", np.arange(2), "1", "row")], [Variable("v", ("row",), "1", "value")])
        one.publish({"a": 2})
        with pytest.raises(InputError, match="already holds another run"):
            two.publish({"a": 2})
        with pytest.raises(InputError, match="which another run is writing now"):
            RunFile.reopen(path, '{"seed": 0}')
    assert sorted(tmp_path.iterdir()) == [path]


def test_a_forked_process_says_what_to_do(monkeypatch):
    from thermorun import threads

    monkeypatch.setattr(threads, "_forked", True)
    with pytest.raises(RunError, match="start workers by 'spawn'"):
        measured(0)


def test_a_cache_of_kernels_that_others_may_write_is_refused(tmp_path):
    """They are unpickled: whoever may put one there runs code."""
    open_to_all = tmp_path / "cache"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    words = ("excess-work", "--particles", 1000, "--steps", 5, "--out", "a.h5")
    run = in_process_of_its_own(*words, folder=tmp_path, env=os.environ | {"NUMBA_CACHE_DIR": str(open_to_all)})
    assert run.returncode == 1
    assert f"others may write {open_to_all}" in run.stderr
    assert not (tmp_path / "a.h5").exists()


def test_more_parts_than_can_be_counted():
    from thermorun.runs import session

    with session() as under_way, pytest.raises(InputError, match="the run has 1000000000000000000000000000000 parts"):
        under_way.part(10**30)
