"""Tables in pages that people read: written between marks by what makes them, and nothing else is touched."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from fastpdr.cli.output import written_aside

BEGIN, END = "<!-- tables -->", "<!-- end of the tables -->"


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))


def put(text: str, page: Path) -> None:
    """Put a text into a page, between the lines ``BEGIN`` and ``END``.

    Raises
    ------
    ValueError
        If the page has no such lines.
    OSError
        If it cannot be read or written.
    """
    before, opened, rest = page.read_text(encoding="utf-8").partition(BEGIN + "\n")
    _, closed, after = rest.partition(END)
    if not (opened and closed):
        raise ValueError(f"{page} must hold the lines {BEGIN} and {END}, between which the tables go")
    with written_aside(page) as aside:
        aside.write_text(f"{before}{opened}\n{text}\n{closed}{after}", encoding="utf-8")
