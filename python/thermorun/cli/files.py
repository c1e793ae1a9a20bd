"""Commands about files that runs have made."""

from pathlib import Path
from typing import Any

import click

import thermorun
from thermorun.cli.options import Count, worker_options
from thermorun.cli.run import save_pictures, show
from thermorun.plots import FORMATS


@click.command(short_help="Go on with the run in a file.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--dataset", help="Where the data of the run are now, if they have moved.")
@click.option("--threads", type=Count(), help="All cores by default; results do not depend on it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
@worker_options
def resume(file: Path, dataset: str | None, threads: int | None, as_json: bool) -> None:
    """Go on with the run in FILE, whatever stopped it; the results are those of a run that was never stopped."""
    show(thermorun.resume(file, dataset=dataset, threads=threads, show_progress=True), as_json)


@click.command(short_help="More of the same into a file.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--particles", type=Count(), help="In all, of a run of drive or free-energy.")
@click.option("--replicas", type=Count(), help="In all, of a run of excess-work or learn.")
@click.option("--shots", type=Count(), help="In all, of a training or classification of computer.")
@click.option("--epochs", type=Count(), help="In all, of a training of cycles.")
@click.option("--dataset", help="Where the data of the run are now, if they have moved.")
@click.option("--threads", type=Count(), help="All cores by default; results do not depend on it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def extend(file: Path, as_json: bool, **given: Any) -> None:
    """Make more of the same of the complete run in FILE, in the same file; what it holds is not computed again.

    The results are those of a run that had so many from the start.
    """
    show(thermorun.extend(file, show_progress=True, **given), as_json)


@click.command(short_help="Draw the pictures of a file again.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--format", "kind", type=click.Choice(FORMATS), default="png", show_default=True, help="Of the pictures.")
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), help="Where to; by default beside FILE.")
def plot(file: Path, kind: str, folder: Path | None) -> None:
    """Draw the pictures of the run in FILE again, for a journal or a talk."""
    saved, refused = save_pictures(thermorun.load(file), kind, folder)
    for path in saved:
        click.echo(f"picture  {path}")
    for sentence in refused:
        click.echo(f"thermorun: {sentence}", err=True)
    if refused and not saved:
        raise click.exceptions.Exit(1)
