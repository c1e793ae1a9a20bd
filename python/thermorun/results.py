"""What every result can do: say itself in a line, print its table, draw, and turn into other libraries' types."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from thermorun.errors import InputError
from thermorun.specs import Spec
from thermorun.store import Contents, RunFile
from thermorun.tables import Table

if TYPE_CHECKING:
    import pandas
    import xarray
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Result:
    """The results of a spec.

    ``file`` is where they are, None where they are in memory only.  A subclass gives ``tables``, ``figures`` and
    ``rows``, and may add to ``to_dict``.
    """

    spec: Spec
    threads: int
    file: Path | None
    stored: Contents | None = field(default=None, repr=False)

    def rows(self) -> list[dict[str, Any]]:
        """The numbers of each part (protocol, rule, point, model, ...), in JSON's types."""
        raise NotImplementedError

    def tables(self) -> Sequence[Table]:
        """What the command prints."""
        raise NotImplementedError

    def figures(self) -> "dict[str, Figure]":
        """What the command saves, by what a file's name says of them; the main one first."""
        raise NotImplementedError

    def summary(self, width: int = 80) -> str:
        """The tables as text."""
        return "\n".join(table.render(width) for table in self.tables())

    def plot(self) -> "Figure":
        """The main picture."""
        return next(iter(self.figures().values()))

    def to_dict(self) -> dict[str, Any]:
        """What ``--json`` prints: the rows as ``results``, and what made them."""
        return {
            "command": self.spec.command,
            "results": self.rows(),
            "spec": self.spec.to_dict(),
            "seed": self.spec.seed,
            "threads": self.threads,
            "file": None if self.file is None else str(self.file),
        }

    def to_pandas(self) -> "pandas.DataFrame":
        """The rows as a table; an estimate gives a column for its mean and one for its standard error."""
        return _wanted("pandas").json_normalize(self.rows(), sep="_")

    def to_xarray(self) -> "xarray.DataTree":
        """Everything in the file, with dimensions, units and long names, as a tree of data sets."""
        library = _wanted("xarray")
        tree = {}
        for section, datasets in self.contents().items():
            variables = {name: (one.dimensions, one.values, one.attributes) for name, one in datasets.items()}
            tree["/" + section.strip("/")] = library.Dataset(variables)
        whole: xarray.DataTree = library.DataTree.from_dict(tree)
        return whole

    def contents(self) -> Contents:
        """Every data set in the file, or of what would be in it."""
        if self.file is not None:
            with RunFile.open_to_read(self.file) as file:
                return file.contents()
        return self.stored or {}

    def checks(self) -> dict[str, bool]:
        """What physics demands of the numbers, as far as they go, and whether it holds: a sentence each."""
        found = {}
        for section, datasets in self.contents().items():
            for what, holds in _laws({name: one.values for name, one in datasets.items()}):
                found[f"{section}: {what}"] = holds
        return found

    def __repr__(self) -> str:
        given = ", ".join(
            f"{one.name}={_brief(getattr(self.spec, one.name))}"
            for one in fields(self.spec)
            if getattr(self.spec, one.name) != one.default
        )
        return f"<{type(self).__name__} of {type(self.spec).__name__}({given}); summary() prints its table>"

    def _repr_html_(self) -> str:
        return "".join(table.to_html() for table in self.tables())


def origin(file: RunFile, spec: Spec) -> dict[str, Any]:
    """What every result says of the file that it was read from: the fields of `Result`."""
    return {
        "spec": spec,
        "threads": file.threads,
        "file": file.path,
        "stored": None if file.path else file.contents(),
    }


def _laws(stored: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    """The laws that the numbers of a section must obey, by the names that all subjects share; NaN is not there yet."""
    size = sum(_largest(stored[name]) for name in ("work", "heat", "energy_change") if name in stored)
    if "first_law_residual" in stored and "work" in stored:
        residual = _largest(stored["first_law_residual"])
        yield f"first law, |dE - W - Q| <= {residual:.1e}", residual <= 1e-6 + 1e-4 * size
    if {"energy_change", "work", "heat"} <= stored.keys():
        residual = _largest(stored["energy_change"] - stored["work"] - stored["heat"])
        yield f"first law of the means, |dE - W - Q| <= {residual:.1e}", residual <= 1e-6 + 1e-4 * size
    if {"density", "x"} <= stored.keys():
        width = stored["x"][..., 1] - stored["x"][..., 0]
        mass = stored["density"].sum(axis=-1) * width
        # No more than one; less by the particles that are where bins have ended.
        holds = bool(np.all((mass > 0.99) & (mass < 1 + 1e-6) | np.isnan(mass)))
        yield f"densities add up to one within {_largest(mass - 1):.1e}", holds
    for name in ("occupancy", "matrix"):
        if name in stored:
            sums = stored[name].sum(axis=-1)
            yield f"{name}: probabilities add up to one within {_largest(sums - 1):.1e}", _largest(sums - 1) <= 1e-6


def _largest(values: Any) -> float:
    size = np.abs(np.asarray(values, np.float64))
    return float(np.max(size[np.isfinite(size)], initial=0.0))


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _wanted(library: str) -> Any:
    from importlib import import_module

    try:
        return import_module(library)
    except ImportError:
        raise InputError(f"{library} is not installed, which this needs: 'pip install {library}'.") from None
