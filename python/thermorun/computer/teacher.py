"""The teacher: a small neural network, or a user's own activations, and the biases that its activations become."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from thermorun.arrays import Array
from thermorun.computer.spec import ComputerTraining
from thermorun.datasets import Images, read_arrays
from thermorun.errors import InputError

# The network sees inputs of this norm: of the norm that machines like, they saturate its tanh from the start.
_NORM = 10.0
_BATCH = 200
_RATE = 2e-3
# Weight decay a minibatch of 200.  It costs the teacher half a percent, and gives activations that are easier to mimic:
# the machine gains one.
_DECAY = 0.5


@dataclass(frozen=True)
class Teacher:
    """A network inputs - hidden/2 - hidden/2 - classes with tanh in its hidden layers.

    ``weights`` and ``biases``, one a layer, float32.
    """

    weights: tuple[Array, ...]
    biases: tuple[Array, ...]

    def activations(self, inputs: Array) -> tuple[Array, Array]:
        """Activations of all hidden units (points, hidden) and logits (points, classes)."""
        layer = inputs * np.float32(_NORM / np.linalg.norm(inputs[0]))
        hidden = []
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            layer = np.tanh(layer @ weight + bias)
            hidden.append(layer)
        return np.hstack(hidden), layer @ self.weights[-1] + self.biases[-1]

    def accuracy(self, inputs: Array, labels: Array) -> float:
        """Share of the points whose largest logit is that of their label."""
        return float(np.mean(np.argmax(self.activations(inputs)[1], axis=1) == labels))


def layers(spec: ComputerTraining) -> tuple[int, int]:
    """The two hidden layers that make up ``spec.hidden`` units."""
    return (spec.hidden // 2, spec.hidden - spec.hidden // 2)


def train(spec: ComputerTraining, inputs: Array, labels: Array, epoch_done: Callable[[], None]) -> Teacher:
    """Trains the network with scikit-learn's Adam; calls ``epoch_done`` after every epoch.

    That must look for a Ctrl-C that is pending: scikit-learn swallows one that finds it at work.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    batch = min(_BATCH, max(1, len(inputs) // 20))
    network = MLPClassifier(
        layers(spec), activation="tanh", batch_size=batch, learning_rate_init=_RATE,
        alpha=_DECAY * batch / _BATCH, random_state=spec.seed % 2**32,
    )  # fmt: skip
    scaled = inputs.astype(np.float32) * np.float32(_NORM / np.linalg.norm(inputs[0]))
    classes = np.arange(labels.max() + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", "Training interrupted", UserWarning)
        for _ in range(spec.teacher_epochs):
            network.partial_fit(scaled, labels, classes=classes)
            epoch_done()
    weights, biases = list(network.coefs_), list(network.intercepts_)
    if weights[-1].shape[1] == 1:
        # Two classes share one logistic unit: logits -z/2 and z/2 say the same.
        weights[-1] = weights[-1] * np.array([[-0.5, 0.5]], np.float32)
        biases[-1] = biases[-1] * np.array([-0.5, 0.5], np.float32)
    return Teacher(tuple(w.astype(np.float32) for w in weights), tuple(b.astype(np.float32) for b in biases))


def given_activations(path: Path, spec: ComputerTraining, images: Images) -> tuple[Array, Array]:
    """A user's own activations of the training points: arrays ``hidden`` and ``logits`` in a .npz file.

    Raises InputError where they are not one row a training point, ``spec.hidden`` and one column a class wide.
    """
    arrays = read_arrays(path)
    shapes = {"hidden": (len(images.x), spec.hidden), "logits": (len(images.x), len(images.classes))}
    for name, shape in shapes.items():
        if name not in arrays:
            raise InputError(f"teacher is {path}, which has no array {name!r}; it must have 'hidden' and 'logits'.")
        if arrays[name].shape != shape:
            raise InputError(
                f"teacher is {path}, whose {name!r} has shape {arrays[name].shape}; for this data set it must be"
                f" {shape}, one row a training point."
            )
        if arrays[name].dtype.kind not in "iuf" or not np.isfinite(arrays[name]).all():
            raise InputError(f"teacher is {path}, whose {name!r} holds something else than finite numbers.")
    return arrays["hidden"], arrays["logits"]


def targets(spec: ComputerTraining, hidden: Array, logits: Array, labels: Array) -> Array:
    """Activations A times scale c, (points, units): the idealised trajectory of a unit has the bias -c A.

    Hidden units take the teacher's activations; outputs tanh(logit / softness), logit / softness, or, one-hot, 1 for
    the label and -1 for the others.
    """
    if spec.targets == "one-hot":
        outputs = np.where(np.arange(logits.shape[1]) == labels[:, None], 1.0, -1.0)
    else:
        outputs = logits / spec.softness
        if spec.targets == "tanh":
            outputs = np.tanh(outputs)
    return spec.scale * np.hstack([hidden, outputs]).astype(np.float64)
