"""The command that learns any potential in closed loop."""

import json
import math
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from thermorun.cli.console import fail, print_table, run_options
from thermorun.cli.options import Numbers, potential_options
from thermorun.errors import InputError

if TYPE_CHECKING:
    from thermorun.learning import Learn, LearnResult


@click.command()
@potential_options
@click.option("--target", type=Numbers(), help="Parameters that the data come from; built-in potentials have one.")
@click.option(
    "--rule", "rules", multiple=True,
    help="natural (Eq. 53, a matrix), scalar (one number) or gradient (constant); may be repeated."
    "  [default: natural, gradient]",
)  # fmt: skip
@click.option("--tau", type=float, help="Duration, time.  [default: 10]")
@click.option("--accuracy", type=float, help="Share of the loss to be left at tau, the same for every rule.")
@click.option("--eta", type=float, help="Rate of the rule 'gradient'; by default matched to the accuracy, or to 1%.")
@click.option("--metric", help="Of Eq. 53: theory (default), or estimated from the particles and a side ensemble.")
@click.option("--refresh", type=int, help="Steps between two estimates.  [default: 1/25 of all]")
@click.option("--regularise", type=float, help="Added to an estimated g, in mean eigenvalues.  [default: 0.001]")
@click.option("--side", type=int, help="Particles of the side ensemble, a replica.  [default: 4096]")
@click.option("--particles", type=int, help="Particles that share one theta.  [default: 65536]")
@click.option("--replicas", type=int, help="Independent runs; their spread is the error.  [default: 8]")
@click.option("--steps", type=int, help="Time steps, instead of --dt.")
@click.option("--samples", type=int, help="Learn from a finite sample of this size instead of exact means.")
@click.option("--theorem", type=Numbers(), help="Durations, as in 5,10,20: how Eq. 53 nears Eq. 54 (Theorem 1).")
@run_options
def learn(
    as_json: bool, out: Path | None, resume: bool, threads: int | None, dt: float | None,
    theorem: tuple[float, ...] | None, **given: Any,
) -> None:  # fmt: skip
    """Learn any potential, with a matrix learning rate (Hnybida & Verret 2025).

    By default it learns barrier and tilt of a double well, beside plain gradient flow, and measures excess work and the
    bias of the objective.  Writes an HDF5 file and a picture.
    """
    from thermorun import learning

    fields = {name: value for name, value in given.items() if value not in (None, ())}
    if dt is not None:
        if not dt > 0:
            raise InputError(f"dt is {dt}; it must be a positive finite number.")
        fields.setdefault("steps", math.ceil(fields.get("tau", learning.Learn.tau) / dt))
    run_learn(learning.Learn(**fields), out, resume, threads, as_json, theorem)


def run_learn(
    spec: "Learn",
    out: Path | None,
    resume: bool,
    threads: int | None,
    as_json: bool,
    taus: tuple[float, ...] | None = None,
) -> None:
    """Learns, prints, draws."""
    from thermorun import learning
    from thermorun.learning import figures

    if out is None:
        out = Path(f"learn-{zlib.crc32(spec.to_json().encode()):08x}.h5")
    try:
        result = learning.learn(spec, out=out, resume=resume, threads=threads, show_progress=True)
    except KeyboardInterrupt:
        fail(f"stopped; all that is done is in {out}: go on with 'thermorun resume {out}'.", 130)
    nearing = None if taus is None else learning.theorem(spec, taus, threads=threads, show_progress=True)
    picture = out.with_suffix(".png")
    figures.learned(result).savefig(picture, dpi=150)
    if as_json:
        report = result.to_dict() | {"pictures": [str(picture)]}
        if nearing is not None:
            rows = [
                {"tau": one.tau, "deviation": one.deviation, "measured": one.measured.to_dict()} for one in nearing[0]
            ]
            report["theorem"] = {"passages": rows, "exponent": nearing[1]}
        click.echo(json.dumps(report, allow_nan=False))
        return
    _print(result)
    if nearing is not None:
        print_table(
            "Theorem 1: the largest deviation of Eq. 53 from the natural-gradient flow of Eq. 54",
            ("tau / time", "infinitely many particles", "measured"),
            [(f"{one.tau:g}", f"{one.deviation:.6f}", str(one.measured)) for one in nearing[0]],
            f"in units of the distance from start to target; it falls as tau^{nearing[1]:.2f}",
        )
    click.echo(f"file     {out}")
    click.echo(f"picture  {picture}")


def _print(result: "LearnResult") -> None:
    spec = result.spec
    rows = []
    for rule in result:
        report = rule.to_dict()
        exact, unknown = report["exact_excess_work"], report["excess_work"] is None
        truth = ("", "") if exact is None else (f"{exact:.6f}", f"{rule.excess_work.z(exact):+.1f}")
        rows.append(
            (
                rule.rule,
                f"{rule.constant:.4g}",
                str(rule.estimate("work")),
                "" if unknown else str(rule.excess_work),
                *truth,
                "" if unknown else f"{rule.identity_gap.mean:+.1e}",
                "" if unknown else f"{report['loss']['mean']:.1e}",
                ", ".join(f"{value:.4f}" for value in report["theta_final"]),
            )
        )
    names = ", ".join(spec.built().parameters)
    rate = sum(rule.particle_steps_per_second for rule in result) / len(result.rules)
    residual = max(rule.to_dict()["first_law_residual"] for rule in result)
    print_table(
        f"Learning of {spec.potential}",
        (
            "rule",
            "eta or horizon",
            "W / energy",
            "W_ex / energy",
            "exact",
            "z",
            "L_bias - W_ex",
            "loss / energy",
            names,
        ),
        rows,
        f"{spec.particles:,} particles x {spec.replicas} replicas x {spec.steps:,} steps a rule, {spec.integrator},"
        f" {spec.precision}, metric from {'theory' if spec.metric == 'theory' else 'the particles'}\n"
        "exact: W_ex with infinitely many particles; loss: L_MLE above its least; all at tau\n"
        f"first law: |dE - W - Q| <= {residual:.0e}; {rate:.3g} particle-steps/s on {result.threads} threads",
    )
