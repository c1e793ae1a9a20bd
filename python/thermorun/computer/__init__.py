"""Thermodynamic computers trained by the Onsager-Machlup action (Whitelam 2025)."""

from thermorun.computer.files import load as load_machine
from thermorun.computer.files import save as save_machine
from thermorun.computer.files import write_text
from thermorun.computer.machine import Machine, Physics, Pixels, Trajectories, connectivity
from thermorun.computer.measurement import Classification, ClassificationResult, Sweep, SweepResult, classify, sweep
from thermorun.computer.result import TrainingResult
from thermorun.computer.score import Score, Share
from thermorun.computer.spec import ComputerTraining
from thermorun.computer.training import load, train

__all__ = [
    "Classification",
    "ClassificationResult",
    "ComputerTraining",
    "Machine",
    "Physics",
    "Pixels",
    "Score",
    "Share",
    "Sweep",
    "SweepResult",
    "TrainingResult",
    "Trajectories",
    "classify",
    "connectivity",
    "load",
    "load_machine",
    "save_machine",
    "sweep",
    "train",
    "write_text",
]
