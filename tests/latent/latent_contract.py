"""What the contract tables share: the registered parts, as the configuration files name them.

A table is keyed by the names of a family of files in ``conf/model/<group>``. A new file without an entry fails.
"""

from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from attelbo.building import Spec, build
from attelbo.latent import Distribution, Prior, sampled_kl

FAMILIES: dict[str, dict[str, set[str]]] = {
    "extra": {"similarity": {"ms_ssim", "perceptual"}},
    "posterior": {
        "batch": {"batch_normalized"},
        "discrete": {"gumbel_softmax", "joint"},
        "flow": {"iaf", "planar", "radial", "sylvester"},
        "map": {"spatial_normal"},
        "normal": {"diagonal_normal", "full_normal", "low_rank_normal"},
        "point": {"deterministic"},
        "quantized": {
            "finite_scalar",
            "multi_scale_vector_quantized",
            "residual_vector_quantized",
            "vector_quantized",
        },
        "sphere": {"von_mises_fisher"},
        "hyperbolic": {"wrapped_normal"},
        "guided": {"hamiltonian", "riemannian_hamiltonian"},
        "positive": {"gamma"},
    },
    "prior": {
        "codes": {
            "autoregressive_convolutional",
            "autoregressive_recurrent",
            "autoregressive_transformer",
            "uniform_codes",
        },
        "density": {"class_conditional_normal", "mixture_of_gaussians", "standard_normal", "vamp"},
        "diffusion": {"diffusion", "diffusion_transformer"},
        "discrete": {"joint", "uniform_categorical"},
        "estimated": {"two_stage"},
        "flow": {"iaf", "maf", "real_nvp"},
        "positive": {"gamma"},
        "scales": {"next_scale_transformer"},
        "sphere": {"uniform_sphere"},
        "hyperbolic": {"wrapped_normal"},
    },
    "likelihood": {
        "pixelwise": {
            "bernoulli",
            "beta_binomial",
            "categorical",
            "continuous_bernoulli",
            "discretized_logistic",
            "heteroscedastic_normal",
            "hyperbolic_secant",
            "laplace",
            "logistic_mixture",
            "normal",
        }
    },
    "objective": {
        "autoencoder": {"rae"},
        "bound": {"ciwae", "dreg", "elbo", "iwae", "lagging", "miwae", "piwae"},
        "game": {"adversarial", "factor", "vae_gan"},
        "regularized": {"beta_tc", "capacity", "dip", "info", "sliced_wasserstein", "wae_mmd"},
    },
}
"""Group -> family -> files. Each family has a table of its own that all of its parts are in; a file in none fails."""

CONF = Path(__file__).parents[2] / "conf" / "model"


def files(group: str) -> dict[str, Path]:
    return {path.stem: path for path in sorted((CONF / group).glob("*.yaml"))}


def spec(group: str, name: str) -> Spec:
    node = OmegaConf.to_container(OmegaConf.load(files(group)[name]))
    assert isinstance(node, dict)
    return {str(key): value for key, value in node.items()}


def build_part(group: str, name: str, **given: Any) -> Any:
    """The part as its file describes it, in float64."""
    return build({**spec(group, name), **given}).double()


def randomize(module: nn.Module, scale: float = 0.3) -> nn.Module:
    """Away from the initialization, where some parameters are zero and some tests would be blind."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=scale)
    return module


def grid(dim: int, half_width: float, points: int) -> tuple[Tensor, float]:
    """A regular grid over [-half_width, half_width]^dim, (points^dim, dim), and the volume of a cell."""
    axis = torch.linspace(-half_width, half_width, points, dtype=torch.float64)
    nodes = torch.cartesian_prod(*[axis] * dim).reshape(-1, dim)
    return nodes, float(axis[1] - axis[0]) ** dim


def kl(prior: Prior, q: Distribution, n: int) -> Tensor:
    """KL(q || prior), (B,), as a model has it: exact where the prior knows it, else from n samples."""
    exact = prior.exact_kl(q)
    return sampled_kl(prior, q, n) if exact is None else exact.sum(-1)
