"""What the tests of all commands share: tiny data, and a run of the command line that checks how it ends."""

from __future__ import annotations

import os
import re
import shlex

import numpy as np
from click.testing import CliRunner

from fastpdr.cli import main

N, D = 80, 4
NAMES = np.array(["ant", "bee", "cat"])

rng = np.random.default_rng(0)
y = rng.integers(0, 3, size=N)
X = (rng.normal(size=(N, D)) + 3 * y[:, None]).astype(np.float32)


def run(*arguments, code=0, error=True):
    """Run a command; returns what it printed as one line."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    if code and error:
        assert "Error: " in result.output
    return " ".join(result.output.split())


class FragileBench:
    """Stands in for what trials of a sweep work with, in other processes: the first trial kills its process."""

    def run(self, values, ask):
        """Die, or tell that the trial fails."""
        from fastpdr.cli.sweep.trial import Failed

        if values["x"] == 0:
            os._exit(3)
        ask(Failed(f"x is {values['x']}"))


def blocks(text, language):
    """The blocks of code of a document."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def commands(text):
    """The commands of a document, as words."""
    lines = [line for block in blocks(text, "console") for line in block.splitlines()]
    assert all(line.startswith("$ fastpdr ") for line in lines)
    return [shlex.split(line.removeprefix("$ fastpdr ")) for line in lines]


def entries(folder):
    return {path.name for path in folder.iterdir()}
