"""The W&B server: a check that it answers, before anything is sent."""

from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from attelbo.errors import UserError

PATIENCE = 10
"""Seconds in which it must answer."""


def require_server(command: str, otherwise: str) -> None:
    """Check that the server in this user's W&B settings answers; W&B itself would retry for hours.

    Args:
        command: named in the message.
        otherwise: the remedy in the message.

    Raises:
        UserError: it does not answer.
    """
    from wandb.sdk import wandb_setup

    address = wandb_setup.singleton().settings.base_url
    try:
        with urlopen(Request(address, method="HEAD"), timeout=PATIENCE):
            pass
    except HTTPError as answer:
        answer.close()  # it answers, whatever it says
    except (OSError, ValueError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise UserError(f"{command}: no answer from {address}: {reason}; {otherwise}") from error
