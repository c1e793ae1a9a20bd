"""Fisher metric, friction tensor, geodesics, protocols of least work (Hnybida & Verret 2025, Sect. IV)."""

from thermorun.metric.run import Metric, MetricResult, measure

__all__ = ["Metric", "MetricResult", "measure"]
