"""The command of the learned trap."""

from pathlib import Path
from typing import Any

import click

from thermorun.cli.options import Count, chosen, run_options, spec_options
from thermorun.cli.run import execute
from thermorun.learning.by_name import require_driven
from thermorun.learning.data import ENDINGS
from thermorun.learning.driven.spec import Drive
from thermorun.learning.trap.protocols import NAMES
from thermorun.learning.trap.spec import FIGURES, ExcessWork


class Sample(click.ParamType[Any]):
    """The size of a sample, or a file that holds one."""

    name = "count|file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if Path(str(value)).suffix in ENDINGS:
            return value
        return Count().convert(value, param, ctx)


@click.command("excess-work", short_help="Excess work of learning a harmonic trap.")
@click.option(
    "--figure", type=click.IntRange(1, 6), default=6, show_default=True, help="Settings of the paper's figure."
)
@spec_options(
    ExcessWork, names={"protocols": "--protocol"}, kinds={"protocols": click.Choice(NAMES), "samples": Sample()}
)
@click.option("--potential", help="Not of a trap that learns, but of any potential, as 'thermorun drive' has it.")
@click.option("--path", type=click.Path(), help="Along a path of your own, as 'thermorun drive' has it.")
@run_options
def excess_work(
    figure: int, out: Path | None, resume: bool, threads: int | None, as_json: bool, potential: str | None,
    path: str | None, **given: Any,
) -> None:  # fmt: skip
    """Excess work of learning a harmonic trap (Hnybida & Verret 2025).

    By default it reproduces the paper's Fig. 6: cumulative excess work of four learning-rate schedules, a million
    particles each, beside the exact values.  Writes an HDF5 file and a picture.

    With --potential or --path it is 'thermorun drive': work, Delta F and excess work of any potential along a path.
    """
    driven = chosen({"potential": potential, "path": path})
    if driven:
        require_driven(chosen(given))
        execute(Drive(**driven | chosen(given)), out, resume, threads, as_json)
        return
    execute(ExcessWork(**FIGURES[figure] | chosen(given)), out, resume, threads, as_json)
