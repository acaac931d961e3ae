"""Variational autoencoders of texts, from their configuration."""

import math
from typing import Any, Unpack

from torch import nn

from attelbo.building import Spec, part
from attelbo.checks import check_at_least, check_below_one, check_repetitions
from attelbo.data.batch import PAD, DataSpec
from attelbo.errors import ConfigError
from attelbo.latent import Posterior
from attelbo.latent.likelihoods.tokens import CategoricalTokens
from attelbo.models.parts import check_density, check_objective, check_prior, model_arguments, offered_by
from attelbo.models.text_vae import TextVAE
from attelbo.networks import (
    AttentionParts,
    AttentionSpecs,
    RecurrentTextDecoder,
    RecurrentTextEncoder,
    TokenEmbedding,
    TokenEncoder,
    TransformerTextDecoder,
)
from attelbo.networks.recurrent import CellName, Directions
from attelbo.networks.text import LatentPlace, StateOrInputs


def build_recurrent_text_vae(
    data: DataSpec,
    posterior: Spec,
    prior: Spec,
    objective: Spec,
    latent_dim: int,
    optimizer: Spec,
    scheduler: Spec,
    text_encoder: Spec | None = None,
    cell: CellName = "gru",
    embedding: int = 300,
    hidden: int = 256,
    layers: int = 1,
    directions: Directions = "forward",
    latent_into: StateOrInputs = "state",
    share_embeddings: bool = True,
    word_dropout: float = 0.0,
    dropout: float = 0.0,
) -> TextVAE:
    """Compose a text VAE of recurrent networks.

    Args:
        data: texts.
        posterior: on the encoder's last state.
        prior: of z.
        objective: what becomes of the evidence terms.
        latent_dim: D.
        optimizer: its configuration.
        scheduler: the learning rate's.
        text_encoder: another encoder, without ``directions``; None: units like those of the decoder.
        cell: this and what follows: see ``networks.text``.
        embedding: features of a token.
        hidden: of a state, of each direction.
        layers: on both sides.
        directions: how the encoder reads.
        latent_into: where z enters: the decoder's initial state, each of its inputs, or both.
        share_embeddings: whether encoder and decoder share the embedding of tokens, which then belongs to the encoder
            where the two are trained in turns.
        word_dropout: the share of the decoder's inputs that are UNK in training.
        dropout: on the decoder's embedded tokens, and between layers.

    Raises:
        ConfigError: an argument is out of range, or parts, or a part and the data, do not fit together.
    """
    n_tokens = check_texts(data)
    with model_arguments():
        check_at_least(1, embedding=embedding, hidden=hidden, latent_dim=latent_dim)
        check_repetitions(layers=layers)
        check_below_one(word_dropout=word_dropout, dropout=dropout)
    if text_encoder is not None and directions != "forward":
        raise ConfigError(
            f"model.directions={directions} is how recurrent units read; {text_encoder['_target_']} "
            "(model/text_encoder) has none"
        )
    read = nn.Embedding(n_tokens, embedding)
    written = read if share_embeddings else nn.Embedding(n_tokens, embedding)
    with model_arguments():
        if text_encoder is None:
            encoder = RecurrentTextEncoder(read, PAD, cell, hidden, layers, directions, dropout)
        else:
            encoder = _encoder(text_encoder, read, data)
        q = part("posterior", posterior, in_shape=(encoder.out_features,), latent_dim=latent_dim)
        decoder = RecurrentTextDecoder(math.prod(q.latent_shape), written, cell, hidden, layers, latent_into, dropout)
    rest = _beside(q, data, prior, objective)
    return TextVAE(word_dropout, encoder=encoder, decoder=decoder, **rest, optimizer=optimizer, scheduler=scheduler)


def build_transformer_text_vae(
    data: DataSpec,
    network: Spec,
    pooling: Spec,
    dim: int,
    posterior: Spec,
    prior: Spec,
    objective: Spec,
    latent_dim: int,
    optimizer: Spec,
    scheduler: Spec,
    text_encoder: Spec | None = None,
    latent_into: LatentPlace = "memory",
    n_memory: int = 4,
    tie_weights: bool = True,
    word_dropout: float = 0.0,
    dropout: float = 0.0,
    **specs: Unpack[AttentionSpecs],
) -> TextVAE:
    """Compose a text VAE of transformers, both sides from the same configuration.

    Args:
        data: texts.
        network: the stack of blocks of both sides.
        pooling: from the tokens of the encoder's network to one vector.
        dim: E, the features of a token.
        posterior: on that vector.
        prior: of z.
        objective: what becomes of the evidence terms.
        latent_dim: D.
        optimizer: its configuration.
        scheduler: the learning rate's.
        text_encoder: another encoder; None: blocks like those of the decoder, and the pooling.
        latent_into: how z reaches the decoder, see ``networks.TransformerTextDecoder``.
        n_memory: tokens computed from z, for ``memory`` and ``cross``.
        tie_weights: whether the output layer shares the decoder's embedding.
        word_dropout: the share of the decoder's inputs that are UNK in training.
        dropout: on embedded tokens, of both sides.
        specs: those of :class:`~attelbo.networks.AttentionSpecs`, the same on both sides.

    Raises:
        ConfigError: an argument is out of range, or parts, or a part and the data, do not fit together.
    """
    n_tokens = check_texts(data)
    with model_arguments():
        check_at_least(1, dim=dim, latent_dim=latent_dim, n_memory=n_memory)
        check_below_one(word_dropout=word_dropout, dropout=dropout)
    if text_encoder is None:
        pool = part("pooling", pooling, dim=dim)
        parts = AttentionParts(**specs, n_global=pool.n_own)
        read = parts.position_of(dim, data.shape[0] + pool.n_own, causal=False)
        encoder = TokenEncoder(
            TokenEmbedding(n_tokens, dim, read, dropout),
            part("network", network, dim=dim, parts=parts, position=read, causal=False),
            pool,
            padding=PAD,
        )
        features = dim
    else:
        encoder = _encoder(text_encoder, nn.Embedding(n_tokens, dim), data)
        features = encoder.out_features
    parts = AttentionParts(**specs, n_global=n_memory if latent_into == "memory" else 0)
    written = parts.position_of(dim, data.shape[0] + n_memory, causal=True)
    stack = part("network", network, dim=dim, parts=parts, position=written, causal=True, cross=latent_into == "cross")
    q = part("posterior", posterior, in_shape=(features,), latent_dim=latent_dim)
    with model_arguments():
        embedding = TokenEmbedding(n_tokens, dim, written, dropout)
        decoder = TransformerTextDecoder(
            math.prod(q.latent_shape), embedding, stack, latent_into, n_memory, tie_weights
        )
    rest = _beside(q, data, prior, objective)
    return TextVAE(word_dropout, encoder=encoder, decoder=decoder, **rest, optimizer=optimizer, scheduler=scheduler)


def _encoder(spec: Spec, embedding: nn.Embedding, data: DataSpec) -> Any:
    """The configured encoder of texts."""
    return part("text_encoder", spec, embedding=embedding, padding=PAD, max_length=data.shape[0])


def check_texts(data: DataSpec) -> int:
    """The size of the vocabulary.

    Raises:
        ConfigError: the data are not texts, each a row between BOS and EOS.
    """
    if data.kind != "tokens" or not data.pads or data.target is not None or data.n_tokens is None:
        raise ConfigError(
            f"model: a text VAE takes texts, each a row from its beginning to its end, which {data.name} has not; "
            "data=reference_sentences has"
        )
    return data.n_tokens


def _beside(q: Posterior, data: DataSpec, prior: Spec, objective: Spec) -> dict[str, Any]:
    """The posterior, prior, likelihood and objective, by name.

    Raises:
        ConfigError: an argument is out of range, or parts do not fit together.
    """
    check_prior(prior, q.space, q.distribution, type(q).__name__)
    offered = offered_by(q.latent_shape, q.space, data)
    o = part("objective", objective, **offered)
    check_objective(o, q)
    if o.needs_eta:
        raise ConfigError(
            f"model/objective: {type(o).__name__} needs the decoder's output for z alone, and a text is decoded "
            "token by token"
        )
    r = part("prior", prior, **offered)
    check_density(r, q.space)
    if r.made_of_posteriors:
        raise ConfigError(
            f"model/prior: {type(r).__name__} makes posteriors of learned data, and tokens are not learned"
        )
    likelihood = CategoricalTokens(data.shape[0] - 1, data.n_tokens or 0, PAD)
    return {"posterior": q, "prior": r, "likelihood": likelihood, "objective": o}
