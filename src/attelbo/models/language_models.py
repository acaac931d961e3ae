"""From a configuration to a language model: parts are built around tokens, and whatever does not fit is refused.

Shapes: E features of a token.
"""

from typing import Unpack

from attelbo.building import Spec, part
from attelbo.checks import check_below_one
from attelbo.data.batch import DataSpec
from attelbo.errors import ConfigError
from attelbo.models.language_model import LanguageModel
from attelbo.models.parts import model_arguments
from attelbo.networks import AttentionParts, AttentionSpecs, TokenEmbedding


def build_language_model(
    data: DataSpec,
    network: Spec,
    dim: int,
    optimizer: Spec,
    scheduler: Spec,
    context: int | None = None,
    causal: bool = True,
    tie_weights: bool = True,
    dropout: float = 0.0,
    prefix: bool = False,
    **specs: Unpack[AttentionSpecs],
) -> LanguageModel:
    """Compose a language model from its configuration.

    Args:
        data: tokens with a token to be predicted at some of their places.
        network: the stack over tokens.
        dim: E.
        optimizer: its configuration.
        scheduler: the learning rate's.
        context: the most tokens that it can see; those of a row of the data if None.
        causal: whether no token sees those after it.
        tie_weights: whether embedding and head share their vectors.
        dropout: of the embedded tokens; attention and network have their own.
        prefix: whether the beginning of a row is seen from both sides, as :meth:`LanguageModel.prefix_of` has it.
        specs: those of :class:`~attelbo.networks.AttentionSpecs`.

    Raises:
        ConfigError: a part's argument is out of range, or parts, or parts and data, do not fit together.
    """
    check_tokens(data)
    length = data.shape[0]
    if context is not None and context < length:
        raise ConfigError(f"model.context must be at least {length}, the tokens of a row of {data.name}, got {context}")
    if causal and data.n_hidden is not None:
        raise ConfigError(
            f"model.causal: {data.name} hides tokens (data.masked), which are predicted from both sides; "
            "model.causal=false sees them"
        )
    if not causal and data.next_tokens:
        raise ConfigError(
            f"model.causal=false sees the next tokens of {data.name}, which it is to predict; model.causal=true does "
            "not, and of a text data.masked=0.15 hides others"
        )
    if prefix and (not causal or specs.get("score") is None):
        raise ConfigError("model.prefix needs model.causal=true, and attention with a mask, which linear has none of")
    parts = AttentionParts(**specs)
    looks_back = causal and not prefix
    places = parts.position_of(dim, length if context is None else context, causal=looks_back)
    with model_arguments():
        check_below_one(dropout=dropout)
    return LanguageModel(
        data,
        TokenEmbedding(data.n_tokens or 0, dim, places, dropout),
        part("network", network, dim=dim, parts=parts, position=places, causal=looks_back),
        optimizer,
        scheduler,
        causal=causal,
        tie_weights=tie_weights,
        prefix=prefix,
    )


def check_tokens(data: DataSpec) -> None:
    """Raise ConfigError unless the data are tokens, with a token to be predicted at each place or at some."""
    if data.kind != "tokens" or data.n_tokens is None:
        raise ConfigError(f"model: a language model takes tokens, {data.name} has {data.kind}; data=sort has tokens")
    elsewhere = data.target is not None and data.target.shape != data.shape
    if data.n_classes is not None or elsewhere or (data.pads and data.target is None):
        raise ConfigError(
            f"model: a language model predicts tokens in their places, which {data.name} does not ask for"
        )
