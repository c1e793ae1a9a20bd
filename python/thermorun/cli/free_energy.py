"""The command of free energies."""

import json
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from thermorun.cli.console import fail, print_table, run_options
from thermorun.cli.options import Numbers, ensemble_options

if TYPE_CHECKING:
    from thermorun.free_energy import FreeEnergy, FreeEnergyResult


@click.command("free-energy")
@ensemble_options
@click.option("--from", "start", type=Numbers(), help="Parameters at the start, as in 2,0.  [default: 2,0]")
@click.option("--to", "end", type=Numbers(), help="Parameters at the end, as in 2,2.  [default: 2,2]")
@click.option("--duration", type=float, help="Time from the start to the end.  [default: 2]")
@click.option("--steps", type=int, help="Time steps.  [default: 20 in the fastest relaxation time]")
@click.option("--particles", type=int, help="Particles in each direction.  [default: 100000]")
@run_options
def free_energy(as_json: bool, out: Path | None, resume: bool, threads: int | None, **given: Any) -> None:
    """Free-energy difference between two parameter points, from forward and reverse ensembles.

    Each ensemble starts in equilibrium at its end and is driven to the other along a straight line, by default the
    tilting of a double well (--potential double-well).  Delta F by Bennett's acceptance ratio, the crossing of Crooks
    and Jarzynski both ways, beside the exact value where there is one.  Writes an HDF5 file with every work, and a
    picture.
    """
    from thermorun import free_energy as subject

    spec = subject.FreeEnergy(**{name: value for name, value in given.items() if value is not None})
    run_free_energy(spec, out, resume, threads, as_json)


def run_free_energy(spec: "FreeEnergy", out: Path | None, resume: bool, threads: int | None, as_json: bool) -> None:
    """Runs, prints, and draws."""
    from thermorun import free_energy as subject
    from thermorun.learning import figures

    if out is None:
        out = Path(f"free-energy-{zlib.crc32(spec.to_json().encode()):08x}.h5")
    try:
        result = subject.measure(spec, out=out, resume=resume, threads=threads, show_progress=True)
    except KeyboardInterrupt:
        fail(f"stopped; all that is done is in {out}: go on with 'thermorun resume {out}'.", 130)
    picture = out.with_suffix(".png")
    figures.work_distributions(result).savefig(picture, dpi=150)
    if as_json:
        click.echo(json.dumps(result.to_dict() | {"pictures": [str(picture)]}, allow_nan=False))
        return
    _print(result)
    click.echo(f"file     {out}")
    click.echo(f"picture  {picture}")


def _print(result: "FreeEnergyResult") -> None:
    from thermorun.free_energy import estimators as fluctuations

    analysis, spec = result.analysis, result.spec
    exact = "" if result.exact is None else f"{result.exact:.6f}"
    rows = []
    for row in analysis.results:
        z = None if result.exact is None else row.delta_f.z(result.exact)
        rows.append(
            (
                row.estimator,
                str(row.delta_f),
                exact,
                "" if z is None or z != z else f"{z:+.1f}",
                fluctuations.number(row.effective),
                "" if row.bias is None else f"{row.bias:+.1e}",
            )
        )
    known = f" (exact: {result.exact_from})" if result.exact_from else ""
    print_table(
        f"Free energy of {spec.known.name}{known}",
        ("estimator", "Delta F / energy", "exact", "z", "effective works", "bias / energy"),
        rows,
        f"{spec.particles:,} particles each way x {spec.step_count:,} steps, {spec.integrator}, {spec.precision}\n"
        f"<W> forward {analysis.forward}, reverse {analysis.reverse}; overlap {analysis.overlap:.3g};"
        f" slope of ln P_F(W)/P_R(-W) over beta {analysis.slope}\n"
        f"first law: |dE - W - Q| <= {result.first_law_residual:.0e};"
        f" {result.particle_steps_per_second:.3g} particle-steps/s on {result.threads} threads",
    )
    click.echo(f"verdict  {result.verdict}")
    for sentence in result.warnings:
        if sentence != result.verdict:
            click.echo(f"warning  {sentence}")
