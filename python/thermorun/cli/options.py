"""Options made from the fields of specs, and the types of what they take."""

import types as python_types
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, Union, cast, get_args, get_origin

import click

from thermorun.errors import InputError
from thermorun.specs import Choice, Spec, defaults, parameters, types

_Command = TypeVar("_Command", bound=Callable[..., Any])
# Characters of an option and of the choices behind it, that a line of 80 has room for.
_LINE = 75
# Where a command's context keeps the shard that is asked for.
SHARD = "thermorun.shard"


class Count(click.ParamType[int]):
    """A whole number, as in 1000000, 1e6 or 2^20."""

    name = "count"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        text = str(value).replace("_", "").replace(",", "")
        try:
            if "^" in text:
                base, _, power = text.partition("^")
                if abs(int(power)) > 64:
                    raise ValueError
                return int(int(base) ** int(power))
            if any(letter in text for letter in ".eE"):
                number = float(text)
                if number != int(number):
                    raise ValueError
                return int(number)
            return int(text)
        except (ValueError, OverflowError):
            self.fail(f"{str(value)[:40]!r} is no whole number, as in 1000000, 1e6 or 2^20.", param, ctx)


class ShardOf(click.ParamType[tuple[int, int]]):
    """A shard and their number, as in 2/8."""

    name = "k/n"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        number, _, of = str(value).partition("/")
        try:
            return int(number), int(of)
        except ValueError:
            self.fail(f"{str(value)[:40]!r}; give a number and that of all shards, as in 2/8.", param, ctx)


class Numbers(click.ParamType[tuple[float, ...]]):
    """Numbers with commas between, as in 1,-0.5."""

    name = "number,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{str(value)[:40]!r}; give numbers with commas between, as in 1,-0.5.", param, ctx)


class Counts(click.ParamType[tuple[int, ...]]):
    """Whole numbers with commas between, as in 0,1,2."""

    name = "k,k,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(int(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{str(value)[:40]!r}; give whole numbers with commas between, as in 0,1,2.", param, ctx)


class Words(click.ParamType[tuple[int | str, ...]]):
    """Words or numbers with commas between, as in 0,1,2 or cat,dog."""

    name = "word,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int | str, ...]:
        if isinstance(value, tuple):
            return value
        words = [word.strip() for word in str(value).split(",")]
        if "" in words:
            self.fail(f"{str(value)[:40]!r}; give words with commas between, as in 0,1,2 or cat,dog.", param, ctx)
        return tuple(int(word) if word.removeprefix("-").isdecimal() else word for word in words)


def spec_options(
    spec: type[Spec], *, names: dict[str, str] | None = None, kinds: dict[str, Any] | None = None,
    without: tuple[str, ...] = (),
) -> Callable[[_Command], _Command]:  # fmt: skip
    """An option for every field of a spec.

    ``names`` are options called otherwise than their field, as in {"start": "--from"}; ``kinds`` click's types of
    fields whose own says too little.  A field that is not given keeps the spec's default: see ``chosen``.  A run that
    can be cut has ``--shard`` too, which ``execute`` looks for.
    """

    def decorate(command: _Command) -> _Command:
        if spec.parts:
            command = _shard_option(command)
        for name in reversed(parameters(spec)):
            if name not in without:
                command = _option(spec, name, (names or {}).get(name), (kinds or {}).get(name))(command)
        return command

    return decorate


def _option(spec: type[Spec], name: str, called: str | None, kind: Any) -> Callable[[_Command], _Command]:
    parameter, default = parameters(spec)[name], defaults(spec).get(name)
    flag = called or "--" + name.replace("_", "-")
    about = parameter.help[:1].upper() + parameter.help[1:]
    about += f", {parameter.unit}." if parameter.unit else "."
    if default not in (None, False, ()):
        about += f"  [default: {_typed(default)}]"
    plain, repeated = _plain(types(spec)[name])
    if plain is bool:
        return click.option(flag, name, is_flag=True, default=None, help=about)
    check = parameter.check
    if kind is None and isinstance(check, Choice):
        kind = click.Choice(check.words)
    elif kind is None:
        kind = {int: Counts() if repeated else Count(), float: Numbers() if repeated else click.FLOAT}.get(plain)
    multiple, metavar = repeated and not isinstance(kind, Numbers | Counts | click.Path), None
    if isinstance(kind, click.Choice) and len(flag) + len("|".join(kind.choices)) > _LINE:
        about, metavar = f"One of {', '.join(kind.choices)}: {about[:1].lower()}{about[1:]}", "CHOICE"
    joined = _joined if isinstance(kind, Words) else None
    return click.option(flag, name, type=kind, multiple=multiple, metavar=metavar, callback=joined, help=about)


def _joined(ctx: click.Context, param: click.Parameter, values: Any) -> tuple[int | str, ...]:
    """Of an option that was given once with all words, or again for each."""
    return tuple(word for words in values for word in words)


def _plain(annotation: Any) -> tuple[Any, bool]:
    """The type of a field without None and without its tuple, and whether there was a tuple."""
    if get_origin(annotation) in (Union, python_types.UnionType):
        parts = [part for part in get_args(annotation) if part is not type(None)]
        tuples = [part for part in parts if get_origin(part) is tuple]
        return _plain(tuples[0] if tuples and len(parts) == 1 else parts[0])
    if get_origin(annotation) is tuple:
        return _plain(get_args(annotation)[0])[0], True
    return annotation, False


def _typed(value: Any) -> str:
    """A default as it would be typed."""
    if isinstance(value, tuple):
        return ",".join(map(_typed, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def chosen(values: dict[str, Any]) -> dict[str, Any]:
    """The options that were given; click gives an empty tuple where one that may be repeated was not."""
    return {name: value for name, value in values.items() if value is not None and not _is_empty(value)}


def _is_empty(value: Any) -> bool:
    return isinstance(value, tuple) and not value


def run_options(command: _Command) -> _Command:
    """The options of every command that runs something."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else."),
        click.option("--resume", is_flag=True, help="Go on with the run that --out holds."),
        click.option("--out", type=click.Path(path_type=Path), help="HDF5 file; by default named after the run."),
        click.option("--threads", type=Count(), help="All cores by default; results do not depend on it."),
    ):
        command = option(command)
    return command


def worker_options(command: _Command) -> _Command:
    """The options of every command whose runs have parts that other processes can compute."""

    @wraps(command)
    def shared(*words: Any, workers: int | None, scheduler: str | None, **given: Any) -> Any:
        if workers is None and scheduler is None:
            return command(*words, **given)
        from thermorun.cluster import workers as begin

        with begin(workers, scheduler=scheduler):
            return command(*words, **given)

    for option in (
        click.option("--scheduler", help="Dask scheduler whose workers compute the run: its address, or its file."),
        click.option("--workers", type=Count(), help="Processes to share the run; results do not depend on it."),
    ):
        shared = option(shared)
    return cast(_Command, shared)


def _shard_option(command: _Command) -> _Command:
    about = "Run one of so many shards, as in 2/8; 'thermorun merge' puts them together."
    return click.option("--shard", type=ShardOf(), expose_value=False, callback=_keep, help=about)(command)


def _keep(ctx: click.Context, param: click.Parameter, value: tuple[int, int] | None) -> None:
    ctx.meta[SHARD] = value


def require(value: Any, sentence: str) -> Any:
    """``value``.  Raises InputError with ``sentence`` where it is None."""
    if value is None:
        raise InputError(sentence)
    return value
