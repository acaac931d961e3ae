"""How good a trained model is, from its run directory: ``attelbo evaluate``, and the end of ``attelbo train``."""

from attelbo.experiments.evaluation.command import evaluate
from attelbo.experiments.evaluation.conditions import Conditions
from attelbo.experiments.evaluation.disentanglement import evaluate_disentanglement
from attelbo.experiments.evaluation.information import evaluate_information
from attelbo.experiments.evaluation.likelihood import evaluate_bound, evaluate_likelihood, suitable_chunk
from attelbo.experiments.evaluation.model import check_evaluation, evaluate_model
from attelbo.experiments.evaluation.quality import evaluate_inception, evaluate_quality
from attelbo.experiments.evaluation.splits import SplitName
from attelbo.experiments.evaluation.tables import write_tables

__all__ = [
    "Conditions",
    "SplitName",
    "check_evaluation",
    "evaluate",
    "evaluate_bound",
    "evaluate_disentanglement",
    "evaluate_inception",
    "evaluate_information",
    "evaluate_likelihood",
    "evaluate_model",
    "evaluate_quality",
    "suitable_chunk",
    "write_tables",
]
