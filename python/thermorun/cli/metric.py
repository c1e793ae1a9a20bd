"""The command of metrics, and of protocols between two points."""

from pathlib import Path
from typing import Any

import click

from thermorun.cli.options import Numbers, chosen, run_options, spec_options, worker_options
from thermorun.cli.run import execute
from thermorun.errors import InputError
from thermorun.metric.spec import Drive, Metric


class _Axis(click.ParamType[tuple[str, float, float, int]]):
    """A parameter's values, as in tilt=-1:1:9."""

    name = "name=first:last:count"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, float, float, int]:
        if isinstance(value, tuple):
            return value
        name, _, numbers = str(value).partition("=")
        try:
            first, last, count = numbers.split(":")
            return name, float(first), float(last), int(count)
        except ValueError:
            self.fail(f"{str(value)[:40]!r}; give name=first:last:count, as in tilt=-1:1:9.", param, ctx)


@click.command(short_help="Fisher metric, friction tensor, geodesics.")
@spec_options(
    Drive,
    names={"taus": "--tau"},
    kinds={"theta": Numbers(), "grid": _Axis(), "taus": Numbers()},
    without=("fingerprint", "end"),
)
@click.option("--geodesic-to", "end", type=Numbers(), help="Drive from theta to here: geodesic, line, least work.")
@run_options
@worker_options
def metric(out: Path | None, resume: bool, threads: int | None, as_json: bool, **given: Any) -> None:
    """Thermodynamic metric of a potential, its geodesics, and protocols of least work.

    Fisher metric g, friction tensor zeta and integral relaxation times tau^r by Monte Carlo, beside exact values where
    they are known, at a point or over a grid.  With --geodesic-to, protocols between two points: the excess work that
    slow driving predicts, and the one that is measured.  Writes an HDF5 file and pictures.
    """
    values = chosen(given)
    if "end" in values:
        execute(Drive(**values), out, resume, threads, as_json)
        return
    for name, option in (("taus", "--tau"), ("work_particles", "--work-particles")):
        if name in values:
            raise InputError(f"{option} is given, but --geodesic-to is not: there is nothing to drive.")
    execute(Metric(**values), out, resume, threads, as_json)
