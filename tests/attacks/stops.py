"""Ctrl-C at random moments: how long until a command has saved what it has and is gone.

    python tests/attacks/stops.py --trials 200           kernels loaded from their cache
    python tests/attacks/stops.py --trials 40 --cold     and compiled, each time from an empty cache

Each run is a process of its own; half of them are sent SIGTERM instead.  Ends with exit code 1
where a command took longer than ``--seconds``, two by default (of a machine that is not busy), or ended otherwise.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

from kinds import KINDS, inputs, told, words_of

# A command has begun by then: before, Python itself is being started.
_BEGUN = 0.8


def pressed(words, folder, cache, chance, most):
    """Starts a command and stops it at a random moment before ``most`` seconds.

    Returns that moment, the seconds until it had ended (None where it ended before), and what is wrong with its end.
    """
    for left in folder.iterdir():
        left.unlink()
    environment = os.environ | ({} if cache is None else {"NUMBA_CACHE_DIR": str(cache)})
    with subprocess.Popen([sys.executable, "-m", "thermorun", *words, "--out", "run.h5"], cwd=folder, env=environment,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:  # fmt: skip
        moment = chance.uniform(_BEGUN, most)
        try:
            process.wait(moment)
            process.communicate()
            return moment, None, f"exit {process.returncode}" if process.returncode else ""
        except subprocess.TimeoutExpired:
            began = time.monotonic()
            process.send_signal(chance.choice([signal.SIGINT, signal.SIGTERM]))
            _, said = process.communicate()
            took = time.monotonic() - began
    # Python ends itself by SIGINT where that was raised inside a text that it executed: to a shell, 130 too.
    stopped = process.returncode in (130, -signal.SIGINT) and "thermorun: stopped" in said
    right = stopped and told(SimpleNamespace(stderr=said))
    return moment, took, "" if process.returncode == 0 or right else f"exit {process.returncode}: {said[-500:]}"


def main():
    given = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    given.add_argument("--trials", type=int, default=20)
    given.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    given.add_argument("--seed", type=int, default=0)
    given.add_argument("--cold", action="store_true")
    given.add_argument("--seconds", type=float, default=2.0)
    given.add_argument("--most", type=float, default=6.0, help="seconds after which no run is stopped")
    given = given.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # behind '&' it is ignored, and so for all begun here
    chance, bad, worst, all_of = random.Random(given.seed), 0, {}, []
    with tempfile.TemporaryDirectory() as place, tempfile.TemporaryDirectory() as name:
        inputs(place, given.kinds)
        folder = Path(name)
        for number in range(given.trials):
            kind = given.kinds[number % len(given.kinds)]
            words = words_of(kind, place)
            with tempfile.TemporaryDirectory() as cache:
                moment, took, wrong = pressed(words, folder, cache if given.cold else None, chance, given.most)
            late = took is not None and took > given.seconds
            bad += bool(wrong) or late
            if took is not None:
                all_of.append(took)
                worst[kind] = max(worst.get(kind, 0.0), took)
            said = "ended before" if took is None else f"{took:.2f} s"
            print(f"{number} {kind} after {moment:.2f} s: {said}{' LATE' if late else ''} {wrong or ''}", flush=True)
    if all_of:
        print(f"{len(all_of)} stopped: median {sorted(all_of)[len(all_of) // 2]:.2f} s, worst {max(all_of):.2f} s;")
        print(", ".join(f"{kind} {one:.2f}" for kind, one in sorted(worst.items(), key=lambda one: -one[1])))
    print(f"{given.trials} runs, {bad} wrong")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
