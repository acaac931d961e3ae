"""Kernels: ways to compute attention, which differ in speed, memory and what they can compute."""

from typing import Literal

from attelbo.attention.kernels.base import Kernel, Mechanism
from attelbo.attention.kernels.eager import Eager, attention_weights
from attelbo.attention.kernels.sdpa import Sdpa

KernelName = Literal["eager", "sdpa"]

KERNELS: dict[KernelName, Kernel] = {"eager": Eager(), "sdpa": Sdpa()}

__all__ = ["KERNELS", "Eager", "Kernel", "KernelName", "Mechanism", "Sdpa", "attention_weights"]
