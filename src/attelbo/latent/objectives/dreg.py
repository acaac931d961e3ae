"""The importance-weighted bound with the doubly reparametrized gradient (Tucker et al. 2019, "Doubly Reparameterized
Gradient Estimators for Monte Carlo Objectives", arXiv:1810.04152, eq. 7).

Shapes: K samples, B batch.
"""

import torch
from torch import Tensor

from attelbo.latent.evidence import Evidence
from attelbo.latent.objectives.base import log_weights_of
from attelbo.latent.objectives.iwae import IWAE


class DReG(IWAE):
    """The loss of IWAE, with a lower-variance estimate of the same gradient for encoder and posterior.

    With v_k = w_k / sum w, the inference side gets sum_k v_k^2 (d log w_k / d z_k) (d z_k / d phi), without the score
    d log q / d phi, whose mean is zero; its signal does not vanish as K grows. The generative side gets IWAE's.

    Args:
        n_samples: K.

    Raises:
        ValueError: n_samples below 1.
    """

    stops_posterior = True

    def forward(self, evidence: Evidence) -> Tensor:
        if evidence.sample_weights is None:
            raise ValueError("evidence has no sample_weights: ask the model for them, as stops_posterior says")
        # The bound alone sends v_k d log w_k / d z_k to z_k.
        weights = torch.softmax(log_weights_of(evidence).detach(), dim=0)
        return super().forward(evidence) + (weights * evidence.sample_weights).sum()
