"""Every command and every way it can be held wrong, on tiny data."""

from __future__ import annotations

import json
import logging
import os
import platform
import re
import signal
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from reports import Page, unpacked
from running import NAMES, D, N, X, entries, run, y

import fastpdr
from fastpdr._files import written_aside
from fastpdr.cli import METHODS, METRICS, data, demo, main
from fastpdr.cli.output import writable_folder, write_json
from fastpdr.training.step import Step

STRUCTURE = {"trustworthiness", "continuity", "neighborhood_preservation", "rnx_auc"}
LABEL_METRICS = {"neighborhood_hit", "knn_accuracy", "silhouette"}
PARTS = {"model", "embedding.npy", "metrics.json", "map.png", "report.html"}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fit(*arguments, code=0):
    return run("fit", *arguments, "--n-epochs", 2, code=code)


def frame_of(labels=None):
    frame = pd.DataFrame(X, columns=list("abcd"))
    if labels is not None:
        frame.insert(1, "kind", labels)
    return frame


@pytest.fixture
def npy(here):
    np.save("x.npy", X)
    return "x.npy"


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A folder of fit from a table with the labels in the column kind."""
    folder = tmp_path_factory.mktemp("fitted")
    frame_of(NAMES[y]).to_csv(folder / "x.csv", index=False)
    fit(folder / "x.csv", "--labels", "kind", "-o", folder / "out")
    return folder / "out"


# fit: what it writes


@pytest.mark.parametrize("method", METHODS)
def test_fit_writes_model_map_picture_and_metrics(npy, here, method):
    output = fit(npy, "--method", method, "-o", "out")
    assert entries(here / "out") == PARTS
    Z = np.load("out/embedding.npy")
    assert Z.shape == (N, 2)
    assert Z.dtype == np.float32
    model = fastpdr.load("out/model")
    np.testing.assert_allclose(model.transform(X), Z, rtol=1e-5, atol=1e-5)
    metrics = json.loads((here / "out/metrics.json").read_text())
    assert metrics.keys() > STRUCTURE
    assert not LABEL_METRICS & metrics.keys()
    assert metrics["final_loss"] == model.loss_history_[-1]
    assert metrics["training_time_seconds"] > 0
    assert (metrics["n_samples"], metrics["n_features"], metrics["n_epochs"]) == (N, D, 2)
    assert metrics["method"] == type(model).__name__
    assert metrics["versions"]["fastpdr"] == fastpdr.__version__
    assert f"trustworthiness {metrics['trustworthiness']:.4f}" in output
    assert "In out:" in output
    assert "embedding.npy the map, 80 x 2" in output


def test_fit_equals_the_estimator(npy):
    options = ["--perplexity", 5, "--batch-size", 40, "--learning-rate", 0.01, "--device", "cpu", "--seed", 3]
    fit(npy, "-o", "out", "--n-components", 3, *options)
    estimator = fastpdr.ParametricTSNE(
        3, perplexity=5, batch_size=40, learning_rate=0.01, device="cpu", random_state=3, n_epochs=2
    )
    np.testing.assert_allclose(np.load("out/embedding.npy"), estimator.fit_transform(X), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("method", "options", "parameters"),
    [
        ("tsne", ["--affinity", "knn"], {"affinity": "knn"}),
        ("mstsne", ["--affinity", "knn"], {"affinity": "knn"}),
        (
            "umap",
            ["--n-neighbors", 5, "--min-dist", 0.5, "--metric", "cosine"],
            {"n_neighbors": 5, "min_dist": 0.5, "metric": "cosine"},
        ),
        ("largevis", ["--perplexity", 5, "--metric", "manhattan"], {"perplexity": 5, "metric": "manhattan"}),
    ],
)
def test_options_of_a_method(npy, method, options, parameters):
    fit(npy, "-o", "out", "--method", method, *options)
    estimator = getattr(fastpdr, METHODS[method])(**parameters, random_state=0, n_epochs=2)
    np.testing.assert_allclose(np.load("out/embedding.npy"), estimator.fit_transform(X), rtol=1e-5, atol=1e-5)
    saved = fastpdr.load("out/model").get_params()
    assert {name: saved[name] for name in parameters} == parameters


def test_every_metric_is_known(npy):
    for metric in METRICS:
        fastpdr.KNNGraph.build(X, 2, metric=metric)


@pytest.mark.parametrize("method", ["umap", "largevis"])
def test_labels_do_not_teach(npy, method):
    np.save("y.npy", y)
    fit(npy, "-o", "without", "--method", method)
    output = fit(npy, "-o", "with", "--method", method, "--labels", "y.npy")
    assert "knn accuracy" in output
    np.testing.assert_array_equal(np.load("with/embedding.npy"), np.load("without/embedding.npy"))


def test_quiet_prints_nothing(npy):
    assert fit(npy, "-o", "out", "-q") == ""
    assert fit(npy, "-o", "umap", "-q", "--method", "umap") == ""


def test_fit_reads_the_built_in_digits(here):
    fit("digits", "-o", "out", "--format", "csv")
    frame = pd.read_csv("out/embedding.csv")
    assert frame.shape == (1797, 3)
    assert set(frame["label"]) == set(range(10))


@pytest.mark.parametrize(
    ("n_components", "columns"),
    [
        (1, ["projection_x"]),
        (2, ["projection_x", "projection_y"]),
        (3, ["projection_x", "projection_y", "projection_z"]),
        (4, ["projection_1", "projection_2", "projection_3", "projection_4"]),
    ],
)
def test_embedding_as_csv(npy, n_components, columns):
    output = fit(npy, "-o", "out", "--format", "csv", "--n-components", n_components)
    assert list(pd.read_csv("out/embedding.csv").columns) == columns
    assert os.path.exists("out/map.png") == os.path.exists("out/report.html") == (n_components > 1)
    assert ("not drawn: a map needs two components" in output) == (n_components == 1)
    assert ("its first two components" in output) == (n_components > 2)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_embedding_keeps_the_labels(here, suffix):
    np.savez("x.npz", X=X, y=NAMES[y])
    fit("x.npz", "-o", "out", "--format", suffix)
    frame = pd.read_csv("out/embedding.csv") if suffix == "csv" else pd.read_parquet("out/embedding.parquet")
    assert list(frame.columns) == ["projection_x", "projection_y", "label"]
    assert list(frame["label"]) == list(NAMES[y])
    Z = fastpdr.load("out/model").transform(X)
    np.testing.assert_allclose(frame[["projection_x", "projection_y"]].to_numpy(np.float32), Z, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize(("method", "metric"), [("tsne", "euclidean"), ("umap", "cosine")])
def test_embedding_with_neighbors(here, suffix, method, metric):
    np.savez("x.npz", X=X, y=NAMES[y])
    options = ["--metric", metric] if method == "umap" else []
    output = fit("x.npz", "-o", "out", "--method", method, "--format", suffix, "--neighbors", 4, *options)
    assert f"embedding.{suffix} the map, 80 x 2, and 4 neighbours of each row" in output
    if suffix == "csv":
        frame = pd.read_csv("out/embedding.csv")
        neighbors = [json.loads(text) for text in frame["neighbors"]]
    else:
        frame = pd.read_parquet("out/embedding.parquet")
        neighbors = list(frame["neighbors"])
    assert list(frame.columns) == ["projection_x", "projection_y", "label", "neighbors"]
    graph = fastpdr.KNNGraph.build(X, 4, metric=metric)
    assert neighbors[0].keys() == {"ids", "distances"}
    np.testing.assert_array_equal([row["ids"] for row in neighbors], graph.indices)
    np.testing.assert_allclose([row["distances"] for row in neighbors], graph.distances, rtol=1e-6)


def test_neighbors_are_a_struct_of_lists_in_parquet(npy):
    pyarrow = pytest.importorskip("pyarrow")
    fit(npy, "-o", "out", "--format", "parquet", "--neighbors", 2)
    kind = pyarrow.parquet.read_schema("out/embedding.parquet").field("neighbors").type
    lists = [("ids", pyarrow.list_(pyarrow.int64())), ("distances", pyarrow.list_(pyarrow.float32()))]
    assert kind == pyarrow.struct(lists)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--neighbors", 4], "--neighbors is for --format csv and parquet, not for npy"),
        (["--neighbors", 0, "--format", "csv"], "--neighbors"),
        (["--neighbors", N, "--format", "csv"], f"neighbors must be fewer than the {N} rows, got {N}"),
    ],
)
def test_bad_numbers_of_neighbors_are_found_before_training(npy, here, monkeypatch, options, message):
    monkeypatch.setattr(fastpdr.ParametricTSNE, "fit_transform", lambda *_: pytest.fail("trained"))
    assert message in fit(npy, "-o", "out", *options, code=2)
    assert not (here / "out").exists()


def test_labels_are_judged(fitted):
    metrics = json.loads((fitted / "metrics.json").read_text())
    assert metrics.keys() > STRUCTURE | LABEL_METRICS
    assert metrics["label_column"] == "kind"
    Z = np.load(fitted / "embedding.npy")
    expected = fastpdr.metrics.evaluate(X, Z, y)
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, abs=1e-6)


def test_values_on_a_scale_are_drawn_but_not_judged(npy, here):
    np.save("y.npy", X[:, 0])
    fit(npy, "-o", "out", "--labels", "y.npy")
    assert not LABEL_METRICS & json.loads((here / "out/metrics.json").read_text()).keys()
    assert (here / "out/map.png").exists()


def test_a_warning_is_one_line(here):
    np.save("x.npy", X[:10])
    output = fit("x.npy", "-o", "out", "--method", "umap")
    assert output.startswith("Warning: n_neighbors=15 is more than there are rows: all 10 are taken ParametricUMAP: ")


@pytest.mark.parametrize("n", [3, 6, 25])
def test_few_rows_are_judged_by_fewer_neighbours(here, n):
    np.savez("x.npz", X=X[:n], y=y[:n])
    fit("x.npz", "-o", "out")
    assert json.loads((here / "out/metrics.json").read_text()).keys() > STRUCTURE


def test_the_embedding_goes_into_the_model_where_asked(npy, here):
    fit(npy, "-o", "without")
    fit(npy, "-o", "with", "--embedding-in-model", "--held-out", 0.25)
    assert entries(here / "with/model") - entries(here / "without/model") == {"embedding.npy"}
    trained = ~np.load("with/held_out.npy")
    np.testing.assert_array_equal(fastpdr.load("with/model").embedding_, np.load("with/embedding.npy")[trained])


def test_without_matplotlib_all_but_the_picture_and_the_report_is_written(npy, here, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib.colors", None)
    output = fit(npy, "-o", "out")
    assert entries(here / "out") == PARTS - {"map.png", "report.html"}
    assert "map.png not drawn: drawing a map needs matplotlib: pip install 'fastpdr[plot]'" in output


def test_without_plotly_all_but_the_report_is_written(npy, here, monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    output = fit(npy, "-o", "out")
    assert entries(here / "out") == PARTS - {"report.html"}
    assert "report.html not written: a report needs plotly" in output
    assert "pip install 'fastpdr[report]'" in output


# fit: the report, and rows that are held out


def test_the_report_has_all_there_is(fitted):
    page = Page(fitted / "report.html")
    assert [column["name"] for column in page.data["columns"]] == ["label", *"abcd"]
    assert page.data["columns"][0]["names"] == ["ant", "bee", "cat"]
    assert list(page.data["curves"]) == ["loss", "rnx"]
    assert len(page.data["curves"]["loss"]["lines"][0]["y"]) == 2
    assert [line["name"] for line in page.data["curves"]["rnx"]["lines"]] == ["training"]
    metrics = json.loads((fitted / "metrics.json").read_text())
    assert f"trustworthiness {metrics['trustworthiness']:.4f} continuity" in page.text
    assert f"n samples {N} " in page.text
    assert '{ "class": "ParametricTSNE", "parameters": {' in page.text
    assert '"n_epochs": 2,' in page.text
    assert f"fastpdr {fastpdr.__version__}, torch " in page.text
    np.testing.assert_array_equal(unpacked(page.data["x"]), np.load(fitted / "embedding.npy")[:, 0])


def test_columns_without_names_or_too_many_are_no_colours(npy, here):
    np.save("y.npy", y)
    fit(npy, "--labels", "y.npy", "-o", "out")
    wide = pd.DataFrame(np.tile(X, 6), columns=[f"column {i}" for i in range(6 * D)])
    wide.to_csv("wide.csv", index=False)
    fit("wide.csv", "-o", "wide")
    assert [column["name"] for column in Page(here / "out/report.html").data["columns"]] == ["label"]
    assert Page(here / "wide/report.html").data["columns"] == []


def test_held_out_rows_are_placed_and_judged(npy, here):
    np.save("y.npy", NAMES[y])
    output = fit(npy, "--labels", "y.npy", "--held-out", 0.25, "-o", "out", "--seed", 3)
    assert entries(here / "out") == PARTS | {"labels.npy", "held_out.npy"}
    held_out, Z = np.load("out/held_out.npy"), np.load("out/embedding.npy")
    assert (held_out.dtype, held_out.sum(), len(held_out)) == (bool, 20, N)
    # As the estimator does it by hand.
    estimator = fastpdr.ParametricTSNE(random_state=3, n_epochs=2)
    np.testing.assert_allclose(Z[~held_out], estimator.fit_transform(X[~held_out]), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(Z[held_out], estimator.transform(X[held_out]), rtol=1e-5, atol=1e-5)
    metrics = json.loads((here / "out/metrics.json").read_text())
    expected = fastpdr.metrics.evaluate(X[~held_out], Z[~held_out], y[~held_out])
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert metrics["n_samples"] == 60
    unseen = metrics["held_out"]
    expected = fastpdr.metrics.evaluate(X[held_out], Z[held_out], y[held_out], n_neighbors=9) | {
        "knn_accuracy": fastpdr.metrics.knn_accuracy(Z[~held_out], y[~held_out], Z[held_out], y[held_out])
    }
    assert {name: unseen[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert unseen["n_samples"] == 20
    assert unseen["transform_time_seconds"] > 0
    assert "ParametricTSNE: 60 rows of 4 columns" in output
    assert "20 held out" in output
    assert f"trustworthiness {metrics['trustworthiness']:.4f} {unseen['trustworthiness']:.4f}" in output
    page = Page(here / "out/report.html")
    np.testing.assert_array_equal(unpacked(page.data["held_out"]), held_out)
    assert [line["name"] for line in page.data["curves"]["rnx"]["lines"]] == ["training", "held out"]
    assert f"trustworthiness {metrics['trustworthiness']:.4f} {unseen['trustworthiness']:.4f}" in page.text


def test_held_out_rows_are_drawn_by_the_seed_and_by_class(npy):
    labels = np.repeat(["ant", "bee", "cat"], [60, 16, 4])
    np.save("y.npy", labels)
    drawn = []
    for seed, name in ((0, "a"), (0, "b"), (1, "c")):
        fit(npy, "--labels", "y.npy", "--held-out", 0.25, "-o", name, "--seed", seed, "-q")
        drawn.append(np.load(f"{name}/held_out.npy"))
        assert [int((labels[drawn[-1]] == kind).sum()) for kind in ("ant", "bee", "cat")] == [15, 4, 1]
    assert (drawn[0] == drawn[1]).all()
    assert (drawn[0] != drawn[2]).any()


@pytest.mark.parametrize("labels", [np.r_[0, np.ones(N - 1, int)], np.arange(N), X[:, 0]])
def test_held_out_rows_where_classes_are_too_small_or_none(npy, labels):
    np.save("y.npy", labels)
    fit(npy, "--labels", "y.npy", "--held-out", 0.1, "-o", "out")
    assert np.load("out/held_out.npy").sum() == 8


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table_marks_the_rows_that_were_held_out(npy, suffix):
    fit(npy, "--held-out", 0.25, "-o", "out", "--format", suffix)
    frame = getattr(pd, f"read_{suffix}")(f"out/embedding.{suffix}")
    assert list(frame.columns) == ["projection_x", "projection_y", "held_out"]
    assert frame["held_out"].dtype == bool
    assert frame["held_out"].sum() == 20
    assert not os.path.exists("out/held_out.npy")


@pytest.mark.parametrize("share", [0.01, 0.99])
def test_too_few_rows_to_hold_out_or_to_learn_from(npy, here, share):
    output = fit(npy, "--held-out", share, "-o", "out", code=2)
    assert f"held_out {share} of 80 rows holds out {round(share * N + 0.4)} and leaves" in output
    assert "both must be at least 3" in output
    assert entries(here) == {"x.npy"}


@pytest.mark.parametrize("share", ["0", "1", "20", "-0.5", "few"])
def test_shares_that_are_none(npy, share):
    assert "--held-out" in fit(npy, "--held-out", share, "-o", "out", code=2)


# fit: folders


def test_a_used_folder_is_refused_before_anything_is_read(here):
    (here / "out").mkdir()
    (here / "out/notes.txt").write_text("mine")
    output = fit("missing.npy", "-o", "out", code=2)
    assert "--output out is not empty" in output
    assert "--overwrite" in output


def test_overwrite_replaces_only_its_own(npy, here):
    fit(npy, "-o", "out", "--format", "csv")
    (here / "out/notes.txt").write_text("mine")
    before = (here / "out/model/encoder.safetensors").read_bytes()
    fit(npy, "-o", "out", "--overwrite", "--seed", 1)
    assert entries(here / "out") == PARTS | {"notes.txt"}
    assert (here / "out/model/encoder.safetensors").read_bytes() != before


def test_a_foreign_model_folder_is_refused_before_training(npy, here):
    (here / "out/model").mkdir(parents=True)
    (here / "out/model/thesis.txt").write_text("mine")
    assert "did not write" in fit(npy, "-o", "out", "--overwrite", code=2)


def test_an_empty_folder_is_taken(npy, here):
    (here / "out").mkdir()
    fit(npy, "-o", "out")


def test_a_file_in_the_place_of_the_folder(npy):
    assert "x.npy is not a folder" in fit(npy, "-o", npy, code=2)


def test_an_unwritable_folder_is_found_before_training(npy, here, monkeypatch):
    monkeypatch.setattr(fastpdr.ParametricTSNE, "fit_transform", lambda *_: pytest.fail("trained"))
    assert "x.npy" in fit(npy, "-o", "x.npy/out", code=1)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_parent(npy, here):
    (here / "locked").mkdir(mode=0o500)
    assert "Permission denied" in fit(npy, "-o", "locked/out", code=1)


@pytest.mark.parametrize(
    ("error", "code"), [(FloatingPointError("loss is nan"), 1), (OSError("disk full"), 1), (RuntimeError("no GPU"), 1)]
)
def test_a_failed_training_leaves_nothing(npy, here, monkeypatch, error, code):
    def fail(*_):
        raise error

    monkeypatch.setattr(fastpdr.ParametricTSNE, "fit_transform", fail)
    assert f"Error: {error}" in fit(npy, "-o", "out", code=code)
    assert not (here / "out").exists()


# Interruptions


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_signal_ends_in_order_and_the_same_command_goes_on(npy, here, monkeypatch, name, checkpoint):
    """Exit codes are those that a shell reports of a process that ended by the signal."""
    number, call, steps = signal.Signals[name], Step.__call__, []

    def interrupted(self, *inputs):
        steps.append(1)
        if len(steps) == 2:
            os.kill(os.getpid(), number)
        call(self, *inputs)

    before = {name: signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)}
    options = ["--checkpoint", "kept"] if checkpoint else []
    with monkeypatch.context() as patch:
        patch.setattr(Step, "__call__", interrupted)
        result = CliRunner().invoke(main, ["fit", npy, "-o", "out", "--n-epochs", "4", *options])
    assert result.exit_code == 128 + number, result.output
    assert "Traceback" not in result.output
    assert {name: signal.getsignal(name) for name in before} == before
    assert entries(here) == {"x.npy", *(["kept"] if checkpoint else [])}
    assert len(steps) == 2
    run("fit", npy, "-o", "out", "--n-epochs", 4, *options)
    run("fit", npy, "-o", "undisturbed", "--n-epochs", 4)
    np.testing.assert_array_equal(np.load("out/embedding.npy"), np.load("undisturbed/embedding.npy"))


def test_what_a_killed_command_left_is_no_obstacle(npy, here):
    (here / "out" / ".aside-x1").mkdir(parents=True)
    fit(npy, "-o", "out", "-q")
    assert entries(here / "out") >= PARTS


def test_debug_shows_the_traceback(npy):
    result = CliRunner().invoke(main, ["--debug", "fit", npy, "-o", "out", "--perplexity", "500"])
    assert isinstance(result.exception, ValueError)


# fit: bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "pca"], "--method"),
        (["--method", "mstsne", "--perplexity", 5], "--perplexity is for --method tsne and largevis, not for mstsne"),
        (["--method", "umap", "--perplexity", 5], "--perplexity is for --method tsne and largevis, not for umap"),
        (["--method", "umap", "--affinity", "knn"], "--affinity is for --method tsne and mstsne, not for umap"),
        (["--method", "largevis", "--n-neighbors", 5], "--n-neighbors is for --method umap, not for largevis"),
        (["--min-dist", 0.5], "--min-dist is for --method umap, not for tsne"),
        (["--metric", "cosine"], "--metric is for --method umap and largevis, not for tsne"),
        (["--method", "umap", "--metric", "mahalanobis"], "--metric"),
        (["--method", "umap", "--n-neighbors", 1], "--n-neighbors"),
        (["--method", "umap", "--min-dist", 2], "--min-dist"),
        (["--perplexity", N], "perplexity"),
        (["--device", "abacus"], "abacus"),
        (["--n-components", 0], "--n-components"),
        (["--batch-size", "many"], "--batch-size"),
        (["--learning-rate", -1], "--learning-rate"),
        (["--format", "xlsx"], "--format"),
    ],
)
def test_bad_options(npy, here, options, message):
    assert message in fit(npy, "-o", "out", *options, code=2)
    assert not (here / "out").exists()


def test_output_is_required(npy):
    assert "--output" in fit(npy, code=2)


def test_missing_file():
    assert "x.npy: no such file" in fit("x.npy", "-o", "out", code=2)


@pytest.mark.parametrize("name", ["x.xlsx", "iris", "x"])
def test_unknown_format_lists_the_known(here, name):
    (here / name).write_text("1,2\n")
    output = fit(name, "-o", "out", code=2)
    assert (
        "unknown format; known are .csv, .h5ad, .json, .npy, .npz, .parquet, .pickle, .pkl, .tsv files, folders of"
        in output
    )


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (X[:, 0], "must be a table [rows, columns], got shape [80]"),
        (X.reshape(N, 2, 2), "X.reshape(len(X), -1)"),
        (X.astype(str), "must be real numbers, got dtype <U"),
        (X + 1j, "must be real numbers, got dtype complex"),
        (np.where(X > 3, np.nan, X), "NaN"),
        (X[:2], "must have at least 3 rows, got 2"),
    ],
)
def test_bad_arrays(here, array, message):
    np.save("bad.npy", array)
    assert message in fit("bad.npy", "-o", "out", code=2)
    assert not (here / "out").exists()


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_nothing_is_unpickled(here, suffix):
    array = np.array([{"a": 1}], dtype=object)
    np.save("bad.npy", array, allow_pickle=True)
    np.savez("bad.npz", X=array)
    output = fit(f"bad.{suffix}", "-o", "out", code=2)
    assert f"bad.{suffix}: not a complete NumPy file of plain arrays (pickled objects are never loaded)" in output


@pytest.mark.parametrize("name", ["bad.npy", "bad.npz", "bad.csv", "bad.parquet"])
@pytest.mark.parametrize("content", [b"", b"\x80\x04\x95 no table \xff\xfe"])
def test_damaged_files(here, name, content):
    (here / name).write_bytes(content)
    assert f"Error: {name}: " in fit(name, "-o", "out", code=2)


def test_cut_off_file(npy, here):
    (here / "bad.npy").write_bytes((here / npy).read_bytes()[:-10])
    assert "not a complete NumPy file" in fit("bad.npy", "-o", "out", code=2)


@pytest.mark.parametrize(("source", "name"), [("npz", "x.npy"), ("npy", "x.npz")])
def test_numpy_files_under_each_others_name(here, source, name):
    with open(name, "wb") as file:
        np.savez(file, X=X) if source == "npz" else np.save(file, X)
    assert "not a complete NumPy file" in fit(name, "-o", "out", code=2)


def test_columns_that_are_not_numbers_are_named(here):
    frame_of(NAMES[y]).assign(city="Lucca").to_csv("x.csv", index=False)
    output = fit("x.csv", "-o", "out", code=2)
    assert "all columns but that of the labels must be numbers; these are not: kind, city" in output
    assert "these are not: city" in fit("x.csv", "-o", "out", "--labels", "kind", code=2)


@pytest.mark.parametrize(
    ("suffix", "missing", "message"),
    [
        (".csv", "pandas", "reading .csv needs pandas: pip install 'fastpdr[data]'"),
        (".parquet", "pandas", "reading .parquet needs pandas and pyarrow: pip install 'fastpdr[data]'"),
        (".parquet", "pyarrow", "reading .parquet needs pandas and pyarrow: pip install 'fastpdr[data]'"),
    ],
)
def test_missing_packages_for_reading(here, monkeypatch, suffix, missing, message):
    (here / f"x{suffix}").write_text("1,2\n")
    monkeypatch.setitem(sys.modules, missing, None)
    assert message in fit(f"x{suffix}", "-o", "out", code=1)


def test_missing_packages_for_writing_are_found_before_training(npy, here, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "writing .parquet needs pandas and pyarrow" in fit(npy, "-o", "out", "--format", "parquet", code=1)
    assert not (here / "out").exists()


# Data and labels as they are read


def test_all_formats_hold_the_same_table(here):
    np.save("x.npy", X)
    np.savez("one.npz", X)
    np.savez("x.npz", X=X, y=y, other=y)
    frame_of(y).to_csv("x.csv", index=False)
    frame_of(y).to_parquet("x.parquet")
    for source in ("x.npy", "one.npz", "x.npz"):
        np.testing.assert_array_equal(data.read(source).X, X)
    for source in ("x.csv", "x.parquet"):
        table = data.read(source, "kind")
        np.testing.assert_array_equal(table.X.astype(np.float32), X)
        np.testing.assert_array_equal(table.labels, y)
        assert table.label_column == "kind"
    np.testing.assert_array_equal(data.read("x.npz").labels, y)
    assert data.read("x.parquet").X.shape == (N, D + 1)
    assert data.read("one.npz").labels is None


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("a,b\n1,2\n3,4\n", 2),
        ("1,2\n3,4\n", 2),
        ("\ufeffa,b\n1,2\n3,4\n", 2),
        ('"a","2"\n1,2\n3,4\n', 2),
        ("nan,2\n3,4\n", 2),
        (",a,b\n0,1,2\n1,3,4\n", 2),
        (",2\n3,4\n", 2),
    ],
)
def test_csv_with_and_without_header(here, text, rows):
    (here / "x.csv").write_text(text, encoding="utf-8")
    table = data.read("x.csv")
    assert table.X.shape == (rows, 2)
    assert list(table.X[-1]) == [3, 4]


@pytest.mark.parametrize("index", [True, False])
def test_csv_of_an_array_through_pandas(here, index):
    pd.DataFrame(X).to_csv("x.csv", index=index)
    np.testing.assert_array_equal(data.read("x.csv").X.astype(np.float32), X)


def test_columns_of_a_csv_without_header_are_numbered(here):
    frame_of(NAMES[y]).to_csv("words.csv", index=False, header=False)
    np.savetxt("x.csv", np.column_stack([X, y]), delimiter=",")
    np.testing.assert_array_equal(data.read("x.csv", "4").labels, y)
    assert data.read("x.csv", "4").X.shape == (N, D)


def test_missing_values_of_a_nullable_column_become_nan(here):
    frame_of().assign(a=pd.array([None, *range(1, N)], dtype="Int64")).to_parquet("x.parquet")
    table = data.read("x.parquet")
    assert np.isnan(table.X[0, 0])
    assert table.X[1, 0] == 1


def test_npz_without_a_clear_table(here):
    np.savez("x.npz", a=X, b=X)
    assert "x.npz: must hold an array X or a single array, but holds a, b" in fit("x.npz", "-o", "out", code=2)


@pytest.mark.parametrize(
    ("name", "text", "labels"),
    [
        ("y.txt", "\n".join(NAMES[y]), NAMES[y]),
        ("y.txt", "\n".join(map(str, y)) + "\n\n", y),
        ("y.csv", "kind\n" + "\n".join(NAMES[y]), NAMES[y]),
        ("y.csv", "\n".join(f'"{v}, kind"' for v in y), np.array([f"{v}, kind" for v in y])),
        ("y.csv", "\n".join(f"{v}.5" for v in y), y + 0.5),
    ],
)
def test_label_files(npy, here, name, text, labels):
    (here / name).write_text(text, encoding="utf-8")
    np.testing.assert_array_equal(data.read(npy, name).labels, labels)


def test_label_arrays(npy):
    np.save("y.npy", y[:, None])
    np.testing.assert_array_equal(data.read(npy, "y.npy").labels, y)


def test_given_labels_win(here):
    np.savez("x.npz", X=X, y=y)
    np.save("other.npy", 2 * y)
    np.testing.assert_array_equal(data.read("x.npz", "other.npy").labels, 2 * y)
    frame_of(NAMES[y]).to_csv("x.csv", index=False)
    (here / "kind").write_text("a file of that name")
    np.testing.assert_array_equal(data.read("x.csv", "kind").labels, NAMES[y])


@pytest.mark.parametrize("dtype", ["category", "bool", "datetime64[s]"])
def test_any_column_can_hold_labels(here, dtype):
    frame_of(pd.Series(y % 2).astype(dtype)).to_parquet("x.parquet")
    labels = data.read("x.parquet", "kind").labels
    assert labels.dtype.kind in "biuU"
    assert len(np.unique(labels)) == 2


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("y.txt", "ant\nbee\n", "labels must be one per row, 80 in all, got shape [2]"),
        ("y.csv", "1,2\n3,4\n", "must have one value per row"),
        ("y.txt", "\n" + "\n".join(map(str, y[1:])), "1 are missing"),
        ("y.txt", "nan\n" + "\n".join(map(str, y[1:])), "1 are missing"),
        ("y.json", "[]", "must be a .npy, .csv, .txt file"),
    ],
)
def test_bad_label_files(npy, here, name, text, message):
    (here / name).write_text(text)
    assert message in fit(npy, "-o", "out", "--labels", name, code=2)


def test_labels_that_do_not_exist(npy):
    assert "labels y.npy is neither a column nor a file; the columns are 0, 1, 2, 3" in fit(
        npy, "-o", "out", "--labels", "y.npy", code=2
    )
    frame_of().to_csv("x.csv", index=False)
    output = fit("x.csv", "-o", "out", "--labels", "sort", code=2)
    assert "labels sort is neither a column nor a file; the columns are a, b, c, d" in output


def test_long_lists_of_columns_are_cut(here):
    pd.DataFrame(np.zeros((3, 50))).add_prefix("c").to_csv("x.csv", index=False)
    assert "c9, ... (50 in all)" in fit("x.csv", "-o", "out", "--labels", "sort", code=2)


def test_missing_labels_in_a_column(here):
    frame_of([None, *NAMES[y[1:]]]).to_csv("x.csv", index=False)
    assert "column kind must have a label in every row" in fit("x.csv", "-o", "out", "--labels", "kind", code=2)


# transform


@pytest.mark.parametrize("suffix", ["npy", "csv", "parquet"])
def test_transform_equals_the_estimator(fitted, here, suffix):
    new = X[:7] + 0.5
    np.save("new.npy", new)
    output = run("transform", fitted, "new.npy", "-o", f"placed/z.{suffix}")
    assert output.startswith(f"placed/z.{suffix}: 7 rows placed in ")
    path = here / "placed" / f"z.{suffix}"
    Z = {
        "npy": lambda: np.load(path),
        "csv": lambda: pd.read_csv(path).to_numpy(np.float32),
        "parquet": lambda: pd.read_parquet(path).to_numpy(),
    }[suffix]()
    assert Z.dtype == np.float32
    np.testing.assert_array_equal(Z, fastpdr.load(fitted / "model").transform(new))
    assert entries(here / "placed") == {f"z.{suffix}"}


def test_transform_takes_a_model_folder(fitted, npy):
    run("transform", fitted / "model", npy, "-o", "z.npy")
    run("transform", fitted, npy, "-o", "again.npy")
    np.testing.assert_array_equal(np.load("z.npy"), np.load("again.npy"))


def test_transform_leaves_out_the_column_of_the_labels(fitted):
    frame_of(NAMES[y]).to_csv("all.csv", index=False)
    frame_of().to_csv("none.csv", index=False)
    frame_of([None] * N).to_csv("empty.csv", index=False)
    for name in ("all", "none", "empty"):
        run("transform", fitted, f"{name}.csv", "-o", f"{name}_z.csv")
    placed = pd.read_csv("all_z.csv")
    assert list(placed.pop("label")) == list(NAMES[y])
    pd.testing.assert_frame_equal(placed, pd.read_csv("none_z.csv"))
    pd.testing.assert_frame_equal(placed, pd.read_csv("empty_z.csv"))


def test_transform_knows_the_suffix_before_any_work(fitted):
    output = run("transform", fitted, "missing.npy", "-o", "z.xlsx", code=2)
    assert "--output z.xlsx: the suffix must be one of .npy, .csv, .parquet" in output


def test_transform_names_the_numbers_of_columns(fitted, here):
    np.save("narrow.npy", X[:, :3])
    output = run("transform", fitted, "narrow.npy", "-o", "z.npy", code=2)
    assert "narrow.npy has 3 columns, but the model was fitted with 4" in output
    assert not (here / "z.npy").exists()


def test_transform_refuses_nan(fitted, here):
    np.save("new.npy", np.full_like(X, np.nan))
    assert "NaN" in run("transform", fitted, "new.npy", "-o", "z.npy", code=2)
    assert not (here / "z.npy").exists()


def test_transform_without_a_model(npy, here):
    (here / "empty").mkdir()
    assert "empty holds no model" in run("transform", "empty", npy, "-o", "z.npy", code=2)
    assert "missing" in run("transform", "missing", npy, "-o", "z.npy", code=2)


def test_transform_with_a_damaged_model(npy, here):
    (here / "model").mkdir()
    (here / "model/config.json").write_text("{")
    assert "damaged" in run("transform", ".", npy, "-o", "z.npy", code=2)


def test_transform_needs_a_file_to_write(fitted, npy, here):
    (here / "z.npy").mkdir()
    run("transform", fitted, npy, "-o", "z.npy", code=2)
    assert "x.npy" in run("transform", fitted, npy, "-o", "x.npy/z.npy", code=1)


def test_transform_replaces_an_older_file(fitted, npy, here):
    (here / "z.npy").write_text("old")
    run("transform", fitted, npy, "-o", "z.npy")
    assert np.load("z.npy").shape == (N, 2)


# demo and info


def test_demo(here, capsys):
    demo.run(here / "demo", seed=0, n_epochs=2)
    printed = capsys.readouterr().out
    assert entries(here / "demo") == {"model", "metrics.json", "map.png", "report.html"}
    page = Page(here / "demo/report.html")
    assert unpacked(page.data["held_out"]).sum() == 450
    assert len(page.data["curves"]["rnx"]["lines"]) == 2
    assert "ParametricTSNE of handwritten digits" in page.text
    assert type(fastpdr.load("demo/model")) is fastpdr.ParametricTSNE
    assert entries(here / "demo/model") == {"README.md", "config.json", "encoder.safetensors", "metrics.json"}
    facts = json.loads((here / "demo/metrics.json").read_text())
    assert (facts["n_train"], facts["n_test"], facts["seed"]) == (1347, 450, 0)
    assert list(facts["methods"]) == ["ParametricTSNE", "MultiscaleParametricTSNE"]
    for scores in facts["methods"].values():
        assert scores["train"].keys() == scores["test"].keys() == {"trustworthiness", "rnx_auc"}
        assert 0 < scores["knn_accuracy"] <= 1
        assert scores["training_time_seconds"] > 0
        assert f"{scores['test']['trustworthiness']:.3f}" in printed
    kept = json.loads((here / "demo/model/metrics.json").read_text())
    assert kept == facts["methods"]["ParametricTSNE"]
    assert f"| test, rnx_auc | {kept['test']['rnx_auc']:.4g} |" in (here / "demo/model/README.md").read_text()
    assert "look here first" in printed


def test_the_demo_command_passes_its_options_on(here, monkeypatch):
    calls = []
    monkeypatch.setattr(demo, "run", lambda *arguments: calls.append(arguments))
    run("demo", "-o", "here", "--seed", 7)
    run("demo")
    assert [(str(folder), seed) for folder, seed in calls] == [("here", 7), ("demo", 0)]


def test_demo_without_plotly_says_so(here, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    demo.run(here / "demo", seed=0, n_epochs=1)
    assert entries(here / "demo") == {"model", "metrics.json", "map.png"}
    assert "report.html   not written: a report needs plotly" in capsys.readouterr().out


def test_demo_without_matplotlib_stops_before_training(here, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert "drawing a map needs matplotlib" in run("demo", code=1)
    assert entries(here) == set()


def test_demo_leaves_a_foreign_model_alone(here):
    (here / "demo/model").mkdir(parents=True)
    (here / "demo/model/thesis.txt").write_text("mine")
    assert "fastpdr did not write" in run("demo", code=2)


def test_info():
    output = run("info")
    assert f"version {fastpdr.__version__}" in output
    assert "kernels: student_t_kl" in output
    assert f"threads {torch.get_num_threads()}" in output
    assert f"devices: cpu {platform.machine()}, {os.cpu_count()} processors" in output
    assert json.loads(CliRunner().invoke(main, ["info", "--json"]).output) == fastpdr.build_info()


def test_help_and_version():
    assert fastpdr.__version__ in run("--version")
    for command in ("fit", "train", "pipeline", "transform", "export", "demo", "info"):
        assert command in run("--help")
        assert f"Usage: main {command}" in run(command, "--help")


# Logs


def stderr_of(*arguments):
    result = CliRunner().invoke(main, [*map(str, arguments), "--n-epochs", "2"])
    assert result.exit_code == 0, result.output
    return result.stderr.splitlines()


@pytest.mark.parametrize("options", [["-v"], ["--verbose"], ["-vv"], ["-v", "-v"]])
@pytest.mark.parametrize("first", [True, False])
def test_verbosity_before_and_after_the_command(npy, options, first):
    command = ["fit", npy, "-o", "out", "-q"]
    lines = stderr_of(*options, *command) if first else stderr_of(*command, *options)
    assert all(re.match(r"\d\d:\d\d:\d\d (INFO|DEBUG) ", line) for line in lines)
    for part in ("x.npy: reading", "training on cpu", "placing 80 rows", "judging the map"):
        assert any(f" INFO {part}" in line or f": {part}" in line for line in lines), part
    assert any(" DEBUG epoch 2: loss " in line for line in lines) == (options not in (["-v"], ["--verbose"]))


def test_verbosity_adds_up(npy):
    assert any(" DEBUG " in line for line in stderr_of("-v", "fit", npy, "-o", "out", "-v"))


def test_without_verbosity_nothing_is_logged_and_no_trace_is_left(npy):
    logger = logging.getLogger("fastpdr")
    before = logger.level, list(logger.handlers)
    assert stderr_of("fit", npy, "-o", "out") == []
    stderr_of("-vv", "fit", npy, "-o", "again")
    assert (logger.level, logger.handlers) == before


# Files


def test_a_failed_write_leaves_the_old_file(here):
    (here / "z.npy").write_text("old")

    def fail():
        with written_aside(here / "z.npy") as aside:
            aside.write_text("new")
            raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        fail()
    assert entries(here) == {"z.npy"}
    assert (here / "z.npy").read_text() == "old"


def test_writable_folder_keeps_what_was_there(here):
    (here / "out").mkdir()
    with pytest.raises(ValueError, match="half"), writable_folder(here / "out"):
        raise ValueError("half way")
    assert entries(here / "out") == set()


def test_json_has_no_nan(here):
    write_json(here / "m.json", {"a": float("nan"), "b": {"c": 1.5}})
    assert json.loads((here / "m.json").read_text()) == {"a": None, "b": {"c": 1.5}}


def test_columns_in_another_order_are_refused(here):
    frame = pd.DataFrame(X, columns=list("abcd"))
    frame.to_csv("data.csv", index=False)
    frame[list("badc")].to_csv("other.csv", index=False)
    fit("data.csv", "-o", "out")
    message = run("transform", "out", "other.csv", "-o", "map.csv", code=2)
    assert "feature names" in message.lower()
    assert not (here / "map.csv").exists()
    run("transform", "out", "data.csv", "-o", "map.csv")
