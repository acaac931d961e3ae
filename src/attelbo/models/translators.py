"""Sequence-to-sequence models, from their configuration."""

from typing import Any, Unpack

from attelbo.attention import Attention
from attelbo.building import Spec, part
from attelbo.checks import check_at_least, check_below_one
from attelbo.data.batch import PAD, DataSpec
from attelbo.errors import ConfigError
from attelbo.models.parts import model_arguments
from attelbo.models.sequence_to_sequence import SequenceToSequence
from attelbo.networks import (
    AttentionParts,
    AttentionSpecs,
    EncoderDecoder,
    RecurrentEncoderDecoder,
    TokenEmbedding,
    Transformer,
    TransformerEncoderDecoder,
)
from attelbo.networks.recurrent import CellName, Directions
from attelbo.networks.recurrent_translation import Query


def build_transformer_translator(
    data: DataSpec,
    network: Spec,
    dim: int,
    optimizer: Spec,
    scheduler: Spec,
    dropout: float = 0.0,
    scale_embeddings: bool = True,
    tie_weights: bool = False,
    share_embeddings: bool = False,
    label_smoothing: float = 0.0,
    beam: int = 1,
    length_penalty: float = 0.0,
    **specs: Unpack[AttentionSpecs],
) -> SequenceToSequence:
    """Compose encoder and decoder from the same configuration.

    Args:
        data: sources and their targets.
        network: the stack of blocks that both sides have.
        dim: E, the features of a token.
        optimizer: its configuration.
        scheduler: the learning rate's.
        dropout: on embedded tokens.
        scale_embeddings: by sqrt(E), as in the paper.
        tie_weights: whether the output layer shares the target's embedding.
        share_embeddings: whether source and target share one embedding (Press & Wolf 2017).
        label_smoothing: of the loss.
        beam: hypotheses that a search keeps in evaluation; 1: the greedy search.
        length_penalty: how much longer targets are favoured then.
        specs: those of :class:`~attelbo.networks.AttentionSpecs`, the same on both sides.

    Raises:
        ConfigError: an argument is out of range, or parts, or a part and the data, do not fit together.
    """
    target = check_parallel(data)
    with model_arguments():
        check_at_least(1, dim=dim)
        check_below_one(dropout=dropout)
    if share_embeddings and (data.n_tokens, data.token_lengths) != (target.n_tokens, target.token_lengths):
        raise ConfigError(
            f"model.share_embeddings: sources and targets have vocabularies of their own, {data.n_tokens} and "
            f"{target.n_tokens} tokens; data.target_tokenizer=null makes one of both"
        )
    parts = AttentionParts(**specs)

    def side(of: DataSpec, *, decodes: bool) -> tuple[TokenEmbedding, Transformer]:
        place = parts.position_of(dim, of.shape[0], causal=decodes)
        embedding = TokenEmbedding(_n_tokens(of), dim, place, dropout, dim**0.5 if scale_embeddings else 1.0)
        readers = 0 if decodes else network.get("layers", 0)
        sizes = {"dim": dim, "decoder_layers": readers}
        stack = part("network", network, **sizes, parts=parts, position=place, causal=decodes, cross=decodes)
        return embedding, stack

    n_tokens = _n_tokens(target)
    both = TransformerEncoderDecoder(
        *side(data, decodes=False),
        *side(target, decodes=True),
        n_tokens,
        PAD,
        tie_weights=tie_weights,
        share_embeddings=share_embeddings,
    )
    return _model(both, target, optimizer, scheduler, label_smoothing, beam, length_penalty)


def build_recurrent_translator(
    data: DataSpec,
    optimizer: Spec,
    scheduler: Spec,
    score: Spec | None = None,
    normalizer: Spec | None = None,
    cell: CellName = "gru",
    embedding: int = 256,
    hidden: int = 512,
    layers: int = 1,
    directions: Directions = "forward",
    feeds_last: bool = False,
    query: Query = "previous",
    readout: int | None = None,
    teacher_forcing: float = 1.0,
    dropout: float = 0.0,
    label_smoothing: float = 0.0,
    beam: int = 1,
    length_penalty: float = 0.0,
) -> SequenceToSequence:
    """Compose recurrent encoder and decoder, and attention between them.

    Args:
        data: sources and their targets.
        optimizer: its configuration.
        scheduler: the learning rate's.
        score: of attention; None: there is none.
        normalizer: of attention; softmax if None.
        cell: this and what follows: see ``networks.RecurrentEncoderDecoder``.
        embedding: features of a token.
        hidden: of a state.
        layers: on both sides.
        directions: how the source is read.
        feeds_last: without attention, whether the encoder's last state is an input of every step.
        query: which state is the query of attention.
        readout: features of a layer in front of the logits.
        teacher_forcing: the probability with which a step in training is given the true token.
        dropout: on embedded tokens and between layers.
        label_smoothing: of the loss.
        beam: hypotheses that a search keeps in evaluation; 1: the greedy search.
        length_penalty: how much longer targets are favoured then.

    Raises:
        ConfigError: an argument is out of range, or parts, or a part and the data, do not fit together.
    """
    target = check_parallel(data)
    if normalizer is not None and score is None:
        raise ConfigError("model/normalizer: there is no attention without a score; model/score=additive has one")
    with model_arguments():
        check_at_least(1, hidden=hidden)  # attention is built first, and needs it too
        network = RecurrentEncoderDecoder(
            _n_tokens(data),
            _n_tokens(target),
            PAD,
            None if score is None else _alignment(score, normalizer, hidden, directions, data.shape[0]),
            cell=cell,
            embedding=embedding,
            hidden=hidden,
            layers=layers,
            directions=directions,
            feeds_last=feeds_last,
            query=query,
            readout=readout,
            teacher_forcing=teacher_forcing,
            dropout=dropout,
        )
    return _model(network, target, optimizer, scheduler, label_smoothing, beam, length_penalty)


def _alignment(score: Spec, normalizer: Spec | None, hidden: int, directions: Directions, max_length: int) -> Attention:
    offered = {"dim": hidden, "heads": 1, "head_dim": hidden, "max_length": max_length}
    return Attention(
        hidden,
        hidden * (2 if directions == "both" else 1),
        score=part("score", score, **offered),
        normalizer=None if normalizer is None else part("normalizer", normalizer, **offered),
    )


def check_parallel(data: DataSpec) -> DataSpec:
    """The specification of the targets.

    Raises:
        ConfigError: the data are not sentences with other sentences as their targets.
    """
    of_itself = data.next_tokens or data.n_hidden is not None
    if data.kind != "tokens" or data.target is None or not (data.pads and data.target.pads) or of_itself:
        raise ConfigError(f"model: it translates, and {data.name} has no sentences with translations; try data=dates")
    return data.target


def _model(
    network: EncoderDecoder, target: DataSpec, optimizer: Spec, scheduler: Spec, *options: Any
) -> SequenceToSequence:
    with model_arguments():
        # BOS is given, not searched for.
        return SequenceToSequence(network, target.shape[0] - 1, optimizer, scheduler, target.token_lengths, *options)


def _n_tokens(of: DataSpec) -> int:
    assert of.n_tokens is not None, "tokens without a vocabulary"
    return of.n_tokens
