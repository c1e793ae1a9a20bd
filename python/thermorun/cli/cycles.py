"""The commands of the latent cycles: train, sample, analyse, continue."""

import json
from pathlib import Path
from typing import Any

import click

from thermorun.cli.options import Count, Counts, Numbers, Words, chosen, run_options, spec_options
from thermorun.cli.run import execute, show
from thermorun.cycles.climbs import CycleCeiling
from thermorun.cycles.family import CycleCirculation
from thermorun.cycles.spec import CycleStudy
from thermorun.errors import InputError

_FILE = click.argument("file", type=click.Path(path_type=Path))
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
_THREADS = click.option("--threads", type=Count(), help="All cores by default; results do not depend on it.")


class _Pair(Counts):
    """Two sizes as in 16:160, or one for both."""

    name = "first:last"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        try:
            sizes = tuple(int(part) for part in str(value).replace(",", ":").split(":"))
        except ValueError:
            self.fail(f"{str(value)[:40]!r}; give two sizes, first and last, as in 16:160.", param, ctx)
        return sizes * 2 if len(sizes) == 1 else sizes


@click.group(short_help="Latent-cycle models: train, sample, analyse.")
def cycles() -> None:
    """Latent cycles: generative models out of equilibrium (Baiesi & Rosso)."""


@cycles.command(short_help="Train models side by side.")
@spec_options(CycleStudy, kinds={"minibatch": _Pair(), "classes": Words()}, without=("fingerprint",))
@run_options
def train(out: Path | None, resume: bool, threads: int | None, as_json: bool, **given: Any) -> None:
    """Train models and analyse them; every epoch streams to an HDF5 file, which holds the data too.

    The defaults are the paper's settings on scikit-learn's bundled 8x8 digits; --dataset mnist-012 is the paper's own
    study of 36 models.  A data set is a name, a file (.npy, .npz, .csv, .h5, IDX) or a folder (IDX files, or pictures
    in a subfolder a class); grey values need a --threshold.
    """
    execute(CycleStudy(**chosen(given)), out, resume, threads, as_json)


@cycles.command(short_help="The likelihood that one-hot states can attain.")
@spec_options(CycleCeiling, kinds={"classes": Words()}, without=("fingerprint",))
@run_options
def ceiling(out: Path | None, resume: bool, threads: int | None, as_json: bool, **given: Any) -> None:
    """The best mixture of Bernoulli products that expectation-maximisation finds, from several starts.

    The stationary law of a model with one-hot states is such a mixture: its likelihood is what training can hope for.
    """
    execute(CycleCeiling(**chosen(given)), out, resume, threads, as_json)


@cycles.command(short_help="What circulation does to a model's chains.")
@_FILE
@spec_options(CycleCirculation, kinds={"production": Numbers()}, without=("file",))
@run_options
def circulation(file: Path, out: Path | None, resume: bool, threads: int | None, as_json: bool, **given: Any) -> None:
    """Models with the stationary law of the one in FILE, and entropy production from none to the largest.

    FILE holds a study with one-hot states, or a ceiling.  All members have the same likelihood; how well do they mix?
    """
    execute(CycleCirculation(file=str(file), **chosen(given)), out, resume, threads, as_json)


@cycles.command("continue", short_help="Train the models of a file further.")
@_FILE
@click.option("--epochs", type=Count(), required=True, help="In all, those of FILE included.")
@click.option("--out", type=click.Path(path_type=Path), help="HDF5 file; by default named after FILE and the epochs.")
@_THREADS
@_JSON
def go_on(file: Path, epochs: int, out: Path | None, threads: int | None, as_json: bool) -> None:
    """Train the models in FILE further, into a new file; FILE stays as it is.

    The minibatch stays at its last size in the epochs that are added: the result is that of a study begun with so many
    epochs and --grow-epochs those of FILE.
    """
    from thermorun.cycles import extend

    out = file.with_name(f"{file.stem}-{epochs}-epochs.h5") if out is None else out
    show(extend(file, epochs=epochs, out=out, threads=threads, show_progress=True), as_json)


@cycles.command(short_help="Generate images from a model.")
@_FILE
@click.option("--model", type=Count(), help="By default the one with the largest log-likelihood.")
@click.option("--chains", type=Count(), default=1024, show_default=True, help="Independent chains.")
@click.option("--steps", type=Count(), default=10, show_default=True, help="Double steps between recorded images.")
@click.option("--records", type=Count(), default=1, show_default=True, help="Images recorded of each chain.")
@click.option("--burn", type=Count(), default=100, show_default=True, help="Double steps before the first.")
@click.option("--seed", type=Count(), default=0, show_default=True, help="Of all random numbers.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="A .npz file, which train --dataset reads; the ending is added."
)
@_THREADS
@_JSON
def sample(file: Path, out: Path | None, model: int | None, threads: int | None, as_json: bool, **given: Any) -> None:
    """Generate images from a model of the study in FILE; writes a .npz file and a picture.  FILE is all it needs."""
    import numpy as np

    from thermorun.cycles import sampling

    result = _study(file)
    index = result.best() if model is None else model
    result.model(index)
    made_from = {"command": "cycles sample", "model": index} | given | {"study": _digest(result, index)}
    out = sampling.npz_name(file.with_name(f"{file.stem}-samples-{index}.npz") if out is None else out)
    sampling.require_free(out, made_from)
    drawn = result.sample(index, threads=threads, **given)
    labels = result.classes_of(drawn.images)
    named = np.array(result.data.names)[labels] if result.data.names else labels
    arrays = {"x": drawn.images.reshape(-1, *result.data.shape), "labels": named, "states": drawn.states.ravel()}
    sampling.save(out, arrays, made_from)
    shares = {result.data.class_name(k): float((labels == k).mean()) for k in result.data.classes.tolist()}
    report = {
        "command": "cycles sample",
        "results": [
            {
                "model": index, "images": len(labels), "class_frequency": shares,
                "chain_steps_per_second": drawn.chain_steps_per_second,
            }
        ],
        "spec": given | {"model": index, "study": str(file)}, "seed": given["seed"], "threads": drawn.threads,
        "file": str(out),
    }  # fmt: skip
    _show_sample(report, drawn, result, out, as_json)


def _show_sample(report: dict[str, Any], drawn: Any, result: Any, out: Path, as_json: bool) -> None:
    """Saves the picture of some images, and prints what they are."""
    from thermorun import plots
    from thermorun.cycles import figures
    from thermorun.errors import RunError

    picture, refused = out.with_suffix(".png"), None
    try:
        plots.save(figures.contact_sheet(drawn.images, result.data.shape), picture)
    except RunError as error:
        refused = str(error)
    report["pictures"] = [] if refused else [str(picture)]
    if as_json:
        click.echo(json.dumps(report, allow_nan=False))
        return
    row = report["results"][0]
    click.echo(f"{row['images']:,} images of model {row['model']}, {row['chain_steps_per_second']:.3g} double steps/s")
    if len(row["class_frequency"]) > 1:
        shares = ", ".join(f"{name}: {share:.3f}" for name, share in row["class_frequency"].items())
        click.echo(f"classes  {shares} (of the nearest point of the data)")
    click.echo(f"file     {out}")
    for path in report["pictures"]:
        click.echo(f"picture  {path}")
    if refused:
        click.echo(f"thermorun: {refused}", err=True)


def _digest(result: Any, index: int) -> int:
    """Of the parameters that images are drawn from."""
    import zlib

    return zlib.crc32(result.theta[index].tobytes())


@cycles.command(short_help="Diagnostics and pictures of a study.")
@_FILE
@click.option("--model", "models", type=Count(), multiple=True, help="Models to draw; may be repeated.")
@click.option("--sigma", type=click.Choice(("averaged", "counted")), default="averaged", show_default=True,
              help="Entropy production in pictures: from averaged M, or counted as in the paper.")  # fmt: skip
@click.option(
    "--samples", type=Count(), help="Estimate M anew, or the likelihood of many bits, from so many samples: see train."
)
@click.option("--out", type=click.Path(path_type=Path), help="HDF5 file for the study with M estimated anew.")
@click.option("--dataset", help="Where the data are now; checked to be those in FILE, which is all that is needed.")
@_THREADS
@_JSON
def analyse(
    file: Path, models: tuple[int, ...], sigma: str, samples: int | None, out: Path | None, dataset: str | None,
    threads: int | None, as_json: bool,
) -> None:  # fmt: skip
    """Diagnostics of the study in FILE, and its pictures: the paper's Figs. 2, 3 and 4 and the latent cycle.

    Drawn are, by default, the likeliest of the models with much entropy production, and the one with the least.
    """
    from thermorun.cycles import extend

    result = _study(file)
    if dataset is not None:
        from thermorun import datasets

        result.spec.on(datasets.load(dataset, result.spec.classes, result.spec.threshold))
    if out is not None and samples is None:
        raise InputError(f"out is {out}; it needs samples, from which M is estimated anew.")
    if samples is not None:
        again = extend(file, samples=samples, out=out, threads=threads, show_progress=True)
        result = again if out is not None else _beside(again, file)
    show(result.with_sigma(sigma).with_portraits(models), as_json)


def _study(file: Path) -> Any:
    from thermorun.cycles.training import read
    from thermorun.runs import load

    return load(file, CycleStudy, read)


def _beside(result: Any, file: Path) -> Any:
    """A result in memory whose pictures go beside a file."""
    from dataclasses import replace

    return replace(result, file=file)
