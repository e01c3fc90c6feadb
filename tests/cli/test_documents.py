"""The examples of docs/configuration.md and docs/saving.md and the files in configs/ run as printed."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from running import NAMES, D, N, X, blocks, commands, entries, run, y

import fastpdr
from fastpdr.cli import config
from fastpdr.estimators import saving

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
SAVING = (ROOT / "docs/saving.md").read_text(encoding="utf-8")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with all that the document speaks of, where every training takes one epoch."""
    import pandas as pd

    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "configs", "configs")
    pd.DataFrame(X, columns=list("abcd")).assign(species=NAMES[y]).to_csv("flowers.csv", index=False)
    np.save("rows.npy", np.ones((3, 64)))
    for text in blocks(TEXT, "yaml"):
        Path(re.match("# (.*)", text)[1]).write_text(text)
    make = config.make_estimator
    monkeypatch.setattr(config, "make_estimator", lambda whole: make(whole).set_params(n_epochs=1))
    return tmp_path


def test_every_command_and_program(here):
    assert len(commands(TEXT)) == 9
    for command in commands(TEXT):
        run(*command)
    for text in blocks(TEXT, "python"):
        exec(text, {})
    names = {"digits", "digits-umap", "flowers", "fastpdr_model", "digits_pipeline", "earlier.pkl"}
    assert names < entries(here / "models")
    assert fastpdr.load("models/flowers/model").transform(X).shape == (N, 2)
    assert fastpdr.load("models/flowers/model").n_features_in_ == D


def test_saving_as_printed(here, monkeypatch):
    pytest.importorskip("onnxruntime")
    for cls in (fastpdr.ParametricUMAP, fastpdr.ParametricTSNE):
        monkeypatch.setattr(cls, "_automatic_epochs", lambda *_: 1)
    ran = {"console": 0, "python": 0}
    for language, text in re.findall(r"^```(\w+)\n(.*?)^```", SAVING, flags=re.DOTALL | re.MULTILINE):
        ran[language] += 1
        if language == "console":
            for line in text.splitlines():
                run(*shlex.split(line.removeprefix("$ fastpdr "), comments=True))
        else:
            names = {}
            exec(text, names)
            assert names["Z"].shape == ((1797, 2) if "X" in names else (3, 2))
    assert ran == {"console": 2, "python": 3}
    assert {"digits-map", "out", "flowers.onnx", "flowers.pt2", "placed.parquet"} < entries(here)


def test_the_document_names_every_file_of_a_model():
    for file in saving.FILES:
        assert f"| `{file}` |" in SAVING


def test_the_error_that_is_shown(here):
    Path("bad.yml").write_text("data: {featuers: x}\nmodel: {lr: fast}\n")
    shown = next(text for text in blocks(TEXT, "text") if text.startswith("Error: bad.yml"))
    assert run("train", "--config", "bad.yml", code=2) == " ".join(shown.split())


@pytest.mark.parametrize(("name", "command"), [("train.yml", "train"), ("sklearn.yml", "pipeline")])
def test_ready_files_say_the_defaults(name, command):
    """The file and its comments are a reference: all but the names of the results is as without it."""
    given, default = (config.load(path, command).model_dump() for path in (ROOT / "configs" / name, None))
    for other in (given, default):
        del other["output"]
        other["data"].pop("source", None)
        other["model"]["hidden_dims"] = list(other["model"]["hidden_dims"])
    assert given == default


def test_the_document_names_every_key():
    for command in ("train", "pipeline"):
        _, data, output = config.SECTIONS[command]
        sections = (data, config.Preprocessing, config.Tracking, output)
        for key in (key for section in sections for key in section.model_fields):
            assert f"{key}`" in TEXT
    for key in (*config.ALIASES, *config.WIDTHS, config.LOGDIR):
        assert f"`{key}`" in TEXT
