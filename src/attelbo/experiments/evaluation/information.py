"""Mutual information and aggregate KL of a trained model, where its posterior has a density.

Shapes: B batch, E event shape of z. Units: nats.
"""

import torch

from attelbo.data import ResidentDataModule
from attelbo.experiments.evaluation.splits import SplitName, rows_evaluated, split_key
from attelbo.experiments.settings import Evaluation
from attelbo.latent.spaces import Codes
from attelbo.metrics import Measure, estimate_information
from attelbo.models import Model, VariationalAutoencoder
from attelbo.seeding import derive_seed
from attelbo.training import seed_default_generator

INFORMATION = (
    Measure("mutual_information", "mutual information", "nats, I(x; z)"),
    Measure("aggregate_kl", "aggregate KL", "nats, KL(q(z) || p(z))"),
)


@torch.inference_mode()
def evaluate_information(
    model: Model, data: ResidentDataModule, split: SplitName, settings: Evaluation, seed: int, device: torch.device
) -> dict[str, float]:
    """I(x; z) and KL(q(z) || p(z)) over ``n_images`` rows of a split; see ``attelbo.metrics.information``.

    Nothing for models that do not know log q(z|x) of a given z: points, codes, hierarchies, flows that cannot be
    inverted. Without the aggregate KL where each class has a prior of its own.
    """
    if not isinstance(model, VariationalAutoencoder) or not model.has_kl or isinstance(model.posterior.space, Codes):
        return {}
    posteriors, samples, log_q, log_p, of_classes = [], [], [], [], False
    for i, rows in enumerate(rows_evaluated(data, split, settings, device)):
        seed_default_generator(derive_seed(seed, "information", i), device)
        batch = data.materialize(rows, split)
        q = model.infer(batch.x, batch.y)
        z = q.rsample(1)
        try:
            log_q.append(q.log_prob(z)[0])
        except NotImplementedError:
            return {}
        prior = model.prior_of(batch.y)
        of_classes = of_classes or prior is not model.prior
        log_p.append(prior.log_prob(q.prior_value(z))[0])
        posteriors.append(q)
        samples.append(z[0])
    found = estimate_information(
        torch.cat(samples), torch.cat(log_q), torch.cat(log_p), posteriors, [len(z) for z in samples]
    )
    values = found._asdict()
    if of_classes:
        values = {name: value for name, value in values.items() if name.startswith("mutual_information")}
    return {f"{split_key(split)}/{name}": value for name, value in values.items()}
