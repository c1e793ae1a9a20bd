"""Excess work has one name: of learning a trap, and of driving any potential along a path."""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, Protocol, overload

from thermorun.errors import InputError
from thermorun.learning.driven.result import DriveResult
from thermorun.learning.driven.run import drive
from thermorun.learning.driven.spec import Drive
from thermorun.learning.trap.result import ExcessWorkResult
from thermorun.potentials import Potential
from thermorun.specs import parameters

_P = ParamSpec("_P")


class ExcessWorkOf(Protocol[_P]):
    """Of a trap that learns, or with ``potential`` or ``path`` of whatever is driven."""

    @overload
    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> ExcessWorkResult: ...

    @overload
    def __call__(self, *, potential: str | Potential = ..., path: Any = ..., **of_drive: Any) -> DriveResult: ...


def or_drive(learn: Callable[_P, ExcessWorkResult]) -> ExcessWorkOf[_P]:
    """``learn``, which passes what names a potential or a path of one's own on to `drive`."""

    @wraps(learn)
    def excess_work(*arguments: Any, **given: Any) -> Any:
        if not given.keys() & {"potential", "path"}:
            return learn(*arguments, **given)
        require_driven(("protocols",) if arguments else given)
        return drive(**given)

    return excess_work


def require_driven(names: Any) -> None:
    """Raises InputError for what a run along a path has not."""
    known = (*parameters(Drive), "out", "resume", "threads", "show_progress")
    for name in names:
        if name not in known:
            raise InputError(f"{name} belongs to learning a trap; with potential or path there are {', '.join(known)}.")
