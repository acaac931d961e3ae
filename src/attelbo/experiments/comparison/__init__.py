"""Comparing runs: ``attelbo compare``. Nothing in here needs torch."""

from attelbo.experiments.comparison.command import compare
from attelbo.experiments.comparison.statistics import Estimate, Paired, paired

__all__ = ["Estimate", "Paired", "compare", "paired"]
