"""Saved models: the round trip bit for bit, and a clear word about every folder that is not one."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import no_gpu
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import LabelEncoder, StandardScaler
from torch import nn

import fastpdr
from fastpdr import MultiscaleParametricTSNE, ParametricLargeVis, ParametricTSNE, ParametricUMAP
from fastpdr.estimators import saving

SMALL = {"n_epochs": 2, "hidden_dims": (16, 8), "random_state": 0}


@pytest.fixture
def X(rng):
    return rng.normal(size=(60, 5)) + 1e4


@pytest.fixture
def folder(X, tmp_path):
    ParametricTSNE(perplexity=np.float64(7.5), **SMALL).fit(X).save(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("cls", [ParametricTSNE, MultiscaleParametricTSNE, ParametricUMAP, ParametricLargeVis])
def test_round_trip_bit_for_bit(cls, X, tmp_path):
    estimator = cls(n_components=3, **SMALL).fit(X)
    estimator.save(tmp_path / "deep" / "model")
    loaded = fastpdr.load(tmp_path / "deep" / "model")
    assert type(loaded) is cls
    assert np.array_equal(loaded.transform(X), estimator.transform(X))
    assert loaded.n_iter_ == 2
    assert loaded.loss_history_ == estimator.loss_history_
    assert loaded.get_params()["hidden_dims"] == [16, 8]
    assert (loaded.n_samples_seen_, loaded.training_seconds_) == (60, estimator.training_seconds_)
    assert not hasattr(loaded, "embedding_")


def test_only_text_and_safetensors_and_no_rows(folder):
    assert sorted(entry.name for entry in folder.iterdir()) == ["README.md", "config.json", "encoder.safetensors"]
    config = json.loads((folder / "config.json").read_text())
    assert config["parameters"]["perplexity"] == 7.5
    assert config["class"] == "ParametricTSNE"
    assert sum(entry.stat().st_size for entry in folder.iterdir()) < 8000


@pytest.fixture
def whole(X):
    """All that a folder can hold: a fitted pipeline and what is saved with it."""
    frame = pd.DataFrame(X, columns=list("abcde"))
    umap = ParametricUMAP(parametric_reconstruction=True, **SMALL)
    model = make_pipeline(StandardScaler(), umap).fit(frame)
    beside = {
        "metrics": {"trustworthiness": np.float32(0.75), "none": np.nan, "train": {"k": 3}},
        "embedding": umap.embedding_,
        "label_encoder": LabelEncoder().fit(["ant", "bee"]),
        "label_column": "kind",
    }
    return model, beside


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_permissions_follow_the_umask(whole, tmp_path, mask):
    model, beside = whole
    before = os.umask(mask)
    try:
        fastpdr.save(model, tmp_path / "model", **beside)
    finally:
        os.umask(before)
    assert (tmp_path / "model").stat().st_mode & 0o777 == 0o777 & ~mask
    assert {entry.name for entry in (tmp_path / "model").iterdir()} == saving.FILES
    assert {entry.stat().st_mode & 0o777 for entry in (tmp_path / "model").iterdir()} == {0o666 & ~mask}


def test_metrics_and_embedding_come_back(whole, tmp_path):
    model, beside = whole
    fastpdr.save(model, tmp_path / "model", **beside)
    metrics = json.loads((tmp_path / "model/metrics.json").read_text())
    assert metrics == {"trustworthiness": 0.75, "none": None, "train": {"k": 3}}
    assert np.array_equal(fastpdr.load(tmp_path / "model")[-1].embedding_, beside["embedding"])
    fastpdr.save(model, tmp_path / "model", overwrite=True)
    assert not (tmp_path / "model/metrics.json").exists()
    assert not hasattr(fastpdr.load(tmp_path / "model")[-1], "embedding_")


def test_an_embedding_may_be_taken_away_but_not_be_another(whole, tmp_path):
    model, beside = whole
    fastpdr.save(model, tmp_path / "model", **beside)
    embedding = tmp_path / "model/embedding.npy"
    np.save(embedding, np.zeros((60, 3), dtype=np.float32))
    with pytest.raises(ValueError, match=r"embedding.npy must hold the float32 places .* of 2 components"):
        fastpdr.load(tmp_path / "model")
    embedding.write_bytes(b"\x93NUMPY")
    with pytest.raises(ValueError, match=r"embedding.npy is damaged"):
        fastpdr.load(tmp_path / "model")
    embedding.unlink()
    assert not hasattr(fastpdr.load(tmp_path / "model")[-1], "embedding_")


@pytest.mark.parametrize(
    ("beside", "message"),
    [
        ({"metrics": {"a": object()}}, "metrics must be a mapping of names to numbers"),
        ({"metrics": [1, 2]}, "metrics must be a mapping of names to numbers"),
        ({"embedding": np.zeros((60, 3))}, r"embedding must be finite, of shape \(n, 2\), got shape \(60, 3\)"),
        ({"embedding": np.full((60, 2), np.inf)}, "embedding must be finite"),
    ],
)
def test_what_goes_with_a_model_is_checked_before_anything_is_written(X, tmp_path, beside, message):
    model = ParametricTSNE(**SMALL).fit(X)
    with pytest.raises(ValueError, match=message):
        fastpdr.save(model, tmp_path / "model", **beside)
    assert list(tmp_path.iterdir()) == []


def test_what_could_not_be_loaded_is_not_saved(X, tmp_path):
    class Mine(ParametricTSNE):
        pass

    with pytest.raises(ValueError, match="of one of fastpdr's classes"):
        Mine(**SMALL).fit(X).save(tmp_path / "model")


def test_weights_that_layers_share(X, tmp_path):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = self.second = nn.Linear(5, 5)
            self.head = nn.Linear(5, 2)

        def forward(self, x):
            return self.head(self.second(self.first(x).relu()))

    estimator = ParametricTSNE(encoder=Twice(), n_epochs=2, random_state=0).fit(X)
    estimator.save(tmp_path / "model")
    loaded = fastpdr.load(tmp_path / "model", encoder=Twice())
    assert np.array_equal(loaded.transform(X), estimator.embedding_)


# The card


def card_of(folder):
    _, front, text = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(front), text


def test_the_card_says_what_the_model_is(whole, tmp_path):
    model, beside = whole
    fastpdr.save(model, tmp_path / "model", **beside)
    front, text = card_of(tmp_path / "model")
    assert front["library_name"] == "fastpdr"
    assert "parametric-umap" in front["tags"]
    for line in (
        "# ParametricUMAP: 5 columns to 2",
        "| rows | 60 |",
        "| columns | 5 |",
        "| names of the columns | `a`, `b`, `c`, `d`, `e` |",
        "| preprocessing, part of the model | `StandardScaler` |",
        "| column of the labels | `kind` |",
        "| labels | `ant`, `bee` |",
        "| epochs | 2 |",
        f"| final loss | {model[-1].loss_history_[-1]:.4g} |",
        f"| seconds | {model[-1].training_seconds_:.1f} |",
        "| `hidden_dims` | `[16, 8]` |",
        "| trustworthiness | 0.75 |",
        "| train, k | 3 |",
        f"| torch | {torch.__version__} |",
    ):
        assert line in text.splitlines()
    assert "`n_neighbors`" not in text


def test_the_cards_program_runs(whole, tmp_path, X):
    model, beside = whole
    fastpdr.save(model, tmp_path / "model", **beside)
    _, text = card_of(tmp_path / "model")
    program = re.search(r"```python\n(.*?)```", text, flags=re.DOTALL)[1]
    assert len(program.strip().splitlines()) <= 6
    names = {"X": pd.DataFrame(X, columns=list("abcde"))}
    exec(program.replace("path/to/this/folder", str(tmp_path / "model")), names)
    assert np.array_equal(names["Z"], beside["embedding"])
    assert names["X"].shape == X.shape
    assert names["kinds"].tolist() == ["ant", "bee"]


def test_the_card_of_own_networks_names_them(X, tmp_path):
    estimator = ParametricTSNE(encoder=nn.Linear(5, 2), callbacks=[print], n_epochs=1, random_state=0).fit(X)
    estimator.save(tmp_path / "model")
    _, text = card_of(tmp_path / "model")
    assert 'load("path/to/this/folder", encoder=Linear())  # networks like those that were trained' in text
    assert "| given, but of no form in JSON | `callbacks`, `encoder` |" in text
    assert "## Metrics" not in text


def test_the_card_holds_odd_names_and_no_paths(tmp_path, rng):
    names = ["a|b", "c`d", "e\nf", *(f"column {i}" * 20 for i in range(40))]
    frame = pd.DataFrame(rng.normal(size=(60, len(names))), columns=names)
    ParametricTSNE(**SMALL).fit(frame).save(tmp_path / "model")
    _, text = card_of(tmp_path / "model")
    assert r"`a\|b`, `` c`d ``, `e f`, `column 0column 0" in text
    assert "... (43 in all) |" in text
    assert str(tmp_path) not in text
    assert str(Path.home()) not in text


# Elsewhere


def test_loads_without_faiss(folder):
    program = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "faiss":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Blocked())
import numpy, fastpdr
print(fastpdr.load(sys.argv[1]).transform(numpy.ones((1, 5))).shape)
try:
    import faiss
except ModuleNotFoundError:
    print("blocked")
"""
    result = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True)
    assert result.stdout.split("\n")[:2] == ["(1, 2)", "blocked"]


def test_a_model_of_another_device_loads(folder, X):
    """As saved on a machine with GPUs."""
    expected = fastpdr.load(folder).transform(X)
    config = json.loads((folder / "config.json").read_text())
    edit(folder, parameters={**config["parameters"], "device": "cuda:7"})
    loaded = fastpdr.load(folder, device="cpu")
    assert np.array_equal(loaded.transform(X), expected)
    assert loaded.device == "cpu"


@no_gpu
def test_loads_on_a_gpu(folder, X, close):
    on_gpu = fastpdr.load(folder, device="cuda")
    assert next(on_gpu.encoder_.parameters()).is_cuda
    close(on_gpu.transform(X), fastpdr.load(folder, device="cpu").transform(X))


def test_a_folder_of_the_first_version_still_loads(tmp_path):
    """Written by fastpdr 0.1.0 before cards, metrics and embeddings."""
    folder = Path(__file__).parent / "data/format-1"
    loaded = fastpdr.load(folder)
    rows = pd.DataFrame([[0.126, 3.679, 1064.042, -6.895], [-0.536, 8.616, 1130.4, -6.053]], columns=list("abcd"))
    places = [[-0.341339111328125, -0.5696459412574768], [-0.7566590309143066, -0.5110465884208679]]
    np.testing.assert_allclose(loaded.transform(rows), places, rtol=1e-5)
    assert loaded.inverse_transform(places).shape == (2, 4)
    assert fastpdr.load_label_encoder(folder).classes_.tolist() == ["ant", "bee"]
    fastpdr.save(loaded, tmp_path / "model")
    _, text = card_of(tmp_path / "model")
    assert "| rows |" not in text
    assert "| seconds |" not in text
    grown = loaded[-1].partial_fit(np.random.default_rng(0).normal(size=(20, 3)))
    assert (grown.n_samples_seen_, grown.training_seconds_) == (None, None)


def test_loads_in_another_process(folder, X):
    program = "import sys, numpy, fastpdr; print(fastpdr.load(sys.argv[1]).transform(numpy.ones((1, 5))).shape)"
    result = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "(1, 2)"


def test_loaded_model_can_be_fitted_and_saved_again(folder, X, tmp_path):
    loaded = fastpdr.load(folder).fit(X)
    loaded.save(tmp_path / "again")
    assert np.array_equal(fastpdr.load(tmp_path / "again").transform(X), loaded.embedding_)


def test_feature_names_survive(X, tmp_path):
    frame = pd.DataFrame(X, columns=list("abcde"))
    ParametricTSNE(**SMALL).fit(frame).save(tmp_path / "model")
    loaded = fastpdr.load(tmp_path / "model")
    assert list(loaded.feature_names_in_) == list("abcde")
    with pytest.raises(ValueError, match="feature names"):
        loaded.transform(frame[list("bacde")])


def test_own_encoder_is_loaded_into_one_like_it(X, tmp_path):
    estimator = ParametricTSNE(encoder=nn.Linear(5, 2), n_epochs=2, random_state=0).fit(X)
    estimator.save(tmp_path / "model")
    with pytest.raises(ValueError, match=r"own encoder \(Linear\): pass one like it as encoder="):
        fastpdr.load(tmp_path / "model")
    loaded = fastpdr.load(tmp_path / "model", encoder=nn.Linear(5, 2))
    assert np.array_equal(loaded.transform(X), estimator.embedding_)
    with pytest.raises(ValueError, match="do not fit together"):
        fastpdr.load(tmp_path / "model", encoder=nn.Linear(4, 2))


def test_what_json_cannot_hold_is_named(X, tmp_path):
    estimator = ParametricTSNE(callbacks=[print], random_state=np.random.default_rng(0), n_epochs=1).fit(X)
    estimator.save(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert sorted(config["omitted_parameters"]) == ["callbacks", "random_state"]
    assert fastpdr.load(tmp_path / "model").callbacks is None


def test_loading_leaves_the_global_generator(folder):
    before = torch.get_rng_state()
    fastpdr.load(folder)
    assert torch.equal(torch.get_rng_state(), before)


def test_unfitted_is_not_saved(tmp_path):
    with pytest.raises(NotFittedError):
        ParametricTSNE().save(tmp_path / "model")


def test_overwriting_is_asked_for(folder, X, tmp_path):
    other = ParametricTSNE(n_components=3, **SMALL).fit(X)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        other.save(folder)
    assert fastpdr.load(folder).n_components == 2
    other.save(folder, overwrite=True)
    assert fastpdr.load(folder).n_components == 3
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="holds more than a model"):
        other.save(folder, overwrite=True)
    with pytest.raises(FileExistsError, match="is a file"):
        other.save(folder / "thesis.txt", overwrite=True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("name", sorted(saving.FILES))
def test_a_full_disk_leaves_what_was_there(whole, tmp_path, monkeypatch, name):
    """At whichever file it happens."""
    model, beside = whole
    folder, reached = tmp_path / "model", []
    fastpdr.save(model, folder, **beside)
    before = {entry.name: entry.read_bytes() for entry in folder.iterdir()}

    def filling(write, place_of):
        def writes(*arguments, **options):
            path = Path(place_of(arguments))
            if path.name == name and path.parent != folder:
                reached.append(path)
                path.write_bytes(b"half")
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(*arguments, **options)

        return writes

    monkeypatch.setattr(saving, "save_file", filling(saving.save_file, lambda given: given[1]))
    monkeypatch.setattr(saving, "save_arrays", filling(saving.save_arrays, lambda given: given[1]))
    monkeypatch.setattr(saving, "save_array", filling(saving.save_array, lambda given: given[0]))
    monkeypatch.setattr(Path, "write_text", filling(Path.write_text, lambda given: given[0]))
    with pytest.raises(OSError, match="No space left"):
        fastpdr.save(model, folder, overwrite=True, **beside)
    assert len(reached) == 1
    assert {entry.name: entry.read_bytes() for entry in folder.iterdir()} == before
    with pytest.raises(OSError, match="No space left"):
        fastpdr.save(model, tmp_path / "new", **beside)
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


@pytest.mark.skipif(os.name != "posix", reason="limits of a process are POSIX's")
def test_a_disk_that_takes_no_more_weights_is_an_os_error(folder, X, tmp_path):
    """The operating system itself refuses, within safetensors, which has an error of its own for that."""
    program = """
import resource, sys, numpy, fastpdr
model = fastpdr.ParametricTSNE(n_epochs=1, hidden_dims=(256, 256), random_state=0).fit(numpy.random.rand(60, 5))
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    model.save(sys.argv[1], overwrite=True)
except OSError as error:
    print(error)
"""
    before = {entry.name: entry.read_bytes() for entry in folder.iterdir()}
    result = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True)
    assert "File too large" in result.stdout
    assert {entry.name: entry.read_bytes() for entry in folder.iterdir()} == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


def edit(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def test_missing_folder_and_files(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="no model folder"):
        fastpdr.load(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="is no model folder"):
        fastpdr.load(tmp_path)
    (folder / "encoder.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="encoder.safetensors is missing"):
        fastpdr.load(folder)


def test_truncated_files(folder):
    weights = folder / "encoder.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(ValueError, match="is damaged"):
        fastpdr.load(folder)
    config = folder / "config.json"
    config.write_text(config.read_text()[:100])
    with pytest.raises(ValueError, match="is damaged"):
        fastpdr.load(folder)


def test_foreign_and_newer_folders(folder):
    edit(folder, format_version=2, fastpdr_version="9.0")
    with pytest.raises(ValueError, match=r"format version 2, written by fastpdr 9.0; .* upgrade"):
        fastpdr.load(folder)
    edit(folder, format_version=1, format="something else")
    with pytest.raises(ValueError, match="not written by fastpdr"):
        fastpdr.load(folder)
    (folder / "config.json").write_text("[1, 2]")
    with pytest.raises(ValueError, match="not written by fastpdr"):
        fastpdr.load(folder)


@pytest.mark.parametrize(
    "changes", [{"class": "os"}, {"fitted": {}}, {"parameters": {"typo": 1}}, {"parameters": {"n_components": 4}}]
)
def test_config_that_does_not_fit(folder, changes):
    edit(folder, **changes)
    with pytest.raises(ValueError, match="do not fit together"):
        fastpdr.load(folder)


def test_unknown_device(folder):
    with pytest.raises(ValueError, match="device must be"):
        fastpdr.load(folder, device="gpu")
