"""The command that looks at a run while it goes on."""

import time
from pathlib import Path

import click

import thermorun
from thermorun import store
from thermorun.cli.run import save_pictures, width
from thermorun.errors import DamagedFile, InputError, printable

# Looks at a file that seems damaged, a second apart, until that is believed: a row may have been under way.
_LOOKS = 3


@click.command(short_help="Look at a run while it goes on.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--every", type=click.FloatRange(0.1, 3600.0), default=1.0, show_default=True, help="Seconds between two looks."
)
@click.option("--pictures", is_flag=True, help="Draw the pictures again at every look.")
def watch(file: Path, every: float, pictures: bool) -> None:
    """Show how far the run in FILE is and what it has found so far, until it is complete.

    Watching costs the run nothing: FILE is only read.  With --pictures a viewer that follows the picture beside FILE
    shows the run in a window.  Exit code 1 where the run has stopped before its end.
    """
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        _in_lines(file, every, pictures)
        return
    with Live(console=console, auto_refresh=False) as screen:
        while True:
            found = store.survey(file)
            screen.update(Text(f"{_bars(found)}\n\n{_look(file, found, pictures)}"), refresh=True)
            if _ended(file, found):
                return
            time.sleep(every)


def _in_lines(file: Path, every: float, pictures: bool) -> None:
    """For a log: a line whenever there is more, and the table at the end."""
    said = ""
    while True:
        found = store.survey(file)
        if (line := _counts(found)) != said:
            click.echo(line)
            said = line
            if pictures:
                _look(file, found, pictures)
        if _ended(file, found):
            click.echo(_look(file, found, pictures))
            return
        time.sleep(every)


def _ended(file: Path, found: store.Survey) -> bool:
    """Whether the run is complete.  Raises Exit where it is not, and nobody goes on with it."""
    if found.complete:
        return True
    if store.written_now(file) is False and not store.survey(file).complete:
        click.echo(f"thermorun: {file} is not complete, and no run writes it: 'thermorun resume {file}'.", err=True)
        raise click.exceptions.Exit(1)
    return False


def _look(file: Path, found: store.Survey, pictures: bool) -> str:
    """The tables of what is there; pictures are drawn beside the file."""
    for look in range(_LOOKS):
        try:
            result = thermorun.load(file)
            if pictures:
                save_pictures(result)
            return result.summary(width())
        except DamagedFile:
            if look == _LOOKS - 1:
                raise
            time.sleep(1.0)
        except InputError as error:
            if found.complete:
                raise
            return printable(str(error))  # it has not come to its first results
    raise AssertionError


def _counts(found: store.Survey) -> str:
    return ", ".join(f"{printable(one.name)} {one.done} of {one.rows}" for one in found.sections)


def _bars(found: store.Survey) -> str:
    """A bar for every section."""
    longest = max(len(printable(one.name)) for one in found.sections)
    lines = [printable(f"{found.path}: {found.command}")]
    for one in found.sections:
        filled = 24 * one.done // max(one.rows, 1)
        bar = "\u2588" * filled + "\u2591" * (24 - filled)
        lines.append(f"{printable(one.name):{longest}}  {bar}  {one.done} of {one.rows}")
    return "\n".join(lines)
