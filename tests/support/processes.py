"""Python programs in processes of their own."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(script: str, **environment: str) -> subprocess.CompletedProcess:
    """Run a script, which may be indented, that finds hcrot; at most two minutes."""
    variables = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    return subprocess.run([sys.executable, "-c", textwrap.dedent(script)], env=variables, capture_output=True, text=True, timeout=120)
