"""The perplexity of texts, from their likelihood by importance sampling."""

import torch

from attelbo.data import ResidentDataModule
from attelbo.data.batch import Evaluated
from attelbo.experiments.evaluation.splits import rows_evaluated, split_key
from attelbo.experiments.settings import Evaluation
from attelbo.metrics import Measure
from attelbo.models import TextVAE

PERPLEXITY = Measure("perplexity", "perplexity", "tokens, from the NLL", better="less")


@torch.inference_mode()
def evaluate_perplexity(
    model: TextVAE,
    data: ResidentDataModule,
    split: Evaluated,
    settings: Evaluation,
    nll: float,
    device: torch.device,
) -> dict[str, float]:
    """exp(NLL / tokens), both summed over the rows whose NLL was estimated: EOS counts as a token, BOS does not.
    Infinite where no float holds it."""
    rows = rows_evaluated(data, split, settings, device)
    tokens = torch.cat([model.n_predicted(data.materialize(part, split).x) for part in rows])
    return {f"{split_key(split)}/perplexity": float((nll / tokens.double().mean()).exp())}
