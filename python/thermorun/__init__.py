"""Stochastic thermodynamics of learning: runs, exact values, files and pictures around the kernels.

Subjects come on demand: ``import thermorun; thermorun.cycles`` imports that one alone.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from thermorun import computer, cycles, free_energy, learning, metric, potentials, protocol
    from thermorun.cluster import workers
    from thermorun.estimates import Estimate
    from thermorun.potentials import Potential, System
    from thermorun.results import Result

# In closed loop threads meet at every step.  GNU's OpenMP lets them spin at that barrier for up to five minutes, which
# on a machine with anything else to do keeps the thread waited for off its core: 4 to 50 times slower.  This many turns
# are about a time slice's hundredth.  It must be said before the library is loaded; a user's own setting stands.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

SUBJECTS = ("learning", "metric", "protocol", "free_energy", "cycles", "computer")
_HOMES = {
    "System": "potentials",
    "Potential": "potentials",
    "Estimate": "estimates",
    "Result": "results",
    "workers": "cluster",
}

__all__ = [  # noqa: RUF022  in the order of a newcomer's reading
    "learning", "metric", "protocol", "free_energy", "cycles", "computer", "potentials",
    "System", "Potential", "Estimate", "Result", "load", "resume", "extend", "merge", "workers",
]  # fmt: skip


def load(path: "Path | str") -> "Result":
    """The results in a file, complete or not, whatever command made it.

    Raises
    ------
    InputError
        Where there is no file, or not one of ours.
    """
    from thermorun.runs import load as load_run

    kind = _spec_of(path)
    result: Result = load_run(path, kind, import_module(kind.runner).read)
    return result


def resume(
    path: "Path | str", *, dataset: str | None = None, potential: "Potential | str | None" = None, trust: bool = False,
    threads: int | None = None, show_progress: bool = False,
) -> "Result":  # fmt: skip
    """Goes on with the run in a file, whatever stopped it: to the last bit as if nothing had.

    ``dataset`` says where the data of the run are now, if they have moved; ``potential`` is the one that it began with,
    or names it.  A file may name a file of Python: it is run only with ``trust``, or where ``potential`` is given.

    Raises
    ------
    InputError
        Where there is no run to go on with, or its potential or data are not those that it began with.
    RunError
        Where it cannot go on.
    """
    from thermorun.errors import DamagedFile, InputError

    spec = _spec_in(path, potential, trust)
    if dataset is not None:
        spec = spec.replace(dataset=dataset)
    try:
        load(path)  # all that is there is as it was written, or it is told now
    except DamagedFile:
        raise
    except InputError:
        pass  # it has not come to its first results
    result: Result = spec.run(out=path, resume=True, threads=threads, show_progress=show_progress)
    return result


def extend(
    path: "Path | str", *, particles: int | None = None, replicas: int | None = None, shots: int | None = None,
    epochs: int | None = None, machines: int | None = None, pictures: int | None = None, dataset: str | None = None,
    trust: bool = False, threads: int | None = None, show_progress: bool = False,
) -> "Result":  # fmt: skip
    """Makes more of the same of the complete run in a file, in the same file: so many in all.

    The result is, to the last bit, that of a run that had so many from the start; what the file holds is not computed
    again.  What can grow: ``particles`` of drive and free-energy, which know nothing of each other, ``replicas`` of
    excess-work and learn, ``shots`` of the thermodynamic computer, ``machines`` that make pictures, ``pictures`` of
    each of them (all are made again, by the machines that there are), and ``epochs`` of cycles, where minibatches stay
    at their last size.  Particles that learn share one theta: more of them are another run.  ``trust`` as in `resume`.

    Raises
    ------
    InputError
        Where there is no complete run, or it cannot grow so.
    RunError
        Where it cannot go on.
    Stopped
        After Ctrl-C (a KeyboardInterrupt): the file holds the beginning of the larger run, to resume.

    Examples
    --------
    >>> import thermorun as tr
    >>> small = tr.free_energy.measure("stiffness", start=1.0, end=3.0, particles=1024, out="works.h5")
    >>> tr.extend("works.h5", particles=4096).forward.shape
    (4096,)
    """
    from thermorun import runs

    larger = {"particles": particles, "replicas": replicas, "shots": shots, "epochs": epochs}
    larger |= {"machines": machines, "pictures": pictures}
    kind = _spec_of(path)
    result: Result = runs.extend(
        path, kind, larger, dataset=dataset, trust=trust, threads=threads, show_progress=show_progress
    )
    return result


def merge(
    paths: "Sequence[Path | str]", out: "Path | str", *, dataset: str | None = None,
    potential: "Potential | str | None" = None, trust: bool = False, threads: int | None = None,
    show_progress: bool = False,
) -> "Result":  # fmt: skip
    """Puts the shards of one run together in the file ``out``: to the last bit what one process would have written.

    A shard is a part of a run that knows nothing of the others, in a file of its own: ``spec.run(out=...,
    shard=(2, 8))`` runs the second of eight, ``--shard 2/8`` on the command line.  Replicas of excess-work and learn,
    particles of free-energy and drive, models of cycles and starts of its ceiling, shots of the thermodynamic computer,
    values of its sweeps and machines that make pictures can be cut so.  The other arguments are those of `resume`.

    Raises
    ------
    InputError
        Where the files are not all shards of one run, complete, without overlap and without gap.
    RunError
        Where the file cannot be written.

    Examples
    --------
    >>> import thermorun as tr
    >>> spec = tr.free_energy.FreeEnergy(potential="stiffness", start=1.0, end=3.0, particles=70_000)
    >>> for k in (1, 2):
    ...     print(spec.run(out=f"part-{k}.h5", shard=(k, 2)).part)
    row 0 of 3
    rows 1 to 2 of 3
    >>> tr.merge(["part-1.h5", "part-2.h5"], "whole.h5").forward.shape
    (70000,)
    """
    from pathlib import Path

    from thermorun import runs, store
    from thermorun.errors import InputError

    files = [Path(path) for path in paths]
    if not files:
        raise InputError("paths is empty; name the files of all shards of a run.")
    _spec_in(files[0], potential, trust)  # whether its code may be run is to be known before anything is written
    size = sum(path.stat().st_size for path in files if path.exists())
    runs.require_memory(3.0 * size, f"paths are {len(files)} files of {size / 1e9:.3g} GB")
    store.merge(files, Path(out))
    how: dict[str, Any] = {"dataset": dataset, "potential": potential, "trust": trust}
    return resume(out, **how, threads=threads, show_progress=show_progress)


def _spec_in(path: "Path | str", potential: "Potential | str | None", trust: bool) -> Any:
    """The spec in a file, ready to be run: see `resume`."""
    from thermorun.errors import InputError
    from thermorun.store import read_spec

    spec = _spec_of(path).from_json(read_spec(path))
    if hasattr(spec, "of_file"):
        return spec.of_file(path, potential, trust)
    if potential is not None:
        raise InputError(f"potential is given, but {path} holds a run of {spec.command}, which has none.")
    return spec


def _spec_of(path: "Path | str") -> Any:
    """The class of the spec in a file."""
    from thermorun.errors import InputError
    from thermorun.specs import Spec
    from thermorun.store import read_command

    command = read_command(path)
    # Most commands are named after their subject: that one is looked through first.
    for subject in sorted(SUBJECTS, key=lambda name: not command.startswith(name.replace("_", "-"))):
        for kind in vars(import_module(f"thermorun.{subject}")).values():
            if isinstance(kind, type) and issubclass(kind, Spec) and getattr(kind, "command", None) == command:
                return kind
    raise InputError(f"{path} holds a run of {command}, which this version does not know.")


def __getattr__(name: str) -> Any:
    if name in SUBJECTS or name == "potentials":
        return import_module(f"thermorun.{name}")
    if name in _HOMES:
        return getattr(import_module(f"thermorun.{_HOMES[name]}"), name)
    if name == "__version__":
        from importlib.metadata import version

        return version("thermokernels")
    raise AttributeError(f"module 'thermorun' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, "__version__"})
