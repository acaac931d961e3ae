"""What parts are given by their neighbours, and what is said of parts that do not fit together."""

import pytest

from attelbo.building import build, part
from attelbo.data.batch import DataSpec
from attelbo.errors import ConfigError
from attelbo.latent import (
    ELBO,
    DiagonalNormal,
    DiagonalNormalPosterior,
    FullNormal,
    FullNormalPosterior,
    StandardNormal,
)
from attelbo.latent.distributions import InvertibleNormal, Point, TransformedNormal
from attelbo.latent.likelihoods import Bernoulli
from attelbo.latent.spaces import Codes, Real
from attelbo.models.parts import check_likelihood, check_objective, check_prior

STANDARD_NORMAL = {"_target_": "attelbo.latent.priors.StandardNormal"}


class OnlyFull(ELBO):
    posteriors = (FullNormal,)


def test_a_part_is_given_what_it_names():
    assert part("prior", STANDARD_NORMAL, latent_shape=(3,), data_shape=(1, 8, 8)).latent_shape == (3,)


def test_what_is_given_cannot_be_configured():
    with pytest.raises(ConfigError, match=r"^latent_shape cannot be set here: .*StandardNormal is given it"):
        part("prior", STANDARD_NORMAL | {"latent_shape": [2]}, latent_shape=(3,))


def test_a_part_without_target_and_one_that_cannot_be_built():
    with pytest.raises(ConfigError, match=r"^model\.prior\._target_: its file names no class"):
        part("prior", {"n_components": 3}, latent_shape=(3,))
    mixture = {"_target_": "attelbo.latent.priors.MixtureOfGaussians", "n_components": 0}
    with pytest.raises(ConfigError, match=r"^model\.prior: n_components must be at least 1, got 0 \[attelbo\."):
        part("prior", mixture, latent_shape=(3,))


def test_a_prior_on_another_space_is_refused():
    check_prior(STANDARD_NORMAL, Real((2,)), DiagonalNormal, "DiagonalNormalPosterior")
    message = r"^model/prior: StandardNormal is no prior for the latents of OnCodes, 16 codes out of 512; "
    with pytest.raises(ConfigError, match=message):
        check_prior(STANDARD_NORMAL, Codes((4, 4), n_codes=512), DiagonalNormal, "OnCodes")


def test_a_prior_made_of_posteriors_whose_density_is_unknown_is_refused():
    vamp = {"_target_": "attelbo.latent.priors.VampPrior"}
    check_prior(vamp, Real((2,)), InvertibleNormal, "IAFPosterior")
    message = r"^model/prior: VampPrior takes the density of a given z, which the TransformedNormal of Planar does not"
    with pytest.raises(ConfigError, match=message):
        check_prior(vamp, Real((2,)), TransformedNormal, "Planar")
    with pytest.raises(ConfigError, match="which the Point of Deterministic does not know"):
        check_prior(vamp, Real((2,)), Point, "Deterministic")


def test_an_objective_for_other_posteriors_is_refused():
    check_objective(OnlyFull(), FullNormalPosterior((4,), 2))
    message = (
        r"^model/objective: OnlyFull is not defined for DiagonalNormalPosterior, .* DiagonalNormal; .* FullNormal$"
    )
    with pytest.raises(ConfigError, match=message):
        check_objective(OnlyFull(), DiagonalNormalPosterior((4,), 2))


def test_a_likelihood_of_other_data_is_refused():
    levels = DataSpec("photos", (3, 4, 4), "levels")
    message = "^model/likelihood: Bernoulli is not a likelihood of photos.*model/likelihood=discretized_logistic is one"
    with pytest.raises(ConfigError, match=message):
        check_likelihood(Bernoulli((3, 4, 4)), levels)
    texts = DataSpec("letters", (9,), "tokens")
    message = r"letters, whose values are tokens; it takes binary \(another model=\.\.\. is for these data: "
    with pytest.raises(ConfigError, match=message):
        check_likelihood(Bernoulli((1, 3, 3)), texts)


def test_what_is_built_by_its_neighbours_shapes_is_what_is_built_by_hand():
    built = part("prior", STANDARD_NORMAL, latent_shape=(2,), space=DiagonalNormal)
    assert type(built) is type(build(STANDARD_NORMAL, latent_shape=(2,))) is StandardNormal
