"""Fisher metric, friction tensor, geodesics, protocols of least work (Hnybida & Verret 2025, Sect. IV)."""

from thermorun.metric.points import measure
from thermorun.metric.protocols import drive
from thermorun.metric.result import DriveResult, ExactMetric, MetricResult, PointResult, Work
from thermorun.metric.spec import Drive, Metric

__all__ = [
    "Drive",
    "DriveResult",
    "ExactMetric",
    "Metric",
    "MetricResult",
    "PointResult",
    "Work",
    "drive",
    "measure",
]
