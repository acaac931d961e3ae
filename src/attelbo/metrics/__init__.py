"""Metrics over a whole split, reducible over processes."""

from attelbo.metrics.active_units import ActiveUnits
from attelbo.metrics.sample_mean import SampleMean

__all__ = ["ActiveUnits", "SampleMean"]
