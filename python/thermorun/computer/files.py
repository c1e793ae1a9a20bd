"""Machines in files: our HDF5, and the plain text in which the paper's author publishes parameters.

The text is numbers between blanks, in this order (Whitelam 2025, published inference code): couplings between
neighbouring inputs, two an input; input-hidden, input by input; hidden-hidden, (1, 0), (2, 0), (2, 1), ...;
hidden-output, hidden unit by hidden unit; output-output like hidden-hidden; input-output, input by input; then one bias
a unit, inputs first.
"""

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from thermorun.arrays import Array
from thermorun.computer.images import Origin, fingerprint, hashes, training_labels
from thermorun.computer.machine import Machine, Physics, Pixels, connectivity
from thermorun.computer.spec import ComputerTraining
from thermorun.datasets import Images
from thermorun.errors import InputError
from thermorun.store import Axis, RunFile, Variable, read_command

SECTION = "machine"
_PHYSICS, _PIXELS = (tuple(field.name for field in fields(kind)) for kind in (Physics, Pixels))
_CONSTANTS = (*_PHYSICS, *(f"pixel_{name}" for name in _PIXELS))
_OUTPUTS = 10
# Machines that come with the package: where it is installed, and in a checkout.
_SHIPPED = tuple(Path(__file__).parents[level] / "data" for level in (1, 3))
# Couplings between inputs that the text holds for each input.
_INERT_BONDS = 2


def add_section(
    file: RunFile, inputs: int, hidden: int, outputs: int, inert: int = 0, dtype: str = "float64", masked: bool = True
) -> None:
    """Allocates a machine's place in a run's file; without ``masked`` of one whose couplings all exist."""
    units = hidden + outputs
    axes = [
        Axis("unit", np.arange(units), "1", "units that move: hidden, then outputs"),
        Axis("to_unit", np.arange(units), "1", "the other unit of a pair"),
        Axis("input", np.arange(inputs), "1", "inputs, which do not move"),
        Axis("output", np.arange(outputs), "1", "outputs"),
        Axis("constant", np.array(_CONSTANTS), "1", "what is not learned"),
    ]
    variables = [
        Variable("input_couplings", ("unit", "input"), "energy", "W", dtype),
        Variable("couplings", ("unit", "to_unit"), "energy", "J, symmetric", dtype),
        Variable("bias", ("unit",), "energy", "b", dtype),
        Variable("class", ("output",), "1", "label that an output stands for"),
        Variable("value", ("constant",), "1", "value of each constant"),
    ]
    if masked:
        variables += [
            Variable("input_mask", ("unit", "input"), "1", "1 where a coupling exists", "uint8"),
            Variable("mask", ("unit", "to_unit"), "1", "1 where a coupling exists", "uint8"),
        ]
    if inert:
        axes.append(Axis("inert_parameter", np.arange(inert), "1", "parameters that act on inputs only"))
        variables.append(Variable("inert", ("inert_parameter",), "energy", "couplings between inputs, their biases"))
    file.add_section(SECTION, axes, variables)


def write_section(file: RunFile, machine: Machine, masked: bool = True) -> None:
    """Queues a machine for the place that ``add_section`` made."""
    physics, pixels = machine.physics, machine.pixels
    arrays = {
        "input_couplings": machine.input_couplings,
        "couplings": machine.couplings,
        "bias": machine.bias,
        "class": np.array(machine.classes),
        "value": np.array([*asdict(physics).values(), *asdict(pixels).values()]),
    }
    if masked:
        arrays["input_mask"] = machine.allowed[:, : machine.inputs]
        arrays["mask"] = machine.allowed[:, machine.inputs :]
    if machine.inert.size:
        arrays["inert"] = machine.inert
    if machine.names and not file.published:
        note_names(file, machine.names)
    file.write_whole(SECTION, arrays)


def read_section(file: RunFile) -> Machine:
    """The machine in a run's file.  Raises InputError where there is none yet."""
    try:
        stored = file.read(SECTION)
    except KeyError:
        raise InputError(f"{file.path} holds no machine.") from None
    if not np.isfinite(stored["bias"]).all():
        raise InputError(f"{file.path} holds no machine yet: its training has not finished; resume it.")
    # A file from before there was a range has none.
    constants = dict.fromkeys(_CONSTANTS, np.nan)
    constants |= {name: float(value) for name, value in zip(_names(stored), stored["value"], strict=True)}
    mask = None
    if "mask" in stored:
        mask = np.hstack([stored["input_mask"], stored["mask"]]).astype(bool)
    return Machine(
        stored["input_couplings"], stored["couplings"], stored["bias"], len(stored["class"]),
        Physics(*(constants[name] for name in _PHYSICS)), Pixels(*(constants[f"pixel_{name}"] for name in _PIXELS)),
        tuple(int(k) for k in stored["class"]), mask, stored.get("inert", np.empty(0)),
        file.noted("class_names", lambda line: tuple(json.loads(line))) or (),
    )  # fmt: skip


def note_names(file: RunFile, names: tuple[str, ...]) -> None:
    """Keeps the names of classes that are words, while the file is laid out."""
    file.note(class_names=json.dumps(names))


def _names(stored: dict[str, Array]) -> list[str]:
    return [name.decode() if isinstance(name, bytes) else str(name) for name in stored["constant"]]


def add_origin(file: RunFile, images: Images) -> None:
    """Writes what tells whether an image is one of the training's: nothing of the image itself."""
    seen = hashes(images.x)
    file.add_section(
        "training_images",
        [Axis("training_image", np.arange(len(seen)), "1", "image that the machine was trained on")],
        [Variable("hash", ("training_image",), "1", "BLAKE2 of its float32 pixels, 64 bits", "uint64")],
    )
    file.write_whole("training_images", {"hash": seen})
    file.note(images_fingerprint=fingerprint(images.x, training_labels(images)))


def read_origin(file: RunFile, spec: ComputerTraining) -> Origin | None:
    """What a training's file says of its images; None for a file from before they did."""
    known = file.noted("images_fingerprint")
    if known is None:
        return None
    return Origin(spec.dataset, spec.classes, int(known), file.read("training_images")["hash"])


def save(machine: Machine, path: Path | str) -> None:
    """Writes a machine to an HDF5 file of its own, in single precision where that holds it to the last bit.

    Raises InputError where something else is there already.
    """
    single = all(
        np.array_equal(array.astype(np.float32), array)
        for array in (machine.input_couplings, machine.couplings, machine.bias)
    )
    masked = not np.array_equal(
        machine.allowed, connectivity("all-to-all", machine.inputs, machine.hidden, machine.outputs)
    )
    spec = json.dumps({"inputs": machine.inputs, "hidden": machine.hidden, "outputs": machine.outputs})
    with RunFile.create(Path(path), "computer-machine", spec, 0, 1) as file:
        sizes = (machine.inputs, machine.hidden, machine.outputs, machine.inert.size)
        add_section(file, *sizes, "float32" if single else "float64", masked)
        write_section(file, machine, masked)
        file.wait()
        file.publish({})


def load(path: Path | str, inputs: int = 784, outputs: int | None = None) -> Machine:
    """The machine in a file: one of ours, or, where it is not HDF5, the author's text.

    ``path`` may be the name of a machine that comes with the package.  ``inputs`` and ``outputs`` are those of a text,
    which does not say.  Raises InputError.
    """
    path = find(path)
    if is_text(path):
        return read_text(path, inputs, outputs)
    if read_command(path) not in (ComputerTraining.command, "computer-machine"):
        raise InputError(f"{path} holds a run of {read_command(path)}, not a machine.")
    with RunFile.open_to_read(path) as file:
        return read_section(file)


def find(name: Path | str) -> Path:
    """The file of this name; where there is none, the machine of this name that comes with the package.

    Raises InputError where there is neither.
    """
    path = Path(name)
    if path.exists() or path.name != str(name):
        return path
    shipped = {place.stem: place for folder in _SHIPPED for place in folder.glob("*.h5")}
    return shipped.get(str(name), path)


def is_text(path: Path) -> bool:
    """Whether a file is something else than HDF5.  Raises InputError where there is none."""
    if path.exists() and not path.is_file():
        raise InputError(f"file is {path}, which is no file; name a training, a machine, or a text of parameters.")
    try:
        with open(path, "rb") as stream:
            return stream.read(8) != b"\x89HDF\r\n\x1a\n"
    except OSError as error:
        reason = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        raise InputError(f"file is {path}, which {reason}.") from error


def read_text(path: Path | str, inputs: int = 784, outputs: int | None = None) -> Machine:
    """The machine in a text of the author's; as many hidden units as the numbers make.

    Physics, pixels, classes and outputs are those in the text's companion, TEXT.json, that `write_text` made; without
    one they are the paper's.  Raises InputError for a text that is cut short, or is not of this kind.
    """
    path = Path(path)
    said = _companion(path)
    classes = tuple(int(k) for k in said.get("classes", ()))
    if classes and outputs not in (None, len(classes)):
        raise InputError(f"outputs is {outputs}, but {path}.json says that {path} has {len(classes)}.")
    outputs = outputs or len(classes) or _OUTPUTS
    try:
        numbers = np.array(path.read_text(encoding="ascii").split(), np.float64)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise InputError(f"{path} is neither HDF5 nor a text of numbers ({error}).") from error
    hidden = _hidden_units(numbers.size, inputs, outputs)
    if hidden is None:
        raise InputError(
            f"{path} holds {numbers.size:,} numbers, which make no machine of {inputs} inputs and {outputs} outputs"
            f" with any number of hidden units (64 would take {_text_size(inputs, 64, outputs):,}); it is cut short,"
            " or of another kind."
        )
    if not np.isfinite(numbers).all():
        raise InputError(f"{path} holds a number that is not finite.")
    units = hidden + outputs
    sizes = _text_sizes(inputs, hidden, outputs)
    bonds, ih, hh, ho, oo, io, biases = np.split(numbers, np.cumsum(sizes)[:-1])
    couplings = np.zeros((units, units))
    couplings[:hidden, :hidden][np.tril_indices(hidden, -1)] = hh
    couplings[hidden:, hidden:][np.tril_indices(outputs, -1)] = oo
    couplings[hidden:, :hidden] = ho.reshape(hidden, outputs).T
    return Machine(
        np.vstack([ih.reshape(inputs, hidden).T, io.reshape(inputs, outputs).T]),
        couplings + couplings.T, biases[inputs:], outputs, Physics(**said.get("physics", {})),
        Pixels(**said.get("pixels", {})), classes, inert=np.concatenate([bonds, biases[:inputs]]),
        names=tuple(said.get("names", ())),
    )  # fmt: skip


def write_text(machine: Machine, path: Path | str) -> None:
    """Writes a machine as the author's text, every number to its last bit; what it has not of inputs' own is zeros.

    Physics, pixels and classes, which have no place in it, go to TEXT.json beside it; the mask goes nowhere.  Raises
    InputError where one of the two exists.
    """
    hidden, inputs = machine.hidden, machine.inputs
    bonds = _INERT_BONDS * inputs
    inert = machine.inert if machine.inert.size else np.zeros(bonds + inputs)
    blocks = [
        inert[:bonds],
        machine.input_couplings[:hidden].T.ravel(),
        machine.couplings[:hidden, :hidden][np.tril_indices(hidden, -1)],
        machine.couplings[hidden:, :hidden].T.ravel(),
        machine.couplings[hidden:, hidden:][np.tril_indices(machine.outputs, -1)],
        machine.input_couplings[hidden:].T.ravel(),
        inert[bonds:],
        machine.bias,
    ]
    text = " ".join(repr(float(number)) for block in blocks for number in block)
    said = {
        "classes": list(machine.classes),
        "names": list(machine.names),
        "physics": asdict(machine.physics),
        "pixels": asdict(machine.pixels),
    }
    for place, content in ((Path(path), text), (Path(f"{path}.json"), json.dumps(said))):
        try:
            with open(place, "x", encoding="ascii") as stream:
                stream.write(content + "\n")
        except OSError as error:
            raise InputError(f"{place} cannot be written ({error.strerror}).") from error


def _companion(path: Path) -> dict[str, Any]:
    """What TEXT.json says of a text; nothing where there is none.  Raises InputError where it is of another kind."""
    place = Path(f"{path}.json")
    if not place.exists():
        return {}
    try:
        said = json.loads(place.read_text(encoding="ascii"))
        Physics(**said["physics"]), Pixels(**said["pixels"]), [int(k) for k in said["classes"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{place} does not say what belongs to {path} ({error}); remove or restore it.") from error
    found: dict[str, Any] = said
    return found


def _text_sizes(inputs: int, hidden: int, outputs: int) -> list[int]:
    return [
        _INERT_BONDS * inputs, inputs * hidden, hidden * (hidden - 1) // 2, hidden * outputs,
        outputs * (outputs - 1) // 2, inputs * outputs, inputs + hidden + outputs,
    ]  # fmt: skip


def _text_size(inputs: int, hidden: int, outputs: int) -> int:
    return sum(_text_sizes(inputs, hidden, outputs))


def _hidden_units(size: int, inputs: int, outputs: int) -> int | None:
    """The number of hidden units with which a text has ``size`` numbers, or None."""
    hidden = 0
    while _text_size(inputs, hidden, outputs) < size:
        hidden += 1
    return hidden if _text_size(inputs, hidden, outputs) == size else None
