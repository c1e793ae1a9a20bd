"""Result files: HDF5 that opens in xarray and h5dump, while a run writes it and after it was killed."""

from thermorun.store.inspect import is_complete, read_command, read_part, read_spec, reading
from thermorun.store.layout import SCHEMA_VERSION, Axis, Contents, Earlier, Stored, Variable
from thermorun.store.locks import written_now
from thermorun.store.merging import merge
from thermorun.store.runfile import RunFile
from thermorun.store.shards import Cut, Part
from thermorun.store.survey import Survey, faults, repair, survey

__all__ = [
    "SCHEMA_VERSION",
    "Axis",
    "Contents",
    "Cut",
    "Earlier",
    "Part",
    "RunFile",
    "Stored",
    "Survey",
    "Variable",
    "faults",
    "is_complete",
    "merge",
    "read_command",
    "read_part",
    "read_spec",
    "reading",
    "repair",
    "survey",
    "written_now",
]
