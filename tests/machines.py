"""Machines and images that the tests of computers share."""

import numpy as np

from thermorun import datasets
from thermorun.computer import Machine, Physics
from thermorun.computer.action import Statistics

ODD = Physics(J2=0.7, J4=0.4, kT=1.3, mobility=1.1, dt=2e-3, observation_time=0.06)
QUICK = {"hidden": 6, "teacher_epochs": 5, "scale": 100.0, "shots": 2}


def small_machine(seed=0, inputs=5, hidden=4, outputs=2, **others):
    rng = np.random.default_rng(seed)
    units = hidden + outputs
    J = rng.normal(size=(units, units))
    J += J.T
    np.fill_diagonal(J, 0)
    return Machine(rng.normal(size=(units, inputs)), J, rng.normal(size=units), outputs, **others)


def small_statistics(seed=0, points=40, inputs=5, units=6, physics=ODD):
    rng = np.random.default_rng(seed)
    return Statistics.of(rng.normal(size=(points, inputs)), 20 * rng.normal(size=(points, units)), physics)


def two_classes(points=90, inputs=9, seed=0):
    """Images of two classes that a line tells apart, with some noise, and their labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(2, size=points)
    return rng.random((points, inputs)) + 0.9 * labels[:, None] * (np.arange(inputs) < 4), labels


def digits():
    """The bundled digits as they are: images (n, 8, 8) from 0 to 16, and labels."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return bunch.images, bunch.target


def images_of(x, labels):
    return datasets.images_from_arrays(x, labels, name="arrays")
