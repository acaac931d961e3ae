"""The perplexity of texts, from their likelihood by importance sampling."""

import torch

from attelbo.data import ResidentDataModule
from attelbo.experiments.evaluation.conditions import Conditions
from attelbo.metrics import Measure
from attelbo.models import TextVAE

PERPLEXITY = Measure("perplexity", "perplexity", "tokens, from the NLL", better="less")


@torch.inference_mode()
def evaluate_perplexity(
    model: TextVAE, data: ResidentDataModule, conditions: Conditions, nll: float
) -> dict[str, float]:
    """exp(NLL / tokens), both summed over the rows whose NLL was estimated: EOS counts as a token, BOS does not.
    Infinite where no float holds it."""
    batches = (data.materialize(rows, conditions.split) for rows in conditions.rows(data))
    tokens = torch.cat([model.n_predicted(batch.x) for batch in batches])
    return {conditions.key("perplexity"): float((nll / tokens.double().mean()).exp())}
