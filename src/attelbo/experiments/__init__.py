"""What happens around runs. ``untrained`` builds a model from the words of a command line.

It is loaded on first use: ``attelbo --help`` needs neither Hydra nor torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attelbo.experiments.calling import untrained

__all__ = ["untrained"]


def __getattr__(name: str) -> Any:
    if name == "untrained":
        from attelbo.experiments.calling import untrained

        return untrained
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
