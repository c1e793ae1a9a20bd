"""The command that learns any potential in closed loop."""

import math
from pathlib import Path
from typing import Any

import click

from thermorun.cli.options import Numbers, chosen, run_options, spec_options
from thermorun.cli.run import execute, free_name, refuse_shard, show, width
from thermorun.errors import InputError
from thermorun.learning.rates import RULES
from thermorun.learning.spec import Learn
from thermorun.specs import positive


@click.command(short_help="Any potential learned in closed loop.")
@spec_options(
    Learn,
    names={"rules": "--rule"},
    kinds={"rules": click.Choice(RULES), "theta": Numbers(), "target": Numbers()},
    without=("fingerprint",),
)
@click.option("--dt", type=float, help="Time step, in place of --steps, time.")
@click.option("--theorem", type=Numbers(), help="Durations, as in 5,10,20: how Eq. 53 nears Eq. 54 (Theorem 1).")
@run_options
def learn(
    out: Path | None, resume: bool, threads: int | None, as_json: bool, dt: float | None,
    theorem: tuple[float, ...] | None, **given: Any,
) -> None:  # fmt: skip
    """Learn any potential, with a matrix learning rate (Hnybida & Verret 2025).

    By default it learns barrier and tilt of a double well, beside plain gradient flow, and measures excess work and the
    bias of the objective.  Data are those of a target, or your own (--data).  Repeat --rule for several rules.  Writes
    an HDF5 file and a picture.
    """
    fields = chosen(given)
    if dt is not None:
        if "steps" in fields:
            raise InputError("dt and steps are both given; they say the same.")
        fields["steps"] = math.ceil(positive("tau", fields.get("tau", Learn.tau)) / positive("dt", dt))
    spec = Learn(**fields)
    if theorem is None:
        execute(spec, out, resume, threads, as_json)
        return
    refuse_shard("--theorem")
    from thermorun.learning.theorem import parts
    from thermorun.learning.theorem import theorem as near

    parts(spec, theorem)  # refused now, not after the run
    result = spec.run(out=out or free_name(spec), resume=resume, threads=threads, show_progress=True)
    nearing = near(spec, theorem, threads=threads, show_progress=True)
    show(result, as_json, theorem=nearing.to_dict())
    if not as_json:
        click.echo(nearing.table().render(width()))
