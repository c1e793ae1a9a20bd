"""Shards of one run into the file of the whole run, which then is what one process would have written."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from thermorun.errors import InputError
from thermorun.store.inspect import difference, opened, read_part, read_spec, reading
from thermorun.store.layout import Axis, Stored, Variable
from thermorun.store.runfile import RunFile
from thermorun.store.shards import Part, in_order, joined
from thermorun.store.survey import Survey, survey

# Of the root: what is written anew, and the datasets that ``publish`` makes.
_OWN = ("schema_version", "command", "spec", "seed", "threads", "created", "versions", "machine", "part")
_COUNTERS = ("section", "rows", "commits")


def merge(paths: Sequence[Path], out: Path) -> None:
    """Makes the file of the whole run from shards; all rows are complete, and what is told from them is still to come.

    Raises InputError where they are not all shards of one run, complete, without overlap and without gap.
    """
    found = {path: survey(path) for path in paths}
    with reading("one of the shards"):
        files = in_order(_parts(found))
    if len(found) < len(paths):
        raise InputError(f"{_twice(paths)} is given twice; name each shard once.")
    if out.resolve() in [path.resolve() for path in paths]:
        raise InputError(f"out is {out}, which is one of the shards; name another file.")
    first = found[files[0]]
    with reading("one of the shards"), ExitStack() as stack:
        shards = [stack.enter_context(RunFile.open_to_read(path)) for path in files]
        dimension = shards[0].cut.dimension
        spec, threads = read_spec(files[0]), shards[0].threads
        whole = stack.enter_context(RunFile.create(out, first.command, spec, int(first.facts["seed"]), threads))
        with opened(files[0]) as file:
            whole.note(**{name: value for name, value in file.attrs.items() if name not in _OWN})
        for section, datasets in shards[0].contents().items():
            _join(whole, section, datasets, dimension, shards)
        rows = {one.name: shards[0].cut.rows_of_whole(one.name, one.rows) for one in first.sections}
        whole.publish(rows, begun=rows)


def _join(whole: RunFile, section: str, datasets: dict[str, Stored], dimension: str, shards: list[RunFile]) -> None:
    """A section of the whole run, filled from all shards."""
    wanted = {name: one for name, one in datasets.items() if section != "/" or name not in _COUNTERS}
    if not wanted:
        return
    pieces = [shard.read(section) for shard in shards]
    axes, variables, values = [], [], {}
    for name, one in wanted.items():
        about = (str(one.attributes.get("units", "")), str(one.attributes.get("long_name", "")))
        if one.dimensions == (name,):
            own = [piece[name] for piece in pieces] if name == dimension else [one.values]
            axes.append(Axis(name, joined(dimension, one.dimensions, "", own), *about))
        else:
            variables.append(Variable(name, one.dimensions, *about, str(one.values.dtype)))
            values[name] = joined(dimension, one.dimensions, about[0], [piece[name] for piece in pieces])
    whole.add_section(section, axes, variables)
    whole.take(section, values)


def _parts(found: dict[Path, Survey]) -> dict[Path, Part]:
    """The part that each file holds.  Raises InputError where they are not complete shards of one run."""
    parts: dict[Path, Part] = {}
    one, first = next(iter(found.items()))
    for path, other in found.items():
        part = read_part(path)
        if part is None:
            raise InputError(f"{path} holds a whole run, not a shard of one.")
        if other.command != first.command:
            raise InputError(f"{one} is of a run of {first.command}, and {path} of {other.command}.")
        if other.spec != first.spec:
            told = difference(json.dumps(other.spec), json.dumps(first.spec))
            raise InputError(f"{path} is of another run than {one} ({told}).")
        _require_same_versions(one, first, path, other)
        if part[0] != parts.get(one, part).dimension or part.total != parts.get(one, part).total:
            raise InputError(f"{path} holds {part}, and {one} {parts[one]}: they are not of one run.")
        if not other.complete:
            raise InputError(f"{path} is not complete; go on with 'thermorun resume {path}' first.")
        parts[path] = part
    return parts


def _require_same_versions(one: Path, first: Survey, path: Path, other: Survey) -> None:
    ours, theirs = (json.loads(survey.facts["versions"]) for survey in (first, other))
    for name, version in ours.items():
        if theirs.get(name) != version:
            raise InputError(
                f"{one} was made with {name} {version}, and {path} with {theirs.get(name)}: their bits may differ."
            )


def _twice(paths: Sequence[Any]) -> Any:
    return next(path for path in paths if list(paths).count(path) > 1)
