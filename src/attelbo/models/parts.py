"""The parts of a model from its configuration, and checks that they fit together, with errors of one line."""

import inspect
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from attelbo import networks
from attelbo.building import PACKAGES, Spec, blamed, locate_part, part
from attelbo.data.batch import DataSpec
from attelbo.errors import ConfigError
from attelbo.latent import (
    BatchNormalizedPosterior,
    Distribution,
    Likelihood,
    Objective,
    Posterior,
    Prior,
    Rescaled,
    objectives,
    priors,
)
from attelbo.latent.spaces import Space
from attelbo.networks import Decoder, Encoder

Part = TypeVar("Part", Prior, Objective)


def offered_by(latent_shape: Sequence[int], space: Space, data: DataSpec) -> dict[str, Any]:
    """The arguments that a prior or an objective may take from the latents, as the decoder sees them and their space,
    and from the data."""
    return {
        "latent_shape": tuple(latent_shape),
        "space": space,
        "data_shape": data.shape,
        "data_kind": data.kind,
        "data_classes": data.n_classes,
    }


def check_images(data: DataSpec, owner: str) -> tuple[int, int, int]:
    """(C, H, W) of the images. Raise ConfigError where the data have none."""
    if data.row != "image":
        what = "vectors; model=vae model/encoder=mlp model/decoder=mlp takes them"
        raise ConfigError(
            f"model: {owner} is a model of images, and {data.name} has {what if data.row == 'row' else data.kind}"
        )
    channels, height, width = data.shape
    return channels, height, width


@contextmanager
def model_arguments() -> Iterator[None]:
    """A ValueError inside, which begins with the name of an argument, becomes a ConfigError at its key."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(f"model.{error}") from error


def likelihood_of(spec: Spec, data: DataSpec) -> Likelihood:
    """Build a likelihood of data; if these were rescaled, its log-densities are those of the original units.

    Raises:
        ConfigError: one of its arguments is out of range, it is not for this kind of data, or it is a class of the
            user's own that gives other shapes than a likelihood does.
    """
    likelihood = part("likelihood", spec, data_shape=data.shape, data_kind=data.kind)
    check_likelihood(likelihood, data)
    if _is_own(likelihood):
        _check_shapes(likelihood)
    return Rescaled(likelihood, data.log_volume) if data.log_volume else likelihood


def check_likelihood(likelihood: Likelihood, data: DataSpec) -> None:
    """Raise ConfigError unless the likelihood is for this kind of data."""
    if data.kind not in likelihood.supports:
        remedy = {
            "binary": "data.binarize=none has levels",
            "levels": "model/likelihood=discretized_logistic is one, or data.binarize=dynamic makes bits of them",
            "real": "model/likelihood=normal is one; grey levels are to be kept in bytes, bits in bools",
        }.get(data.kind, "another model=... is for these data: attelbo list model")
        raise ConfigError(
            f"model/likelihood: {type(likelihood).__name__} is not a likelihood of {data.name}, whose values are "
            f"{data.kind}; it takes {' or '.join(sorted(likelihood.supports))} ({remedy})"
        )


def _check_shapes(likelihood: Likelihood) -> None:
    """Raise ConfigError unless it gives what it must for 1 sample and 2 rows: log-probabilities that were summed over
    too many or too few dimensions would broadcast to a loss of wrong numbers."""
    shape = likelihood.data_shape
    eta = torch.zeros(1, 2, *likelihood.parameter_shape)
    with _tried("likelihood", likelihood):
        x = likelihood.sample(eta[0])
        _check_shape("likelihood", likelihood.sample, x, (2, *shape), "an x for each eta")
        _check_shape("likelihood", likelihood.mean, likelihood.mean(eta[0]), (2, *shape), "an x for each eta")
        _check_shape("likelihood", likelihood.log_prob, likelihood.log_prob(eta, x), (1, 2), "(n, B), summed over x")


def check_network(name: str, network: Encoder | Decoder, in_shape: Sequence[int], out_shape: Sequence[int]) -> None:
    """Raise ConfigError if an encoder or decoder is a class of the user's own that makes another shape of ``in_shape``
    than ``out_shape``."""
    if _is_own(network):
        with _tried(name, network):
            given = network(torch.zeros(2, *in_shape))
            _check_shape(name, network.forward, given, (2, *out_shape), "(B, *out_shape)")


def check_density(prior: Prior, space: Space) -> None:
    """Raise ConfigError if a prior is a class of the user's own whose samples or log-densities have other shapes than
    those of z in this space: they would broadcast."""
    if _is_own(prior) and not prior.made_of_posteriors:  # those have none yet
        with _tried("prior", prior):
            z = prior.sample(2)
            _check_shape("prior", prior.sample, z, (2, *space.shape), "(n, *E)")
            _check_shape("prior", prior.log_prob, prior.log_prob(z.unsqueeze(0)), (1, 2), "(n, B), summed over z")


def check_inference(posterior: Posterior, in_shape: Sequence[int]) -> None:
    """Raise ConfigError if a posterior is a class of the user's own that makes no distribution of features of this
    shape, or one whose samples or log-densities have other shapes than its own."""
    if _is_own(posterior):
        with _tried("posterior", posterior):
            q: Any = posterior(torch.zeros(2, *in_shape))
            if not isinstance(q, Distribution):
                raise TypeError(f"{type(posterior).__name__}.forward must give an attelbo.latent.Distribution")
            if posterior.has_density and type(q).with_log_joint is Distribution.with_log_joint:
                z, log_q = q.rsample_with_log_prob(1)
                _check_shape("posterior", q.rsample, z, (1, 2, *posterior.latent_shape), "(n, B, *E)")
                _check_shape("posterior", q.log_prob, log_q, (1, 2), "(n, B), summed over z")


def _is_own(made: nn.Module) -> bool:
    return type(made).__module__.partition(".")[0] not in PACKAGES


@contextmanager
def _tried(name: str, made: nn.Module) -> Iterator[None]:
    """In evaluation, without gradients or a trace in the random numbers; an error inside is told in one line."""
    modes = [(module, module.training) for module in made.modules()]  # what is frozen may stay in evaluation
    made.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            yield
    except (RuntimeError, ValueError, TypeError) as error:
        kind = type(made)
        told = " ".join(blamed(error, f"{kind.__module__}.{kind.__name__}").split())  # tensors have several lines
        raise ConfigError(f"model.{name}: {told}") from error
    for module, mode in modes:
        module.training = mode


def _check_shape(name: str, method: Any, given: Any, wanted: tuple[int, ...], meaning: str) -> None:
    """Raise ConfigError unless what a method of a part has given has this shape."""
    found = tuple(given.shape) if isinstance(given, Tensor) else f"a {type(given).__name__}"
    if found != wanted:
        owner = f"{type(method.__self__).__name__}.{method.__name__}"
        raise ConfigError(f"model.{name}: {owner} must give {meaning}, here {wanted}, got {found}")


def check_prior(spec: Spec, space: Space, distribution: type[Distribution], owner: str) -> None:
    """Raise ConfigError unless the prior, which is not built yet, is one on the space of its owner's latents, and the
    density of posteriors is known if it is made of them."""
    chosen: Any = locate_part("prior", spec)
    if getattr(chosen, "made_of_posteriors", False) and not _knows_density(distribution):
        raise ConfigError(
            f"model/prior: {chosen.__name__} takes the density of a given z, which the {distribution.__name__} of "
            f"{owner} does not know"
        )
    if not isinstance(space, getattr(chosen, "spaces", object)):
        known = (*_classes(priors, Prior), *_classes(networks, Prior))
        others = [other.__name__ for other in known if isinstance(space, other.spaces)]
        raise ConfigError(
            f"model/prior: {chosen.__name__} is no prior for the latents of {owner}, "
            f"{space}; {_one_of('priors', others)}"
        )


def check_objective(objective: Objective, posterior: Posterior) -> None:
    """Raise ConfigError unless the objective is defined for the posterior."""
    if objective.needs_density and not posterior.has_density:
        others = [other.__name__ for other in _classes(objectives, Objective) if not other.needs_density]
        raise ConfigError(
            f"model/objective: {type(objective).__name__} takes a density q(z|x), and {type(posterior).__name__} gives "
            f"a point; {_one_of('objectives', others)}"
        )
    if not issubclass(posterior.distribution, objective.posteriors):
        known = " or ".join(kind.__name__ for kind in objective.posteriors)
        raise ConfigError(
            f"model/objective: {type(objective).__name__} is not defined for {type(posterior).__name__}, "
            f"whose q(z|x) is a {posterior.distribution.__name__}; it takes {known}"
        )
    if objective.stops_posterior and not _knows_density(posterior.distribution):
        raise ConfigError(
            f"model/objective: {type(objective).__name__} takes the density of a given z, which the "
            f"{posterior.distribution.__name__} of {type(posterior).__name__} does not know"
        )
    if objective.stops_posterior and not posterior.distribution.reparametrized:
        raise ConfigError(
            f"model/objective: the gradient of {type(objective).__name__} holds for reparametrized samples and their "
            f"density, which {type(posterior).__name__} does not have; model/objective=iwae has the same bound"
        )


def check_extra(spec: Spec, objective: Objective, data: DataSpec) -> None:
    """Raise ConfigError unless an extra term, which is not built yet, can be added to the loss of the objective."""
    chosen: Any = locate_part("extra", spec)
    name = chosen.__name__
    if objective.stops_posterior:
        raise ConfigError(
            f"model/extra: {type(objective).__name__} weights all gradients on their way through z to q, those of "
            f"{name} too, whose gradient would be wrong; model/objective=iwae has the same bound"
        )
    if data.log_volume and getattr(chosen, "of_unit_range", False):
        raise ConfigError(
            f"model/extra: {name} compares images with values from 0 to 1, and pixels that are standardized are "
            "others; data.standardize must be none"
        )


def takes_more_than_terms(objective: Objective) -> bool:
    """Whether it needs more than the evidence terms: the model, how q's samples are drawn, or q's parameters."""
    return objective.needs_generative or objective.stops_posterior or objective.posteriors != (Distribution,)


def check_objective_of_terms(objective: Objective, owner: str) -> None:
    """Raise ConfigError unless the objective needs the evidence terms only, which are all that its owner has."""
    if takes_more_than_terms(objective):
        raise ConfigError(
            f"model/objective: {type(objective).__name__} needs more than the evidence terms, which are all "
            f"that {owner} has; choose one that needs no more, such as elbo or iwae"
        )


def check_pseudo_inputs(prior: Prior, **inference: nn.Module) -> None:
    """Raise ConfigError where running averages over batches would be updated by the inputs of a prior that is made of
    posteriors; ``inference``: the parts of q(z|x), by name."""
    for name, own in inference.items():
        if prior.made_of_posteriors and _normalizes_batch(own):
            raise ConfigError(
                f"model/prior: {type(prior).__name__} makes posteriors of its own inputs too, and {type(own).__name__} "
                f"(model.{name}) normalizes over batches of the data; choose another prior, or no batch normalization"
            )


def check_batch_norm(encoder: Encoder, posterior: Posterior, prior: Prior, decoder: Decoder) -> None:
    """Raise ConfigError where running averages over batches would be updated by inputs that are not data."""
    check_pseudo_inputs(prior, encoder=encoder, posterior=posterior)
    if posterior.distribution.is_guided() and _normalizes_batch(decoder):
        raise ConfigError(
            f"model/posterior: {type(posterior).__name__} takes gradients of the decoder on its way to z, where "
            f"{type(decoder).__name__} must not normalize over batches: model.decoder.batch_norm=false"
        )


def _normalizes_batch(network: nn.Module) -> bool:
    """Whether it has layers that normalize over the batch in training and keep running averages."""
    kinds = nn.BatchNorm1d | nn.BatchNorm2d | BatchNormalizedPosterior
    return any(isinstance(layer, kinds) for layer in network.modules())


def _knows_density(distribution: type[Distribution]) -> bool:
    """Whether log q(z) is known of any z, not only of q's own samples."""
    return distribution.stop_gradient is not Distribution.stop_gradient


def _classes(package: ModuleType, kind: type[Part]) -> Iterable[type[Part]]:
    """The parts of a kind that a package exports."""
    for name in package.__all__:
        found = getattr(package, name)
        if inspect.isclass(found) and issubclass(found, kind) and not inspect.isabstract(found):
            yield found


def _one_of(what: str, names: Sequence[str]) -> str:
    return f"{what} for it: {', '.join(names)}" if names else f"there are no {what} for it"
