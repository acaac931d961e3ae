"""Every file in conf/model/<group> describes a part as it is, and every part has a file."""

import inspect

import latent_contract as contract
import pytest

from attelbo import latent, networks
from attelbo.building import arguments_of, locate
from attelbo.latent.extras import Extra
from attelbo.latent.likelihoods import Likelihood
from attelbo.latent.objectives import Objective
from attelbo.latent.posteriors import Posterior
from attelbo.latent.priors import Prior

GROUPS = {"extra": Extra, "posterior": Posterior, "prior": Prior, "likelihood": Likelihood, "objective": Objective}
GIVEN = {"in_shape", "latent_dim", "latent_shape", "data_shape", "data_classes", "data_kind", "space"}
FILES = [(group, name) for group in GROUPS for name in contract.files(group)]


@pytest.mark.parametrize(("group", "name"), FILES)
def test_file_spells_out_the_defaults(group: str, name: str) -> None:
    node = dict(contract.spec(group, name))
    part = locate(node.pop("_target_"))
    assert inspect.isclass(part)
    assert issubclass(part, GROUPS[group])
    parameters = arguments_of(part)
    defaults = {key: parameter.default for key, parameter in parameters.items() if key not in GIVEN}
    assert node == {key: list(value) if isinstance(value, tuple) else value for key, value in defaults.items()}


@pytest.mark.parametrize(("group", "name"), FILES)
def test_first_line_describes_the_part_and_its_source(group: str, name: str) -> None:
    first = contract.files(group)[name].read_text().splitlines()[0]
    assert first.startswith("# ")
    assert first.endswith(")")
    assert any(str(year) in first for year in range(1980, 2030))


@pytest.mark.parametrize("group", GROUPS)
def test_every_file_is_in_one_family(group: str) -> None:
    names = [name for family in contract.FAMILIES[group].values() for name in family]
    assert sorted(names) == sorted(contract.files(group))


@pytest.mark.parametrize("group", GROUPS)
def test_every_part_has_a_file(group: str) -> None:
    parts = {
        part
        for part in (*vars(latent).values(), *vars(networks).values())
        if inspect.isclass(part) and issubclass(part, GROUPS[group]) and not inspect.isabstract(part)
    }
    assert parts - {latent.Rescaled} == {
        locate(contract.spec(group, name)["_target_"]) for name in contract.files(group)
    }
