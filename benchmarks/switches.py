"""What this version of attelbo can be told: a benchmark of a switch is left out where there is none."""

from omegaconf import OmegaConf

from attelbo.experiments.listing import package_folder


def has_switch(group: str, key: str) -> bool:
    """Whether ``conf/<group>/default.yaml`` has the key."""
    return key in OmegaConf.load(package_folder() / group / "default.yaml")
