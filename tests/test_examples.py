"""Every example runs on small data, writes its pictures, and reaches the quality that it tells of."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
MODEL = {"config.json", "encoder.safetensors"}

# example -> small arguments, what it writes, and patterns of what it prints with the lowest and highest number.
FEW = ["--rows", "600", "--epochs", "10"]
CASES = {
    "quickstart": (
        FEW,
        {"map.png", "model"},
        [("trustworthiness of 150 unseen rows", 0.85, 1), ("R_NX AUC", 0.3, 1), ("rows' labels", 0.9, 1)],
    ),
    "grid_search": (
        ["--rows", "500", "--epochs", "10"],
        {"map.png", "model"},
        [("held-out", 0.75, 1), ("trustworthiness of 125 unseen rows", 0.85, 1)],
    ),
    "image_encoder": (
        FEW,
        {"map.png", "model"},
        [("built-in network: .* trustworthiness", 0.85, 1), ("convolutions: .* accuracy", 0.8, 1)],
    ),
    "single_cell": (
        ["--epochs", "15"],
        {"map.png", "model"},
        [
            ("trustworthiness of 175 new cells", 0.75, 1),
            ("map as by hand", 0.8, 1),
            ("kinds in the saved model", 10, 10),
        ],
    ),
    "word_vectors": (
        FEW,
        {"map.png"},
        [("metric=euclidean: .* kept", 0.4, 1), ("metric=cosine: .* kept", 0.5, 1), ("cosine: .* trust\\w+", 0.9, 1)],
    ),
    "growing_data": (
        FEW,
        {"map.png"},
        [("new rows alone: .* moved by", 0.3, 9), ("landmarks: .* moved by", 0, 0.1), ("landmarks: .* kinds", 0.8, 1)],
    ),
    "large_memmap": (
        ["--gigabytes", "0.003", "--epochs", "10", "--memory-limit", "2GB"],
        {"rows.npy", "map.npy", "map.png"},
        [("", 5_859, 5_859), (r"trustworthiness of \d+ rows", 0.9, 1)],
    ),
    "place_with_dask": (
        FEW,
        {"map", "map.png", "model"},
        [("", 600, 600), ("places given here", 0, 1e-5)],
    ),
    "place_with_ray": (
        FEW,
        {"map.parquet", "map.png", "model"},
        [("", 600, 600), ("places given here", 0, 1e-5)],
    ),
    "kernels": (
        ["--rows", "600", "--compiler", "aot_eager"],
        {"map.png"},
        [
            ("effective neighbours of a row", 5, 30),
            ("t-SNE: .* trustworthiness", 0.95, 1),
            ("kernel and reference differ by", 0, 1e-5),
            ("UMAP: .* trustworthiness", 0.95, 1),
        ],
    ),
}

ENGINES = {"place_with_dask": "dask.array", "place_with_ray": "ray.data"}


@pytest.mark.parametrize("name", CASES)
def test_example(name, tmp_path):
    arguments, files, figures = CASES[name]
    pytest.importorskip("matplotlib", reason="the examples draw: pip install 'fastpdr[plot]'")
    if name in ENGINES:
        pytest.importorskip(ENGINES[name], reason="pip install 'fastpdr[engines]'")
    environment = {key: value for key, value in os.environ.items() if key != "FASTPDR_DATA"}
    command = [sys.executable, EXAMPLES / f"{name}.py", "--output", tmp_path, *arguments]
    environment["PYTHONPATH"] = os.pathsep.join([str(EXAMPLES.parent), environment.get("PYTHONPATH", "")])
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    for pattern, low, high in figures:
        found = re.search(rf"^{'.*' if pattern else ''}{pattern}:? ?([\d.e+-]+)", done.stdout, re.MULTILINE)
        assert found, f"{pattern!r} is not in {done.stdout}"
        assert low <= float(found[1]) <= high, found[0]
    assert {path.name for path in (tmp_path / name).iterdir()} == files
    assert (tmp_path / name / "map.png").read_bytes().startswith(b"\x89PNG")
    if "model" in files:
        assert {path.name for path in (tmp_path / name / "model").iterdir()} >= MODEL
        assert "same places False" not in done.stdout


def test_every_example_is_run():
    assert {path.stem for path in EXAMPLES.glob("*.py")} - {"common"} == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_examples_say_what_they_show_and_how_long_they_take(name):
    text = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    assert 30 <= len(text.splitlines()) <= 100
    assert re.match(r'"""[A-Z].*[.:]\n\nTakes .*(seconds|minute)', text, re.DOTALL)


def test_data_that_is_not_there(tmp_path):
    command = [sys.executable, EXAMPLES / "quickstart.py", "--output", tmp_path, "--data", tmp_path]
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert (
        done.stderr == f"{tmp_path / 'mnist_70k.npz'} is not there: name a folder that holds it by --data, or unset "
        "FASTPDR_DATA\n"
    )
