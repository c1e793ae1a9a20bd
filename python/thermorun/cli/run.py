"""Every command ends here: a spec runs, its pictures are saved, its tables or its JSON are printed."""

import json
from pathlib import Path
from typing import Any

import click

from thermorun import plots
from thermorun.cli.options import SHARD
from thermorun.errors import InputError, RunError
from thermorun.results import Result
from thermorun.specs import Spec


def execute(spec: Spec, out: Path | None, resume: bool, threads: int | None, as_json: bool, **more: Any) -> Result:
    """Runs a spec into ``out``, by default a file named after it, and shows the result; ``more`` joins the JSON."""
    shard = click.get_current_context().meta.get(SHARD)
    if out is None:
        out = free_name(spec, shard)
    result: Result = spec.run(out=out, resume=resume, threads=threads, show_progress=True, shard=shard)
    show(result, as_json, **more)
    return result


def refuse_shard(option: str) -> None:
    """Raises InputError where a shard is asked for beside an option that only a whole run can answer."""
    if click.get_current_context().meta.get(SHARD) is not None:
        raise InputError(f"{option} is told from a whole run; leave out --shard, or {option}.")


def show(result: Result, as_json: bool, **more: Any) -> None:
    """Saves the pictures of a result beside its file, and prints it."""
    pictures, refused = save_pictures(result)
    if as_json:
        report = result.to_dict() | {"pictures": [str(path) for path in pictures]} | more
        click.echo(json.dumps(report, allow_nan=False))
        return
    click.echo(result.summary(width()))
    click.echo(f"file     {result.file}")
    for path in pictures:
        click.echo(f"picture  {path}")
    for sentence in refused:
        click.echo(f"thermorun: {sentence}", err=True)


def save_pictures(result: Result, kind: str = "png", folder: Path | None = None) -> tuple[list[Path], list[str]]:
    """The pictures of a result, beside its file or in ``folder``; and sentences about those that could not be saved.

    A picture that cannot be had never costs the numbers.
    """
    assert result.file is not None
    saved, refused = [], []
    try:
        figures = result.figures()
    except Exception as error:  # whatever a plotting library or its settings come up with
        return [], [f"no picture could be drawn ({type(error).__name__}: {error})."]
    for name, figure in figures.items():
        stem = f"{result.file.stem}-{name}" if name else result.file.stem
        path = (folder or result.file.parent) / f"{stem}.{kind}"
        if path.resolve() == result.file.resolve():
            refused.append(f"picture {path} would take the place of the data; it was not drawn.")
            continue
        try:
            plots.save(figure, path)
            saved.append(path)
        except (InputError, RunError) as error:
            refused.append(str(error))
        except Exception as error:  # as above: fonts, TeX, backends
            refused.append(f"picture {path} could not be drawn ({type(error).__name__}: {error}).")
    return saved, refused


def free_name(spec: Spec, shard: tuple[int, int] | None = None) -> Path:
    """The default file of a run: says what is in it; a number is added where another run has the name."""
    from thermorun.store import read_spec

    stem, number = spec.file_name(), 1
    if shard is not None:
        return Path(f"{stem}-shard{shard[0]}of{shard[1]}.h5")
    while True:
        path = Path(f"{stem}.h5" if number == 1 else f"{stem}-{number}.h5")
        if not path.exists():
            return path
        try:
            if read_spec(path) == spec.resolved().to_json():
                return path
        except InputError:
            pass
        number += 1


def width() -> int:
    """Of the terminal; 80 where there is none, and never more than 120: wider tables cannot be read."""
    from shutil import get_terminal_size

    return min(get_terminal_size((80, 24)).columns, 120)
