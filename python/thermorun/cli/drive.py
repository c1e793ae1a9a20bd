"""The command that drives any potential along a path."""

from pathlib import Path
from typing import Any

import click

from thermorun.cli.options import chosen, run_options, spec_options, worker_options
from thermorun.cli.run import execute
from thermorun.learning.driven.spec import Drive


@click.command(short_help="Work of any potential along a path.")
@spec_options(Drive, kinds={"path": click.Path()}, without=("fingerprint",))
@run_options
@worker_options
def drive(out: Path | None, resume: bool, threads: int | None, as_json: bool, **given: Any) -> None:
    """Work and excess work of driving any potential along a path of theta.

    By default from the potential's own theta straight to its target, from equilibrium; or along your own path (--path
    FILE.csv, rows of time and theta).  The bath's temperature may follow a path too (--kT, or a column headed kT).
    Delta F and the exact work where they are known.  Writes an HDF5 file with every work, and pictures; with --at
    histograms of x at some times as well.
    """
    execute(Drive(**chosen(given)), out, resume, threads, as_json)
