"""The command line under torchrun: one map of two processes; a failed rank ends all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

import fastpdr

ROOT = Path(__file__).parents[2]
FAILING = """
import fastpdr, numpy
from fastpdr.training.step import Step

call = Step.__call__
with fastpdr.distributed() as ranks:
    def fail(self, inputs, phase):
        if ranks.rank == 1:
            raise ValueError("no step on this rank")
        call(self, inputs, phase)

    Step.__call__ = fail
    fastpdr.ParametricTSNE(n_epochs=2).fit(numpy.random.default_rng(0).normal(size=(100, 4)))
print("went on")
"""


def torchrun(*arguments):
    """Run two processes of one thread each; returns how that ended and what was printed."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [str(part) for part in command], env=environment, capture_output=True, text=True, timeout=300, cwd=ROOT
    )
    return result.returncode, result.stdout, result.stderr


def test_fit_of_two_processes_writes_one_map(tmp_path):
    parts = ("fit", "digits", "--n-epochs", 3, "--held-out", 0.2, "--checkpoint", tmp_path / "checkpoints", "-q")
    code, printed, errors = torchrun("-m", "fastpdr", *parts, "-o", tmp_path / "map")
    assert code == 0, errors
    assert not printed
    Z = np.load(tmp_path / "map" / "embedding.npy")
    assert Z.shape == (1797, 2)
    assert json.loads((tmp_path / "map" / "metrics.json").read_text())["n_epochs"] == 3
    model = fastpdr.load(tmp_path / "map" / "model")
    held_out = np.load(tmp_path / "map" / "held_out.npy")
    np.testing.assert_allclose(model.transform(load_digits().data[held_out]), Z[held_out], atol=1e-5)

    code, _, errors = torchrun("-m", "fastpdr", *parts, "-o", tmp_path / "map")
    assert code != 0
    assert "is not empty; --overwrite replaces" in errors


def test_a_failed_rank_ends_all_with_its_error(tmp_path):
    script = tmp_path / "failing.py"
    script.write_text(FAILING)
    code, printed, errors = torchrun(script)
    assert code == 1
    assert "went on" not in printed
    assert "ValueError: no step on this rank" in errors
    assert "rank 1 failed: ValueError: no step on this rank" in errors or "RankError" not in errors
