"""Exported maps: the same places as transform's, in onnxruntime and in a PyTorch that knows nothing of fastpdr."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import no_gpu
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler
from torch import nn

import fastpdr
from fastpdr.compat.umap import ParametricUMAP as TheirUMAP
from fastpdr.estimators import export
from fastpdr.training.encoder import ACTIVATIONS

onnxruntime = pytest.importorskip("onnxruntime")
SMALL = {"n_epochs": 1, "hidden_dims": (16, 8), "random_state": 0, "device": "cpu"}
SUFFIXES = (".onnx", ".pt2")


@pytest.fixture
def X(rng):
    return rng.normal(size=(60, 5)) * [1, 10, 100, 1e3, 1] + 1e3


def fitted(X, *steps, cls=fastpdr.ParametricTSNE, **parameters):
    return make_pipeline(*steps, cls(**{**SMALL, **parameters})).fit(X)


def write(model, path):
    {".onnx": fastpdr.to_onnx, ".pt2": fastpdr.to_exported_program}[path.suffix](model, path)


def place(path, rows):
    rows = np.asarray(rows, dtype=np.float32)
    if path.suffix == ".pt2":
        return torch.export.load(path).module()(torch.from_numpy(rows)).numpy()
    return onnxruntime.InferenceSession(path).run(None, {"X": rows})[0]


def check(path, model, rows):
    """The file's places are the model's for the same float32 rows, computed in float64 up to the encoder."""
    rows32 = np.asarray(rows, dtype=np.float32)
    expected = model.transform(rows32.astype(np.float64))
    np.testing.assert_allclose(place(path, rows32), expected, atol=1e-5 * np.abs(expected).max(), rtol=0)


class Picture(nn.Module):
    """A network of another kind, with layers that know whether they are trained."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Unflatten(1, (1, 4, 4)),
            nn.Conv2d(1, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Flatten(1),
            nn.Dropout(0.5),
            nn.Linear(16, 2),
        )

    def forward(self, x):
        return self.layers(x)


# The same places


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "steps",
    [
        (),
        (StandardScaler(), PCA(3)),
        (StandardScaler(with_std=False), MinMaxScaler((-1, 1), clip=True)),
        (StandardScaler(with_mean=False), PCA(2, whiten=True)),
    ],
    ids=str,
)
def test_the_same_places_for_any_number_of_rows(X, tmp_path, suffix, steps):
    model, path = fitted(X, *steps), tmp_path / f"map{suffix}"
    write(model, path)
    for rows in (X, X[:1], X[:7] + 2e3):
        check(path, model, rows)
    assert place(path, X[:0]).shape == (0, 2)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_activation(X, tmp_path, suffix):
    layers = [layer for kind in ACTIVATIONS.values() for layer in (kind(), nn.Linear(8, 8), nn.LayerNorm(8))]
    encoder = nn.Sequential(nn.Linear(5, 8), *layers, nn.Linear(8, 2))
    model, path = fitted(X, StandardScaler(), encoder=encoder), tmp_path / f"map{suffix}"
    write(model, path)
    check(path, model, X)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_own_encoders(rng, tmp_path, suffix):
    pictures = rng.normal(size=(40, 16)).astype(np.float32)
    model, path = fitted(pictures, encoder=Picture(), batch_size=20), tmp_path / f"map{suffix}"
    write(model, path)
    check(path, model, pictures)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_loaded_model_with_large_offsets(rng, tmp_path, suffix):
    """Which lose no more than the rounding of the rows to float32 does."""
    X = (rng.normal(size=(60, 4)) + 1e5).astype(np.float32)
    fastpdr.save(fitted(X, StandardScaler()), tmp_path / "model")
    model, path = fastpdr.load(tmp_path / "model"), tmp_path / f"map{suffix}"
    write(model, path)
    check(path, model, X)


def test_methods_of_the_estimators(X, tmp_path):
    estimator = fastpdr.ParametricUMAP(n_components=3, **SMALL).fit(X)
    estimator.to_onnx(tmp_path / "deep" / "map.onnx")
    program = estimator.to_exported_program()
    written = estimator.to_exported_program(tmp_path / "map.pt2")
    check(tmp_path / "deep" / "map.onnx", estimator, X)
    check(tmp_path / "map.pt2", estimator, X)
    rows = torch.from_numpy(X.astype(np.float32))
    assert torch.equal(program.module()(rows), written.module()(rows))


def test_umap_learns_name_for_it(rng, tmp_path):
    pictures = rng.normal(size=(40, 4, 4, 1)).astype(np.float32)
    network = nn.Sequential(nn.Flatten(1), nn.Linear(16, 2))
    umap = TheirUMAP(encoder=network, dims=(4, 4, 1), n_epochs=1, random_state=0).fit(pictures)
    umap.to_ONNX(tmp_path / "map.onnx")
    check(tmp_path / "map.onnx", umap, pictures.reshape(40, -1))


@no_gpu
def test_a_map_on_a_gpu_is_exported_for_the_cpu(X, tmp_path):
    model = fitted(X, StandardScaler(), device="cuda")
    for suffix in SUFFIXES:
        write(model, tmp_path / f"map{suffix}")
        check(tmp_path / f"map{suffix}", model, X)


# What the files say, and where they run


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A pipeline of named columns and its two files."""
    folder, rows = tmp_path_factory.mktemp("exported"), np.random.default_rng(0).normal(size=(60, 5)) + 1e3
    model = fitted(pd.DataFrame(rows, columns=list("abcde")), StandardScaler(), PCA(3))
    for suffix in SUFFIXES:
        write(model, folder / f"map{suffix}")
    return model, folder


def test_what_an_onnx_file_says(exported):
    import onnx

    file = exported[1] / "map.onnx"
    graph = onnx.load(file)
    onnx.checker.check_model(graph, full_check=True)
    assert (graph.producer_name, graph.producer_version) == ("fastpdr", fastpdr.__version__)
    assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", export.OPSET)]
    said = {entry.key: entry.value for entry in graph.metadata_props}
    assert said["method"] == "ParametricTSNE"
    assert json.loads(said["preprocessing"]) == ["StandardScaler", "PCA"]
    assert json.loads(said["feature_names"]) == list("abcde")
    assert json.loads(said["versions"])["torch"] == torch.__version__
    session = onnxruntime.InferenceSession(file)
    ends = [(end.name, end.type, end.shape) for end in (*session.get_inputs(), *session.get_outputs())]
    assert ends == [("X", "tensor(float)", ["rows", 5]), ("Z", "tensor(float)", ["rows", 2])]


def test_what_a_program_says(exported, X, tmp_path):
    extra = {export.DESCRIPTION: ""}
    torch.export.load(exported[1] / "map.pt2", extra_files=extra)
    said = json.loads(extra[export.DESCRIPTION])
    assert (said["method"], said["preprocessing"]) == ("ParametricTSNE", ["StandardScaler", "PCA"])
    assert said["feature_names"] == list("abcde")
    assert "feature_names" not in export.describe(fitted(X))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_no_paths_of_this_machine(exported, suffix):
    folder = exported[1]
    content = (folder / f"map{suffix}").read_bytes()
    for code in (Path(fastpdr.__file__).parent, Path(torch.__file__).parent, folder, Path(__file__)):
        assert str(code).encode() not in content


def test_a_program_runs_where_fastpdr_is_not(exported):
    model, folder = exported
    program = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "fastpdr":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Blocked())
import torch
torch.manual_seed(0)
print(torch.export.load(sys.argv[1]).module()(1e3 + torch.randn(3, 5)).double().tolist())
assert "fastpdr" not in sys.modules
"""
    result = subprocess.run(
        [sys.executable, "-c", program, str(folder / "map.pt2")], capture_output=True, text=True, check=True
    )
    rows = 1e3 + torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    expected = model.transform(pd.DataFrame(rows.numpy(), columns=list("abcde")))
    np.testing.assert_allclose(json.loads(result.stdout), expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_exporting_leaves_the_model_and_the_generators_and_prints_nothing(X, tmp_path, suffix, capfd):
    model = fitted(X, StandardScaler())
    expected, before, numpys = model.transform(X), torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    capfd.readouterr()
    write(model, tmp_path / f"map{suffix}")
    assert capfd.readouterr() == ("", "")
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpys)  # noqa: NPY002
    assert np.array_equal(model.transform(X), expected)
    assert all(parameter.requires_grad for parameter in model[-1].encoder_.parameters())


# What cannot be


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_does_otherwise_is_not_written(X, tmp_path, monkeypatch, suffix):
    name = {".onnx": "_onnx_runner", ".pt2": "_program_runner"}[suffix]
    runner, path = getattr(export, name), tmp_path / f"map{suffix}"
    path.write_text("old")
    model = fitted(X)
    extent = np.abs(model.transform(export._trial_rows(model))).max()

    def shifted(file):
        return lambda rows: runner(file)(rows) + 1e-3 * extent

    monkeypatch.setattr(export, name, shifted)
    with pytest.raises(RuntimeError, match=r"differs from transform by .*e-0\d of the map's scale"):
        write(model, path)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert path.read_text() == "old"


def test_the_check_sees_extreme_rows_and_what_is_no_number(X):
    model = fitted(X)
    rows = export._trial_rows(model)

    def run(part):
        return model.transform(part.astype(np.float64))

    def broken_far(part):
        return np.where(np.abs(part - 1e3).max(1, keepdims=True) > 1e5, run(part) * 1.01, run(part))

    assert export._difference(model, run) < 1e-5
    assert export._difference(model, broken_far) > export.TOLERANCE
    assert not export._difference(model, lambda part: np.full((len(part), 2), np.nan)) <= export.TOLERANCE
    assert np.abs(rows - 1e3).max() > 1e5


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_full_disk_leaves_the_older_file(X, tmp_path, monkeypatch, suffix):
    path = tmp_path / f"map{suffix}"
    path.write_text("old")
    written_aside = export.written_aside

    @contextmanager
    def on_a_full_disk(target):
        with written_aside(target) as aside:
            aside.symlink_to("/dev/full")
            yield aside

    monkeypatch.setattr(export, "written_aside", on_a_full_disk)
    with pytest.raises(OSError, match="No space left on device"):
        write(fitted(X), path)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert path.read_text() == "old"


@pytest.mark.parametrize("name", export.NEEDED)
def test_without_the_packages(X, tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError, match=re.escape("pip install 'fastpdr[onnx]'")):
        fastpdr.to_onnx(fitted(X), tmp_path / "map.onnx")
    fitted(X).named_steps["parametrictsne"].to_exported_program()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_encoder_that_cannot_be_followed(X, tmp_path, suffix):
    class Wayward(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(5, 2)

        def forward(self, x):
            return self.layer(x) if float(x.sum()) > 0 else -self.layer(x)

    with pytest.raises(ValueError, match=r"torch.export cannot follow the encoder \("):
        write(fitted(X, encoder=Wayward()), tmp_path / f"map{suffix}")
    assert list(tmp_path.iterdir()) == []


def test_too_many_weights_for_one_file(X, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "LARGEST_FILE", 1000)
    with pytest.raises(ValueError, match="more than the 2 GiB"):
        fastpdr.to_onnx(fitted(X), tmp_path / "map.onnx")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_no_fitted_map(X, tmp_path, suffix):
    path = tmp_path / f"map{suffix}"
    with pytest.raises(ValueError, match="must be a map of fastpdr or a pipeline that ends with one"):
        write(StandardScaler().fit(X), path)
    with pytest.raises(ValueError, match="step robustscaler must be one of StandardScaler, MinMaxScaler, PCA"):
        write(fitted(X, RobustScaler()), path)
    with pytest.raises(NotFittedError):
        write(fastpdr.ParametricTSNE(), path)
    with pytest.raises(NotFittedError):
        write(Pipeline([("map", fastpdr.ParametricTSNE())]), path)
