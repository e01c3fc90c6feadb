"""What the tests of all commands share: tiny data, and a run of the command line that checks how it ends."""

from __future__ import annotations

import numpy as np
from click.testing import CliRunner

from fastpdr.cli import main

N, D = 80, 4
NAMES = np.array(["ant", "bee", "cat"])

rng = np.random.default_rng(0)
y = rng.integers(0, 3, size=N)
X = (rng.normal(size=(N, D)) + 3 * y[:, None]).astype(np.float32)


def run(*arguments, code=0):
    """Run a command; returns what it printed as one line."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    if code:
        assert "Error: " in result.output
    return " ".join(result.output.split())


def entries(folder):
    return {path.name for path in folder.iterdir()}
