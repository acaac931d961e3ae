"""Graceful stopping: on a signal the current block is finished, a checkpoint is saved and the training stops.

Lightning's own handling of SIGTERM exits with 0 and saves nothing. Here SIGTERM (and the SIGUSR2 that a
cluster sends before its time limit, and Ctrl-C) lead to ``checkpoints/last.ckpt`` and the usual exit code
128 + signal; ``ckpt=auto`` goes on from there, bit for bit.

Python handles signals in the main thread only. Where runs have threads of their own, :func:`relayed` passes each signal
on to them: it acts in every one of them as it would in the main thread.
"""

import ctypes
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from attelbo.training.checkpoint import checkpoints_of

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)

Handler = Callable[[int, FrameType | None], None]


class Interrupted(Exception):  # noqa: N818 - what happened, not what went wrong
    """A signal asked the training to stop, and its state was saved."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.exit_code - 128,)


@contextmanager
def stoppable() -> Iterator[None]:
    """A context, before and after the training, in which a signal acts at once, since there is nothing to save.

    Raises:
        Interrupted: at the place where the signal arrives; in a thread also for a signal that came before.
    """
    previous = _handle(_stop)
    try:
        if _in_thread() and _relay.received is not None:
            raise Interrupted(_relay.received)
        yield
    finally:
        _restore(previous)


@contextmanager
def relayed() -> Iterator[Callable[[], int | None]]:
    """A context of the main thread in which signals act in the other threads; gives a function that returns the first
    signal that came, or None."""
    _relay.received = None
    previous = _handle(_relay)
    try:
        yield lambda: _relay.received
    finally:
        _restore(previous)
        _relay.received = None


def _stop(number: int, frame: FrameType | None) -> None:
    raise Interrupted(number)


class _Relay:
    """The handler that passes a signal on to the handlers of threads."""

    def __init__(self) -> None:
        self.received: int | None = None
        self.handlers: dict[int, Handler] = {}
        """Thread -> its handler."""

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or number
        for thread, handler in list(self.handlers.items()):
            try:
                handler(number, frame)
            except Interrupted:
                _raise_in(thread, number)


_relay = _Relay()


def _raise_in(thread: int, number: int) -> None:
    """Raise ``Interrupted`` in another thread, when it next runs Python."""

    class Now(Interrupted):
        def __init__(self) -> None:  # Python takes a class and calls it without arguments in that thread
            super().__init__(number)

    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(Now))


def _in_thread() -> bool:
    return threading.current_thread() is not threading.main_thread()


def _handle(handler: Handler) -> dict[int, Any]:
    """Install ``handler`` for all signals; the previous handlers, by signal, or by thread outside the main thread."""
    if _in_thread():
        thread = threading.get_ident()
        before = _relay.handlers.get(thread)
        _relay.handlers[thread] = handler
        return {thread: before}
    return {number: signal.signal(number, handler) for number in SIGNALS}


def _restore(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        if not _in_thread():
            signal.signal(number, handler)
        elif handler is not None:
            _relay.handlers[number] = handler
        else:
            _relay.handlers.pop(number, None)
            # An exception that is still pending would be raised where nobody expects it.
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(number), None)


class Interruption(Callback):
    """Remembers the first signal and acts on it at the end of the block; Ctrl-C after another acts at once.

    Not every second one: a cluster that takes a machine back may send SIGTERM and SIGUSR2, one after the other.
    """

    def __init__(self) -> None:
        super().__init__()
        self._received: int | None = None
        self._previous: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Not earlier: Lightning installs its own handlers when fit() begins.
        self._previous = _handle(self._remember)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self._received is None:
            self._received = number
        elif number == signal.SIGINT:
            raise Interrupted(number)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Not after the last block of an epoch: a run resumed from there would skip the validation.
        if not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self._stop_if_told(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop_if_told(trainer)
        # Not later: once fit() has put back the handlers from before its own, nobody else would.
        _restore(self._previous)

    def _stop_if_told(self, trainer: Trainer) -> None:
        """Stop all processes together if one of them was told to.

        Raises:
            Interrupted: a signal came. Not ``should_stop``: the epoch would then be closed as if it were whole.
        """
        if trainer.strategy.reduce_boolean_decision(self._received is not None, all=False):
            trainer.save_checkpoint(checkpoints_of(trainer) / "last.ckpt")
            raise Interrupted(self._received or signal.SIGTERM)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        _restore(self._previous)
