"""What is trained: LightningModules that wire latent/, attention/ and networks/ together."""

from attelbo.models.base import Model, Player, Terms, count_parameters
from attelbo.models.latent_variable import LatentVariableModel
from attelbo.models.loading import build_data, build_model, checkpoint_of, load_run, load_weights, read_config
from attelbo.models.vae import VariationalAutoencoder, build_vae

__all__ = [
    "LatentVariableModel",
    "Model",
    "Player",
    "Terms",
    "VariationalAutoencoder",
    "build_data",
    "build_model",
    "build_vae",
    "checkpoint_of",
    "count_parameters",
    "load_run",
    "load_weights",
    "read_config",
]
