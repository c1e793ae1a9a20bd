"""What the commands share: options, tables, one-sentence errors."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from thermorun.errors import InputError

Command = Callable[..., None]


def fail(sentence: str, code: int) -> NoReturn:
    """One sentence on stderr, and out."""
    click.echo(f"thermorun: {sentence}", err=True)
    sys.exit(code)


class Classes(click.ParamType[tuple[int, ...]]):
    """Classes as in 0,1,2."""

    name = "k,k,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        try:
            return tuple(int(part) for part in str(value).split(","))
        except ValueError:
            raise InputError(f"classes is {value!r}; give numbers with commas, as in 0,1,2.") from None


def run_options(command: Command) -> Command:
    """The options that every command that runs something has."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else."),
        click.option("--resume", is_flag=True, help="Go on with the run that --out holds."),
        click.option("--out", type=click.Path(path_type=Path), help="HDF5 file; by default named after the run."),
        click.option("--precision", help="Of the state: float32 or float64; sums are always float64."),
        click.option("--threads", type=int, help="All cores by default; results do not depend on it."),
        click.option("--seed", type=int, help="0 by default; equal seeds give equal results, bit for bit."),
    ):
        command = option(command)
    return command


def print_table(title: str, headings: tuple[str, ...], rows: Sequence[tuple[str, ...]], caption: str) -> None:
    """A table whose first column is text and the rest numbers."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="right" if i else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console = Console()
    # A table cut off at 80 columns says less than one that wraps or is scrolled.
    console.width = max(console.width, console.measure(table, options=console.options.update(width=500)).maximum)
    console.print(table)
    console.print(caption, style="dim", highlight=False, soft_wrap=True)
    console.print()
