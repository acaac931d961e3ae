"""Metrics: some accumulate over the batches of a split and reduce over processes, others are functions of all of its
rows."""

from attelbo.metrics.active_units import ActiveUnits
from attelbo.metrics.code_usage import CodeUsage
from attelbo.metrics.disentanglement import (
    Disentanglement,
    Representation,
    Similarity,
    disentanglement_ranking,
    disentanglement_scores,
)
from attelbo.metrics.feature_distances import frechet_distance, kernel_distance
from attelbo.metrics.image_similarity import image_similarity
from attelbo.metrics.information import aggregate_log_prob, bias_of_few_rows, information_terms, marginal_log_prob
from attelbo.metrics.measure import Measure
from attelbo.metrics.probe import probe_accuracy
from attelbo.metrics.sample_mean import SampleMean
from attelbo.metrics.segmentation import adjusted_rand_index
from attelbo.metrics.token_scores import TokenScores

__all__ = [
    "ActiveUnits",
    "CodeUsage",
    "Disentanglement",
    "Measure",
    "Representation",
    "SampleMean",
    "Similarity",
    "TokenScores",
    "adjusted_rand_index",
    "aggregate_log_prob",
    "bias_of_few_rows",
    "disentanglement_ranking",
    "disentanglement_scores",
    "frechet_distance",
    "image_similarity",
    "information_terms",
    "kernel_distance",
    "marginal_log_prob",
    "probe_accuracy",
]
