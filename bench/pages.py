"""Tables in pages that people read: written between marks by what makes them, and nothing else is touched."""

from __future__ import annotations

from pathlib import Path

from fastpdr.cli.output import written_aside


def put(text: str, page: Path, begin: str, end: str) -> None:
    """Put a text into a page, between two lines.

    Raises
    ------
    ValueError
        If the page has no such lines.
    OSError
        If it cannot be read or written.
    """
    before, opened, rest = page.read_text(encoding="utf-8").partition(begin + "\n")
    _, closed, after = rest.partition(end)
    if not (opened and closed):
        raise ValueError(f"{page} must hold the lines {begin} and {end}, between which the tables go")
    with written_aside(page) as aside:
        aside.write_text(f"{before}{opened}\n{text}\n{closed}{after}", encoding="utf-8")
