"""Shots: noisy trajectories of a machine at images, each shot with its own random stream; their place in a file."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from thermorun import streams
from thermorun.arrays import Array
from thermorun.cluster import UnderWay
from thermorun.computer.machine import Machine
from thermorun.computer.score import Tally
from thermorun.runs import Session
from thermorun.store import Axis, RunFile, Variable
from thermorun.streams import Streams

SECTION = "shots"
# Numbers that are recorded at a time while a read-out lasts.
_RECORDED = 2**23
_VARIABLES = {
    "output": (("shot", "image", "class"), "length", "outputs at the observation time", "float32"),
    "heat": (("shot", "image"), "energy", "heat absorbed from the bath during the classification", "float64"),
    "work": (("shot", "image"), "energy", "work of switching the fields on at x = 0 and off at the end", "float64"),
}


def shoot(
    machine: Machine, fields: Array, stream: Streams, pause: Callable[[], None] = lambda: None
) -> dict[str, Array]:
    """One noisy trajectory an image: outputs (images, classes) at the observation time, heat and work (images,)."""
    run = machine.run(fields, seed=stream, pause=pause)
    return {"output": run.x[:, machine.hidden :], "heat": run.heat, "work": reset_work(run.x, fields)}


def read_windows(
    machine: Machine, fields: Array, windows: Sequence[int], stream: Streams, pause: Callable[[], None] = lambda: None
) -> Iterator[tuple[Array, Array]]:
    """One noisy trajectory an image, read out over windows that begin at the observation time.

    For each of ``windows``, ascending numbers of steps: the outputs (images, classes), averaged over the states from
    the observation time to so many steps later, both included; and the state (images, units) there.
    """
    run = machine.run(fields, seed=stream, pause=pause)
    total, done = run.x[:, machine.hidden :].astype(np.float64), 0
    length = max(1, _RECORDED // run.x.size)
    x = run.x
    for window in windows:
        while done < window:
            count = min(length, window - done)
            first = machine.physics.steps + done
            more = machine.run(
                fields, steps=count, x=x, first=first, seed=stream, recorded=range(1, count + 1), pause=pause
            )
            total += more.paths[:, :, machine.hidden :].sum(axis=0, dtype=np.float64)
            x, done = more.x, done + count
        yield (total / (done + 1)).astype(np.float32), x


def reset_work(x: Array, fields: Array) -> Array:
    """Work of switching all fields off at x, V(x) without them minus V(x) with them: -h.x, float64 (points,)."""
    work: Array = -np.einsum("ij,ij->i", x, fields, dtype=np.float64)
    return work


def take(machine: Machine, fields: Array, shots: int, seed: int) -> Tally:
    """What so many shots add up to, without labels and without a file."""
    tally = Tally.empty(None, len(fields), machine.outputs)
    for shot in range(shots):
        tally.add(**shoot(machine, fields, streams.shot(seed, shot)))
    return tally


def need(shots: int, images: int, classes: int) -> int:
    """Bytes of all shots."""
    return shots * images * (4 * classes + 16)


def add_section(file: RunFile, shots: int, classes: tuple[int, ...], values: Array, meaning: str) -> None:
    """Allocates the place of every shot at every image; ``values`` (images,) are the images' labels as given."""
    axes = [
        Axis("shot", np.arange(shots), "1", "noisy trajectories of an image, each with its own random stream"),
        Axis("image", np.arange(len(values)), "1", "image that is classified"),
        Axis("class", np.array(classes), "1", "label that an output stands for"),
    ]
    variables = [Variable(name, *about) for name, about in _VARIABLES.items()]
    file.add_section(SECTION, axes, [*variables, Variable("label", ("image",), "1", meaning)])
    file.write_whole(SECTION, {"label": values})


def take_into(under_way: Session, machine: Machine, fields: Array, shots: int, seed: int) -> None:
    """Takes the shots that the run's file has not yet; each is written when it is whole.

    Shot k has random stream k, so that more shots begin with the same ones.  Raises RunError where one diverges.
    """
    file = under_way.file
    under_way.stage("shots", len(under_way.part(shots)) * len(fields), "images")
    under_way.advance(file.committed(SECTION) * len(fields))
    rows = file.missing(SECTION)
    for shot, row in zip(rows, under_way.each(partial(_shot, machine, fields, seed), rows), strict=True):
        file.write(SECTION, shot, {name: values[None] for name, values in row.items()})
        under_way.pause()


def _shot(machine: Machine, fields: Array, seed: int, shot: int, under_way: UnderWay) -> dict[str, Array]:
    row = shoot(machine, fields, streams.shot(seed, shot), under_way.pause)
    under_way.advance(len(fields))
    return row


def read_tally(file: RunFile) -> Tally:
    """What the complete shots in a file add up to."""
    stored = file.read(SECTION)
    labels = places(stored["label"], stored["class"])
    tally = Tally.empty(labels, len(stored["label"]), len(stored["class"]))
    for shot in range(file.committed(SECTION)):
        tally.add(*(stored[name][shot] for name in _VARIABLES))
    return tally


def places(values: Array, classes: Array) -> Array | None:
    """Labels as a file keeps them, as numbers of its classes: int64 (images,), -1 for others; None without labels."""
    if np.isnan(values).any():
        return None
    labels = np.full(len(values), -1)
    for place, value in enumerate(classes):
        labels[values == value] = place
    return labels
