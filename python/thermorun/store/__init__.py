"""Result files: HDF5 that opens in xarray and h5dump, while a run writes it and after it was killed."""

from thermorun.store.runfile import (
    SCHEMA_VERSION,
    Axis,
    Contents,
    RunFile,
    Stored,
    Variable,
    is_complete,
    read_command,
    read_spec,
)

__all__ = [
    "SCHEMA_VERSION",
    "Axis",
    "Contents",
    "RunFile",
    "Stored",
    "Variable",
    "is_complete",
    "read_command",
    "read_spec",
]
