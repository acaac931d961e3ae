"""Tests that compile: they are skipped where something is missing for it, with what that is."""

import pytest
import torch

from attelbo.training.compilation import compiler_missing

_missing = compiler_missing(torch.device("cpu"))
needs_a_compiler = pytest.mark.skipif(_missing is not None, reason=f"{_missing}")
