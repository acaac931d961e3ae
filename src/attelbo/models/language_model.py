"""Models of tokens: predict the next token or, where all of a row is seen, the token at each place.

    tokens -- TokenEmbedding --> x -- network --> features -- head --> logits;   loss = -log p(y)

Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", with its initialization (section
2.3: the deeper the network, the smaller the initial residual branches); weights shared by embedding and head: Press &
Wolf 2017. If not causal, it is the encoder of Vaswani et al. 2017 with a prediction at each place, or where a token is
masked, as in BERT (Devlin et al. 2019). With a prefix, it is the prefix language model of Raffel et al. 2020 (T5),
section 3.2.1: the beginning of a row is seen from both sides, and what follows is predicted from what precedes it.

Shapes: B batch, T tokens, E features of a token, V vocabulary, K predicted tokens of a row (T unless known to be
fewer), L layers.
Units: nats for each predicted token.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attelbo.attention import BlockCache, Causal, Document, Mask, Padding
from attelbo.attention.masks import merged
from attelbo.building import Spec
from attelbo.data.batch import IGNORE, PAD, Batch, DataSpec
from attelbo.errors import UserError
from attelbo.latent.arithmetic import full_precision
from attelbo.metrics import Measure, TokenScores
from attelbo.models.base import Model, Terms, compute_and_reset
from attelbo.models.generation import Sampling
from attelbo.networks import TokenEmbedding, Transformer
from attelbo.networks.transformer import initialize_by_depth


class LanguageModel(Model):
    """A network over tokens that predicts a token at each place. See :func:`~attelbo.models.build_language_model`.

    Args:
        data: the tokens.
        embedding: of tokens, with positions.
        network: a stack over tokens (B, T, E).
        optimizer: its configuration.
        scheduler: the learning rate's.
        causal: whether the network sees, at each place, the tokens up to there only.
        tie_weights: whether embedding and head share their vectors.
        prefix: whether the beginning of a row is seen from both sides; the network then looks both ways.
    """

    def __init__(
        self,
        data: DataSpec,
        embedding: TokenEmbedding,
        network: Transformer,
        optimizer: Spec,
        scheduler: Spec,
        causal: bool = True,
        tie_weights: bool = True,
        prefix: bool = False,
    ) -> None:
        super().__init__(optimizer, scheduler)
        n_tokens, dim = embedding.vectors.weight.shape
        self.causal = causal
        self.prefix = prefix
        self.pads = data.pads
        self.n_predicted = data.n_hidden if data.answer_length is None else data.answer_length
        self.embedding = embedding
        self.network = network
        self.head = None if tie_weights else nn.Linear(dim, n_tokens, bias=False)
        self.scores = TokenScores(
            data.token_lengths, answers=data.answer_length is not None, hidden=data.n_hidden is not None
        )
        initialize_by_depth(self, network)

    # -- from a batch to its loss ---------------------------------------------------------------

    def forward(self, tokens: Tensor, segments: Tensor | None = None, prefix: Tensor | None = None) -> Tensor:
        """Logits (B, T, V) of tokens (B, T), of which each sees its own segment (B, T) only, where there are some, and
        of a prefix of so many tokens (B,) those behind it too."""
        return self.logits(self.features(tokens, segments, prefix))

    def features(self, tokens: Tensor, segments: Tensor | None = None, prefix: Tensor | None = None) -> Tensor:
        """(B, T, E) of tokens (B, T)."""
        return self.network(self.embedding(tokens), mask=self._mask(tokens, segments, prefix))

    def logits(self, features: Tensor) -> Tensor:
        """(..., V) of features (..., E), in full precision."""
        weight = self.embedding.vectors.weight if self.head is None else self.head.weight
        return full_precision(F.linear(features, weight))

    def _mask(self, tokens: Tensor, segments: Tensor | None, prefix: Tensor | None = None) -> Mask | None:
        seen = Causal() if self.prefix else None
        if seen is not None and prefix is not None:
            seen = seen | Padding.of_lengths(prefix, tokens.shape[1])
        if segments is not None:
            return merged(Document(segments), seen)
        # Padding comes last, so that causal attention does not see it.
        return Padding(tokens != PAD) if self.pads and not self.causal else seen

    def prefix_of(self, y: Tensor) -> Tensor:
        """The number of tokens at the beginning of each row that are seen from both sides, (B,), given y (B, T).

        In evaluation these are the tokens up to the first predicted one; in training up to a predicted one drawn
        uniformly by the default generator, and only the tokens from there on are predicted.
        """
        asked = (y >= 0).byte()
        first = asked.argmax(1)
        if not self.training:
            return first + 1
        last = y.shape[1] - 1 - asked.flip(1).argmax(1)
        return first + 1 + (torch.rand(len(y), device=y.device) * (last - first + 1)).long().minimum(last - first)

    def _predictions(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Features (B, K, E) and the tokens (B, K) that are to be predicted, negative where there are fewer than K."""
        batch = self.drawn(batch)
        features, y = self.features(batch.x, batch.segments, batch.prefix), self._asked(batch)
        if self.n_predicted is not None and self.n_predicted < y.shape[1]:
            # With a large vocabulary most of the cost is in the head.
            places = (y >= 0).to(torch.uint8).topk(self.n_predicted, -1).indices  # (B, K)
            y = y.gather(1, places)
            features = features.gather(1, places.unsqueeze(-1).expand(-1, -1, features.shape[-1]))
        return features, y

    @staticmethod
    def _asked(batch: Batch) -> Tensor:
        """The tokens that are to be predicted, (B, T), negative elsewhere: in a prefix, for one."""
        assert batch.y is not None
        if batch.prefix is None:
            return batch.y
        places = torch.arange(1, batch.y.shape[1] + 1, device=batch.y.device)
        return batch.y.masked_fill(places < batch.prefix.unsqueeze(1), IGNORE)

    def drawn(self, batch: Batch) -> Batch:
        """The batch with its prefixes, if it has none yet."""
        if not self.prefix or batch.prefix is not None:
            return batch
        assert batch.y is not None
        return batch._replace(prefix=self.prefix_of(batch.y))

    def losses(self, batch: Batch) -> Terms:
        features, y = self._predictions(batch)
        return {"loss": F.cross_entropy(self.logits(features).flatten(0, 1), y.flatten(), ignore_index=IGNORE)}

    def counted(self, batch: Batch) -> Tensor:
        """The tokens that are to be predicted."""
        return (self._asked(batch) >= 0).sum()

    # -- evaluation: exact means over a split --------------------------------------------------------

    def evaluation_step(self, batch: Batch) -> None:
        features, y = self._predictions(batch)
        self.scores.update(self.logits(features[y >= 0]), y)

    def evaluation_results(self) -> Terms:
        return compute_and_reset(self.scores)

    @property
    def measures(self) -> Sequence[Measure]:
        return self.scores.measures

    # -- what one does with a trained model --------------------------------------------------------

    @torch.no_grad()
    def surprise(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """-log p of each token that is to be predicted, nats, 0 where there is none, and these tokens, negative there:
        both (B, K), in their places if K is T."""
        features, y = self._predictions(batch)
        asked = y >= 0
        nats = F.cross_entropy(self.logits(features[asked]), y[asked], reduction="none")
        return nats.new_zeros(y.shape).masked_scatter(asked, nats), y

    def predicted(self, batch: Batch) -> Tensor:
        """-log p of each token that is to be predicted, nats, 0 where there is none: (B, K)."""
        return self.surprise(batch)[0]

    @property
    def limit(self) -> int | None:
        """The most tokens that it can see; None: any number."""
        return self.embedding.position.max_length

    @torch.no_grad()
    def generate(
        self,
        prompt: Tensor,
        length: int,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        typical_p: float | None = None,
        truncate: bool = False,
    ) -> Tensor:
        """Continue a prompt (B, T) by ``length`` tokens: (B, T + length), drawn from torch's default generator.

        Keys and values of the tokens so far are cached, so that a token costs one step of the network. Beyond the
        context, if ``truncate`` allows it to drop the first tokens, all others change their positions, and each step
        recomputes all of them.

        Args:
            prompt: at least one token for each row.
            length: the number of tokens to add.
            temperature: divides the logits; 0: always the likeliest token.
            top_k: only one of the k likeliest tokens.
            top_p: only one of the likeliest tokens that together have this probability.
            min_p: only one of the tokens that have this share of the likeliest one's probability, or more.
            typical_p: only one of the tokens that together have this probability, the most typical ones first, whose
                surprise is nearest to the entropy.
            truncate: whether tokens beyond the context may be dropped.

        Raises:
            UserError: the model sees all of a row, a number is out of range, a token is not in the vocabulary, or the
                tokens are more than the model can see.
        """
        sampling = Sampling(temperature, top_k, top_p, min_p, typical_p)
        first, total = prompt.shape[1], prompt.shape[1] + length
        self._check_prompt(prompt, length, truncate)
        window = total if self.limit is None else self.limit
        tokens = torch.cat([prompt, prompt.new_empty(len(prompt), length)], 1)
        caches, kept = self.network.caches(min(total, window)), 0
        for end in range(first, total):
            if end <= window:
                logits = self._next_logits(tokens[:, kept:end], kept, caches)
                kept = end
            else:
                logits = self._next_logits(tokens[:, end - window : end])
            tokens[:, end] = sampling.draw(logits)
        return tokens

    def _next_logits(self, tokens: Tensor, first: int = 0, caches: Sequence[BlockCache] | None = None) -> Tensor:
        """Logits (B, V) of the token after tokens (B, T), of which the first is at position ``first``."""
        features = self.network(self.embedding(tokens, first), caches=caches)
        return self.logits(features[:, -1])

    def _check_prompt(self, prompt: Tensor, length: int, truncate: bool) -> None:
        if not self.causal:
            raise UserError("a model that sees all of a row (model.causal=false) cannot continue a text")
        if length < 1 or prompt.shape[1] < 1:
            raise UserError(f"prompt and length must be at least 1 token, got {prompt.shape[1]} and {length}")
        n_tokens = self.embedding.vectors.num_embeddings
        if prompt.numel() and not 0 <= int(prompt.min()) <= int(prompt.max()) < n_tokens:
            raise UserError(f"the tokens of a prompt must be in 0..{n_tokens - 1}, got {prompt.unique().tolist()}")
        seen = prompt.shape[1] + length - 1  # the last one is not read
        if self.limit is not None and seen > self.limit and not truncate:
            raise UserError(
                f"to continue {prompt.shape[1]} tokens by {length} takes a context of {seen} tokens, "
                f"{seen - self.limit} more than the {self.limit} of the model; truncate=true drops the first of them"
            )
