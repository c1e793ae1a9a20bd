"""The command that rebuilds the papers' figures."""

import json
from pathlib import Path

import click

from thermorun.cli.options import Count
from thermorun.cli.run import width
from thermorun.tables import Table


@click.command("figures", short_help="Rebuild the papers' figures, on one page.")
@click.option(
    "--folder", type=click.Path(path_type=Path, file_okay=False), default=Path("figures"), show_default=True,
    help="Where to.",
)  # fmt: skip
@click.option("--quick", is_flag=True, help="Small runs on the bundled digits: a minute or two, no download.")
@click.option("--only", multiple=True, help="Name of a figure, in place of all.")
@click.option("--threads", type=Count(), help="All cores by default; results do not depend on it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def figures(folder: Path, quick: bool, only: tuple[str, ...], threads: int | None, as_json: bool) -> None:
    """Rebuild every figure of the papers that can be computed, into a folder with a page.

    Each is one run with a file of its own; what is there already is not computed again.
    """
    from thermorun.papers import rebuild

    made = rebuild(folder, quick=quick, only=only, threads=threads, show_progress=True)
    if as_json:
        click.echo(json.dumps({"command": "figures", "results": [one.to_dict() for one in made]}, allow_nan=False))
    else:
        rows = [(one.figure.name, one.figure.source, f"{one.seconds:.0f}") for one in made]
        notes = [f"{one.figure.name} was not made: {one.sentence}" for one in made if one.sentence]
        table = Table("Figures of the papers", ("figure", "of", "time / s"), rows, notes, keys=2)
        click.echo(table.render(width()))
        click.echo(f"page     {folder / 'index.html'}")
    if any(one.sentence for one in made):
        raise click.exceptions.Exit(1)
