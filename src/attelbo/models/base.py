"""What a model is: a LightningModule that states its loss once.

A model defines how a batch becomes a loss (:meth:`Model.losses`). How batches become optimizer steps, one by one or in
blocks, is left to a stepper that training sets; without one, a model is an ordinary LightningModule that any
``lightning.Trainer`` trains.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, Self

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import Metric

from attelbo.building import Spec, arguments_of, build, locate
from attelbo.data.batch import Batch, Block
from attelbo.errors import ConfigError, UserError
from attelbo.metrics import Measure
from attelbo.models.muon import hidden_matrices

Monitor = tuple[str, Literal["min", "max"]]
"""A validation metric, and whether less or more of it is better."""

Terms = dict[str, Tensor]
"""Scalars by name, each a mean over the batch; the first is ``loss``, which is minimized. Nats."""


Rate = Callable[[int, int], float]
"""(step, total_steps) -> the factor of a learning rate; steps count from 0."""


class Stepper(Protocol):
    """Turns one call of ``training_step`` into optimizer steps."""

    total_steps: int
    """Optimizer steps in the whole training."""

    def __call__(self, block: Block) -> None:
        """Take the optimizer steps of a block."""
        ...


@dataclass(frozen=True, slots=True)
class Player:
    """One of several players that train a model in turns, each with its own optimizer, losses and parameters."""

    losses: Callable[[Batch], Terms]
    """The first term, ``loss``, is minimized."""
    parameters: list[nn.Parameter]
    prefix: str = ""
    """The prefix of the names of its terms, such as ``critic_``."""
    rates: Sequence[tuple[str, list[nn.Parameter], Rate]] = ()
    """Groups of its parameters by name, with a factor of their learning rate besides the scheduler."""
    betas: tuple[float, float] | None = None
    """Of its Adam, in place of those in the configuration."""
    rate: float = 1.0
    """Its learning rate, as a multiple of the configured one."""

    def __post_init__(self) -> None:
        """Leave out frozen parameters."""
        object.__setattr__(self, "parameters", _trainable(self.parameters))
        object.__setattr__(self, "rates", [(name, _trainable(own), rate) for name, own, rate in self.rates])

    def groups(self) -> list[dict[str, Any]]:
        """Its parameter groups for an optimizer."""
        rated = {parameter for _, parameters, _ in self.rates for parameter in parameters}
        rest = [parameter for parameter in self.parameters if parameter not in rated]
        groups = [{"params": rest}, *({"params": parameters, "name": name} for name, parameters, _ in self.rates)]
        return [group for group in groups if group["params"]]


class Model(LightningModule, ABC):
    """A model with one optimizer implements :meth:`losses`; one with several also :meth:`players`."""

    uses_data_keys: ClassVar[tuple[str, ...]] = ()
    """The keys of data for special models, ``n_labels`` and ``pairs``, that it makes use of."""

    def __init__(self, optimizer: Spec, scheduler: Spec) -> None:
        super().__init__()
        self.optimizer_spec = optimizer
        self.stepper: Stepper | None = None
        self._frozen: tuple[nn.Module, ...] = ()
        self._schedule: Rate = build(scheduler)
        self._optimizers: list[Optimizer] = []
        self._rates: dict[str, Rate] = {}

    @abstractmethod
    def losses(self, batch: Batch) -> Terms:
        """The scalar to minimize, ``loss``, and others to be logged, as means over the batch."""

    def drawn(self, batch: Batch) -> Batch:
        """The batch with what ``losses`` draws that decides how many items they average over: nothing, unless a
        subclass overrides it. Drawn before parts of a minibatch are counted."""
        return batch

    def counted(self, batch: Batch) -> int | Tensor:
        """The number of items that ``losses`` averages over: rows, unless a subclass overrides it. Parts of a minibatch
        are weighted by it."""
        return len(batch.x)

    def players(self) -> list[Player]:
        """The players that take an optimizer step on each minibatch, in this order: one with all parameters, unless a
        subclass overrides it, as for adversarial training."""
        return [Player(self.losses, list(self.parameters()))]

    @property
    def monitor(self) -> Monitor | None:
        """The metric that selects the best epoch; None: the last epoch is taken."""
        return "val/loss", "min"

    def freeze_parts(self, parts: Iterable[nn.Module]) -> None:
        """Freeze parts: they get no gradient and no optimizer, and stay in evaluation mode, without dropout and with
        fixed running means."""
        self._frozen = tuple(parts)
        for part in self._frozen:
            part.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """Frozen parts stay in evaluation mode."""
        super().train(mode)
        for part in self._frozen:
            part.eval()
        return self

    def ask_data(self, method: str, key: str) -> Any:
        """What the trainer's data module knows of its training images.

        Args:
            method: of the data module.
            key: of the configuration, that wants it.

        Raises:
            ConfigError: the trainer has only a loader, without a data module that knows it.
        """
        ask: Any = getattr(getattr(self.trainer, "datamodule", None), method, None)
        if ask is None:
            raise ConfigError(f"{key}: it takes a data module of images, in place of a loader")
        return ask()

    def at_step(self, step: int, total_steps: int) -> None:
        """Called before optimizer step ``step``, counted from 0: sets the learning rate, and in subclasses other
        schedules."""
        factor = self._schedule(step, total_steps)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                own = self._rates.get(group.get("name", ""))
                group["lr"] = group["initial_lr"] * factor * (1.0 if own is None else own(step, total_steps))

    def training_step(self, batch: Batch | Block, batch_idx: int) -> Tensor | None:
        if isinstance(batch, Block):
            if self.stepper is None:
                raise ConfigError(
                    "data.minibatches_per_block must be 0 where a Trainer of your own fits: it takes one at a time"
                )
            self.stepper(batch)
            return None
        total = self.trainer.estimated_stepping_batches
        if not math.isfinite(total):
            raise ConfigError("a Trainer of your own takes max_epochs or max_steps: schedules are stretched over them")
        self.at_step(self.global_step, int(total))
        terms = self.losses(batch)
        self.log_dict({f"train/{name}": value.detach() for name, value in terms.items()}, batch_size=len(batch.x))
        return terms["loss"]

    # -- validation and test: exact means over a split, in full precision however it is trained -------

    @abstractmethod
    def evaluation_step(self, batch: Batch) -> None:
        """Take a batch into the metrics of this pass over a split."""

    @abstractmethod
    def evaluation_results(self) -> Terms:
        """The metrics of the pass, by their name without the split; they are reset for the next one."""

    @property
    def measures(self) -> Sequence[Measure]:
        """Which of these results are shown, the most comparable first; missing ones are left out."""
        return (Measure("loss", "loss", "what is minimized", 4, better="less"),)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        with torch.autocast(self.device.type, enabled=False):
            self.evaluation_step(batch)

    def on_validation_epoch_end(self) -> None:
        self._log_results("val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        with torch.autocast(self.device.type, enabled=False):
            self.evaluation_step(batch)

    def on_test_epoch_end(self) -> None:
        self._log_results("test")

    def predict_step(self, batch: Batch, batch_idx: int) -> Any:
        with torch.autocast(self.device.type, enabled=False):
            return self.predicted(batch)

    def predicted(self, batch: Batch) -> Any:
        """What ``Trainer.predict`` returns of a batch: that which this kind of model is usually asked for."""
        raise NotImplementedError(f"{type(self).__name__}.predicted, which Trainer.predict asks for")

    def _log_results(self, split: str) -> None:
        # The results are the same on every rank; without sync_dist Lightning would warn that they might not be.
        self.log_dict({f"{split}/{name}": value for name, value in self.evaluation_results().items()}, sync_dist=True)

    # -- a trained one ----------------------------------------------------------------------------------

    @classmethod
    def from_run(cls, run_dir: str | Path, checkpoint: str = "best") -> Self:
        """The trained model of a run directory, in evaluation mode on the CPU; ``load_run`` also gives its data, with
        the vocabulary of texts.

        Args:
            run_dir: ``outputs/<name>/<run id>``, or a folder, for its newest run.
            checkpoint: ``best``, ``last``, ``average`` or ``epoch<n>``.

        Raises:
            UserError: not a run directory, no checkpoint in it, or the run of another kind of model.
        """
        from attelbo.models.loading import load_run  # which imports this module

        model, _ = load_run(run_dir, checkpoint=checkpoint)
        if not isinstance(model, cls):
            raise UserError(f"{run_dir} is the run of a {type(model).__name__}, not of a {cls.__name__}")
        return model

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *options: Any, **given: Any) -> Self:  # pyright: ignore
        """Lightning's name for :meth:`from_run`, given ``<run>/checkpoints/<name>.ckpt``. A checkpoint holds weights;
        the parts of the model are read from its run directory, unless they are ``given``, as Lightning has it.

        Raises:
            UserError: there is no such file, it is in no run directory, or the run is of another kind of model.
        """
        if options or given:
            return super().load_from_checkpoint(checkpoint_path, *options, **given)
        path = Path(checkpoint_path)
        run_dir = path.parent.parent
        if not path.is_file():
            raise UserError(f"{path}: no such file; checkpoints of a run are <run>/checkpoints/<name>.ckpt")
        if not (run_dir / "config.yaml").is_file():
            raise UserError(
                f"{path} is no checkpoint in a run directory, <run>/checkpoints/<name>.ckpt; one of a Trainer of your "
                "own is for a model that is built as it was: model.load_state_dict(torch.load(path)['state_dict'])"
            )
        return cls.from_run(run_dir, path.stem)

    # -- Lightning's side ----------------------------------------------------------------------------

    def configure_optimizers(self) -> Any:
        """One optimizer for each player. The learning rate's schedule is a function of the step: see ``at_step``.

        Raises:
            ConfigError: several players without a stepper.
        """
        players = self.players()
        if len(players) > 1 and self.stepper is None:
            raise ConfigError("data.minibatches_per_block must be at least 1 for a model with several optimizers")
        self._optimizers = self.built_optimizers()
        self._rates = {name: rate for player in players for name, _, rate in player.rates}
        return self._optimizers

    def built_optimizers(self) -> list[Optimizer]:
        """New optimizers, one for each player."""
        players = self.players()
        wanted = arguments_of(locate(self.optimizer_spec["_target_"]))
        given = {"matrices": hidden_matrices(self)} if "matrices" in wanted else {}
        optimizers = [build(self._optimizer_of(player), player.groups(), **given) for player in players]
        for player, optimizer in zip(players, optimizers, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] = group["lr"] * player.rate
        return optimizers

    def _optimizer_of(self, player: Player) -> Spec:
        takes = arguments_of(locate(self.optimizer_spec["_target_"]))
        own = player.betas is not None and "betas" in takes
        return {**self.optimizer_spec, "betas": player.betas} if own else self.optimizer_spec


def compute_and_reset(metric: Metric) -> Any:
    """What a metric has found since it was reset, which it is then."""
    found = metric.compute()
    metric.reset()
    return found


def _trainable(parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    return [parameter for parameter in parameters if parameter.requires_grad]


def count_parameters(module: nn.Module) -> int:
    """Trainable numbers in a module."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
