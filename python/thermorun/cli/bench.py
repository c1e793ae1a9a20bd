"""The command that measures this machine."""

import json
from pathlib import Path

import click

from thermorun import plots
from thermorun.cli.options import Count
from thermorun.cli.run import width


@click.command("bench", short_help="How fast this machine is.")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="A .json file for the numbers; a picture beside it."
)
@click.option("--compare", type=click.Path(path_type=Path), help="A .json file of an earlier bench on this machine.")
@click.option("--threads", type=Count(), help="All cores by default.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def bench(out: Path | None, compare: Path | None, threads: int | None, as_json: bool) -> None:
    """Measure this machine: ns a particle-step of every kernel, beside the peers that are installed.

    Takes about a minute once the kernels are compiled.  Leave the machine alone meanwhile.  Peers: NumPy, and PyTorch
    and JAX where they are installed.
    """
    from thermorun.benchmark import Report, bench, machine

    if compare is not None:  # before a minute is spent
        Report(machine() | {"threads": _count(threads)}, ()).beside(compare)
    report = bench(threads, show_progress=True)
    if compare is not None:
        report = report.beside(compare)
    if as_json:
        click.echo(json.dumps(report.to_dict(), allow_nan=False))
    else:
        for table in report.tables():
            click.echo(table.render(width()))
    if out is not None:
        out.write_text(json.dumps(report.to_dict(), indent=1, allow_nan=False))
        plots.save(report.figure(), out.with_suffix(".png"))
        if not as_json:
            click.echo(f"file     {out}\npicture  {out.with_suffix('.png')}")


def _count(threads: int | None) -> int:
    from thermorun.threads import on_threads

    with on_threads(threads) as count:
        return count
