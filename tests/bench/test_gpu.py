"""bench/gpu.py runs whole, on small inputs and without a GPU; the tables of docs/gpu.md are those of the results."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from bench import gpu_page, pages

RATES = {"copy_bytes_per_second": 1e9, "float32_multiply_adds_per_second": 1e9, "exp2_per_second": 1e9}


def test_every_part_runs(tmp_path):
    roofline, found = tmp_path / "roofline.json", tmp_path / "gpu.json"
    roofline.write_text(json.dumps(RATES))
    script = gpu_page.ROOT / "bench" / "gpu.py"
    command = [sys.executable, script, "--device", "cpu", "--small", "--roofline", roofline, "--json", found]
    path = os.pathsep.join(map(str, (gpu_page.ROOT, gpu_page.ROOT / "bench")))
    result = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    record = json.loads(found.read_text())
    assert record["failures"] == {}
    loss = record["results"]["pair_loss umap, b = 100"]
    assert loss["floor_milliseconds"] == pytest.approx(1e3 * 17.6 * 100**2 / 1e9)
    assert loss["times_the_floor"] == pytest.approx(loss["milliseconds"] / loss["floor_milliseconds"])
    (tmp_path / "results").mkdir()
    found.rename(tmp_path / "results" / "gpu.json")
    assert "| small network, B = 128, bf16 |" in gpu_page.steps(tmp_path / "results")
    assert r"| pair\_loss umap, b = 100 |" in gpu_page.kernels(tmp_path / "results")


def test_a_fit_that_failed_has_no_line(tmp_path):
    assert gpu_page.fits(tmp_path) == gpu_page.summary(tmp_path) == ""
    phases = {"14 neighbours of 60000 rows of 784 columns": 0.25, "ParametricUMAP: training on cuda, 4 epochs": 0.5}
    fit = {"seconds": 1.04, "phases": phases, "peak_gpu_megabytes": 2496.0, "test": {"trust15": 0.9537, "knn10": None}}
    fits = {"mnist fastpdr-umap": fit, "mnist fastpdr-tsne": {"failed": "no"}, "mnist torchdr-umap": fit}
    (tmp_path / "fits.json").write_text(json.dumps({"fits": fits}))
    (line,) = gpu_page.fits(tmp_path).splitlines()[2:]
    assert line == "| MNIST, 60,000 rows of 784 | UMAP | **1.0** | 0.25 | 0.50 | 2.5 | 0.954 |  |"
    assert gpu_page.summary(tmp_path).splitlines()[2:] == ["| MNIST, 60,000 rows of 784 | 1.0 s |  |"]


def test_the_page_holds_the_tables_of_the_results():
    page = (gpu_page.ROOT / "docs" / "gpu.md").read_text("utf-8")
    assert f"{pages.BEGIN}\n\n{gpu_page.text()}\n{pages.END}\n" in page
