"""Thermodynamic computers (Whitelam 2025), trained to follow a teacher or through their own noise."""

from thermorun.computer.classification import classify
from thermorun.computer.experiments.compare import compare
from thermorun.computer.experiments.compare_results import ComparisonResult
from thermorun.computer.experiments.device_results import DevicesResult
from thermorun.computer.experiments.devices import devices
from thermorun.computer.experiments.energy import energy
from thermorun.computer.experiments.energy_results import EnergyResult
from thermorun.computer.experiments.spec import Comparison, Devices, Energy
from thermorun.computer.files import load as load_machine
from thermorun.computer.files import save as save_machine
from thermorun.computer.files import write_text
from thermorun.computer.generative.result import GenerationResult
from thermorun.computer.generative.run import generate
from thermorun.computer.generative.spec import Generation
from thermorun.computer.machine import Machine, Physics, Pixels, Trajectories, connectivity
from thermorun.computer.result import ClassificationResult, SweepResult, TrainingResult
from thermorun.computer.score import Accuracy, Score
from thermorun.computer.spec import Classification, ComputerTraining, Sweep
from thermorun.computer.sweeping import sweep
from thermorun.computer.training import train

__all__ = [
    "Accuracy",
    "Classification",
    "ClassificationResult",
    "Comparison",
    "ComparisonResult",
    "ComputerTraining",
    "Devices",
    "DevicesResult",
    "Energy",
    "EnergyResult",
    "Generation",
    "GenerationResult",
    "Machine",
    "Physics",
    "Pixels",
    "Score",
    "Sweep",
    "SweepResult",
    "TrainingResult",
    "Trajectories",
    "classify",
    "compare",
    "connectivity",
    "devices",
    "energy",
    "generate",
    "load_machine",
    "save_machine",
    "sweep",
    "train",
    "write_text",
]
