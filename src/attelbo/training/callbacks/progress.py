"""A progress bar that is drawn by the clock, not by the step.

Between two refreshes a block of steps costs one comparison of times. The values on the device are read only when
they are shown. Where nobody can watch (a file, a pipe, a batch job) one plain line for each epoch is written instead.
"""

import time
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as RichProgress

from attelbo.checks import check_positive
from attelbo.training.callbacks.base import StepperState, monitor_of, stepper_of
from attelbo.training.replicas import Seat
from attelbo.training.throughput import Throughput

_SHOWN = ("loss", "elbo", "kl", "accuracy")
_SHARE = 0.01
"""Of the time, that drawing may take: a bar costs some ten milliseconds."""


class Progress(ProgressBar):
    """Epoch, steps, loss, ELBO and KL (nats) or accuracy, samples/s or tokens/s, and the time left, on the standard
    error stream.

    Args:
        refreshes_per_second: How often the bar is drawn, at most.

    Raises:
        ValueError: It is not positive and finite.
    """

    def __init__(self, refreshes_per_second: float = 4.0) -> None:
        super().__init__()
        check_positive(refreshes_per_second=refreshes_per_second)
        self.interval = 1 / refreshes_per_second
        self.clock = time.perf_counter
        self.console = Console(stderr=True, force_jupyter=False)  # in a notebook plain lines too
        self.seat: Seat | None = None
        """The run's place among replicas, if it is one: the bar is that of the run which leads them."""
        self._enabled = True
        self._bar: RichProgress | None = None
        self._next_refresh = 0.0
        self._throughput = Throughput()
        self._start: tuple[float, int] = (0.0, 0)

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print a line above the bar."""
        self.console.print(*args, **kwargs)

    # -- training -----------------------------------------------------------------------------------

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start = (self.clock(), stepper_of(pl_module).step)
        self._open()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._throughput.pause()
        self._throughput.update(self.clock(), stepper_of(pl_module).rows_seen)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = self.clock()
        if now >= self._next_refresh and self._open():
            stepper = stepper_of(pl_module)
            shown = {name: value for name, value in stepper.latest().items() if name in _SHOWN}
            values = torch.stack(list(shown.values())).tolist()  # one read, and the device is then up to date
            self._throughput.update(self.clock(), stepper.rows_seen)
            self._draw(trainer, stepper, "  ".join(_value(name, v) for name, v in zip(shown, values, strict=True)))
            drawn = self.clock()
            self._next_refresh = max(now + self.interval, drawn + (drawn - now) / _SHARE)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking and self._enabled and trainer.state.fn == "fit":
            stepper = stepper_of(pl_module)
            # Reading a value waits for the device, so that the rate counts only what is done.
            next(iter(stepper.latest().values())).item()
            self._throughput.update(self.clock(), stepper.rows_seen)
            self._throughput.pause()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._is_shown:
            return
        stepper = stepper_of(pl_module)
        values = {name: float(value) for name, value in stepper.latest().items() if name in _SHOWN}
        text = "  ".join(_value(name, value) for name, value in values.items())
        if self._throughput.rate is None:
            self._throughput.update(self.clock(), stepper.rows_seen)
        if self._bar is not None:
            self._draw(trainer, stepper, text)
        else:
            key, _ = monitor_of(pl_module) or ("val/loss", "min")
            if key in trainer.callback_metrics:
                text += "  " + _value(key, float(trainer.callback_metrics[key]))
            line = f"{self._epoch(trainer)}  step {_steps(stepper)}  {text}"
            self.console.print(f"{line}  {self._speed(stepper)}", highlight=False, soft_wrap=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close()

    # -- drawing ------------------------------------------------------------------------------------

    @property
    def _is_shown(self) -> bool:
        return self._enabled and (self.seat is None or self.seat.leads)

    def _open(self) -> bool:
        """Whether there is a bar, as there is from now on where it can be watched."""
        if self._bar is not None:
            return True
        if not (self.console.is_terminal and self._is_shown):
            return False
        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[steps]}"),
            TextColumn("{task.fields[values]}", style="cyan"),
            TextColumn("{task.fields[speed]}", style="dim"),
            console=self.console,
            auto_refresh=False,  # no thread of its own: it would compete with training
            expand=True,
        )
        self._bar.add_task("training", total=None, steps="", values="", speed="")
        self._next_refresh = 0.0
        self._bar.start()
        return True

    def _draw(self, trainer: Trainer, stepper: StepperState, values: str) -> None:
        assert self._bar is not None
        self._bar.update(
            self._bar.task_ids[0],
            completed=stepper.step,
            total=stepper.total_steps,
            description=self._epoch(trainer),
            steps=_steps(stepper),
            values=values,
            speed=self._speed(stepper),
        )
        self._bar.refresh()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _epoch(self, trainer: Trainer) -> str:
        last = f"/{trainer.max_epochs}" if trainer.max_epochs and trainer.max_epochs > 0 else ""
        epoch = f"epoch {trainer.current_epoch + 1}{last}"
        if self.seat is None:
            return epoch
        together, size = self.seat.trains_with, len(self.seat.group.seats)
        return f"{epoch} x {together}" if together > 1 else f"replica {self.seat.place + 1}/{size}  {epoch}"

    def _speed(self, stepper: StepperState) -> str:
        """Samples or tokens per second, and the time left if the rest goes as fast as this process has gone, validation
        too."""
        together = self.seat.trains_with if self.seat else 1
        per_row, unit = (1, "samples") if stepper.row_tokens is None else (stepper.row_tokens, "tokens")
        rate = self._throughput.rate
        parts = [] if rate is None else [f"{rate * together * per_row:,.0f} {unit}/s"]
        started, first_step = self._start
        done, left = stepper.step - first_step, stepper.total_steps - stepper.step
        if done > 0:
            parts.append(f"{clock_time((self.clock() - started) * left / done)} left")
        return "  ".join(parts)


def clock_time(seconds: float) -> str:
    """``h:mm:ss``, or ``m:ss`` below an hour."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}" if hours else f"{m}:{s:02d}"


def _steps(stepper: StepperState) -> str:
    return f"{stepper.step:,}/{stepper.total_steps:,}"


def _value(name: str, value: float) -> str:
    return f"{name} {value:.2f}"
