"""How far runs of one configuration agree in their latents: UDR, which ranks seeds where no factors are known."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from attelbo.data import ImageDataModule, ResidentDataModule
from attelbo.errors import UserError
from attelbo.experiments.evaluation.splits import batches
from attelbo.experiments.trained import Trained
from attelbo.metrics import Measure, Similarity, disentanglement_ranking
from attelbo.models import LatentVariableModel, Model
from attelbo.seeding import derive_seed
from attelbo.training import seed_default_generator

MEASURE = Measure("udr", "UDR", "0..1, agreement of seeds", 3, better="more")
N_ROWS = 2000
"""Rows of the test split, spread evenly over it."""
_AT_ONCE = 200


def evaluate_agreement(runs: Sequence[Path], kind: Similarity) -> list[float]:
    """UDR of each of some runs, at least two, that differ in nothing but their seed: see
    :func:`attelbo.metrics.disentanglement_ranking`.

    Raises:
        UserError: a run without a checkpoint or of a model without such latents, or data that are missing.
    """
    codes, kls, data = [], [], None
    for path in runs:
        trained = Trained.of(str(path), "best", "auto")
        if data is None:  # the same for all of them
            data = trained.with_data().data
        mean, kl = _encoded(trained.model, data, trained)
        codes.append(mean)
        kls.append(kl)
    return disentanglement_ranking(codes, kls, kind)


@torch.inference_mode()
def _encoded(model: Model, data: ResidentDataModule, trained: Trained) -> tuple[Tensor, Tensor]:
    """Posterior means (N, D), and the mean KL of each latent, (D,), nats."""
    if not (isinstance(model, LatentVariableModel) and isinstance(data, ImageDataModule)):
        raise UserError(f"{trained.described}: no latent variables of images")
    means, kls = [], []
    for i, batch in enumerate(batches(data, "test", N_ROWS, _AT_ONCE, trained.device)):
        seed_default_generator(derive_seed(0, "agreement", i), trained.device)
        evidence = model.evidence(batch.x, batch.y)
        means.append(evidence.posterior.mean.flatten(1).cpu())
        kls.append(evidence.kl.cpu())
        if kls[-1].shape != means[-1].shape:
            raise UserError(f"{trained.described}: the KL of each latent by itself is not known")
    return torch.cat(means), torch.cat(kls).double().mean(0)
