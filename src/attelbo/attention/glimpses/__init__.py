"""Glimpses: a patch of an image, read from or written to a place that a network chooses."""

from attelbo.attention.glimpses.affine import box_of, cut_patch, paste_patch
from attelbo.attention.glimpses.gaussian import GaussianWindow, gaussian_window

__all__ = ["GaussianWindow", "box_of", "cut_patch", "gaussian_window", "paste_patch"]
