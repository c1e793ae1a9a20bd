"""What the commands about general potentials share: options, and lists of numbers."""

from typing import Any

import click

from thermorun.cli.console import Command
from thermorun.errors import InputError


class Numbers(click.ParamType[tuple[float, ...]]):
    """Numbers with commas between, as in 1,-0.5."""

    name = "number,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        try:
            return tuple(float(part) for part in str(value).split(","))
        except ValueError:
            name = "a list" if param is None else param.name
            raise InputError(f"{name} is {value!r}; give numbers with commas between, as in 1,-0.5.") from None


def potential_options(command: Command) -> Command:
    """The options of every command that takes a potential at a point theta."""
    command = click.option("--theta", type=Numbers(), help="Parameters to begin with; by default the potential's own.")(
        command
    )
    command = click.option("--dt", type=float, help="Time step; by default a fraction of the fastest relaxation time.")(
        command
    )
    return ensemble_options(command)


def ensemble_options(command: Command) -> Command:
    """The options of every command that simulates a potential."""
    for option in (
        click.option("--integrator", help="euler-maruyama, leimkuhler-matthews, heun or exact (quadratic potentials)."),
        click.option("--mobility", type=float, help="mu, 1/time.  [default: 1]"),
        click.option("--beta", type=float, help="1/kT, 1/energy.  [default: 1]"),
        click.option(
            "--potential",
            help="trap, stiffness, trap-and-stiffness, gaussian, double-well, quartic, bistable, chain, mixture, or"
            " your own as FILE.py:NAME.",
        ),
    ):
        command = option(command)
    return command
