"""``attelbo list`` shows every file, with one line on each."""

import pytest

from attelbo.errors import ConfigError
from attelbo.experiments.listing import choices, config_folders, description, listing, package_folder

FILES = sorted(path for path in package_folder().rglob("*.yaml") if not path.name.startswith("_"))


def test_every_file_is_listed_with_its_description():
    lines = [line for group in choices([package_folder()]) for line in listing([package_folder()], group).splitlines()]
    for file in FILES:
        if file.parent == package_folder() or file.name == "paper.yaml":
            continue  # train.yaml and its like are commands, papers are listed by `reproduce --list`
        *_, name = file.relative_to(package_folder()).with_suffix("").parts
        assert any(line.split()[0].endswith((f"={name}", f"/{name}")) and description(file) in line for line in lines)


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.relative_to(package_folder()).as_posix())
def test_every_file_says_what_it_is(file):
    assert 5 <= len(description(file)) <= 120


def test_folders_inside_model_are_groups_and_elsewhere_halves_of_names():
    known = choices([package_folder()])
    assert "mlp" in known["model/encoder"]
    assert "mnist/vae_mlp" in known["experiment"]
    assert "model/encoder=mlp" in listing([package_folder()], "model")
    assert listing([package_folder()]).splitlines()[0].startswith("callbacks ")


def test_a_folder_of_ones_own_is_listed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf/data").mkdir(parents=True)
    (tmp_path / "conf/data/mine.yaml").write_text("# My pictures\n_target_: x\n")
    assert "data=mine" in listing(config_folders(), "data")
    assert "My pictures" in listing(config_folders(), "data")


@pytest.mark.parametrize("group", [None, "model"])
def test_in_a_terminal_the_second_column_is_wrapped(group):
    whole, wrapped = (listing([package_folder()], group, width) for width in (None, 100))
    assert max(map(len, wrapped.splitlines())) <= 100 < max(map(len, whole.splitlines()))
    assert wrapped.split() == whole.split()
    assert all(line.startswith(" " * 20) for line in wrapped.splitlines() if line[0] == " ")
    assert listing([package_folder()], group, 50) == whole


def test_an_unknown_group_gets_the_nearest():
    with pytest.raises(ConfigError, match=r"^list modle: no such group; did you mean model\? \(there are callbacks, "):
        listing([package_folder()], "modle")
    with pytest.raises(ConfigError, match=r"^list mode: no such group; did you mean model\?"):
        listing([package_folder()], "mode")
