"""docs/scaling.md: its programs and commands run as printed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from running import blocks, run

TEXT = (Path(__file__).parents[1] / "docs/scaling.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("one_epoch")
def test_programs_and_commands_run_as_printed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("rows").mkdir()
    names = {}
    for program in blocks(TEXT, "python"):
        exec(program, names)
    assert names["Z"].shape == (2000, 2)
    assert names["plan"].rows == "by batch"
    (lines,) = blocks(TEXT, "console")
    (command,) = re.findall(r"^\$ fastpdr (.*)$", lines, re.MULTILINE)
    assert run(*shlex.split(command)).endswith("It fits.")
