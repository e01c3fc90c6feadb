"""What the site needs beyond the pages in docs/, so that these read well on GitHub too.

README, CONTRIBUTING and CHANGELOG become pages. A link that leads out of docs/ goes to the API page of a module that
has one, else to a page that shows the file, or the files of a folder; a paragraph that is nothing but such a link shows
the file itself. In docstrings, reStructuredText's roles become links.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import griffe
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
ROOT_PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
LANGUAGES = {".cpp": "cpp", ".json": "json", ".py": "python", ".txt": "cmake", ".yml": "yaml"}

LINK = re.compile(r"\]\((?P<path>[^)#\s:]+)(?P<anchor>#[^)\s]*)?\)")
LINK_ALONE = re.compile(r"^\[[^]]+\]\((?P<path>[^)#\s:]+)\)$", re.MULTILINE)
GROUP = re.compile(r"^(?P<names>\w+(, \w+)+)(?P<type> : .*)?\n(?P<body>( {4,}.*\n)+)", re.MULTILINE)
ROLE = re.compile(r":(?:class|meth|func|mod|attr):`(?P<name>[\w.]+)`")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that lie outside docs/, and those of the sources that pages link to."""
    pages = {ROOT / source: page for source, page in ROOT_PAGES.items()}
    for source, page in pages.items():
        files.append(File.generated(config, page, content=source.read_text(encoding="utf-8")))
    for source in [*pages, *DOCS.rglob("*.md")]:
        for link in LINK.finditer(source.read_text(encoding="utf-8")):
            target = (source.parent / link["path"]).resolve()
            page = page_of(target)
            if page and page.startswith("source/") and page not in files.src_uris:
                files.append(File.generated(config, page, content=shown_as_page(target)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point links to where their targets are on the site."""
    uri = page.file.src_uri
    if page.parent is None:
        page.meta["hide"] = ["navigation"]  # which would hold the page alone
    if uri.startswith("source/"):
        return markdown
    source = next((ROOT / name for name, root_page in ROOT_PAGES.items() if root_page == uri), DOCS / uri)

    def include(link: re.Match[str]) -> str:
        target = (source.parent / link["path"]).resolve()
        shown = target.is_file() and (page_of(target) or "").startswith("source/")
        return folded(target) if shown else link[0]

    def rewrite(link: re.Match[str]) -> str:
        place = page_of((source.parent / link["path"]).resolve())
        if place is None:
            return link[0]
        return f"]({os.path.relpath(place, os.path.dirname(uri) or '.')}{link['anchor'] or ''})"

    return LINK.sub(rewrite, LINK_ALONE.sub(include, markdown))


def on_page_content(html: str, **_: Any) -> str:
    """Drop the dash before a description where a docstring has none."""
    return re.sub(r'\u2013\s*<div class="doc-md-description">\s*</div>', "", html)


def page_of(target: Path) -> str | None:
    """The page, or the file of docs/, that a path of the repository is on the site; None where it is none."""
    if not target.exists() or not target.is_relative_to(ROOT):
        return None
    path = target.relative_to(ROOT)
    if str(path) in ROOT_PAGES:
        return ROOT_PAGES[str(path)]
    if target.is_relative_to(DOCS):
        return target.relative_to(DOCS).as_posix()
    if path.parts[0] == "fastpdr":
        for module in (path.with_suffix(""), *path.parents):  # a module's page, or that of the package it is part of
            api = "api" / module.relative_to("fastpdr") if module.parts else None
            if api and (DOCS / f"{api}.md").exists():
                return f"{api.as_posix()}.md"
    return f"source/{path.as_posix()}.md"


def shown_as_page(target: Path) -> str:
    """A page that shows a file, or the files of a folder."""
    name = target.relative_to(ROOT).as_posix()
    files = [target] if target.is_file() else sorted(file for file in target.iterdir() if file.is_file())
    parts = [f"## {file.name}\n\n{code(file)}" if target.is_dir() else code(file) for file in files]
    return "\n\n".join(["---\nsearch:\n  exclude: true\n---", f"# {name}", *parts])


def folded(file: Path) -> str:
    """A file that unfolds at a click."""
    name = file.relative_to(ROOT).as_posix()
    return "\n".join([f'??? abstract "{name}"', "", *("    " + line for line in code(file).splitlines())])


def code(file: Path) -> str:
    """A file as a block of code."""
    return f"````{LANGUAGES.get(file.suffix, 'text')}\n{file.read_text(encoding='utf-8').rstrip()}\n````"


class Roles(griffe.Extension):
    """Makes Markdown of what docstrings have of reStructuredText, and helps its reader with numpydoc.

    Parameters that share a description would share type and default as well, and types like path-like would be read as
    differences: the former get one entry each, the latter a hyphen that is no minus.
    """

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of an object."""
        if obj.docstring is not None:
            text = re.sub(r"::$", ":", obj.docstring.value, flags=re.MULTILINE)
            text = GROUP.sub(one_by_one, text)
            text = re.sub(r"^( *\w+ : .*\w)-like", "\\1\N{NON-BREAKING HYPHEN}like", text, flags=re.MULTILINE)
            obj.docstring.value = ROLE.sub(as_link, text)


def one_by_one(group: re.Match[str]) -> str:
    """Entries of their own for names that share one."""
    return "".join(f"{name}{group['type'] or ''}\n{group['body']}" for name in group["names"].split(", "))


def as_link(role: re.Match[str]) -> str:
    """A full name as a link to its entry; a name of the same class or module as it is."""
    name = role["name"]
    return f"[`{name.removeprefix('fastpdr.')}`][{name}]" if name.startswith("fastpdr.") else f"`{name}`"
