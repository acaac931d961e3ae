"""Sequence-to-sequence models: translation, dates, any source with a target of its own length.

    log p(y | x) = sum_u log p(y_u | y_<u, x),   u over the tokens of the target and its end

Source: Sutskever, Vinyals & Le 2014, "Sequence to Sequence Learning with Neural Networks".

Shapes: B sentences, S tokens of the source, U + 1 tokens of the target with BOS and EOS, V vocabulary of the target, F
input features of the logits.
Units: nats per token of the target, including EOS, but not BOS and PAD.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from attelbo.building import Spec
from attelbo.checks import check_at_least, check_below_one, check_not_negative
from attelbo.data.batch import BOS, EOS, IGNORE, PAD, Batch
from attelbo.errors import UserError
from attelbo.latent.arithmetic import full_precision
from attelbo.metrics import Measure, TokenScores
from attelbo.models.base import Model, Terms, compute_and_reset
from attelbo.networks import EncoderDecoder, Tokens, beam_search

SPECIAL = Tokens(PAD, BOS, EOS)


class SequenceToSequence(Model):
    """A network that reads a source, trained to predict each token of its target from those before.

    Args:
        network: p(y | x).
        max_length: the most tokens of a target, EOS among them.
        label_smoothing: the share of each target's probability that the loss spreads evenly over all tokens (Szegedy et
            al. 2016); not in evaluation.
        characters: the number of characters of each token of the target's vocabulary; None: not known.
        beam: hypotheses of each target that a search keeps by default; 1: greedy search.
        length_penalty: how much a search favours longer targets, see ``networks.beam_search``.
        optimizer: its configuration.
        scheduler: the learning rate's.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(
        self,
        network: EncoderDecoder,
        max_length: int,
        optimizer: Spec,
        scheduler: Spec,
        characters: Sequence[int] | None = None,
        label_smoothing: float = 0.0,
        beam: int = 1,
        length_penalty: float = 0.0,
    ) -> None:
        super().__init__(optimizer, scheduler)
        check_below_one(label_smoothing=label_smoothing)
        check_at_least(1, beam=beam)
        check_not_negative(length_penalty=length_penalty)
        self.network = network
        self.max_length = max_length
        self.label_smoothing = label_smoothing
        self.beam = beam
        self.length_penalty = length_penalty
        # If each token is predicted right given those before, greedy search finds the whole target.
        self.scores = TokenScores(characters, answers=True)

    # -- from a batch to its loss ---------------------------------------------------------------

    def features(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The features of the predictions of the tokens after BOS, (B, U, F), and these tokens (B, U), with IGNORE in
        place of PAD."""
        assert batch.y is not None, "a batch without targets"
        targets = batch.y[:, 1:]
        return self.network.features(batch.x, batch.y[:, :-1]), targets.masked_fill(targets == PAD, IGNORE)

    def logits(self, features: Tensor) -> Tensor:
        """(..., V) of features (..., F), in full precision."""
        return full_precision(self.network.output(features))

    def losses(self, batch: Batch) -> Terms:
        features, targets = self.features(batch)
        if features.device.type == "cpu":
            # Logits of padding would be much of the cost. On other devices shapes must not depend on values.
            features, targets = features[targets >= 0], targets[targets >= 0]
        loss = F.cross_entropy(
            self.logits(features).flatten(0, -2),
            targets.flatten(),
            ignore_index=IGNORE,
            label_smoothing=self.label_smoothing,
        )
        return {"loss": loss}

    def counted(self, batch: Batch) -> Tensor:
        """The number of tokens after BOS."""
        assert batch.y is not None, "a batch without targets"
        return (batch.y[:, 1:] != PAD).sum()

    # -- evaluation: exact means over a split -----------------------------------------------------

    def evaluation_step(self, batch: Batch) -> None:
        features, targets = self.features(batch)
        self.scores.update(self.logits(features[targets >= 0]), targets)

    def evaluation_results(self) -> Terms:
        return compute_and_reset(self.scores)

    @property
    def measures(self) -> Sequence[Measure]:
        return self.scores.measures

    # -- what one does with a trained model --------------------------------------------------------

    @torch.no_grad()
    def translate(
        self,
        source: Tensor,
        *,
        beam: int | None = None,
        length_penalty: float | None = None,
        max_length: int | None = None,
    ) -> list[list[int]]:
        """The likeliest targets that a search finds, as tokens without BOS and EOS.

        Args:
            source: (B, S).
            beam: hypotheses of each that are kept, 1: greedy search; the model's own number if None.
            length_penalty: how much longer targets are favoured; the model's own if None.
            max_length: the most tokens, including EOS; as many as the model allows if None.

        Raises:
            UserError: a source that is longer than the model allows, or a number out of range.
        """
        if max_length is not None and max_length > self.max_length:
            raise UserError(f"max_length must be at most {self.max_length}, got {max_length}")
        length = self.max_length if max_length is None else max_length
        try:
            found = beam_search(
                self.network.begin(source, length),
                len(source),
                SPECIAL,
                max_length=length,
                beam=self.beam if beam is None else beam,
                length_penalty=self.length_penalty if length_penalty is None else length_penalty,
            )
        except ValueError as error:
            raise UserError(str(error)) from error
        return [[token for token in row if token not in SPECIAL] for row in found.tokens.tolist()]

    def predicted(self, batch: Batch) -> list[list[int]]:
        """The translation of each source, as tokens."""
        return self.translate(batch.x)

    @torch.no_grad()
    def alignment(self, source: Tensor, target: Tensor, heads: bool = False) -> Tensor:
        """How much the prediction after each token of target (B, U), BOS first, attends to each one of source (B, S):
        weights (B, U, S), the means over heads of the last layer, or those of each of its N ``heads``, (B, N, U, S).

        Raises:
            UserError: the model has no attention to the source.
        """
        self.check_aligns()
        return self.network.alignment(source, target, heads)

    def check_aligns(self) -> None:
        """Raise UserError where the model has no attention to the source."""
        if not self.network.aligns:
            raise UserError(f"a model without attention to the source has no alignment ({type(self.network).__name__})")
