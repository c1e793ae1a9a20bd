"""Generated command lines: each ends in results or in one sentence, stops within seconds of Ctrl-C, and writes nothing
that was not asked for.

    python tests/attacks/lines.py --trials 10000

Lines are those of `kinds`, with wild values for some of their options: sizes beyond memory, numbers beyond float, names
that are none.  They run in one process after the other; what takes longer than ten seconds is sent Ctrl-C, and must
stop.  Hypothesis makes the lines, and finds the shortest that fails.
"""

import argparse
import json
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import click
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from kinds import KINDS, command, inputs, told, words_of

# Of Ctrl-C: a busy machine may take long over one function that is being compiled, which no signal ends.
_TO_STOP = 30
_MEMORY = 12 * 2**30
_WHOLE = [0, 1, 2, 3, 7, 64, 1000, -1, 2**31 - 1, 2**31, 2**32, 2**34, 2**63, 2**64, 10**8, 10**12, 10**15, 10**18,
          10**30, "2^20", "1e6", "1e400", "nan", "", "x", "1.5", "9" * 5000]  # fmt: skip
_REAL = [0, -0.0, 1, -1, 0.1, 1.5, 30, 1e-5, 1e5, 1e-30, 1e30, 1e-308, 5e-324, 1e308, -1e308, 1.7e308, "nan", "inf",
         "-inf", "", "x", "1e400"]  # fmt: skip
_TEXT = ["", "x", "-", "0", "../x", "/etc/passwd", "[/red]", "\x1b[2J", "a" * 300, "é", "\udcff", "nope.npz",
         "victim.txt", "victim.txt:mine", "nope.py:mine", "double-well", "chain-100000000", "gaussian-3",
         "quartic"]  # fmt: skip
_PLACES = ["out.h5", "sub/x.h5", ".", "/dev/null", "/dev/full", "run.png", "victim.txt", "a" * 300 + ".h5", "\udcff.h5",
           "é.h5", "[/red].h5", "\x1b[2J.h5", "x" * 250, "no ending", ""]  # fmt: skip


def options(words):
    """The options of a command, and what each may be given."""
    from thermorun.cli import thermorun

    context, found = click.Context(thermorun), thermorun
    for word in words:
        if not isinstance(found, click.Group):
            break
        found = found.get_command(context, word)
    return {one.opts[0]: values(one) for one in found.params if isinstance(one, click.Option)}


def values(option):
    """A strategy for an option's value; None for a flag's."""
    if option.is_flag:
        return st.none()
    if option.opts[0] == "--out":
        return st.sampled_from(_PLACES)
    if isinstance(option.type, click.Choice):
        return st.sampled_from([*option.type.choices, "x", ""])
    name = option.type.name
    pool = {"count": _WHOLE, "integer range": _WHOLE, "float": _REAL}.get(name, _TEXT)
    if name in ("number,...", "k,k,...", "class,...", "value,..."):
        numbers = _REAL if "number" in name else _WHOLE
        return st.lists(st.sampled_from(numbers).map(str), min_size=1, max_size=3).map(",".join)
    if name in ("first:last", "name=first:last:count"):
        return st.sampled_from(["1:2", "16:160", "2147483648:1", "0:0", "-1:3", "x=0:1:2",
                                "stiffness=1:2:1000000000000", "stiffness=1:1e308:3", "stiffness=nan:1:2",
                                "1:2:3:4", ""])  # fmt: skip
    return st.sampled_from(pool) if pool is not _REAL else st.one_of(st.sampled_from(pool), st.floats())


@st.composite
def lines(draw, kinds, place):
    """A command of one of the kinds, some options given anew."""
    words = words_of(draw(st.sampled_from(kinds)), place)
    known = options(words)
    names = draw(st.lists(st.sampled_from(sorted(set(known) - {"--resume"})), min_size=1, max_size=3, unique=True))
    more = []
    for name in names:
        value = draw(known[name])
        more += [name] if value is None else [f"{name}={value}"]
    return [*words, *more]


class Worker:
    """A process that runs commands one after the other."""

    def __init__(self, folder, seconds):
        self.folder, self.seconds, self.process = Path(folder), seconds, None
        self.said = tempfile.TemporaryFile("w+")  # noqa: SIM115  (as long as the worker lives)

    def run(self, words):
        """Exit code, what was printed, and whether it had to be stopped; code None where the process ended."""
        for left in self.folder.iterdir():
            left.unlink()
        (self.folder / "victim.txt").write_text("precious")
        if self.process is None or self.process.poll() is not None:
            self.process = subprocess.Popen([sys.executable, __file__, "--worker", self.folder], stderr=self.said,
                                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # fmt: skip
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()
        stopped, answer = False, self._answer(self.seconds)
        if answer is None and self.process.poll() is None:
            stopped = True
            self.process.send_signal(signal.SIGINT)
            answer = self._answer(_TO_STOP)
        if answer is None:
            return *self._ended(), stopped
        if stopped:  # an import that was interrupted is broken for all that follow
            self.end()
        return *answer, stopped

    def _ended(self):
        """The same of a command that took its process with it: as it may, with a sentence, where it was stopped."""
        hung = self.process.poll() is None and not select.select([self.process.stdout], [], [], 1.0)[0]
        self.process.kill()
        self.process.wait()
        self.said.seek(0)
        said = self.said.read()
        if self.process.returncode == 130 and not hung and said.splitlines()[-1].startswith("thermorun: stopped"):
            return 130, ""
        return None, f"{'hung' if hung else 'ended'} ({self.process.returncode}): {said}"

    def _answer(self, seconds):
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        line = self.process.stdout.readline() if ready else ""
        return json.loads(line) if line else None

    def end(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()


def serve(folder):
    """Runs the commands that come in."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # behind '&' it is ignored
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    from thermorun.progress import ended_in_time, interruptible

    for line in sys.stdin:
        run = SimpleNamespace(returncode=130, stderr="thermorun: stopped before it began.\n")
        try:
            with interruptible() as interrupt, ended_in_time(interrupt):  # as in a process of its own
                run = command(*json.loads(line), folder=folder)
        except KeyboardInterrupt:  # before or after it
            pass
        one = told(run) and (run.returncode != 2 or run.stderr.count("\n") == 1)
        answers.write(json.dumps([run.returncode, "" if run.returncode == 0 or one else run.stderr]) + "\n")
        answers.flush()


def wrong(worker, words):
    """What is wrong with how a line ended; empty where nothing is."""
    code, said, stopped = worker.run(words)
    there = {path.name for path in worker.folder.iterdir()}
    made = there - {"victim.txt"}
    if code not in (0, 1, 2, 130) or said:
        return f"exit {code}: {said[-2000:]}"
    if stopped and code not in (0, 1, 2, 130):
        return f"stopped with exit {code}"
    if "victim.txt" not in there or (worker.folder / "victim.txt").read_text() != "precious":
        return "another file was changed"
    if code == 2 and made:
        return f"refused, and wrote {made}"
    if any(".part" in name for name in made):
        return f"left {made}"
    return ""


def main():
    given_words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    given_words.add_argument("--trials", type=int, default=60)
    given_words.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    given_words.add_argument("--seed", type=int, default=0)
    given_words.add_argument("--seconds", type=float, default=10.0, help="after which a line is sent Ctrl-C")
    given_words.add_argument("--worker")
    given_words.add_argument(
        "--all", action="store_true", help="go on after a failure, without looking for a shorter one"
    )
    words = given_words.parse_args()
    if words.worker:
        serve(words.worker)
        return
    bad = []
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as place:
        inputs(place, words.kinds)
        worker = Worker(folder, words.seconds)

        @seed(words.seed)
        @settings(max_examples=words.trials, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(lines(words.kinds, place))
        def check(line):
            what = wrong(worker, line)
            if what and words.all:
                bad.append(line)
                print(" ".join(map(ascii, line[1:])), what.replace("\n", "\\n"), flush=True)
            elif what:
                raise AssertionError(f"{' '.join(map(ascii, line))}: {what}")

        try:
            check()
        finally:
            worker.end()
    print(f"{words.trials} lines, {len(bad)} wrong")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
