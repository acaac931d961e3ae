"""`python -m benchmarks.contestants.first_step MARK WORDS`: attelbo's command up to the end of its first training step.

Then the monotonic clock, which all processes share, is written to the file MARK and the process ends at once.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback

from attelbo import cli
from benchmarks.contestants.watch import joined


class Mark(Callback):
    """The first call of training_step is over: with attelbo's blocks, up to sixteen optimizer steps."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        self.path.write_text(str(time.monotonic()))
        os._exit(0)


def main() -> int:
    with joined(Mark(Path(sys.argv[1]))):
        return cli.main(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
