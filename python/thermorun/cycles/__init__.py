"""Latent cycles: generative models whose hidden states run in circles (Baiesi & Rosso)."""

from thermorun.cycles import exact, markov
from thermorun.cycles.climbs import CeilingResult, CycleCeiling, ceiling
from thermorun.cycles.diagnostics import (
    Diagnostics,
    analyse_models,
    chain_likelihood,
    nearest_class,
    path_entropy_production,
)
from thermorun.cycles.family import CirculationResult, CycleCirculation, circulation
from thermorun.cycles.long_chains import autocorrelation
from thermorun.cycles.mixture import Mixture
from thermorun.cycles.model import Model
from thermorun.cycles.result import StudyResult
from thermorun.cycles.sampling import Fantasies, sample
from thermorun.cycles.spec import CycleStudy
from thermorun.cycles.training import extend, train

__all__ = [
    "CeilingResult",
    "CirculationResult",
    "CycleCeiling",
    "CycleCirculation",
    "CycleStudy",
    "Diagnostics",
    "Fantasies",
    "Mixture",
    "Model",
    "StudyResult",
    "analyse_models",
    "autocorrelation",
    "ceiling",
    "chain_likelihood",
    "circulation",
    "exact",
    "extend",
    "markov",
    "nearest_class",
    "path_entropy_production",
    "sample",
    "train",
]
