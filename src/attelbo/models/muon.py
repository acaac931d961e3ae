"""Muon: the step of a matrix is its momentum with all singular values brought near one; AdamW for all other parameters.

    M <- mu M + (1 - mu) G,   N = mu M + (1 - mu) G,   N = U S V^T,   step = lr 0.2 sqrt(max(n, m)) U V^T

Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks" (on his pages, /posts/muon:
Nesterov momentum, and five steps of an odd polynomial that takes each singular value to between 0.7 and 1.2 without a
decomposition); Liu et al. 2025, "Muon is Scalable for LLM Training", section 2.2 (the factor that matches the root mean
square of AdamW's steps, so that one learning rate and one decay serve both).

``torch.optim.Muon`` takes the same steps, of matrices only and always in bfloat16, which is some twenty times slower
than float32 on CPUs without hardware support; ours uses float32 on CPUs.

Shapes: n x m of a matrix, K matrices of one shape.
"""

from collections.abc import Callable, Collection, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.adamw import adamw as adamw_step

from attelbo.attention import AttentionLayer, LinearAttention
from attelbo.checks import check_below_one, check_not_negative

POLYNOMIAL = (3.4445, -4.7750, 2.0315)
"""Of x, x^3 and x^5, as Jordan et al. have it: steep at 0, near one elsewhere."""
STEPS = 5


class Muon(Optimizer):
    """One optimizer with two kinds of steps.

    Args:
        params: parameters, or groups of them.
        matrices: those that take orthogonalized steps, given by the model, see :func:`hidden_matrices`; the others take
            those of AdamW.
        lr: the learning rate of all.
        momentum: mu.
        betas: of AdamW.
        eps: of AdamW.
        weight_decay: times ``lr``, the fraction by which each step shrinks tensors with two and more dimensions; biases
            and gains of norms do not decay.

    Raises:
        ValueError: a number is out of range, or matrices are not tensors.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        matrices: Collection[Tensor] = (),
        lr: float = 1e-3,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.1,
    ) -> None:
        check_not_negative(lr=lr, eps=eps, weight_decay=weight_decay)
        check_below_one(momentum=momentum, **{"betas[0]": betas[0], "betas[1]": betas[1]})
        if not all(isinstance(matrix, Tensor) for matrix in matrices):
            raise ValueError("matrices cannot be set in a configuration: the model gives its own")
        given: list[Any] = list(params)
        groups = given if isinstance(given[0], dict) else [{"params": given}]
        chosen = set(matrices)
        parts = [part for group in groups for part in _by_kind(group, chosen) if part["params"]]
        settings = {"lr": lr, "momentum": momentum, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(parts, settings)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            moved = [parameter for parameter in group["params"] if parameter.grad is not None]
            if moved:
                (self._orthogonal if group["orthogonal"] else self._adam)(moved, group)
        return loss

    def _orthogonal(self, matrices: list[Tensor], group: dict[str, Any]) -> None:
        averages = [self._state(matrix, "momentum_buffer") for matrix in matrices]
        gradients, momentum = _gradients(matrices), group["momentum"]
        for average, gradient in zip(averages, gradients, strict=True):
            average.lerp_(gradient, 1 - momentum)
        of_shape: dict[torch.Size, list[int]] = {}
        for place, matrix in enumerate(matrices):
            of_shape.setdefault(matrix.shape, []).append(place)
        for shape, places in of_shape.items():
            ahead = torch.stack([gradients[i].lerp(averages[i], momentum) for i in places])
            rate = group["lr"] * 0.2 * max(shape) ** 0.5
            for place, step in zip(places, orthogonalized(ahead), strict=True):
                matrices[place].mul_(1 - group["lr"] * group["weight_decay"]).add_(step, alpha=-rate)

    def _adam(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        averages, squares = ([self._state(p, key) for p in parameters] for key in ("exp_avg", "exp_avg_sq"))
        adamw_step(
            parameters,
            _gradients(parameters),
            averages,
            squares,
            [],
            [self.state[p].setdefault("step", torch.tensor(0.0)) for p in parameters],
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )

    def _state(self, parameter: Tensor, key: str) -> Tensor:
        """A running mean, initially zero."""
        state = self.state[parameter]
        if key not in state:
            state[key] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        return state[key]


def _gradients(parameters: list[Tensor]) -> list[Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def orthogonalized(matrices: Tensor) -> Tensor:
    """(K, n, m) with the same singular vectors and singular values near one; computed in bfloat16 on an accelerator.

    A matrix of zeros stays one.
    """
    a, b, c = POLYNOMIAL
    x = matrices if matrices.device.type == "cpu" else matrices.bfloat16()
    wide = x if x.shape[1] <= x.shape[2] else x.mT
    wide = wide / wide.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(STEPS):
        gram = wide @ wide.mT
        wide = torch.baddbmm(wide, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return (wide if x.shape[1] <= x.shape[2] else wide.mT).to(matrices.dtype)


def hidden_matrices(model: nn.Module) -> list[Tensor]:
    """The weights of hidden linear layers: not those of output layers (a ``head`` or inside one, or an ``output`` that
    is not attention's), nor those shared with an embedding. Filters, recurrent weights and tables are not among
    them."""
    spared = {module.weight for module in model.modules() if isinstance(module, nn.Embedding)}
    modules = dict(model.named_modules())
    found: list[Tensor] = []
    for name, module in modules.items():
        parent, _, own = name.rpartition(".")
        says = "head" in name.split(".") or (
            own == "output" and not isinstance(modules[parent], AttentionLayer | LinearAttention)
        )
        if isinstance(module, nn.Linear) and not says and module.weight not in spared:
            found.append(module.weight)
    return found


def _by_kind(group: dict[str, Any], matrices: set[Tensor]) -> list[dict[str, Any]]:
    """The parts of a group: matrices, other tensors that decay, and vectors, which do not."""
    orthogonal = [p for p in group["params"] if p in matrices]
    others = [p for p in group["params"] if p not in matrices]
    return [
        {**group, "params": orthogonal, "orthogonal": True},
        {**group, "params": [p for p in others if p.ndim > 1], "orthogonal": False},
        {**group, "params": [p for p in others if p.ndim < 2], "orthogonal": False, "weight_decay": 0.0},
    ]
