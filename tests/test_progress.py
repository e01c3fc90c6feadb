"""Bars of progress and the log: who sees them, and when."""

from __future__ import annotations

import io
import logging
import subprocess
import sys

import numpy as np
import pytest

import fastpdr
from fastpdr import _progress, metrics

X = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def replace_stderr(monkeypatch, file):
    """Put a file in the place of stderr, and let bars appear at once."""
    monkeypatch.setattr(_progress, "DELAY", 0)
    monkeypatch.setattr(sys, "stderr", file)
    return file


def work(**settings):
    with _progress.progress("counting", 2, **settings) as bar:
        bar.update(1)
        bar.update(1)


def test_a_phase_says_how_long_it_took(caplog):
    with caplog.at_level(logging.INFO, "fastpdr"), _progress.phase("counting"):
        sum(range(100_000))
    (record,) = caplog.records
    assert record.getMessage() == f"counting: {record.wall_s:.2f} s"
    assert record.phase == "counting"
    assert record.cpu_s > 0


def test_a_bar_on_a_terminal(monkeypatch):
    terminal = replace_stderr(monkeypatch, Terminal())
    work()
    assert "counting: " in terminal.getvalue()


@pytest.mark.parametrize(("file", "settings"), [(Terminal, {"shown": False}), (io.StringIO, {})])
def test_no_bar_where_none_is_wanted_or_there_is_no_terminal(monkeypatch, file, settings):
    stderr = replace_stderr(monkeypatch, file())
    work(**settings)
    assert stderr.getvalue() == ""


def test_no_bar_for_short_work(monkeypatch):
    terminal = replace_stderr(monkeypatch, Terminal())
    monkeypatch.setattr(_progress, "DELAY", 60)
    work()
    assert "counting" not in terminal.getvalue()


@pytest.mark.parametrize(
    ("kind", "labels"),
    [(fastpdr.ParametricTSNE, {"ParametricTSNE"}), (fastpdr.ParametricUMAP, {"exact search", "ParametricUMAP"})],
)
def test_bars_of_a_fit(monkeypatch, kind, labels):
    terminal = replace_stderr(monkeypatch, Terminal())
    settings = {"n_epochs": 2, "hidden_dims": [4], "batch_size": 30}
    kind(**settings).fit(X)
    assert terminal.getvalue() == ""
    estimator = kind(**settings, verbose=True).fit(X)
    assert all(f"{label}: " in terminal.getvalue() for label in (*labels, "placing"))
    assert "2/2" in terminal.getvalue()
    terminal.truncate(0)
    estimator.transform(X)
    assert "placing: " in terminal.getvalue()


MEASURES = ("evaluate", "trustworthiness", "continuity", "neighborhood_preservation", "rnx_curve", "rnx_auc")


@pytest.mark.parametrize("measure", MEASURES)
def test_bars_of_measures(monkeypatch, measure):
    terminal = replace_stderr(monkeypatch, Terminal())
    getattr(metrics, measure)(X, X[:, :2])
    assert terminal.getvalue() == ""
    getattr(metrics, measure)(X, X[:, :2], verbose=True)
    assert "judging: " in terminal.getvalue()


def test_a_phase_is_logged_with_its_time(caplog):
    caplog.set_level(logging.INFO, "fastpdr")
    with _progress.phase("adding"):
        sum(range(1000))
    assert caplog.messages == ["adding: 0.00 s"]


def test_a_phase_that_fails_is_not_done(caplog):
    caplog.set_level(logging.INFO, "fastpdr")
    with pytest.raises(ValueError, match="half"), _progress.phase("adding"):
        raise ValueError("half way")
    assert not caplog.messages


def test_what_a_fit_logs(caplog):
    caplog.set_level(logging.DEBUG, "fastpdr")
    umap = fastpdr.ParametricUMAP(n_neighbors=5, n_epochs=2, hidden_dims=[4]).fit(X)
    fastpdr.ParametricTSNE(affinity="knn", perplexity=5, n_epochs=1, hidden_dims=[4]).fit(X)
    info = [record.message for record in caplog.records if record.levelno == logging.INFO]
    for begin in (
        "4 neighbours of 60 rows of 5 columns: ",
        "fuzzy set of neighbours: ",
        "ParametricUMAP: training on cpu, at most 2 epochs of ",
        "ParametricUMAP: placing 60 rows: ",
        "similarities by perplexity: ",
    ):
        assert any(message.startswith(begin) and message.endswith(" s") for message in info), begin
    debug = [record.message for record in caplog.records if record.levelno == logging.DEBUG]
    assert f"epoch 2: loss {umap.loss_history_[1]:.6g}" in "\n".join(debug)
    assert "TrainingSettings(" in "\n".join(debug)


def test_the_library_alone_is_silent():
    program = (
        "import logging, fastpdr; logger = logging.getLogger('fastpdr'); logger.warning('x');"
        "assert [type(handler) for handler in logger.handlers] == [logging.NullHandler]; assert logger.level == 0"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == result.stderr == ""
