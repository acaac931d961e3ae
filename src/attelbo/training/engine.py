"""Engines: how the optimizer steps of a block are taken, one after the other.

    rows --> materialize --> losses --> backward --> optimizer          :class:`Step`, on the device
    seed, schedules                                                      :class:`Position`, on the host

A model defines its losses once (:meth:`~attelbo.models.Model.losses`); whether they are run eagerly, compiled,
captured as a CUDA graph or stacked with those of other replicas is decided here and in the modules beside, and
the model does not know of it.

Shapes: B rows of a minibatch, S minibatches in a block, T terms of the loss.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

from attelbo.data.batch import Batch, ResidentData
from attelbo.errors import ConfigError
from attelbo.models import Model, Player, Terms
from attelbo.seeding import derive_seed
from attelbo.training.optimization import DirectOptimization, Optimization

Share = float | Tensor
"""The share of a minibatch that a part of it is: a number, or a scalar tensor where only the device knows it."""


class Engine(Protocol):
    """Takes optimizer steps."""

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of the T terms, known after the first step."""
        ...

    def run(self, minibatches: Sequence[Tensor], first_step: int) -> Tensor:
        """Take one optimizer step for each minibatch's rows (B,); the terms at each step, (S, T), on the device.

        Where the steps are those of N replicas, rows are (N, B) and terms (S, T, N).
        """
        ...


class AnyStep(Protocol):
    """The step that an engine repeats: :class:`Step` of one run, or the step of several runs stacked."""

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of the T terms, known after the first step."""
        ...

    @property
    def generators(self) -> Sequence[torch.Generator]:
        """The generators that it draws from beside the default one of the device."""
        ...

    @property
    def direct(self) -> Sequence[DirectOptimization]:
        """The optimizations of its players that torch does alone, which a graph can record."""
        ...

    @property
    def variant(self) -> Hashable:
        """What the host decides about the next step: steps of different variants run different kernels."""
        ...

    def begin_block(self) -> None:
        """Called before the first step of a block."""
        ...

    def prepare(self) -> None:
        """Prepare the optimizers for the steps of this block; called before a step is recorded."""
        ...

    def end_block(self, steps: int) -> None:
        """Called after the last of ``steps`` steps."""
        ...

    def __call__(self, rows: Tensor) -> list[Tensor]:
        """Take the step; its T terms."""
        ...

    def trial(self, rows: Tensor) -> Tensor:
        """The first player's loss, as the model by itself computes it; nothing but the generators moves."""
        ...


class AnyPosition(Protocol):
    """Where a training stands: :class:`Position` of one run, or those of several."""

    def move_to(self, step: int, device: torch.device) -> None:
        """Make ``step``, counted from 0, the one that comes next."""
        ...


EngineMaker = Callable[[AnyStep, AnyPosition], Engine]
"""Makes the engine for the device."""


class Position:
    """What the host sets before each step: the seed of its noise, and the values of its schedules.

    Nothing else about a step depends on its place in the training.
    """

    def __init__(self, model: Model, seed: int, total_steps: int, rank: int) -> None:
        self.model = model
        self.seed = seed
        self.total_steps = total_steps
        self.rank = rank

    def move_to(self, step: int, device: torch.device) -> None:
        """Make ``step``, counted from 0, the one that comes next."""
        seed_default_generator(derive_seed(self.seed, "step", step, self.rank), device)
        self.model.at_step(step, self.total_steps)


class Step:
    """An optimizer step, computed on the device: the host reads none of its values.

    Args:
        model: the model that is trained.
        players: who minimizes what, in turns; their losses may be compiled.
        optimizations: how each of them takes its step.
        data: makes batches of rows.
        micro_batches: parts that a minibatch is split into to save memory; their gradients add up to the minibatch's
            own where the loss is a mean over rows or tokens. What is computed over a minibatch as a whole is computed
            over a part: batch norm, an optimal scale, the KL that free bits and capacities compare with a number, and
            the estimates of distributions in beta_tc, dip, factor, info, sliced_wasserstein, wae_mmd.
    """

    def __init__(
        self,
        model: Model,
        players: Sequence[Player],
        optimizations: Sequence[Optimization],
        data: ResidentData,
        micro_batches: int = 1,
    ) -> None:
        self.model = model
        self.turns = list(zip(players, optimizations, strict=True))
        self.data = data
        self.micro_batches = micro_batches
        self.terms: tuple[str, ...] = ()
        self.generators: Sequence[torch.Generator] = ()
        self.variant: Hashable = None

    @property
    def direct(self) -> list[DirectOptimization]:
        """Those of its optimizations that torch does alone: all of them or, where Lightning's help is needed, none."""
        return [each for _, each in self.turns if isinstance(each, DirectOptimization)]

    def begin_block(self) -> None:
        """Called before the first step of a block."""
        for _, optimization in self.turns:
            optimization.begin_block()

    def prepare(self) -> None:
        for _, optimization in self.turns:
            optimization.prepare()

    def end_block(self, steps: int) -> None:
        """Called after the last of ``steps`` steps."""
        for _, optimization in self.turns:
            optimization.end_block(steps)

    def __call__(self, rows: Tensor) -> list[Tensor]:
        """Every player's step on the minibatch ``rows`` (B,); its terms, T scalars."""
        batches, shares = self.parts(rows)
        values: Terms = {}
        for player, optimization in self.turns:
            for batch, share in zip(batches, shares, strict=True):
                terms = player.losses(batch)
                if not self.terms:
                    check_terms(terms, self.model)
                optimization.backward(weighted(terms["loss"], share))
                add_terms(values, terms, share, player.prefix)
            optimization.step()
        self.terms = tuple(values)
        return list(values.values())

    def trial(self, rows: Tensor) -> Tensor:
        losses = self.model.players()[0].losses
        with buffers_kept(self.model):
            parts = zip(*self.parts(rows), strict=True)
            return torch.stack([weighted(losses(part)["loss"].detach(), share) for part, share in parts]).sum()

    def parts(self, rows: Tensor) -> tuple[list[Batch], list[Share]]:
        """The parts of a minibatch as batches, and the share of each in the rows or tokens that losses are means of."""
        parts = rows.split(-(-len(rows) // self.micro_batches))
        batches = [self.data.materialize(part, "train") for part in parts]
        if len(batches) == 1:
            return batches, [1.0]
        batches = [self.model.drawn(batch) for batch in batches]
        counts = [self.model.counted(batch) for batch in batches]
        total = sum(counts)
        return batches, [count / total for count in counts]


class EagerEngine:
    """One step after the other, each launched by the host."""

    def __init__(self, step: AnyStep, position: AnyPosition) -> None:
        self.step = step
        self.position = position

    @property
    def terms(self) -> tuple[str, ...]:
        return self.step.terms

    def run(self, minibatches: Sequence[Tensor], first_step: int) -> Tensor:
        values: list[Tensor] = []
        self.step.begin_block()
        for step, rows in enumerate(minibatches, first_step):
            self.position.move_to(step, rows.device)
            values += self.step(rows)
        self.step.end_block(len(minibatches))
        return torch.stack(values).unflatten(0, (len(minibatches), -1))


def check_terms(terms: Terms, model: Model) -> None:
    """Raise ConfigError unless the terms are what a model's ``losses`` must return; checked at the first step."""
    tensors = isinstance(terms, dict) and all(isinstance(value, Tensor) for value in terms.values())
    scalars = tensors and "loss" in terms and all(value.ndim == 0 for value in terms.values())
    if scalars and terms["loss"].requires_grad:
        return
    if scalars:
        found = "a loss that depends on nothing that is trained"
    elif isinstance(terms, dict):
        found = ", ".join(f"{name}{_kind(value)}" for name, value in terms.items())
    else:
        found = f"a {type(terms).__name__}"
    objective = getattr(model, "objective", None)
    beside = "" if objective is None else f" (its loss by {type(objective).__name__})"
    raise ConfigError(
        f"model: losses of a {type(model).__name__}{beside} must be scalars by their names, means over the batch, and "
        f"'loss', which is minimized, one of them; they are {found}"
    )


def _kind(value: object) -> str:
    return f" of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f", a {type(value).__name__}"


def weighted(value: Tensor, share: Share) -> Tensor:
    """A part's value times its share of the minibatch."""
    return value if isinstance(share, float) and share == 1 else value * share


def add_terms(values: Terms, terms: Terms, share: Share, prefix: str) -> None:
    """Add the terms of a part to those of the minibatch, under a player's prefix."""
    for name, value in terms.items():
        key, own = prefix + name, weighted(value.detach(), share)
        values[key] = values[key] + own if key in values else own


@contextmanager
def buffers_kept(model: nn.Module) -> Iterator[None]:
    """Restore the model's buffers, such as running means, at the end."""
    before = [buffer.clone() for buffer in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(model.buffers(), before, strict=True):
                buffer.copy_(value)


def seed_default_generator(seed: int, device: torch.device) -> None:
    """Seed the generator that the device draws from by default.

    Not ``torch.manual_seed``: that seeds every device of the machine and costs 200 times as much.
    """
    if device.type == "cuda":
        torch.cuda.default_generators[device.index].manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


@contextmanager
def fresh_autocast() -> Iterator[None]:
    """Autocast without its cache of rounded weights.

    The cache lives as long as the context, which here is around several optimizer steps: from the second on it would
    be out of date. Nothing is lost, since a step uses each weight once.
    """
    cached = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(cached)
