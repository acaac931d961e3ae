"""``python -m attelbo``: the same as the ``attelbo`` command."""

import sys

from attelbo.cli import main

if __name__ == "__main__":
    sys.exit(main())
