"""Models from sequence to sequence, from their configuration."""

from attelbo.building import Spec, part
from attelbo.data.batch import PAD, DataSpec
from attelbo.errors import ConfigError
from attelbo.models.sequence_to_sequence import SequenceToSequence
from attelbo.networks import AttentionParts, EncoderDecoder, TokenEmbedding, Transformer, TransformerEncoderDecoder


def build_transformer_translator(
    data: DataSpec,
    network: Spec,
    attention: Spec,
    score: Spec,
    normalizer: Spec,
    position: Spec,
    dim: int,
    optimizer: Spec,
    scheduler: Spec,
    dropout: float = 0.0,
    scale_embeddings: bool = True,
    tie_weights: bool = False,
    label_smoothing: float = 0.0,
) -> SequenceToSequence:
    """Compose encoder and decoder from the same configuration.

    Args:
        data: sources and their targets.
        network: the stack of blocks that both sides have.
        attention: in each block.
        score: likewise.
        normalizer: likewise.
        position: likewise; encoder and decoder have one each.
        dim: E, the features of a token.
        optimizer: its configuration.
        scheduler: the learning rate's.
        dropout: on embedded tokens.
        scale_embeddings: by sqrt(E), as in the paper.
        tie_weights: the logits take the vectors of the target's tokens.
        label_smoothing: of the loss.

    Raises:
        ConfigError: an argument is out of range, or parts, or a part and the data, do not fit together.
    """
    target = check_parallel(data)
    if dim < 1:
        raise ConfigError(f"model.dim must be at least 1, got {dim}")
    if not 0 <= dropout < 1:
        raise ConfigError(f"model.dropout must be in [0, 1), got {dropout}")
    parts = AttentionParts(attention, score, normalizer, position)

    def side(of: DataSpec, *, decodes: bool) -> tuple[TokenEmbedding, Transformer]:
        place = parts.position_of(dim, of.shape[0])
        embedding = TokenEmbedding(_n_tokens(of), dim, place, dropout, dim**0.5 if scale_embeddings else 1.0)
        stack = part("network", network, dim=dim, parts=parts, position=place, causal=decodes, cross=decodes)
        return embedding, stack

    n_tokens = _n_tokens(target)
    both = TransformerEncoderDecoder(
        *side(data, decodes=False), *side(target, decodes=True), n_tokens, PAD, tie_weights=tie_weights
    )
    return _model(both, target, optimizer, scheduler, label_smoothing)


def check_parallel(data: DataSpec) -> DataSpec:
    """What is known of the targets.

    Raises:
        ConfigError: the data are not sentences with other sentences as their targets.
    """
    if data.kind != "tokens" or data.target is None or not (data.pads and data.target.pads):
        raise ConfigError(f"model: it translates, and {data.name} has no sentences with translations; try data=dates")
    return data.target


def _model(
    network: EncoderDecoder, target: DataSpec, optimizer: Spec, scheduler: Spec, label_smoothing: float
) -> SequenceToSequence:
    try:
        return SequenceToSequence(network, target.shape[0] - 1, optimizer, scheduler, label_smoothing)
    except ValueError as error:
        raise ConfigError(f"model.{error}") from error


def _n_tokens(of: DataSpec) -> int:
    assert of.n_tokens is not None, "tokens without a vocabulary"
    return of.n_tokens
