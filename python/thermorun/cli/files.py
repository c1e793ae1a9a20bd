"""Commands about files that runs have made."""

import json
from pathlib import Path
from typing import Any

import click

import thermorun
from thermorun import store
from thermorun.cli.options import Count, worker_options
from thermorun.cli.run import save_pictures, show, width
from thermorun.errors import DamagedFile, InputError, printable, short
from thermorun.plots import FORMATS
from thermorun.tables import Table


@click.command(short_help="Go on with the run in a file.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--dataset", help="Where the data of the run are now, if they have moved.")
@click.option("--potential", help="The potential that the run began with, as FILE.py:NAME, if it has moved.")
@click.option("--trust", is_flag=True, help="Run the Python file that FILE names as its potential.")
@click.option("--threads", type=Count(), help="All cores by default; results do not depend on it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
@worker_options
def resume(
    file: Path, dataset: str | None, potential: str | None, trust: bool, threads: int | None, as_json: bool
) -> None:
    """Go on with the run in FILE, whatever stopped it; the results are those of a run that was never stopped.

    A run of your own potential names its Python file.  That file is run only with --trust or --potential: FILE may be
    from a stranger.
    """
    result = thermorun.resume(
        file, dataset=dataset, potential=potential, trust=trust, threads=threads, show_progress=True
    )
    with store.reading(file):  # a spec that was changed may fit no numbers
        show(result, as_json)


@click.command(short_help="More of the same into a file.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--particles", type=Count(), help="In all, of a run of drive or free-energy.")
@click.option("--replicas", type=Count(), help="In all, of a run of excess-work or learn.")
@click.option("--shots", type=Count(), help="In all, of a training or classification of computer.")
@click.option("--epochs", type=Count(), help="In all, of a training of cycles.")
@click.option("--machines", type=Count(), help="In all of each rule, of a run of computer generate.")
@click.option("--pictures", type=Count(), help="In all of each machine, of a run of computer generate.")
@click.option("--trust", is_flag=True, help="Run the Python file that FILE names as its potential.")
@click.option("--dataset", help="Where the data of the run are now, if they have moved.")
@click.option("--threads", type=Count(), help="All cores by default; results do not depend on it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def extend(file: Path, as_json: bool, **given: Any) -> None:
    """Make more of the same of the complete run in FILE, in the same file; what it holds is not computed again.

    The results are those of a run that had so many from the start.
    """
    show(thermorun.extend(file, show_progress=True, **given), as_json)


@click.command(short_help="Shards of one run into one file.")
@click.argument("shards", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="HDF5 file of the whole run.")
@click.option("--dataset", help="Where the data of the run are now, if they have moved.")
@click.option("--potential", help="The potential that the run began with, as FILE.py:NAME, if it has moved.")
@click.option("--trust", is_flag=True, help="Run the Python file that SHARDS name as their potential.")
@click.option("--threads", type=Count(), help="All cores by default; results do not depend on it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def merge(shards: tuple[Path, ...], out: Path, as_json: bool, **given: Any) -> None:
    """Put SHARDS, the files of all shards of one run, together in one file: what one process would have written.

    A shard is run with --shard K/N.  They must all be complete, of the same settings, seed and versions, and leave
    neither gap nor overlap.
    """
    show(thermorun.merge(shards, out, show_progress=True, **given), as_json)


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


@click.command(short_help="What is in a file, and how far it is.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def inspect(file: Path, as_json: bool) -> None:
    """Say what run FILE holds, how far it is, and whether it can go on.  Nothing of it is run."""
    found = store.survey(file)
    sections = [{"section": one.name, "rows": one.done, "of": one.rows} for one in found.sections]
    if as_json:
        report = {"command": found.command, "file": str(file), "complete": found.complete, "sections": sections}
        click.echo(json.dumps(report | {"checkpoint": found.checkpoint, "spec": found.spec} | found.facts))
        return
    rows = [(one.name, str(one.done), str(one.rows)) for one in found.sections]
    title = f"{file}: {found.command}, {'complete' if found.complete else 'not complete'}"
    notes = [f"{name}: {short(value)}" for name, value in {**found.facts, **found.spec}.items()]
    notes.append(f"checkpoint: {found.checkpoint}")
    if not found.complete:
        code = ".py:" in str(found.spec.get("potential"))
        notes.append(f"go on with 'thermorun resume {file}{' --trust' if code else ''}'")
    click.echo(Table(title, ("section", "rows", "of"), rows, notes).render(width()))


@click.command(short_help="Whether a file is as it was written.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def verify(file: Path, as_json: bool) -> None:
    """Compare FILE with its checksums, its counters with its rows, and its numbers with physics: exit code 1 if not so.

    Physics: the first law, probabilities that add up to one, the seed that of the spec.
    """
    verdicts = dict.fromkeys(store.faults(file), False) or {"structure, checksums, counters, seed": True}
    if all(verdicts.values()):
        try:
            verdicts |= thermorun.load(file).checks()
        except DamagedFile as error:
            verdicts[str(error)] = False
        except InputError as error:  # it has not come to its first results
            verdicts[str(error)] = True
    if as_json:
        click.echo(json.dumps({"file": str(file), "good": all(verdicts.values()), "checks": verdicts}))
    else:
        for what, holds in verdicts.items():
            click.echo(printable(f"{'good' if holds else 'BAD '}  {what}"))
    if not all(verdicts.values()):
        raise click.exceptions.Exit(1)


@click.command(short_help="Back to the last good rows of a file.")
@click.argument("file", type=click.Path(path_type=Path))
def repair(file: Path) -> None:
    """Take rows of FILE that are damaged, and those after them, for not written: the run can then be resumed.

    What is good stays as it is.  A file whose structure is damaged cannot be repaired.
    """
    done = store.repair(file)
    for sentence in done:
        click.echo(printable(sentence))
    click.echo(f"go on with 'thermorun resume {file}'" if done else "nothing to repair")
