"""Models with latent variables: whatever their structure, a batch becomes evidence terms, and these become a loss.

    batch -- evidence --> log p(x|z), log p(z), log q(z|x), KL -- objective --> loss

A subclass of :class:`EvidenceModel` computes the terms; objectives, metrics and evaluation are shared.

Shapes: K samples of z for each x, B batch, (C, H, W) image, E event shape of z, D its dimensions.
Units: nats, summed over the dimensions of x and averaged over the batch.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from attelbo.building import Spec
from attelbo.data.batch import Batch
from attelbo.latent import Evidence, Extra, Likelihood, Objective, Quantized, Turn
from attelbo.latent.spaces import Codes
from attelbo.metrics import ActiveUnits, CodeUsage, Measure, SampleMean
from attelbo.models.base import Model, Monitor, Player, Terms, compute_and_reset


class EvidenceModel(Model):
    """A likelihood, an objective, and between them whatever structure a subclass has.

    Args:
        likelihood: p(x|z).
        objective: the loss as a function of the evidence terms.
        n_latent: D, the numbers in one z, all layers together.
        has_kl: whether q(z|x) has a density: not where it is a point among real numbers.
        optimizer: its configuration.
        scheduler: the learning rate's.
        codes: the space of q(z|x), where it is one of codes.
        extra: a distance between x and E[x|z] that is added to the loss, no part of a bound.
    """

    has_dimensions: ClassVar[bool] = True
    """Whether all x have the same number of dimensions, so that there are bits per dimension."""

    def __init__(
        self,
        likelihood: Likelihood,
        objective: Objective,
        n_latent: int,
        optimizer: Spec,
        scheduler: Spec,
        has_kl: bool = True,
        codes: Codes | None = None,
        extra: Extra | None = None,
    ) -> None:
        super().__init__(optimizer, scheduler)
        self.likelihood = likelihood
        self.objective = objective
        self.extra = extra
        self.has_kl = has_kl
        self.bounded = has_kl and likelihood.normalized
        """Whether there is a bound on log p(x), the ELBO: not where p(x|z) is no normalized distribution."""
        # What reconstruction + KL is called, and with which sign it is given.
        self._sum, self._sign = ("elbo", -1) if self.bounded else ("distortion_rate", 1)
        self.n_latent = n_latent
        self.has_bits = self.bounded and likelihood.discrete and self.has_dimensions
        names = ["loss", "reconstruction"] + [self._sum, "kl"] * has_kl + ["bits_per_dim"] * self.has_bits
        names += ["extra"] * (extra is not None)
        self.means = SampleMean(names)
        self.active_units = ActiveUnits((n_latent,))
        self.code_usage = None if codes is None else CodeUsage(codes.n_codes, codes.n_codebooks)
        self.findings: SampleMean | None = None
        """Means of further measurements of a subclass, which sets it, and fills it by ``found_in``."""

    @property
    def monitor(self) -> Monitor | None:
        """The bound, or reconstruction + KL, if it exists and is what the objective watches."""
        if self.objective.watched == "elbo" and self.has_kl:
            return f"val/{self._sum}", "max" if self.bounded else "min"
        return super().monitor if self.objective.watched else None

    # -- from a batch to its loss ---------------------------------------------------------------

    @abstractmethod
    def evidence_of(self, batch: Batch) -> Evidence:
        """The evidence terms of a batch, as the objective asks for them."""

    def latents_of(self, batch: Batch) -> Evidence:
        """The terms for a turn of the objective that reads z and q only: all of them, unless a subclass skips the
        rest."""
        return self.evidence_of(batch)

    @abstractmethod
    def weight_sampler_of(self, batch: Batch) -> Callable[[int], Tensor]:
        """k -> log p(x, z) - log q(z|x) of k fresh samples for each row, (k, B), nats: for importance sampling. What
        does not depend on the samples is computed here, once for all calls of the function."""

    @property
    def given(self) -> str:
        """What densities of the data are given, in words; empty where they are given nothing."""
        return ""

    @property
    def equal_weights(self) -> bool:
        """Whether all importance samples of a row have the same weight, since q(z|x) is a point or there is no z."""
        return False

    @property
    def estimates_prior(self) -> bool:
        """Whether log p(z) is only estimated, in expectation from below: the KL is then an upper bound."""
        return False

    @abstractmethod
    def inference_parameters(self) -> list[nn.Parameter]:
        """The parameters of q(z|x), for objectives that train the two sides separately."""

    def losses(self, batch: Batch) -> Terms:
        return self._terms(self.evidence_of(batch))

    def _terms(self, evidence: Evidence) -> Terms:
        """The loss, and further terms that are only logged, without gradient."""
        extra = self._extra_of(evidence)
        terms = {"loss": self._with_penalty(self.objective(evidence), evidence, extra)}
        with torch.no_grad():
            if self.has_kl:
                terms[self._sum] = self._sign * (evidence.distortion + evidence.rate)
            terms["reconstruction"] = evidence.distortion.detach()
            if self.has_kl:
                terms["kl"] = evidence.rate.detach()
            if extra is not None:
                terms["extra"] = extra.detach().mean()
        return terms

    @staticmethod
    def _with_penalty(loss: Tensor, evidence: Evidence, extra: Tensor | None) -> Tensor:
        for term in (evidence.posterior.penalty, extra):
            loss = loss if term is None else loss + term.mean()
        return loss

    def _extra_of(self, evidence: Evidence) -> Tensor | None:
        """The extra term for each x, (B,), if there is one."""
        if self.extra is None:
            return None
        assert evidence.x is not None
        assert evidence.eta is not None
        reconstructions = self.likelihood.mean(evidence.eta)  # (K, B, C, H, W)
        x = evidence.x.expand_as(reconstructions)
        return self.extra(x.flatten(0, 1), reconstructions.flatten(0, 1)).unflatten(0, x.shape[:2]).mean(0)

    def at_step(self, step: int, total_steps: int) -> None:
        super().at_step(step, total_steps)
        self.objective.at_step(step, total_steps)

    def on_fit_start(self) -> None:
        """Tell objective and likelihood what they want to know of the training rows.

        Raises:
            ConfigError: the likelihood needs the mean of rows that no data module has.
        """
        n_rows = getattr(getattr(self.trainer, "datamodule", None), "n_rows", None)  # not of a loader by itself
        if n_rows is not None:
            self.objective.at_start(n_rows("train"))
        if self.likelihood.needs_mean:
            self.likelihood.learn_mean(self.ask_data("mean", "model.likelihood.base_rates"))

    # -- objectives that take turns, or let a side wait -------------------------------------------

    def players(self) -> list[Player]:
        turns, rate = self.objective.turns(), self.objective.generation_rate
        if not turns:
            rates = () if rate is None else (("generation", self._side("generation"), rate),)
            return [Player(self.losses, list(self.parameters()), rates=rates)]
        return [
            Player(
                partial(self._turn_losses, turn) if turn.name else self.losses,
                self._side(turn.moves),
                turn.prefix,
                betas=turn.betas,
                rate=turn.rate,
            )
            for turn in turns
        ]

    def _turn_losses(self, turn: Turn, batch: Batch) -> Terms:
        # A discriminator is trained on outputs of the model, which get no gradient.
        with torch.set_grad_enabled(torch.is_grad_enabled() and turn.moves != "objective"):
            evidence = self.evidence_of(batch) if turn.decodes else self.latents_of(batch)
        loss = turn.loss(evidence)
        if turn.decodes and turn.moves != "objective":
            loss = self._with_penalty(loss, evidence, self._extra_of(evidence))
        return {"loss": loss}

    def _side(self, name: str) -> list[nn.Parameter]:
        """The parameters of a side, as ``Turn.moves`` names it."""
        inference, own = set(self.inference_parameters()), set(self.objective.parameters())
        sides = {
            "model": lambda parameter: parameter not in own,
            "inference": lambda parameter: parameter in inference,
            "generation": lambda parameter: parameter not in own and parameter not in inference,
            "objective": lambda parameter: parameter in own,
        }
        return [parameter for parameter in self.parameters() if sides[name](parameter)]

    # -- evaluation: the same terms, as exact means over a split --------------------------------------

    def found_in(self, batch: Batch) -> Terms:
        """Further measurements, if ``findings`` is set: a value for each row, or for some."""
        raise NotImplementedError

    def evaluation_step(self, batch: Batch) -> None:
        evidence = self.evidence_of(batch)
        extra = self._extra_of(evidence)
        loss = self._with_penalty(self.objective(evidence), evidence, extra)
        terms = {"loss": loss.expand(len(batch.x)), "reconstruction": evidence.reconstruction}
        if self.has_kl:
            terms |= {self._sum: -self._sign * evidence.elbo, "kl": evidence.kl.sum(-1)}
        if self.has_bits:
            terms["bits_per_dim"] = -evidence.elbo / (math.log(2) * batch.x[0].numel())
        if extra is not None:
            terms["extra"] = extra
        self.means.update(terms)
        self.active_units.update(evidence.posterior.mean)
        if self.code_usage is not None and isinstance(evidence.posterior, Quantized):
            self.code_usage.update(evidence.posterior.codes)
        if self.findings is not None:
            self.findings.update(self.found_in(batch))

    def evaluation_results(self) -> Terms:
        results = {**compute_and_reset(self.means), "active_units": compute_and_reset(self.active_units)}
        for more in (self.code_usage, self.findings):
            if more is not None:
                results |= compute_and_reset(more)
        return results

    @property
    def measures(self) -> Sequence[Measure]:
        key, label = (self._sum, "reconstruction + KL") if self.has_kl else ("loss", "loss")
        no_bound = Measure(key, label, "nats, no bound: there is neither ELBO nor NLL", better="less")
        unit = "nats" if self.likelihood.normalized else "nats, a cross-entropy: no likelihood of grey levels"
        note = f"given {self.given}" if self.given else ""
        return (
            Measure("elbo", "ELBO", "nats", note=note, better="more") if self.bounded else no_bound,
            Measure("reconstruction", "reconstruction", unit, better="less"),
            Measure("kl", "KL", "nats, at most: log p(z) is estimated from below" if self.estimates_prior else "nats"),
            Measure("bits_per_dim", "bits/dim", "bits, from the ELBO", 4, note, better="less"),
            Measure("active_units", "active units", f"of {self.n_latent} latent dimensions", 0),
            Measure("perplexity", "perplexity", "codes, if all were used equally"),
            Measure("code_usage", "codes in use", "of all codes", 3),
        )
