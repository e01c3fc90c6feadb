"""README.md, docs/getting-started.md and docs/results.md run as printed, each in a folder; trainings take one epoch."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pandas as pd
import pytest
from running import NAMES, X, entries, run, y

ROOT = Path(__file__).parents[1]
OTHERS = {"make", "pip"}  # programs that CI runs
LEFT = {
    "README.md": {"digits-map", "maps.png", "out", "judged", "new-map.csv", "models"},
    "docs/getting-started.md": {
        "digits.png",
        "flowers",
        "new-map.csv",
        "digits-map",
        "digits-pipeline",
        "digits-graph.npz",
    },
    "docs/results.md": {"map.png", "methods.png", "unseen.png", "loss.png", "rnx.png", "flowers", "flowers-again"},
}


def smaller(arguments):
    """A command with two trials of this process, where trainings are short, in place of many trials of several."""
    least = {"--count": "2", "--jobs": "1"}
    return [least.get(before, argument) for before, argument in zip(["", *arguments], arguments, strict=False)]


@pytest.mark.parametrize("document", LEFT)
def test_every_command_and_program(document, tmp_path, monkeypatch, one_epoch):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "configs", "configs")
    table = pd.DataFrame(X, columns=list("abcd"))
    for name in ("data", "flowers"):
        table.assign(species=NAMES[y]).to_csv(f"{name}.csv", index=False)
    for name in ("new", "new-flowers"):
        table.to_csv(f"{name}.csv", index=False)
    text = (ROOT / document).read_text(encoding="utf-8")
    names = {}
    for language, block in re.findall(r"^```(console|python)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
        if language == "python":
            exec(block, names)
            continue
        for line in block.splitlines():
            program, *arguments = shlex.split(line.removeprefix("$ "), comments=True)
            if program == "fastpdr":
                run(*smaller(arguments))
            else:
                assert program in OTHERS
    assert LEFT[document] < entries(tmp_path)
