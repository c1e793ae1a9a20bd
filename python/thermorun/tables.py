"""Tables of results: for a terminal, a notebook, and pandas."""

import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import StringIO

from thermorun.errors import printable


@dataclass(frozen=True)
class Table:
    """Rows of text under headings; the first ``keys`` columns say what a row is, the rest are numbers.

    ``notes`` stand below: what columns mean, why a cell is a question mark.
    """

    title: str
    headings: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    notes: Sequence[str] = field(default=())
    keys: int = 1

    def __post_init__(self) -> None:
        # Words of a file among them: nothing in a cell is a command, to a terminal or to the library that draws.
        for name in ("headings", "notes"):
            object.__setattr__(self, name, tuple(map(printable, getattr(self, name))))
        object.__setattr__(self, "title", printable(self.title))
        object.__setattr__(self, "rows", [tuple(map(printable, row)) for row in self.rows])

    def render(self, width: int = 80, styled: bool = False) -> str:
        """The table as text at most ``width`` columns wide.

        Columns that do not fit go into another table below, behind the same keys: never does a number break.
        """
        from rich import box
        from rich.console import Console
        from rich.table import Table as Rich
        from rich.text import Text

        console = Console(file=StringIO(), width=max(width, 20), force_terminal=styled, highlight=False)
        # Not as the title of the drawn table, which would break it at the table's own width.
        console.print(self.title, style="bold", markup=False)
        for columns in self._groups(width):
            drawn = Rich(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
            for place in columns:
                drawn.add_column(
                    Text(self.headings[place]), justify="left" if place < self.keys else "right", no_wrap=True
                )
            for row in self.rows:
                drawn.add_row(*(Text(row[place]) for place in columns))
            # A key alone may be too wide: then the line is long, but whole.
            console.width = max(width, console.measure(drawn, options=console.options.update(width=10_000)).maximum)
            console.print(drawn)
        console.width = max(width, 20)
        for note in self.notes:
            console.print(note, style="dim", markup=False)
        out = console.file
        assert isinstance(out, StringIO)
        return "\n".join(line.rstrip() for line in out.getvalue().splitlines()).strip("\n") + "\n"

    def _groups(self, width: int) -> list[list[int]]:
        """Columns table by table."""
        keys, rest = list(range(self.keys)), list(range(self.keys, len(self.headings)))
        base = sum(self._size(place) for place in keys)
        groups, used = [list(keys)], base
        for place in rest:
            if used + self._size(place) > width + 1 and len(groups[-1]) > len(keys):
                groups.append(list(keys))
                used = base
            groups[-1].append(place)
            used += self._size(place)
        return groups

    def _size(self, place: int) -> int:
        from rich.cells import cell_len

        return max(cell_len(text) for text in (self.headings[place], *(row[place] for row in self.rows))) + 2

    def to_html(self) -> str:
        """For a notebook."""

        def cells(tag: str, row: Sequence[str]) -> str:
            inner = "".join(
                f'<{tag} style="text-align:{"left" if place < self.keys else "right"}">{html.escape(text)}</{tag}>'
                for place, text in enumerate(row)
            )
            return f"<tr>{inner}</tr>"

        body = "".join(cells("td", row) for row in self.rows)
        notes = "".join(f"<p><small>{html.escape(note)}</small></p>" for note in self.notes)
        return (
            f"<table><caption><b>{html.escape(self.title)}</b></caption>"
            f"<thead>{cells('th', self.headings)}</thead><tbody>{body}</tbody></table>{notes}"
        )
