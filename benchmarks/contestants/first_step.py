"""`python -m benchmarks.contestants.first_step MARK WORDS`: attelbo's command up to the end of its first training step.

Then the monotonic clock, which all processes share, is written to the file MARK and the process ends at once.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer

from attelbo import cli


class Mark(Callback):
    """The first call of training_step is over: with attelbo's blocks, up to sixteen optimizer steps."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        self.path.write_text(str(time.monotonic()))
        os._exit(0)


def main() -> int:
    mark = Mark(Path(sys.argv[1]))
    fit = Trainer.fit

    def fit_until_the_mark(trainer: Trainer, *positional: Any, **named: Any) -> None:
        trainer.callbacks.append(mark)  # pyright: ignore[reportAttributeAccessIssue]
        fit(trainer, *positional, **named)

    Trainer.fit = fit_until_the_mark  # pyright: ignore[reportAttributeAccessIssue]
    return cli.main(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
