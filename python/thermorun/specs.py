"""What a run is: a frozen dataclass that checks itself, goes through JSON and back, and knows its command.

A field says in its annotation what it may be, what it means and in which unit:

    tau: Annotated[float, Parameter(positive, "duration of the protocol", "time")] = 5.0

Checks, the options of the command line, the signature and the documentation of the Python function all come from there.
"""

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from dataclasses import replace as dataclass_replace
from importlib import import_module
from typing import Annotated, Any, ClassVar, NamedTuple, Self, TypeVar, get_args, get_origin, get_type_hints

from thermorun.errors import InputError, require_choice, require_count, require_number, require_positive, short

# Takes the name and the value of a field; returns the value as it is kept, or raises InputError.
Check = Callable[[str, Any], Any]
_Function = TypeVar("_Function", bound=Callable[..., Any])


class Parameter(NamedTuple):
    """What a field may be (``check``), what it means (``help``, no capital, no full stop) and its unit."""

    check: Check
    help: str
    unit: str = ""


# Products of half a dozen numbers of any unit stay within float64 between these.
SMALLEST, LARGEST = 1e-50, 1e50


def number(name: str, value: Any) -> float:
    """A number, zero or of a size that can be computed with."""
    checked = require_number(name, value)
    if checked and not SMALLEST <= abs(checked) <= LARGEST:
        raise InputError(f"{name} is {checked:g}; it must be 0, or of a size between {SMALLEST:g} and {LARGEST:g}.")
    return checked


def positive(name: str, value: Any) -> float:
    """A positive number of a size that can be computed with."""
    checked = require_positive(name, value)
    if not SMALLEST <= checked <= LARGEST:
        raise InputError(f"{name} is {checked:g}; it must be between {SMALLEST:g} and {LARGEST:g}.")
    return checked


def not_negative(name: str, value: Any) -> float:
    """A number of at least zero."""
    checked = number(name, value)
    if checked < 0:
        raise InputError(f"{name} is {checked:g}; it must be at least 0.")
    return checked


def share(name: str, value: Any) -> float:
    """A number between 0 and 1, both excluded."""
    checked = require_number(name, value)
    if not 0 < checked < 1:
        raise InputError(f"{name} is {checked:g}; it must be a share between 0 and 1.")
    return checked


def count(least: int = 1, most: int | None = None) -> Check:
    """An integer between bounds."""
    return lambda name, value: require_count(name, value, least, most)


class Choice:
    """One of several words."""

    def __init__(self, *words: str) -> None:
        self.words = words

    def __call__(self, name: str, value: Any) -> str:
        return require_choice(name, value, self.words)


def flag(name: str, value: Any) -> bool:
    """True or False, NumPy's too."""
    if isinstance(value, bool) or type(value).__name__ in ("bool_", "bool"):
        return bool(value)
    raise InputError(f"{name} is {short(value)}; it must be True or False.")


def text(name: str, value: Any) -> str:
    """A string that is not empty."""
    if not isinstance(value, str) or not value:
        raise InputError(f"{name} is {short(value)}; it must be a text that is not empty.")
    return value


def several(check: Check, least: int = 1) -> Check:
    """A sequence, as a tuple, each element checked; one element alone is taken for a sequence of one."""

    def checked(name: str, values: Any) -> tuple[Any, ...]:
        single = isinstance(values, str | bytes) or not hasattr(values, "__iter__") or getattr(values, "ndim", 1) == 0
        elements = (values,) if single else tuple(values)
        if len(elements) < least:
            raise InputError(f"{name} holds {len(elements)} values; it must hold at least {least}.")
        return tuple(check(name, element) for element in elements)

    return checked


def anything(name: str, value: Any) -> Any:
    """For a field that the spec's own ``validate`` checks."""
    return value


def potential(name: str, value: Any) -> Any:
    """The name of a potential, or one itself.  Not loaded here: a file is read without it."""
    if isinstance(value, str):
        return text(name, value)
    if not hasattr(value, "fingerprint"):
        raise InputError(f"{name} is {short(value)}; it must be a name, FILE.py:NAME, or a Potential.")
    return value


POTENTIAL = Parameter(potential, "a name, FILE.py:NAME of your own, or a Potential")
FINGERPRINT = Parameter(text, "of the potential, filled in when it is read")
SEED = Parameter(count(0, 2**64 - 1), "of all random numbers; equal seeds give equal results")
PRECISION = Parameter(Choice("float32", "float64"), "of the state; sums are always float64")
BETA = Parameter(positive, "1/kT", "1/energy")
MOBILITY = Parameter(positive, "mu in dx = -mu dE/dx dt + sqrt(2 mu kT) dB", "length^2/(energy time)")
# The counter of the random streams holds particles in units of four in 32 bits.
MOST_PARTICLES = 2**34
MOST_STEPS = 2**31 - 1


@dataclass(frozen=True, kw_only=True)
class Spec:
    """Everything that decides a run's numbers, and nothing else.  Raises InputError for whatever cannot run.

    ``grows`` are the counts that `thermorun.extend` makes larger; its runner then has ``extended(spec, smaller)``, the
    rows of each section that are the same in both.  ``parts`` is the dimension of its file along which a run can be
    cut into shards, which know nothing of each other: see `thermorun.merge`.

    A subclass is a frozen dataclass too.  ``command`` is the name of what runs it, in files and on the command line;
    ``runner`` the module that holds ``run(spec, under_way)``, given the session, and ``read(file, spec)``.
    A spec stays as it was typed; ``resolved`` gives the one in which every number is set, and that one is stored.
    """

    command: ClassVar[str]
    runner: ClassVar[str]
    # Whether it has parts that workers can compute: see `thermorun.workers`.
    shared: ClassVar[bool] = False
    grows: ClassVar[tuple[str, ...]] = ()
    parts: ClassVar[str] = ""

    seed: Annotated[int, SEED] = 0

    def __post_init__(self) -> None:
        for name, parameter in parameters(type(self)).items():
            value = getattr(self, name)
            if value is not None or not _optional(type(self), name):
                object.__setattr__(self, name, parameter.check(name, value))
        self.validate()

    def validate(self) -> None:
        """Checks what concerns several fields at once.  Raises InputError."""

    def resolved(self) -> Self:
        """The same run with every number set."""
        return self

    def replace(self, **changes: Any) -> Self:
        """A copy with other values, checked as a new one is."""
        unknown = [name for name in changes if name not in parameters(type(self))]
        if unknown:
            raise InputError(f"{unknown[0]} is no field of {type(self).__name__}; there are {_names(type(self))}.")
        return dataclass_replace(self, **changes)

    def larger(self, counts: Mapping[str, int | None]) -> Self:
        """The same run with larger ones of those counts that grow.  Raises InputError for others, and for less."""
        wanted = {name: value for name, value in counts.items() if value is not None}
        can = f"of a run of {self.command} {' and '.join(self.grows) or 'nothing'} can"
        for name in wanted:
            if name not in self.grows:
                raise InputError(f"{name} cannot grow; {can}.")
        found = self.replace(**wanted)
        for name in wanted:
            if getattr(found, name) < (held := getattr(self, name)):
                raise InputError(f"{name} is {wanted[name]}; the file holds {held}, and it must be more.")
        if found == self:
            raise InputError(f"nothing is to grow; {can}.")
        return found

    def run(
        self, *, out: Any = None, resume: bool = False, threads: int | None = None, show_progress: bool = False,
        smaller: "Spec | None" = None, shard: tuple[int, int] | None = None, **given: Any,
    ) -> Any:  # fmt: skip
        """Runs it: see the function of the same command.  ``given`` are arrays in the place of what it names.

        ``smaller`` is the complete run in ``out``, whose place this one takes: see `thermorun.extend`.  ``shard``
        (number, of) runs one of so many shards, numbered from 1, into ``out``, and returns a `thermorun.shards.Shard`:
        see `thermorun.merge`.
        """
        # By name: what a run is stands below how it is run.
        runner, runs = import_module(self.runner), import_module("thermorun.runs")
        shards = import_module("thermorun.shards")
        if runs.cluster.active() is not None and not self.shared:
            raise InputError(f"workers are given, and a run of {self.command} has no parts to share; run it without.")
        options = {"out": out, "resume": resume, "threads": threads, "show_progress": show_progress}
        shards.require(self, shard, out, resume)
        cut = None if shard is None else (self.parts, *shard)
        with runs.session(**options, smaller=smaller, shard=cut) as under_way:
            result = runner.run(self, under_way, **given)
            if not under_way.sharded:
                return result
        return shards.Shard.of(out, type(self))

    def to_dict(self) -> dict[str, Any]:
        """All fields in JSON's types."""
        return {field.name: to_json_types(getattr(self, field.name)) for field in fields(self)}

    def to_json(self) -> str:
        """One line of JSON, the same for equal specs."""
        return json.dumps(self.to_dict(), sort_keys=True, allow_nan=False)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The spec that ``to_dict`` wrote.  Raises InputError for anything else."""
        known = parameters(cls)
        for name in values:
            if name not in known:
                raise InputError(f"{name} is no field of a run of {cls.command}; there are {_names(cls)}.")
        for field in fields(cls):
            if field.name not in values and field.default is MISSING and field.default_factory is MISSING:
                raise InputError(f"{field.name} is missing from the spec of a run of {cls.command}.")
        return cls(**values)

    @classmethod
    def from_json(cls, line: str) -> Self:
        """The spec that ``to_json`` wrote.  Raises InputError for anything else."""
        try:
            values = json.loads(line)
        except (ValueError, RecursionError, TypeError) as error:
            raise InputError(f"spec {short(line)} is not JSON ({error}).") from error
        if not isinstance(values, dict):
            raise InputError(f"spec {short(line)} is not that of a run of {cls.command}.")
        return cls.from_dict(values)

    def file_name(self) -> str:
        """What a file of this run is called by default, without its ending."""
        return f"{self.command}-seed{self.seed}"


def to_json_types(value: Any) -> Any:
    """A value of a field in JSON's types: tuples become lists, and what knows how to says it of itself."""
    if isinstance(value, tuple | list):
        return [to_json_types(element) for element in value]
    if hasattr(value, "to_dict"):
        return value.to_dict()
    return value


def parameters(spec: type[Spec]) -> dict[str, Parameter]:
    """Every field of a spec, in order, with what it may be; ``seed`` comes last."""
    hints = get_type_hints(spec, include_extras=True)
    found = {}
    for field in fields(spec):
        about = [part for part in get_args(hints[field.name])[1:] if isinstance(part, Parameter)]
        found[field.name] = about[0] if about else Parameter(anything, "")
    return {name: found[name] for name in sorted(found, key="seed".__eq__)}


def types(spec: type[Spec]) -> dict[str, Any]:
    """The plain type of every field."""
    hints = get_type_hints(spec, include_extras=True)
    return {
        name: get_args(hints[name])[0] if get_origin(hints[name]) is Annotated else hints[name]
        for name in parameters(spec)
    }


def defaults(spec: type[Spec]) -> dict[str, Any]:
    """The default of every field that has one."""
    return {field.name: field.default for field in fields(spec) if field.default is not MISSING}


def given(spec: type[Spec], values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of ``values`` that are fields of a spec: of a function's ``locals()``, say."""
    return {name: values[name] for name in parameters(spec) if name in values}


def documented(spec: type[Spec]) -> Callable[[_Function], _Function]:
    """Puts the meaning of every field into the docstring of the function that runs it, where it says {parameters}."""

    def decorate(function: _Function) -> _Function:
        lines = []
        for name, parameter in parameters(spec).items():
            default = defaults(spec).get(name)
            unit = f" [{parameter.unit}]" if parameter.unit else ""
            lines += [
                f"{name} : {inspect.formatannotation(types(spec)[name])}, default {default!r}",
                f"    {parameter.help[:1].upper()}{parameter.help[1:]}{unit}.",
            ]
        lines += [
            "out : path, optional",
            "    HDF5 file to stream to.  Without one the results are kept in memory.",
            "resume : bool, default False",
            "    Go on with the run that ``out`` holds, to the last bit as if it had never stopped.",
            "threads : int, optional",
            "    All cores by default; results do not depend on it.",
            "show_progress : bool, default False",
            "    A bar with rate and time left on stderr, when it is a terminal.",
        ]
        if function.__doc__ is not None:
            function.__doc__ = inspect.cleandoc(function.__doc__).replace("{parameters}", "\n".join(lines))
        return function

    return decorate


def _optional(spec: type[Spec], name: str) -> bool:
    return defaults(spec).get(name, MISSING) is None


def _names(spec: type[Spec]) -> str:
    return ", ".join(parameters(spec))
