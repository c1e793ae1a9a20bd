"""The command `metric`: Fisher metric, friction tensor and relaxation times, and protocols along its geodesics."""

import itertools
import json
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from thermorun.cli.console import fail, print_table, run_options
from thermorun.cli.options import Numbers, potential_options
from thermorun.errors import InputError

if TYPE_CHECKING:
    from thermorun.metric.run import Metric, MetricResult


class _Axis(click.ParamType[tuple[str, float, float, int]]):
    """A parameter's values, as in tilt=-1:1:9."""

    name = "name=first:last:count"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, float, float, int]:
        name, _, numbers = str(value).partition("=")
        try:
            first, last, count = numbers.split(":")
            return name, float(first), float(last), int(count)
        except ValueError:
            raise InputError(f"grid is {value!r}; give name=first:last:count, as in tilt=-1:1:9.") from None


@click.command()
@potential_options
@click.option("--grid", type=_Axis(), multiple=True, help="Measure at these values of a parameter; may be repeated.")
@click.option("--particles", type=int, help="At each point, in blocks of 1,024.  [default: 32768]")
@click.option("--geodesic-to", type=Numbers(), help="Drive from theta to here: geodesic, line, least work.")
@click.option("--tau", "taus", type=Numbers(), help="Durations of the drives, time.  [default: four, doubling]")
@click.option("--work-particles", type=int, help="For each drive, in blocks of 1,024.  [default: 262144]")
@run_options
def metric(as_json: bool, out: Path | None, resume: bool, threads: int | None, **given: Any) -> None:
    """Thermodynamic metric of a potential, its geodesics, and protocols of least work.

    Fisher metric g, friction tensor zeta and integral relaxation times tau^r by Monte Carlo, beside exact values (by
    quadrature in one dimension), at a point or over a grid.  With --geodesic-to, protocols between two points: the
    excess work that slow driving predicts, and the one that is measured.  Writes an HDF5 file and pictures.
    """
    from thermorun.metric.run import Metric

    spec = Metric(**{name: value for name, value in given.items() if value not in (None, ())})
    run_metric(spec, out, resume, threads, as_json)


def run_metric(spec: "Metric", out: Path | None, resume: bool, threads: int | None, as_json: bool) -> None:
    """Measures, prints and draws."""
    from thermorun.metric.run import measure

    if out is None:
        out = Path(f"metric-{zlib.crc32(spec.to_json().encode()):08x}.h5")
    try:
        result = measure(spec, out=out, resume=resume, threads=threads, show_progress=True)
    except KeyboardInterrupt:
        fail(f"stopped; all that is done is in {out}: go on with 'thermorun resume {out}'.", 130)
    pictures = _pictures(result, out)
    if as_json:
        click.echo(json.dumps(result.to_dict() | {"pictures": [str(path) for path in pictures]}, allow_nan=False))
        return
    _print_points(result)
    if result.geodesic is not None:
        _print_works(result)
    click.echo(f"file     {out}")
    for path in pictures:
        click.echo(f"picture  {path}")


def _pictures(result: "MetricResult", out: Path) -> list[Path]:
    from thermorun.metric import figures

    drawn = {}
    if not result.spec.grid:
        drawn[out.with_suffix(".png")] = figures.windows(result)
    elif len(result.spec.grid) == 1:
        drawn[out.with_suffix(".png")] = figures.along(result)
    elif len(result.spec.grid) == 2:
        drawn[out.with_suffix(".png")] = figures.plane(result)
    if result.geodesic is not None:
        drawn[out.with_name(f"{out.stem}-protocols.png")] = figures.protocols(result)
    for path, figure in drawn.items():
        figure.savefig(path, dpi=150)
    return list(drawn)


def _print_points(result: "MetricResult") -> None:
    spec, names = result.spec, result.spec.loaded.parameters
    rows = []
    for point in result.points:
        for i, j in itertools.combinations_with_replacement(range(len(names)), 2):
            row = [", ".join(f"{value:g}" for value in point.theta), names[i] if i == j else f"{names[i]}, {names[j]}"]
            for matrix in ("fisher", "friction", "relaxation"):
                estimate, exact = point.measured.estimate(matrix, i, j), point.exact(matrix, i, j)
                row += [str(estimate), f"{exact:.5g}", f"{estimate.z(exact):+.1f}"]
            share = point.measured.remainder[i, j] / point.measured.friction_stderr[i, j]
            row += [f"{point.measured.window[i, j]:.3g}", f"{share:.2g}"]
            rows.append(tuple("" if "nan" in cell.split() or cell == "+nan" else cell for cell in row))
    lost = sum(not point.measured.truncated for point in result.points)
    point = result.points[0]
    print_table(
        f"Metric of {spec.loaded.name} ({', '.join(names)})",
        (
            "theta",
            "element",
            "g",
            "exact",
            "z",
            "zeta / energy time",
            "exact",
            "z",
            "tau^r / time",
            "exact",
            "z",
            "s / time",
            "R / stderr",
        ),
        rows,
        f"{spec.particles:,} particles a point, {point.windows.steps:,} steps of {point.windows.dt:.3g} at the first;"
        f" {spec.integrator}, {spec.precision}; units of g and zeta: for theta without units\n"
        "correlation integrals are cut off between s and 2 s, the first doubling at which the rest, R, estimated from\n"
        "the exponential tail, is below a tenth of the standard error of zeta; z: from the exact value, in stderr"
        + (f"\nat {lost} points the correlations had not decayed enough for that" if lost else ""),
    )


def _print_works(result: "MetricResult") -> None:
    spec, geodesic, exponent = result.spec, result.geodesic, result.exponent()
    assert geodesic is not None
    rows = [
        (
            work.protocol,
            f"{work.tau:g}",
            str(work.measured),
            "" if work.protocol == "optimal" else f"{work.predicted:.5g}",
            "" if work.exact != work.exact else f"{work.exact:.5g}",
            "" if work.exact != work.exact else f"{work.measured.z(work.exact):+.1f}",
            _jumps(result, work.tau) if work.protocol == "optimal" else "",
        )
        for work in result.works
    ]
    fitted = "" if exponent is None else f"; geodesic: |W_ex - length^2 / tau| = c tau^-n with n = {exponent}"
    if result.exact_exponent() == result.exact_exponent():
        fitted += f"\nby the Fokker-Planck equation n = {result.exact_exponent():.2f} between the two longest tau"
    print_table(
        f"Protocols from {_numbers(spec.start)} to {_numbers(spec.geodesic_to or ())}",
        ("protocol", "tau / time", "W_ex / energy", "slow driving", "Fokker-Planck", "z", "jumps at the ends"),
        rows,
        f"length^2 {geodesic.length**2:.6g}, straight line {geodesic.line:.6g} energy time; {spec.work_particles:,}"
        f" particles a protocol\nslow driving: length^2 / tau{fitted}\n"
        "optimal: least work in this time, from the Fokker-Planck equation; z: from the value of that equation",
    )


def _jumps(result: "MetricResult", tau: float) -> str:
    found = result.optima[tau]
    return f"{_numbers(found.first_jump)} and {_numbers(found.last_jump)}"


def _numbers(values: Any) -> str:
    inner = ", ".join(f"{value:.4g}" for value in values)
    return inner if len(values) == 1 else f"({inner})"
