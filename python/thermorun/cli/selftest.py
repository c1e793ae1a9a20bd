"""The command that checks this machine."""

import json

import click

from thermorun.cli.run import width


@click.command("selftest", short_help="Check this machine against exact laws.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def selftest(as_json: bool) -> None:
    """Check this machine: random numbers, exact laws of every subject, equal bits, files, a kill.

    Takes about half a minute once the kernels are compiled, a few minutes before.  Exit code 1 where a check fails.
    """
    from thermorun.selftest import selftest

    report = selftest(show_progress=True)
    click.echo(json.dumps(report.to_dict(), allow_nan=False) if as_json else report.table().render(width()))
    if not report.passed:
        raise click.exceptions.Exit(1)
