"""The command line: words in, specs out; results printed as a table or as JSON.

Exit codes: 0, 1 for a run that could not go on, 2 for input that cannot be used, 130 after Ctrl-C.
"""

import errno
import os
import sys
from importlib import import_module
from typing import Any, NoReturn
from warnings import catch_warnings, simplefilter

import click

from thermorun.errors import InputError, RunError, Stopped, printable
from thermorun.progress import interruptible

# Each command's module and short help: a module is imported when its command is called, or its help is.
_COMMANDS = {
    "excess-work": ("excess_work", "Excess work of learning a harmonic trap."),
    "learn": ("learn", "Any potential learned in closed loop."),
    "drive": ("drive", "Work of any potential along a path."),
    "metric": ("metric", "Fisher metric, friction tensor, geodesics."),
    "protocol": ("protocol", "Protocols of least work, by gradients."),
    "free-energy": ("free_energy", "Free-energy differences, works both ways."),
    "cycles": ("cycles", "Latent-cycle models: train, sample, analyse."),
    "computer": ("computer", "Thermodynamic computers: train, classify."),
    "resume": ("files", "Go on with the run in a file."),
    "extend": ("files", "More of the same into a file."),
    "merge": ("files", "Shards of one run into one file."),
    "plot": ("files", "Draw the pictures of a file again."),
    "watch": ("watch", "Look at a run while it goes on."),
    "inspect": ("files", "What is in a file, and how far it is."),
    "verify": ("files", "Whether a file is as it was written."),
    "repair": ("files", "Back to the last good rows of a file."),
    "figures": ("figures", "Rebuild the papers' figures, on one page."),
    "bench": ("bench", "How fast this machine is."),
    "selftest": ("selftest", "Check this machine against exact laws."),
}


# A disk that is full, a quota, a terminal that is gone.
_NO_OUTPUT = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


class _Group(click.Group):
    """Commands that are imported on demand, so that help and completion are quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        command = getattr(import_module(f"thermorun.cli.{_COMMANDS[name][0]}"), name.replace("-", "_"))
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except Stopped as error:  # here, for click has a sentence of its own for every KeyboardInterrupt
            fail(str(error), 130)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, about) in _COMMANDS.items()])


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        from thermorun import __version__

        click.echo(f"thermorun, version {__version__}")
        ctx.exit()


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--version", is_flag=True, callback=_version, expose_value=False, is_eager=True, help="Show the version.")
def thermorun() -> None:
    """Stochastic thermodynamics of learning, on a CPU, with error bars and exact values."""


def main(arguments: list[str] | None = None) -> NoReturn:
    """Runs the command line; errors become one sentence on stderr, and so do Ctrl-C and SIGTERM, whenever they come."""
    with interruptible() as interrupt, catch_warnings():
        simplefilter("ignore", RuntimeWarning)  # NumPy's, for those who program; what is not finite is told by its name
        try:
            code = thermorun.main(arguments, standalone_mode=False)
        except (click.Abort, KeyboardInterrupt):
            fail("stopped.", 130)
        except Exception as error:
            # What a module whose import was interrupted comes up with, or a library that takes it for a fault.
            if interrupt.pending:
                fail("stopped.", 130)
            _explain(error, arguments)
    sys.exit(code if isinstance(code, int) else 0)  # what click's Exit asks for


def _explain(error: Exception, arguments: list[str] | None) -> NoReturn:
    """The sentence of an error that has one; raises the others."""
    if isinstance(error, click.ClickException):
        fail(error.format_message(), 2)
    if isinstance(error, InputError):
        fail(in_options(str(error), arguments), 2)
    if isinstance(error, RunError):
        fail(str(error), 1)
    if not isinstance(error, OSError | UnicodeError):
        raise error
    name = getattr(error, "filename", None)
    if name is None and getattr(error, "errno", None) in _NO_OUTPUT:
        # What is left in the buffer would be tried again at the very end, with a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        why = getattr(error, "strerror", error)
        fail(f"the output cannot be written ({why}); a run is in its file: 'thermorun resume' shows it.", 1)
    # A name that is too long, or no text: before it was even looked for.
    fail(f"{name or 'a name'} cannot be used ({getattr(error, 'strerror', None) or error}).", 2)


def fail(sentence: str, code: int) -> NoReturn:
    """One sentence on stderr, and out."""
    click.echo(f"thermorun: {printable(sentence)}", err=True)
    sys.exit(code)


def in_options(sentence: str, arguments: list[str] | None) -> str:
    """The sentence with the option's name in place of the field's, where it begins with one of the command called."""
    command: Any = thermorun
    context = click.Context(thermorun)
    for word in sys.argv[1:] if arguments is None else arguments:
        if not isinstance(command, click.Group) or word not in command.list_commands(context):
            break
        command = command.get_command(context, word)
    name, _, rest = sentence.partition(" ")
    for parameter in command.params:
        if parameter.name == name and isinstance(parameter, click.Option):
            return f"{parameter.opts[0]} {rest}"
    return sentence


__all__ = ["main", "thermorun"]
