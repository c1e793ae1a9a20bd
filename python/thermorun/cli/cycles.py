"""The commands of the latent cycles: train, sample, analyse."""

import json
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from thermorun.cli.console import Classes, fail, print_table, run_options
from thermorun.errors import InputError, require_count

if TYPE_CHECKING:
    from thermorun.cycles import CycleStudy, StudyResult


class _Pair(click.ParamType[tuple[int, ...]]):
    """Two sizes as in 16:160, or one for both."""

    name = "first:last"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        try:
            sizes = tuple(int(part) for part in str(value).split(":"))
        except ValueError:
            raise InputError(f"minibatch is {value!r}; give two sizes, first and last, as in 16:160.") from None
        return sizes * 2 if len(sizes) == 1 else sizes


@click.group()
def cycles() -> None:
    """Latent cycles: generative models out of equilibrium (Baiesi & Rosso)."""


@cycles.command()
@click.option("--dataset", help="digits (default), mnist-012, mnist, or a .npy or .npz file of bits.")
@click.option("--classes", type=Classes(), help="Only these classes of the data set.")
@click.option("--encoding", help="Of hidden states: softmax (default), sigmoid or bits.")
@click.option("--hidden", type=int, help="Hidden units.  [default: 6]")
@click.option("--tied", is_flag=True, default=None, help="The equilibrium baseline, wbar = w.")
@click.option("--models", type=int, help="Models trained side by side.  [default: 36]")
@click.option("--epochs", type=int, help="[default: 120]")
@click.option("--steps-per-epoch", type=int, help="Gradient steps.  [default: 30]")
@click.option("--chain-steps", type=int, help="Double steps of the chain before a gradient step.  [default: 48]")
@click.option("--learning-rate", type=float, help="Of RMSProp.  [default: 0.1]")
@click.option("--minibatch", type=_Pair(), help="First and last size, linear between.  [default: 16:160]")
@click.option("--samples", type=int, help="Visible samples a state for the final M.  [default: 2000]")
@click.option("--keep-every", type=int, help="Epochs between kept parameters.  [default: 1]")
@run_options
def train(as_json: bool, out: Path | None, resume: bool, threads: int | None, **given: Any) -> None:
    """Train models and analyse them; every epoch streams to an HDF5 file.

    The defaults are the paper's settings on scikit-learn's bundled 8x8 digits; --dataset mnist-012 is the paper's own
    study of 36 models.
    """
    from thermorun import cycles as subject

    spec = subject.CycleStudy(**{name: value for name, value in given.items() if value is not None})
    run_study(spec, out, resume, threads, as_json)


def run_study(spec: "CycleStudy", out: Path | None, resume: bool, threads: int | None, as_json: bool) -> None:
    """Trains, prints, and draws Fig. 2."""
    from thermorun import cycles as subject
    from thermorun.cycles import figures

    if out is None:
        out = Path(f"cycles-{zlib.crc32(spec.to_json().encode()):08x}.h5")
    try:
        result = subject.train(spec, out=out, resume=resume, threads=threads, show_progress=True)
    except KeyboardInterrupt:
        fail(f"stopped; all that is done is in {out}: go on with 'thermorun resume {out}'.", 130)
    picture = out.with_name(f"{out.stem}-training.png")
    figures.training(result).savefig(picture, dpi=150)
    if as_json:
        click.echo(json.dumps(result.to_dict() | {"pictures": [str(picture)]}, allow_nan=False))
        return
    _print(result)
    click.echo(f"file     {out}")
    click.echo(f"picture  {picture}")


@cycles.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--model", type=int, help="By default the one with the largest log-likelihood.")
@click.option("--chains", type=int, default=1024, show_default=True, help="Independent chains.")
@click.option("--steps", type=int, default=10, show_default=True, help="Double steps between recorded images.")
@click.option("--records", type=int, default=1, show_default=True, help="Images recorded of each chain.")
@click.option("--burn", type=int, default=100, show_default=True, help="Double steps before the first.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--threads", type=int, help="All cores by default; results do not depend on it.")
@click.option("--out", type=click.Path(path_type=Path), help="A .npz file; train --dataset reads it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def sample(
    file: Path, model: int | None, chains: int, steps: int, records: int, burn: int, seed: int,
    threads: int | None, out: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Generate images from a model of the study in FILE; writes a .npz file and a picture."""
    import numpy as np

    from thermorun import cycles as subject
    from thermorun.cycles import figures
    from thermorun.threads import on_threads

    result = subject.load(file)
    if chains < 1:
        raise InputError(f"chains is {chains}; it must be at least 1.")
    index = int(np.nanargmax(result.analysis.log_likelihood)) if model is None else model
    chosen = result.model(index)
    start = result.data.x[np.arange(chains) % len(result.data.x)]
    with on_threads(threads):
        drawn = subject.sample(chosen, start, steps=steps, records=records, burn=burn, seed=seed)
    images = drawn.x.reshape(-1, drawn.x.shape[-1])
    classes = subject.nearest_class(images, result.data)
    out = file.with_name(f"{file.stem}-samples-{index}.npz") if out is None else out
    np.savez_compressed(out, x=images.reshape(-1, *result.data.shape), labels=classes, states=drawn.states.ravel())
    picture = out.with_suffix(".png")
    figures.contact_sheet(images, result.data.shape).savefig(picture, dpi=150)
    shares = {int(k): float((classes == k).mean()) for k in result.data.classes}
    report = {
        "model": index, "images": len(images), "class_frequency": shares,
        "chain_steps_per_second": drawn.chain_steps_per_second, "file": str(out), "pictures": [str(picture)],
    }  # fmt: skip
    if as_json:
        click.echo(json.dumps(report))
        return
    click.echo(f"{len(images):,} images of model {index}, {drawn.chain_steps_per_second:.3g} double steps/s")
    click.echo("classes  " + ", ".join(f"{k}: {share:.3f}" for k, share in shares.items()))
    click.echo(f"file     {out}\npicture  {picture}")


@cycles.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--model", "chosen", type=int, multiple=True, help="Models to draw; may be repeated.")
@click.option("--samples", type=int, help="Estimate M anew, from so many visible samples a state.")
@click.option("--threads", type=int, help="All cores by default; results do not depend on it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def analyse(file: Path, chosen: tuple[int, ...], samples: int | None, threads: int | None, as_json: bool) -> None:
    """Diagnostics of the study in FILE, and its pictures: the paper's Figs. 2, 3 and 4 and the latent cycle.

    By default the models with the largest and the smallest entropy production are drawn.
    """
    from thermorun import cycles as subject
    from thermorun.cycles import figures
    from thermorun.threads import on_threads

    result = subject.load(file)
    with on_threads(threads):
        if samples is not None:
            require_count("samples", samples, 2)
            result = result.analysed_again(samples)
        models = list(chosen) or result.extremes()
        pictures = {
            "fig2": figures.training(result), "fig4": figures.indicators(result),
            "autocorrelation": figures.autocorrelations(result, models),
        }  # fmt: skip
        for index in models:
            pictures[f"fig3-model-{index}"] = figures.portrait(result, index)
            if figures.can_draw_cycle(result):
                pictures[f"cycle-model-{index}"] = figures.cycle(result, index)
    paths = []
    for name, picture in pictures.items():
        paths.append(file.with_name(f"{file.stem}-{name}.png"))
        picture.savefig(paths[-1], dpi=150)
    if as_json:
        click.echo(json.dumps(result.to_dict() | {"pictures": [str(path) for path in paths]}, allow_nan=False))
        return
    _print(result)
    for path in paths:
        click.echo(f"picture  {path}")


def _print(result: "StudyResult") -> None:
    import numpy as np

    a, spec = result.analysis, result.spec
    order = np.argsort(np.nan_to_num(a.entropy_production, nan=np.inf), kind="stable")
    rows = [
        (
            str(m),
            str(result.estimate("log_likelihood", m)),
            str(result.estimate("entropy_production", m)),
            f"{a.entropy_production_half[m]:.2f}",
            f"{a.decorrelation_time[m]:.3g}",
            f"{a.second_eigenvalue[m]:.4f}",
            f"{a.mean_diagonal[m]:.4f}",
            f"{a.kl[m]:.2g}",
            "" if result.stopped[m] < 0 else f"stopped at step {result.stopped[m]}",
        )
        for m in order
    ]
    states = a.matrix.shape[-1]
    print_table(
        f"Latent cycles on {result.data.name}: {spec.encoding}{', tied' if spec.tied else ''}, {spec.hidden} hidden",
        ("model", "log-likelihood / nat", "sigma / nat", "counted", "tau", "|lambda_2|", "diagonal", "KL", ""),
        rows,
        f"{len(result.data.x):,} points of {result.data.x.shape[1]} bits; {spec.models} models x {spec.steps:,}"
        f" gradient steps in {result.train_seconds:.1f} s on {result.threads} threads\n"
        "sigma: a double step, Rao-Blackwell; counted: with half a count added to each transition; tau in double steps"
        + (f"; diagonal: 1 / {states} = {1 / states:.4f} at random" if states else ""),
    )
