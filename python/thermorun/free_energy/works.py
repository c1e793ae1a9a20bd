"""Works from elsewhere: a simulation or an experiment of one's own, in a file, of one direction or of both."""

import math
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from thermorun.arrays import Array, reals
from thermorun.errors import InputError, require_positive
from thermorun.estimates import Estimate
from thermorun.free_energy.estimators import (
    FEWEST,
    DeltaF,
    WorkAnalysis,
    analyse_works,
    mean_work,
    number,
    require_works,
)
from thermorun.tables import Table
from thermorun.textfiles import read_rows


def read_works(path: Path | str) -> tuple[Array, Array | None]:
    """Works in a file: forward, and reverse where it has them.

    Text with one column (forward) or two (forward, reverse; a missing value ends the shorter one), separated by commas
    or blanks; .npy with shape (n,) or (n, 2); .npz or HDF5 with arrays ``forward`` and ``reverse``.  Raises InputError.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"works is {path}, which is no file.")
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as stored:
                return _named({name: stored[name] for name in stored.files}, path)
        if path.suffix in (".h5", ".hdf5"):
            import h5py

            with h5py.File(path, "r", locking=False) as file:
                arrays = {
                    name: np.ravel(file[f"{name}/work" if isinstance(file[name], h5py.Group) else name][()])
                    for name in ("forward", "reverse") if name in file
                }  # fmt: skip
            return _named(arrays, path)
        if path.suffix == ".npy":
            table = reals(f"works, {path},", np.load(path, allow_pickle=False))
            table = table[:, None] if table.ndim == 1 else table
        else:
            rows = read_rows("works", path)
            width = max(len(row) for row in rows)
            table = np.array([row + [None] * (width - len(row)) for row in rows], float)
    except InputError:
        raise
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"works is {path}, which cannot be read ({error}).") from error
    if table.ndim != 2 or table.shape[1] not in (1, 2):
        raise InputError(f"works is {path}, which holds shape {table.shape}; it must hold one column or two.")
    columns = [_ended(column) for column in table.T]
    return columns[0], columns[1] if len(columns) == 2 and len(columns[1]) else None


def _ended(works: Array) -> Array:
    """Without what is missing at the end of a column; NaN among the works stay, to be told."""
    known = np.flatnonzero(~np.isnan(works))
    return works[: known[-1] + 1] if len(known) else works[:0]


def _named(arrays: dict[str, Array], path: Path) -> tuple[Array, Array | None]:
    if "forward" not in arrays:
        raise InputError(f"works is {path}, which holds {', '.join(arrays) or 'nothing'}; it must hold 'forward'.")
    columns = {name: _ended(np.ravel(reals(f"works, {name} of {path},", values))) for name, values in arrays.items()}
    return columns["forward"], columns.get("reverse")


@dataclass(frozen=True)
class OneWayAnalysis:
    """What works of one direction say about Delta F: Jarzynski's average and the second cumulant's."""

    results: tuple[DeltaF, ...]
    forward: Estimate

    def __getitem__(self, estimator: str) -> DeltaF:
        return {result.estimator: result for result in self.results}[estimator]


def analyse_one_way(works: ArrayLike, beta: float = 1.0) -> OneWayAnalysis:
    """Delta F from works of one direction alone, (n,), energy.

    ``jarzynski-forward`` is -kT ln <exp(-beta W)> (Jarzynski 1997); its standard error comes from leaving out blocks of
    works, and is NaN below 20 effective works n <w>^2 / <w^2>, for the works that decide it are rare.  ``cumulant`` is
    <W> - beta Var(W) / 2, exact for a Gaussian distribution of W, with the error of its two moments; it warns where the
    third cumulant would move it by more than its error.  Raises InputError.
    """
    beta = require_positive("beta", beta)
    w = beta * require_works("works", works)
    if len(w) < 2 or np.ptp(w[np.isfinite(w)]) == 0:
        raise InputError(f"works holds {len(w)} works; one direction takes at least two that differ.")
    return OneWayAnalysis(
        (_jarzynski(w).times(1 / beta), _cumulant(w).times(1 / beta)),
        mean_work(w / beta),
    )


def _jarzynski(w: Array) -> DeltaF:
    count, low = len(w), float(w.min())
    weights = np.exp(-(w - low))
    mean = float(weights.mean())
    effective = float(weights.sum() ** 2 / np.sum(weights**2))
    value = low - math.log(mean)
    left = low - np.log(np.maximum((count * mean - weights) / (count - 1), 1e-300))
    stderr = math.sqrt((count - 1) / count * float(np.sum((left - left.mean()) ** 2)))
    bias = float((count - 1) * (left.mean() - value))
    if effective >= FEWEST:
        return DeltaF("jarzynski-forward", Estimate(value, stderr), effective, bias)
    why = (
        f"jarzynski-forward rests on {number(effective)} of {count:,} works, too few for a standard error (it takes"
        f" {FEWEST}): drive more slowly, or measure the reverse too."
    )
    return DeltaF("jarzynski-forward", Estimate(value, math.nan), effective, bias, why)


def _cumulant(w: Array) -> DeltaF:
    count = len(w)
    if not np.all(np.isfinite(w)):
        return DeltaF("cumulant", Estimate(math.nan, math.nan), 0.0, None, "cumulant needs works that are all finite.")
    away = w - w.mean()
    second, third = float(np.mean(away**2)), float(np.mean(away**3))
    # Influence of one work on <W> - Var / 2.
    influence = away - 0.5 * (away**2 - second)
    stderr = math.sqrt(float(np.mean(influence**2)) / count)
    value = float(w.mean()) - 0.5 * second * count / (count - 1)
    why = None
    if abs(third) / 6 > max(2 * stderr, 1e-12):
        why = (
            f"cumulant leaves out the third cumulant, which would move it by {third / 6:+.2g} kT, more than two"
            " standard errors: the works are not Gaussian."
        )
    return DeltaF("cumulant", Estimate(value, stderr), float(count), third / 6, why)


def correlation_time(works: ArrayLike) -> float:
    """How many consecutive works count for one independent one, 1 + 2 x the sum of their autocorrelation, at least 1.

    The sum ends at the first window five times as long as itself (Madras & Sokal 1988, J. Stat. Phys. 50, 109).
    """
    w = np.asarray(works, float)
    w = w[np.isfinite(w)] - np.mean(w[np.isfinite(w)])
    if len(w) < 16 or not np.any(w):
        return 1.0
    spectrum = np.fft.rfft(w, 2 * len(w))
    correlation = np.fft.irfft(spectrum * spectrum.conj())[: len(w)]
    times = 1 + 2 * np.cumsum(correlation[1:] / correlation[0])
    window = np.flatnonzero(np.arange(1, len(w)) >= 5 * times)
    return max(1.0, float(times[window[0]] if len(window) else times[-1]))


def table_of_works(forward: Array, reverse: Array | None, beta: float, name: str) -> tuple[Table, dict[str, object]]:
    """A table of every estimator, and the same for JSON, for works in the order in which they were measured.

    Correlated works make errors sqrt(g) larger and leave n / g of n, g of `correlation_time`.
    """
    for side, works in (("forward", forward), ("reverse", reverse)):
        if works is not None:
            require_works(f"works, {side},", works)
    g = max(correlation_time(side) for side in (forward, reverse) if side is not None)
    # Of independent works g scatters about one by a few tenths at a hundred works.
    g = 1.0 if g < 1 + 4 / math.sqrt(len(forward)) else g
    analysis: WorkAnalysis | OneWayAnalysis = (
        analyse_one_way(forward, beta) if reverse is None else analyse_works(forward, reverse, beta)
    )
    rows, report = [], []
    for one in analysis.results:
        delta_f = Estimate(one.delta_f.mean, one.delta_f.stderr * math.sqrt(g))
        bias = "" if one.bias is None else f"{one.bias:+.1e}"
        rows.append((one.estimator, str(delta_f), number(one.effective / g), bias))
        report.append(one.to_dict() | {"delta_f": delta_f.to_dict(), "effective": one.effective / g})
    numbers = f"{len(forward):,} works" + ("" if reverse is None else f" forward, {len(reverse):,} reverse")
    notes = [f"{numbers}; <W> {analysis.forward}"]
    if g > 1:
        notes.append(
            f"consecutive works are correlated: {g:.2g} of them count for one, errors are {g**0.5:.2g} times larger"
        )
    warnings = list(dict.fromkeys(one.warning for one in analysis.results if one.warning is not None))
    if isinstance(analysis, WorkAnalysis):
        notes.append(f"verdict  {analysis.verdict}")
        warnings = [sentence for sentence in analysis.warnings if sentence != analysis.verdict]
    notes += [f"warning  {sentence}" for sentence in warnings]
    headings = ("estimator", "Delta F / energy", "eff. works", "bias / energy")
    facts = {"results": report, "correlation_time": g, "warnings": warnings, "beta": beta, "file": name}
    return Table(f"Free energy from works in {name}", headings, rows, notes), facts
