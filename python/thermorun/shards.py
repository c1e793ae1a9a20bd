"""Shards: a run cut into parts that know nothing of each other, each in a file of its own, and put together again.

Noise has an address, so a part is the same to the bit wherever it is computed.  Once all are there, what is told from
the whole run is: by the code that goes on with a run that was killed right before.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from thermorun import store
from thermorun.errors import InputError, require_count
from thermorun.results import Result
from thermorun.specs import Spec
from thermorun.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Shard(Result):
    """What a shard says of itself: the ``part`` of its run that ``file`` holds, complete."""

    file: Path
    part: store.Part

    @classmethod
    def of(cls, path: Path | str, kind: type[Spec]) -> Self:
        """The shard in a file."""
        path, part = Path(path), store.read_part(path)
        assert part is not None
        spec = kind.from_json(store.read_spec(path))
        with store.RunFile.open_to_read(path) as file:
            return cls(spec=spec, threads=file.threads, file=path, part=part)

    def rows(self) -> list[dict[str, Any]]:
        return [self.part._asdict()]

    def tables(self) -> list[Table]:
        one = self.part
        cells = [(one.dimension, str(one.first), str(one.end - 1), str(one.total))]
        notes = ["once all are there: 'thermorun merge SHARDS --out WHOLE.h5'"]
        return [Table(f"Shard of a run of {self.spec.command}", ("along", "first", "last", "of"), cells, notes)]

    def figures(self) -> "dict[str, Figure]":
        return {}


def require(spec: Spec, shard: tuple[int, int] | None, out: Any, resume: bool) -> None:
    """Raises InputError for a shard that cannot be run."""
    if shard is None:
        return
    number, of = shard
    require_count("shard", of, 1, 2**31)
    require_count("shard", number, 1, of)
    if not spec.parts:
        raise InputError(f"shard is {number}/{of}, and a run of {spec.command} cannot be cut into shards.")
    if out is None:
        raise InputError(f"shard is {number}/{of}; it needs out, a file to merge with the others.")
    if resume and Path(out).exists():
        there = store.read_part(out)
        if there is None or not store.Cut(spec.parts, number, of).gives(there):
            raise InputError(f"shard is {number}/{of}, and {out} holds {there or 'no shard'}; name its own file.")
