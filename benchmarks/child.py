"""A measurement in a process of its own: `python -m benchmarks.child MODULE ARGUMENTS` calls the module's measure().

So each begins with the same threads and the same memory, whatever was measured before.
"""

import importlib
import json
import subprocess
import sys
from typing import Any


def measured(module: str, **arguments: Any) -> Any:
    """What ``module.measure(**arguments)`` gives, plain containers there and back.

    Raises:
        RuntimeError: it failed.
    """
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.child", module, json.dumps(arguments)], stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{module} ended with {done.returncode}; what it said stands above")
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    print(json.dumps(importlib.import_module(sys.argv[1]).measure(**json.loads(sys.argv[2]))))
