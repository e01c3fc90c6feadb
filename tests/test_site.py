"""The site: every public name is in the reference, it builds without warnings, and its links lead somewhere."""

from __future__ import annotations

import inspect
import os
import pkgutil
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

import fastpdr
from fastpdr.compat import msp_tsne, parametric_dr, umap

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "docs/api"
MODULES = [value for name in fastpdr.__all__ if inspect.ismodule(value := getattr(fastpdr, name))]


def public(module):
    """Classes and functions of a module, by what it says is public, or by their names where it says nothing."""
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
    names = getattr(module, "__all__", [name for name in own if not name.startswith("_")])
    values = {f"{module.__name__}.{name}": getattr(module, name) for name in names}
    return {name: value for name, value in values.items() if inspect.isclass(value) or inspect.isfunction(value)}


@pytest.mark.parametrize(
    "module", [fastpdr, *MODULES, umap, msp_tsne, parametric_dr], ids=lambda module: module.__name__
)
def test_public_names_are_in_the_reference(module):
    pages = "\n".join(page.read_text(encoding="utf-8") for page in REFERENCE.rglob("*.md"))
    documented = [pkgutil.resolve_name(name) for name in re.findall(r"^::: (\S+)$", pages, re.MULTILINE)]
    expected = public(module)
    assert expected
    assert not [name for name, value in expected.items() if not any(value is found for found in documented)]


class Page(HTMLParser):
    """Anchors and addresses of one page."""

    def __init__(self, path):
        super().__init__()
        self.anchors, self.links, self.loaded = set(), [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.anchors |= {values[key] for key in ("id", "name") if values.get(key)}
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])
        elif tag in ("link", "script", "img", "iframe"):
            self.loaded += [values[key] for key in ("href", "src") if values.get(key)]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocstrings", reason="building the site needs mkdocs: pip install 'fastpdr[docs]'")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {path: Page(path) for path in folder.rglob("*.html")}


def page_at(site, address):
    """The path of a page of the site, by its address."""
    root = next(path for path in site if path.name == "404.html").parent
    return root / address


def test_links_lead_somewhere(site):
    broken = []
    for path, page in site.items():
        if path.name == "404.html":  # its links are absolute: it is shown at any address
            continue
        for link in page.links + page.loaded:
            address, _, anchor = unquote(link).partition("#")
            if re.match(r"https?:|data:", address):
                continue
            target = (path.parent / address).resolve() if address else path
            if not target.exists() or (anchor and target in site and anchor not in site[target].anchors):
                broken.append(f"{path.name}: {link}")
    assert not broken


def test_nothing_is_fetched(site):
    fetched = {address for page in site.values() for address in page.loaded if re.match(r"(https?:)?//", address)}
    assert not fetched


def test_scripts_are_shown(site):
    shown = re.sub(r"<[^>]*>", "", page_at(site, "examples.html").read_text(encoding="utf-8"))
    for script in (ROOT / "examples").glob("*.py"):
        if script.stem != "common":
            first = script.read_text(encoding="utf-8").splitlines()[0].strip('"').split(":")[0]
            assert first in shown


def test_docstrings_are_rendered(site):
    path = page_at(site, "api/estimators/umap.html")
    text = path.read_text(encoding="utf-8")
    assert ":class:" not in text
    assert 'href="tsne.html#fastpdr.ParametricTSNE"' in text
    assert "fastpdr.ParametricUMAP.partial_fit" in site[path].anchors
