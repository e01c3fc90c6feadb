"""docs/performance.md: its tables are those of the results, its commands are those of the tool."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from running import blocks

from bench import pages
from bench.breakdown import table
from bench.breakdown.__main__ import main

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs/performance.md").read_text(encoding="utf-8")


(RESULTS,) = set(re.findall(r"\.\./(bench/results/breakdown[\w-]+\.json)", TEXT))


def test_the_tables_are_those_of_the_results():
    text = table.markdown(table.read(ROOT / RESULTS))
    assert TEXT.endswith(f"{pages.BEGIN}\n\n{text}\n{pages.END}\n")


def test_the_commands_make_what_the_page_shows():
    (lines,) = blocks(TEXT, "console")
    given = {}
    for line in lines.splitlines():
        name, *words = shlex.split(line.removeprefix("$ python -m bench.breakdown "))
        with main.commands[name].make_context(name, words) as context:
            given[name] = context.params
    assert str(given["run"]["output"]) == str(given["table"]["file"]) == RESULTS
    assert str(given["table"]["page"]) == "docs/performance.md"
    assert f"({given['run']['picture'].relative_to('docs')})" in TEXT
