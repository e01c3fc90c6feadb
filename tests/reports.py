"""Reports read: what several tests look for in one."""

from __future__ import annotations

import base64
import json
from html.parser import HTMLParser

import numpy as np


class Page(HTMLParser):
    """The elements, the texts of scripts by their type, and the text outside of scripts and styles."""

    def __init__(self, path):
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.elements, self.scripts, self.texts, self.inside = [], [], [], None
        self.feed(self.source)
        self.text = " ".join(" ".join(self.texts).split())
        self.data = json.loads(next(text for kind, text in self.scripts if kind == "application/json"))

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.inside = tag
        if tag == "script":
            self.scripts.append((dict(attrs).get("type"), ""))

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        if self.inside == "script":
            kind, text = self.scripts.pop()
            self.scripts.append((kind, text + data))
        elif self.inside != "style":
            self.texts.append(data)


def unpacked(packed):
    return np.frombuffer(base64.b64decode(packed["bdata"]), f"<{packed['dtype']}")
