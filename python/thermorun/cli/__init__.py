"""The command line: words in, specs out; results printed as a table or as JSON.

Exit codes: 0, 1 for a run that could not go on, 2 for input that cannot be used, 130 after Ctrl-C.
"""

import json
import sys
import zlib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from thermorun import __version__
from thermorun.cli.computer import computer, run_classification, run_sweep, run_training
from thermorun.cli.console import fail, print_table, run_options
from thermorun.cli.cycles import cycles, run_study
from thermorun.cli.free_energy import free_energy, run_free_energy
from thermorun.cli.learn import learn, run_learn
from thermorun.cli.metric import metric, run_metric
from thermorun.errors import InputError, RunError

if TYPE_CHECKING:
    from thermorun.learning import ExcessWork, ExcessWorkResult


def main() -> NoReturn:
    """Runs the command line; errors become one sentence on stderr."""
    try:
        thermorun.main(standalone_mode=False)
    except click.ClickException as error:
        fail(error.format_message(), 2)
    except InputError as error:
        fail(str(error), 2)
    except RunError as error:
        fail(str(error), 1)
    except (click.Abort, KeyboardInterrupt):
        fail("stopped.", 130)
    sys.exit(0)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__)
def thermorun() -> None:
    """Stochastic thermodynamics of learning, on a CPU, with error bars and exact values."""


for _command in (computer, cycles, free_energy, learn, metric):
    thermorun.add_command(_command)


@thermorun.command("excess-work")
@click.option(
    "--figure", type=click.IntRange(1, 6), default=6, show_default=True, help="Settings of the paper's figure."
)
@click.option(
    "--protocol",
    "protocols",
    multiple=True,
    help="discontinuous, slow-driving, continuous, constant or straight-line; may be repeated.",
)
@click.option("--mobility", type=float, help="mu, 1/time.")
@click.option("--beta", type=float, help="1/kT, 1/energy.")
@click.option("--tau", type=float, help="Duration, time.")
@click.option("--theta0", type=float, help="Centre of the trap at the start, length.")
@click.option("--target", type=float, help="theta*, the mean of the data, length.")
@click.option("--u0", type=float, help="Mean of x at the start, length; by default what the protocol asks for.")
@click.option("--eta", type=float, help="Learning rate of the protocol 'constant', 1/time.")
@click.option("--use-target", is_flag=True, default=None, help="Let 'discontinuous' use theta* when u0 is not theta0.")
@click.option("--particles", type=int, help="Particles that share one theta.  [default: 1048576]")
@click.option("--replicas", type=int, help="Independent runs of each protocol.  [default: 1]")
@click.option("--steps", type=int, help="Time steps.  [default: 1000, or 40 for each 1/mobility or 1/eta]")
@click.option("--integrator", help="exact (Ornstein-Uhlenbeck, default) or euler-maruyama.")
@click.option("--samples", type=int, help="Size of a finite data sample, instead of the exact mean of the data.")
@click.option("--minibatch", type=int, help="Draw so many of the samples at every step.")
@click.option("--keep-work", is_flag=True, default=None, help="Keep and draw every particle's own work.")
@click.option("--check-dt", is_flag=True, help="Run again with half the time step and report the time-step bias.")
@run_options
def excess_work(figure: int, as_json: bool, check_dt: bool, **given: Any) -> None:
    """Excess work of learning a harmonic trap (Hnybida & Verret 2025).

    By default it reproduces the paper's Fig. 6: cumulative excess work of four learning-rate schedules, a million
    particles each, beside the exact values.  Writes an HDF5 file and a picture.
    """
    from thermorun import learning

    out, resume, threads = given.pop("out"), given.pop("resume"), given.pop("threads")
    fields = learning.FIGURES[figure] | {name: value for name, value in given.items() if value not in (None, ())}
    _run_excess_work(learning.ExcessWork(**fields), out, resume, threads, as_json, check_dt)


@thermorun.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--threads", type=int, help="All cores by default; results do not depend on it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def resume(file: Path, threads: int | None, as_json: bool) -> None:
    """Go on with the run in FILE, whatever stopped it; the results are those of a run that was never stopped."""
    from thermorun.store import read_command, read_spec

    if not file.exists():
        raise InputError(f"FILE is {file}, which does not exist: there is nothing to resume.")
    command = read_command(file)
    if command not in _RESUMABLE:
        raise InputError(f"FILE is {file}, which holds a {command}: there is nothing to resume.")
    module, kind, run = _RESUMABLE[command]
    spec = getattr(import_module(f"thermorun.{module}"), kind).from_json(read_spec(file))
    run(spec, file, True, threads, as_json)


def _run_excess_work(
    spec: "ExcessWork", out: Path | None, resume: bool, threads: int | None, as_json: bool, check_dt: bool = False
) -> None:
    from thermorun import learning

    if out is None:
        out = Path(f"excess-work-{zlib.crc32(spec.to_json().encode()):08x}.h5")
    try:
        result = learning.excess_work(spec, out=out, resume=resume, threads=threads, show_progress=True)
    except KeyboardInterrupt:
        fail(f"stopped; all that is done is in {out}: go on with 'thermorun resume {out}'.", 130)
    halved = learning.halve_step(spec, threads=threads, show_progress=True) if check_dt else None
    pictures = _pictures(result, out)
    if as_json:
        report = result.to_dict() | {"pictures": [str(picture) for picture in pictures]}
        if halved is not None:
            report["time_step"] = [check.to_dict() for check in learning.compare_steps(result, halved)]
        click.echo(json.dumps(report, allow_nan=False))
        return
    _print_excess_work(result)
    if halved is not None:
        _print_time_step(result, halved)
    click.echo(f"file     {out}")
    for picture in pictures:
        click.echo(f"picture  {picture}")


def _pictures(result: "ExcessWorkResult", out: Path) -> list[Path]:
    from thermorun.learning import figures

    drawn = {}
    if result.spec.snapshots:
        for protocol in result:
            suffix = ".png" if len(result.protocols) == 1 else f"-{protocol.label}.png"
            drawn[out.with_name(out.stem + suffix)] = figures.ridges(protocol)
    else:
        drawn[out.with_suffix(".png")] = figures.cumulative_work(result)
    if result.spec.keep_work:
        for protocol in result:
            drawn[out.with_name(f"{out.stem}-work-{protocol.label}.png")] = figures.work_distribution(protocol)
    for path, figure in drawn.items():
        figure.savefig(path, dpi=150)
    return list(drawn)


def _print_excess_work(result: "ExcessWorkResult") -> None:
    rows = []
    for protocol in result:
        row = protocol.to_dict()
        formula = row["closed_form"]
        rows.append(
            (
                protocol.label,
                str(protocol.excess_work),
                f"{row['exact']:.6f}",
                f"{protocol.excess_work.z(row['exact']):+.1f}",
                "" if formula is None else f"{formula['value']:.6f} {formula['equation'].removeprefix('Eq. ')}",
                f"{row['theta_final']:.4f}",
                f"{row['u_final']:.4f}",
            )
        )
    spec = result.spec
    rate = sum(protocol.particle_steps_per_second for protocol in result) / len(result.protocols)
    residual = max(protocol.first_law_residual for protocol in result)
    print_table(
        "Excess work of learning a harmonic trap",
        ("protocol", "W_ex / energy", "exact", "z", "paper, Eq.", "theta", "u"),
        rows,
        f"{spec.particles:,} particles x {spec.replicas} replicas x {spec.steps:,} steps a protocol, {spec.precision}\n"
        "W_ex, theta, u: at tau, end jumps included; z: from the exact value, in standard errors\n"
        f"first law: |dE - W - Q| <= {residual:.0e}; {rate:.3g} particle-steps/s on {result.threads} threads",
    )


def _print_time_step(result: "ExcessWorkResult", halved: "ExcessWorkResult") -> None:
    from thermorun import learning

    rows = [
        (check.label, str(check.difference), f"{check.bias:+.2e}", f"{check.bias_over_stderr:+.4f}")
        for check in learning.compare_steps(result, halved)
    ]
    print_table(
        f"Time step: {result.spec.steps:,} steps against {halved.spec.steps:,}",
        ("protocol", "W(dt) - W(dt/2) / energy", "bias at dt / energy", "bias / stderr"),
        rows,
        "bias: the scheme's own mean with infinitely many particles, minus the exact value; free of noise",
    )


# The commands whose files can be gone on with: the module and the class of the spec, and what runs it.
_RESUMABLE: dict[str, tuple[str, str, Callable[..., None]]] = {
    "excess-work": ("learning", "ExcessWork", _run_excess_work),
    "learn": ("learning", "Learn", run_learn),
    "metric": ("metric", "Metric", run_metric),
    "free-energy": ("free_energy", "FreeEnergy", run_free_energy),
    "cycles": ("cycles", "CycleStudy", run_study),
    "computer": ("computer", "ComputerTraining", run_training),
    "computer-classify": ("computer", "Classification", run_classification),
    "computer-sweep": ("computer", "Sweep", run_sweep),
}
