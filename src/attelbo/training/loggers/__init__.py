"""Where a run's numbers and pictures go: metrics.csv always, TensorBoard and W&B on request.

Everything stays inside the run directory, and W&B is offline unless asked otherwise. A logger's node in
``conf/logger`` names one of the classes below, or one of Lightning's or of your own; what belongs to the run
(directory, name, tags, configuration) is given by `build_loggers`.
"""

from attelbo.training.loggers.base import Board, RunInfo
from attelbo.training.loggers.metrics_csv import CsvLogger
from attelbo.training.loggers.tensorboard import TensorBoard
from attelbo.training.loggers.together import (
    build_loggers,
    check_loggers,
    finish_loggers,
    log_result,
    log_work,
    rewind_loggers,
)
from attelbo.training.loggers.weights_and_biases import WeightsAndBiases

__all__ = [
    "Board",
    "CsvLogger",
    "RunInfo",
    "TensorBoard",
    "WeightsAndBiases",
    "build_loggers",
    "check_loggers",
    "finish_loggers",
    "log_result",
    "log_work",
    "rewind_loggers",
]
