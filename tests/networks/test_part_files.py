"""What a file in conf/model says of networks and attention is what their constructors say."""

import inspect
from pathlib import Path

import pytest
import yaml

from attelbo.building import arguments_of, locate
from attelbo.experiments.listing import package_folder

GROUPS = ("attention", "decoder", "encoder", "head", "mask", "network", "normalizer", "pooling", "position", "score")
FILES = [path for group in (*GROUPS, "text_encoder") for path in sorted((package_folder() / "model" / group).iterdir())]
PLAIN = [path for path in FILES if "defaults" not in yaml.safe_load(path.read_text())]
"""Those that are no variant of another file."""


@pytest.mark.parametrize("path", PLAIN, ids=[f"{path.parent.name}/{path.stem}" for path in PLAIN])
def test_a_file_spells_out_the_defaults(path: Path) -> None:
    node = yaml.safe_load(path.read_text())
    for own in (node, *(value for value in node.values() if isinstance(value, dict))):
        parameters = arguments_of(locate(own["_target_"]))
        for key, value in own.items():
            if key != "_target_" and not isinstance(value, dict):
                default = parameters[key].default
                default = list(default) if isinstance(default, tuple) else default
                assert default in (value, inspect.Parameter.empty), f"{key}: {value} in the file, {default} in the code"
