"""Optimizers of the configuration for which torch's own constructors have too few options."""

from collections.abc import Iterable
from typing import Any, Literal

from torch import nn
from torch.optim import AdamW


def adamw(
    params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
    decay: Literal["matrices", "all"] = "matrices",
    fused: bool | None = None,
) -> AdamW:
    """torch's AdamW (Loshchilov & Hutter 2019), with a choice of which weights decay.

    Args:
        params: parameters, or groups of them.
        lr: the learning rate.
        betas: of the running means of gradients and of their squares.
        eps: added to the root of the latter.
        weight_decay: times ``lr``, the fraction by which each step shrinks a weight.
        decay: what decays: ``matrices``, tensors of two and more dimensions, embeddings included, but not biases and
            gains of norms, as in nanoGPT and timm; or ``all``, as in torch.
        fused: one kernel for all parameters of a group.

    Raises:
        ValueError: a number is out of range.
    """
    if weight_decay and decay == "matrices":  # otherwise one kernel serves a whole group
        given: list[Any] = list(params)
        groups = given if isinstance(given[0], dict) else [{"params": given}]
        params = [part for group in groups for part in _by_decay(group) if part["params"]]
    return AdamW(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=fused)


def _by_decay(group: dict[str, Any]) -> list[dict[str, Any]]:
    """The part of a group whose weights decay, and the one whose weights do not."""
    matrices = [parameter for parameter in group["params"] if parameter.ndim > 1]
    vectors = [parameter for parameter in group["params"] if parameter.ndim < 2]
    return [{**group, "params": matrices}, {**group, "params": vectors, "weight_decay": 0.0}]
