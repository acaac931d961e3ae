"""What is trained: LightningModules that wire latent/, attention/ and networks/ together."""

from attelbo.models.adaptive import AdaptiveVAE, build_adaptive_vae
from attelbo.models.air import AttendInferRepeat, build_air
from attelbo.models.base import Model, Player, Terms, count_parameters
from attelbo.models.classifier import (
    Classifier,
    build_image_classifier,
    build_text_classifier,
    build_vision_transformer,
)
from attelbo.models.conditional import ConditionalVAE, build_conditional_vae
from attelbo.models.deep_attentive import DeepAttentiveVAE, build_deep_attentive
from attelbo.models.draw import DRAW, build_draw
from attelbo.models.evidence_model import EvidenceModel
from attelbo.models.fitted_prior import FittedPrior, build_fitted_prior
from attelbo.models.hierarchy import Hierarchy
from attelbo.models.ladder import LadderVAE, build_ladder
from attelbo.models.language_model import LanguageModel
from attelbo.models.language_models import build_language_model
from attelbo.models.latent_variable import LatentVariableModel
from attelbo.models.loading import build_data, build_model, checkpoint_of, load_run, load_weights
from attelbo.models.neural_process import NeuralProcess, build_neural_process
from attelbo.models.semi_supervised import SemiSupervisedVAE, build_m2
from attelbo.models.sequence_to_sequence import SequenceToSequence
from attelbo.models.set_model import Clustering, Mixture, Regression, SetModel, build_set_model
from attelbo.models.slot_autoencoder import SlotAutoencoder, build_slot_autoencoder
from attelbo.models.text_vae import TextVAE
from attelbo.models.text_vaes import build_recurrent_text_vae, build_transformer_text_vae
from attelbo.models.top_down import TopDownVAE, build_top_down
from attelbo.models.translators import build_recurrent_translator, build_transformer_translator
from attelbo.models.vae import VariationalAutoencoder, build_vae

__all__ = [
    "DRAW",
    "AdaptiveVAE",
    "AttendInferRepeat",
    "Classifier",
    "Clustering",
    "ConditionalVAE",
    "DeepAttentiveVAE",
    "EvidenceModel",
    "FittedPrior",
    "Hierarchy",
    "LadderVAE",
    "LanguageModel",
    "LatentVariableModel",
    "Mixture",
    "Model",
    "NeuralProcess",
    "Player",
    "Regression",
    "SemiSupervisedVAE",
    "SequenceToSequence",
    "SetModel",
    "SlotAutoencoder",
    "Terms",
    "TextVAE",
    "TopDownVAE",
    "VariationalAutoencoder",
    "build_adaptive_vae",
    "build_air",
    "build_conditional_vae",
    "build_data",
    "build_deep_attentive",
    "build_draw",
    "build_fitted_prior",
    "build_image_classifier",
    "build_ladder",
    "build_language_model",
    "build_m2",
    "build_model",
    "build_neural_process",
    "build_recurrent_text_vae",
    "build_recurrent_translator",
    "build_set_model",
    "build_slot_autoencoder",
    "build_text_classifier",
    "build_top_down",
    "build_transformer_text_vae",
    "build_transformer_translator",
    "build_vae",
    "build_vision_transformer",
    "checkpoint_of",
    "count_parameters",
    "load_run",
    "load_weights",
]
