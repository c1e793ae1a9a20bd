"""Result files: HDF5 that opens in xarray and h5dump, while a run writes it and after it was killed."""

from thermorun.store.inspect import is_complete, read_command, read_spec
from thermorun.store.layout import SCHEMA_VERSION, Axis, Contents, Stored, Variable
from thermorun.store.runfile import Earlier, RunFile

__all__ = [
    "SCHEMA_VERSION",
    "Axis",
    "Contents",
    "Earlier",
    "RunFile",
    "Stored",
    "Variable",
    "is_complete",
    "read_command",
    "read_spec",
]
