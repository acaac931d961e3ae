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
        [sys.executable, "-m", "benchmarks.child", module, json.dumps(arguments)], capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{module} ended with {done.returncode}:\n{done.stderr[-8000:]}")
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    print(json.dumps(importlib.import_module(sys.argv[1]).measure(**json.loads(sys.argv[2]))))
