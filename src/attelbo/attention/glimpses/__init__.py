"""Glimpses: a patch of an image, read from or written to a place that a network chooses."""

from attelbo.attention.glimpses.gaussian import GaussianWindow, gaussian_window

__all__ = ["GaussianWindow", "gaussian_window"]
