"""Training from config files: what may stand in them, what is written, and every way to get one wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from pkgutil import resolve_name

import joblib
import numpy as np
import pandas as pd
import pytest
import yaml
from click.testing import CliRunner
from reports import Page, unpacked
from running import NAMES, D, N, X, entries, run, y
from sklearn.decomposition import PCA
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

import fastpdr
from fastpdr.cli import METHODS, config, main

PARTS = {"model", "embedding.npy", "metrics.json", "map.png", "report.html", "train.yml"}
SMALL = {"n_epochs": 2, "hidden_dims": [16, 8]}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def csv(here):
    pd.DataFrame(X, columns=list("abcd")).assign(kind=NAMES[y]).to_csv("x.csv", index=False)
    return "x.csv"


def write(name="train.yml", **sections):
    with open(name, "w") as file:
        yaml.safe_dump(sections, file)
    return name


def train(*options, code=0, **sections):
    return run("train", "--config", write(**{"model": SMALL, **sections}), *options, code=code)


def pipeline(*options, code=0, **sections):
    return run("pipeline", "--config", write("sklearn.yml", **{"algorithm": SMALL, **sections}), *options, code=code)


def printed(*options):
    return yaml.safe_load(printed_text(*options))


def printed_text(*options):
    return CliRunner().invoke(main, ["train", "--print-config", *map(str, options)]).output


# What train writes


def test_train_writes_all(csv, here):
    output = train(data={"features": csv, "label_column": "kind"})
    folder = here / "models/fastpdr_model"
    assert entries(folder) == PARTS | {"labels.npy"}
    files = {"README.md", "config.json", "encoder.safetensors", "metrics.json", "preprocessing.safetensors"}
    assert entries(folder / "model") == files
    model = fastpdr.load(folder / "model")
    frame = pd.read_csv(csv).drop(columns="kind")
    np.testing.assert_array_equal(model.transform(frame), np.load(folder / "embedding.npy"))
    encoder = fastpdr.load_label_encoder(folder / "model")
    assert encoder.inverse_transform(np.load(folder / "labels.npy")).tolist() == NAMES[y].tolist()
    metrics = json.loads((folder / "metrics.json").read_text())
    scaled = StandardScaler().fit_transform(frame)
    expected = fastpdr.metrics.evaluate(scaled, np.load(folder / "embedding.npy"), y)
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert metrics["label_column"] == "kind"
    assert metrics["n_components"] == 2
    assert "In models/fastpdr_model:" in output
    kept = json.loads((folder / "model/metrics.json").read_text())
    assert kept == {name: metrics[name] for name in (*expected, "training_time_seconds", "final_loss")}
    card = (folder / "model/README.md").read_text()
    assert "| names of the columns | `a`, `b`, `c`, `d` |" in card
    assert f"| trustworthiness | {metrics['trustworthiness']:.4g} |" in card
    assert str(here) not in card


def test_transform_applies_the_preprocessing(csv):
    train(data={"features": csv, "label_column": "kind"}, preprocessing={"scaler": "MinMaxScaler", "pca": 3})
    run("transform", "models/fastpdr_model", csv, "-o", "z.npy")
    np.testing.assert_array_equal(np.load("z.npy"), np.load("models/fastpdr_model/embedding.npy"))
    model = fastpdr.load("models/fastpdr_model/model")
    assert [type(step) for _, step in model.steps[:-1]] == [MinMaxScaler, PCA]
    np.save("wide.npy", np.ones((3, D + 1)))
    assert "wide.npy has 5 columns, but the model was fitted with 4" in run(
        "transform", "models/fastpdr_model", "wide.npy", "-o", "w.npy", code=2
    )


@pytest.mark.parametrize(
    ("preprocessing", "steps"),
    [
        ({}, [StandardScaler()]),
        ({"scaler": "none"}, []),
        ({"scaler": None}, []),
        ({"scaler": None, "pca": 2}, [PCA(2, random_state=0)]),
        ({"pca": 0.9}, [StandardScaler(), PCA(0.9, random_state=0)]),
    ],
)
def test_preprocessing_equals_the_steps_of_scikit_learn(csv, preprocessing, steps):
    train(data={"features": csv, "label_column": "kind"}, preprocessing=preprocessing)
    estimator = fastpdr.MultiscaleParametricTSNE(**SMALL, random_state=0)
    expected = Pipeline([(str(i), step) for i, step in enumerate([*steps, estimator])])
    Z = expected.fit_transform(pd.read_csv(csv).drop(columns="kind"))
    np.testing.assert_allclose(np.load("models/fastpdr_model/embedding.npy"), Z, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_and_its_written_config_trains_it_again(csv, here, method):
    train("--seed", 3, data={"features": csv, "label_column": "kind"}, model={"method": method, **SMALL})
    run("train", "--config", "models/fastpdr_model/train.yml", "--set", "output.model_name=again")
    first, again = (np.load(f"models/{name}/embedding.npy") for name in ("fastpdr_model", "again"))
    np.testing.assert_array_equal(first, again)
    model = fastpdr.load("models/again/model").steps[-1][1]
    assert type(model).__name__ == METHODS[method]
    assert model.random_state == 3


def test_outputs_can_be_left_out(csv, here):
    off = {"save_embeddings": False, "save_metrics": False, "save_preprocessing": False}
    train(data={"features": csv, "label_column": "kind"}, output={"model_dir": "out", "model_name": "m", **off})
    assert entries(here / "out/m") == {"model", "map.png", "report.html", "train.yml"}
    assert entries(here / "out/m/model") == {"README.md", "config.json", "encoder.safetensors"}
    model = fastpdr.load("out/m/model")
    assert type(model) is fastpdr.MultiscaleParametricTSNE


def test_steps_before_the_map_do_not_see_held_out_rows(csv, here):
    data = {"features": csv, "label_column": "kind", "held_out": 0.25}
    train(data=data, preprocessing={"scaler": "StandardScaler", "pca": 2})
    folder = here / "models/fastpdr_model"
    held_out = np.load(folder / "held_out.npy")
    assert held_out.sum() == 20
    frame = pd.read_csv(csv).drop(columns="kind")
    model = fastpdr.load(folder / "model")
    np.testing.assert_allclose(model.named_steps["scaler"].mean_, frame[~held_out].mean(), rtol=1e-6)
    scaled = model.named_steps["scaler"].transform(frame[~held_out])
    np.testing.assert_allclose(model.named_steps["pca"].mean_, scaled.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(model.transform(frame), np.load(folder / "embedding.npy"), rtol=1e-5, atol=1e-5)
    metrics = json.loads((folder / "metrics.json").read_text())
    scaled = model.named_steps["scaler"].transform(frame[held_out])
    Z = np.load(folder / "embedding.npy")[held_out]
    trust = fastpdr.metrics.trustworthiness(scaled, Z, n_neighbors=9)
    assert metrics["held_out"]["trustworthiness"] == pytest.approx(trust, abs=1e-6)
    page = Page(folder / "report.html")
    assert "held_out: 0.25" in page.text
    assert "60 for training, 20 held out" in page.text
    run("train", "--config", folder / "train.yml", "--set", "output.model_name=again")
    np.testing.assert_array_equal(np.load("models/again/held_out.npy"), held_out)


def test_held_out_rows_are_placed_even_where_nothing_is_judged(csv, here):
    train(data={"features": csv, "label_column": "kind", "held_out": 0.25}, output={"save_metrics": False})
    page = Page(here / "models/fastpdr_model/report.html")
    assert unpacked(page.data["held_out"]).sum() == 20
    assert list(page.data["curves"]) == ["loss"]
    assert "Measures" not in page.text


def test_a_pipeline_holds_nothing_out(here):
    assert "data.held_out: unknown key" in pipeline(data={"held_out": 0.5}, code=2)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_the_map_as_a_table_with_neighbors(csv, here, suffix):
    section = {"features": csv, "label_column": "kind"}
    train(data=section, output={"embedding_format": suffix, "save_neighbors": 3})
    assert entries(here / "models/fastpdr_model") == PARTS - {"embedding.npy"} | {f"embedding.{suffix}"}
    pipeline(data=section, output={"embeddings_path": f"z.{suffix}", "save_neighbors": 3})
    read = pd.read_csv if suffix == "csv" else pd.read_parquet
    frames = [read(name) for name in (f"models/fastpdr_model/embedding.{suffix}", f"z.{suffix}")]
    scaled = StandardScaler().fit_transform(pd.read_csv(csv).drop(columns="kind"))
    expected = fastpdr.KNNGraph.build(scaled, 3).indices
    for frame in frames:
        assert list(frame.columns) == ["projection_x", "projection_y", "label", "neighbors"]
        rows = [json.loads(row) if suffix == "csv" else row for row in frame["neighbors"]]
        np.testing.assert_array_equal([row["ids"] for row in rows], expected)


@pytest.mark.parametrize("command", [train, pipeline])
def test_more_neighbors_than_rows(csv, here, command):
    key = {"embedding_format": "csv"} if command is train else {"embeddings_path": "z.csv"}
    data = {"features": csv, "label_column": "kind"}
    assert f"neighbors must be fewer than the {N} rows, got 99" in command(
        data=data, output={**key, "save_neighbors": 99}, code=2
    )
    assert not (here / "models").exists()


def test_missing_packages_for_writing_are_found_before_training(csv, here, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    data = {"features": csv, "label_column": "kind"}
    for command, output in ((train, {"embedding_format": "parquet"}), (pipeline, {"embeddings_path": "z.parquet"})):
        assert "writing .parquet needs pandas and pyarrow" in command(data=data, output=output, code=1)
    assert not (here / "models").exists()


def test_the_embedding_goes_into_the_model_where_asked(csv):
    data = {"features": csv, "label_column": "kind"}
    train(data=data, output={"embedding_in_model": True})
    pipeline(data=data, output={"embedding_in_model": True})
    for model, embedding in (
        ("models/fastpdr_model/model", "models/fastpdr_model/embedding.npy"),
        ("models/fastpdr_pipeline", "models/fastpdr_pipeline_embeddings.npy"),
    ):
        np.testing.assert_array_equal(fastpdr.load(model)[-1].embedding_, np.load(embedding))


def test_labels_on_a_scale_and_from_a_file(here):
    np.save("x.npy", X)
    np.save("y.npy", X[:, 0])
    train(data={"features": "x.npy", "labels": "y.npy"})
    assert entries(here / "models/fastpdr_model") == PARTS
    assert fastpdr.load_label_encoder("models/fastpdr_model/model") is None


def test_missing_labels_warn_or_end(csv):
    output = train(data={"features": csv.replace(".csv", "2.csv"), "label_column": "sort"}, code=2)
    assert "x2.csv: no such file" in output
    frame = pd.read_csv(csv).drop(columns="kind")
    frame.to_csv(csv, index=False)
    section = {"features": csv, "label_column": "kind"}
    assert "Warning: x.csv: column kind is not there or has missing values, so there are no labels" in train(
        data=section
    )
    output = train("--overwrite", data={**section, "allow_missing_labels": False}, code=2)
    assert "labels kind is neither a column nor a file; the columns are a, b, c, d" in output


def test_a_pickle_is_read_with_a_warning_on_request_only(here):
    pd.DataFrame(X).to_pickle("x.pkl")
    assert "data.allow_pickle: true" in train(data={"features": "x.pkl"}, code=2)
    assert "Warning: x.pkl: reading a pickle" in train(data={"features": "x.pkl", "allow_pickle": True})


# Names and values


def test_the_names_of_the_earlier_implementation():
    model = {
        "n_components": 3, "n_iter": 7, "batch_size": 50,
        "early_exaggeration_epochs": 2, "early_exaggeration_value": 4.0,
        "early_stopping_epochs": 90, "early_stopping_min_improvement": 0.01, "alpha": 2.0, "lr": 0.001,
        "nl1": 100, "nl3": 25, "verbose": 1,
    }  # fmt: skip
    result = printed("--config", write(model=model))["model"]
    assert result["n_epochs"] == 7
    assert result["early_exaggeration"] == 4.0
    assert result["early_exaggeration_epochs"] == 2
    assert result["early_stopping_patience"] == 90
    assert result["early_stopping_min_delta"] == 0.01
    assert result["dof"] == 2.0
    assert result["learning_rate"] == 0.001
    assert result["hidden_dims"] == [100, 500, 25]


def test_all_keys_of_the_earlier_implementation(here):
    data = {"features": None, "labels": None, "label_column": None, "format": "auto", "allow_missing_labels": True}
    model = {
        "n_components": 2, "n_iter": 1, "batch_size": 500, "early_exaggeration_epochs": 5,
        "early_exaggeration_value": 3.0, "early_stopping_epochs": 50, "early_stopping_min_improvement": 0.02,
        "alpha": 1.0, "lr": 0.002, "nl1": 64, "nl2": 32, "nl3": 16, "verbose": 1,
    }  # fmt: skip
    output = {
        "model_dir": "./out", "model_name": "map", "save_embeddings": True, "save_preprocessing": True,
        "save_metrics": True, "overwrite_existing": False,
    }  # fmt: skip
    train(data=data, preprocessing={"scaler": "MinMaxScaler"}, model=model, output=output)
    assert entries(here / "out/map") == PARTS | {"labels.npy"}
    paths = {"model_path": "./p.pkl", "embeddings_path": "./z.npy", "metrics_path": "./m.json"}
    output = {**paths, "overwrite_existing": True}
    for _ in range(2):
        pipeline(data={"source": "sklearn_digits", **data}, algorithm=model, output=output)
    assert np.load("z.npy").shape == (1797, 2)


def test_parts_of_a_file_can_be_shared(here):
    (here / "train.yml").write_text("data: &base\n  features: x\nmodel: {n_iter: 3}\noutput: {}\n")
    assert printed("--config", "train.yml")["data"]["features"] == "x"
    (here / "train.yml").write_text("model: {<<: {n_iter: 3}, lr: 0.5}\n")
    assert printed("--config", "train.yml")["model"]["n_epochs"] == 3


def test_all_that_is_left_out_has_the_default_of_the_estimator(here):
    (here / "empty.yml").write_text("")
    (here / "null.yml").write_text("model:\noutput:\n")
    assert printed() == printed("--config", "empty.yml") == printed("--config", "null.yml")
    assert printed()["model"]["random_state"] == 0
    assert printed("--seed", 5)["model"]["random_state"] == 5
    for method in METHODS:
        model = printed("--set", f"model.method={method}")["model"]
        defaults = getattr(fastpdr, METHODS[method])().get_params()
        same = {name for name in defaults if json.dumps(model.get(name)) == json.dumps(defaults[name], default=str)}
        assert defaults.keys() - same <= config.NOT_IN_FILES | {"random_state", "verbose"}


def test_settings_are_stronger_than_the_file():
    options = ["--set", "model.n_epochs=50", "--set", "model.hidden_dims=[9, 8]", "--set", "data.features=~"]
    result = printed("--config", write(model={"n_epochs": 3}, data={"features": "x"}), *options)
    assert result["model"]["n_epochs"] == 50
    assert result["model"]["hidden_dims"] == [9, 8]
    assert result["data"]["features"] is None


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "+1e-3", ".1e-2", "1.e-3", "0.001"])
def test_numbers_in_any_spelling(here, text):
    (here / "train.yml").write_text(f"model:\n  lr: {text}\n")
    assert printed("--config", "train.yml")["model"]["learning_rate"] == 0.001


def test_print_config_can_be_read_again_and_trains_nothing(here):
    (here / "all.yml").write_text(printed_text("--set", "model.method=umap"))
    assert printed("--config", "all.yml")["model"]["method"] == "umap"
    assert entries(here) == {"all.yml"}


# Trackers


def read_jsonl(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(("command", "section"), [("train", "model"), ("pipeline", "algorithm")])
def test_a_training_is_tracked(csv, here, command, section):
    pytest.importorskip("tensorboard")
    sections = {
        "data": {"features": csv, "label_column": "kind"},
        section: {**SMALL, "logdir": "runs"},
        "tracking": {"csv": "logs/log.csv", "jsonl": "logs/log.jsonl"},
    }
    run(command, "--config", write(**sections))
    run(command, "--config", "train.yml", "--overwrite")
    assert entries(here / "runs") == {"run-1", "run-2"}
    assert entries(here / "logs") == {"log.csv", "log-2.csv", "log.jsonl", "log-2.jsonl"}
    lines = read_jsonl(here / "logs/log-2.jsonl")
    assert [line["epoch"] for line in lines] == [1, 2]
    assert pd.read_csv("logs/log.csv").columns.tolist() == ["epoch", "loss", "learning_rate", "gradient_norm"]
    facts = json.loads(next((here / "models").rglob("*metrics.json")).read_text())
    assert lines[-1]["loss"] == facts.get("metrics", facts)["final_loss"]


def test_held_out_rows_are_what_trackers_judge_and_draw(csv, here):
    tracking = {"jsonl": "log.jsonl", "metrics_every": 1, "map_every": 2}
    train(data={"features": csv, "label_column": "kind", "held_out": 0.3}, preprocessing={"pca": 3}, tracking=tracking)
    last = read_jsonl(here / "log.jsonl")[-1]
    metrics = json.loads((here / "models/fastpdr_model/metrics.json").read_text())["held_out"]
    # Compared with other rows: those before PCA, and for the accuracy those that were trained on.
    for name in ("trustworthiness", "continuity", "rnx_auc"):
        assert last[f"held_out/{name}"] == pytest.approx(metrics[name], abs=0.2)
    assert last["held_out/silhouette"] == pytest.approx(metrics["silhouette"], abs=1e-3)
    assert {path.name for path in here.glob("*.png")} == {"log-epoch-0001.png", "log-epoch-0002.png"}
    tracked = np.load("models/fastpdr_model/embedding.npy")
    train("--overwrite", data={"features": csv, "label_column": "kind", "held_out": 0.3}, preprocessing={"pca": 3})
    np.testing.assert_array_equal(np.load("models/fastpdr_model/embedding.npy"), tracked)


def test_a_run_of_wandb_knows_the_config(csv, here, monkeypatch):
    made = []
    monkeypatch.setattr(
        "fastpdr.tracking.WeightsAndBiases", lambda *a, **k: made.append((a, k)) or (lambda state: None)
    )
    train(data={"features": csv, "label_column": "kind"}, tracking={"wandb": "maps", "metrics_every": 3})
    _, ((project,), settings) = made  # the first is a try, before the data are read
    assert project == "maps"
    assert settings["metrics_every"] == 3
    assert settings["config"] == yaml.safe_load((here / "models/fastpdr_model/train.yml").read_text())


def test_a_model_forgets_its_trackers(csv):
    paths = {"model_path": "p.joblib", "embeddings_path": "z.csv", "metrics_path": "m.json"}
    pipeline(data={"features": csv, "label_column": "kind"}, output=paths, tracking={"csv": "log.csv"})
    assert joblib.load("p.joblib").steps[-1][1].callbacks is None


def test_logdir_of_the_earlier_implementation():
    result = printed("--config", write(model={"logdir": "runs"}))
    assert result["tracking"]["tensorboard"] == "runs"
    assert "logdir" not in result["model"]
    assert printed("--config", write(model={"logdir": None}))["tracking"]["tensorboard"] is None
    sections = {"model": {"logdir": None}, "tracking": {"tensorboard": "runs"}}
    assert printed("--config", write(**sections))["tracking"]["tensorboard"] == "runs"


@pytest.mark.parametrize(("tracker", "module"), [("tensorboard", "torch.utils.tensorboard"), ("wandb", "wandb")])
def test_a_tracker_that_is_missing_is_said_before_all(here, monkeypatch, tracker, module):
    monkeypatch.setitem(sys.modules, module, None)
    output = train(data={"features": "nowhere.csv"}, tracking={tracker: "runs"}, code=1)
    assert f"pip install 'fastpdr[{tracker}]'" in output
    assert entries(here) == {"train.yml"}


# What is wrong


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("modle: {}", "modle: unknown key; did you mean model?"),
        ("wandb: {}", "wandb: unknown key; known are data, preprocessing, model, tracking, output"),
        ("data: {featuers: x}", "data.featuers: unknown key; did you mean features?"),
        ("data: {features: 3}", "data.features: expected a valid string, got 3"),
        ("data: {format: xls}", "'h5ad' or 'pkl', got 'xls'"),
        ("data: {label_column: 1.5}", "data.label_column: expected a valid string or a valid integer, got 1.5"),
        ("data: {label_column: true}", "data.label_column: expected a valid string or a valid integer, got True"),
        ("data: {allow_pickle: 'yes'}", "data.allow_pickle: expected a valid boolean, got 'yes'"),
        ("data: {labels: y.npy, label_column: y}", "data: give labels or label_column, not both"),
        ("data: {held_out: 1}", "data.held_out: expected less than 1, got 1"),
        ("data: {held_out: 0}", "data.held_out: expected greater than 0, got 0"),
        ("data: {held_out: half}", "data.held_out: expected a valid number, got 'half'"),
        ("data: x.csv", "data: expected a mapping of keys, got 'x.csv'"),
        (
            "preprocessing: {scaler: Robust}",
            "scaler: expected 'StandardScaler', 'MinMaxScaler' or 'none', got 'Robust'",
        ),
        ("preprocessing: {pca: 0}", "preprocessing.pca: expected components >= 1 or a share"),
        ("preprocessing: {pca: 1.5}", "between 0 and 1, got 1.5"),
        ("model: {n_itre: 5}", "model.n_itre: unknown key; did you mean n_iter?"),
        ("model: {logs: runs}", "model.logs: unknown key; did you mean logdir?"),
        ("model: {logdir: 5}", "model.logdir: expected a valid string, got 5"),
        (
            "{model: {logdir: a}, tracking: {tensorboard: b}}",
            "model.logdir and tracking.tensorboard mean the same: give one of them",
        ),
        ("tracking: {tensorbord: a}", "tracking.tensorbord: unknown key; did you mean tensorboard?"),
        ("tracking: {csv: 5}", "tracking.csv: expected a valid string, got 5"),
        ("tracking: {jsonl: ''}", "tracking.jsonl: String should have at least 1 character"),
        ("tracking: {metrics_every: 0}", "tracking.metrics_every: expected greater than or equal to 1, got 0"),
        ("tracking: {map_every: true}", "tracking.map_every: expected a valid integer, got True"),
        ("tracking: {map_every: 5}", "tracking.map_every needs rows to draw: give data.held_out"),
        ("tracking: log.csv", "tracking: expected a mapping of keys, got 'log.csv'"),
        ("model: {lr: fast}", "model.lr: expected a valid number, got 'fast'"),
        ("model: {n_iter: 2.5}", "model.n_iter: expected a valid integer, got 2.5"),
        ("model: {n_iter: '5'}", "model.n_iter: expected a valid integer, got '5'"),
        ("model: {hidden_dims: [9, a]}", "model.hidden_dims[1]: expected a valid integer, got 'a'"),
        ("model: {nl1: a}", "model.nl1, nl2, nl3[0]: expected a valid integer, got 'a'"),
        ("model: {random_state: -1}", "model.random_state: expected greater than or equal to 0, got -1"),
        ("model: {n_iter: 5, n_epochs: 5}", "model.n_epochs and model.n_iter mean the same: give one of them"),
        ("model: {nl1: 5, hidden_dims: [5]}", "model.hidden_dims and model.nl1, nl2, nl3 mean the same"),
        (
            "model: {method: tsen}",
            "model.method: expected tsne, mstsne, umap, largevis, got 'tsen'; did you mean tsne?",
        ),
        ("model: {method: [umap]}", "model.method: expected tsne"),
        ("model: {perplexity: 30}", "perplexity: unknown key for method mstsne; it is for tsne and largevis"),
        ("model: {method: umap, alpha: 1.0}", "model.alpha: unknown key for method umap; it is for tsne and mstsne"),
        ("model: {n_components: 0}", "model: The 'n_components' parameter of MultiscaleParametricTSNE must be"),
        ("model: [1]", "model: expected a mapping of keys, got [1]"),
        ("model: {1: 2}", "model.1: Keys should be strings"),
        ("1: 2", "1: Keys should be strings"),
        ("output: {model_name: ''}", "output.model_name: String should have at least 1 character"),
        ("output: {save_neighbors: 5}", "output: save_neighbors needs embedding_format: csv or parquet"),
        ("output: {save_neighbors: 0, embedding_format: csv}", "save_neighbors: expected greater than or equal to 1"),
        ("output: {embedding_format: xlsx}", "embedding_format: expected 'npy', 'csv' or 'parquet', got 'xlsx'"),
        ("output: {save_metrics: 1}", "output.save_metrics: expected a valid boolean, got 1"),
        ("model: {lr: 1, lr: 2}", "line 1: not YAML: lr stands twice"),
        ("model: {lr: 1", "line 1: not YAML: "),
        ("data:\n\tfeatures: x", "line 2: not YAML: "),
        ("model: !!python/object/apply:os.getcwd []", "not YAML: could not determine a constructor"),
        ("[1, 2]", "expected sections such as data and output, got [1, 2]"),
        ("just words", "expected sections such as data and output, got 'just words'"),
    ],
)
def test_bad_configs(here, text, message):
    (here / "bad.yml").write_text(text)
    output = run("train", "--config", "bad.yml", code=2)
    assert "Error: bad.yml: " in output
    assert message in output
    assert entries(here) == {"bad.yml"}


def test_all_errors_are_said_at_once():
    output = train(data={"featuers": "x"}, preprocessing={"pca": -1}, model={"lr": "a", "nl": 3}, code=2)
    assert all(key in output for key in ("data.featuers: ", "preprocessing.pca: ", "model.lr: ", "model.nl: "))


@pytest.mark.parametrize("setting", ["n_epochs=5", "model.n_epochs", "model=3", "model.=3"])
def test_bad_settings(setting):
    assert f"--set {setting}: expected section.key=value, as in model.n_epochs=50" in train("--set", setting, code=2)


def test_bad_values_of_settings():
    assert "not YAML" in train("--set", "model.n_epochs=[", code=2)
    assert "model.n_epochs: expected a valid integer, got 'x'" in train("--set", "model.n_epochs=x", code=2)
    assert "model: expected a mapping of keys" in train("--set", "model.n_epochs=3", model=[1], code=2)


def test_config_files_that_cannot_be_read(here):
    assert "nowhere.yml" in run("train", "--config", "nowhere.yml", code=2)
    (here / "bytes.yml").write_bytes(b"\xff\xfe\x00")
    assert "bytes.yml: " in run("train", "--config", "bytes.yml", code=2)


@pytest.mark.parametrize(
    ("data", "preprocessing", "message"),
    [
        ({"features": "nowhere.csv"}, {}, "nowhere.csv: no such file"),
        ({"features": "x.csv"}, {}, "all columns but that of the labels must be numbers; these are not: kind"),
        ({"features": "x.csv", "labels": "y.npy"}, {}, "labels y.npy is neither a column nor a file"),
        ({"features": "x.csv", "label_column": "kind", "array": "a"}, {}, "an array is named only in .npz files"),
        ({"features": "x.csv", "label_column": "kind"}, {"pca": 9}, "n_components=9 must be between"),
    ],
)
def test_data_that_do_not_fit_leave_nothing(csv, here, data, preprocessing, message):
    assert message in train(data=data, preprocessing=preprocessing, code=2)
    assert entries(here) == {csv, "train.yml"}


def test_older_results_are_replaced_on_request_only(csv, here):
    section = {"features": csv, "label_column": "kind"}
    train(data=section)
    assert "models/fastpdr_model is not empty; --overwrite replaces" in train(data={"features": "nowhere.npy"}, code=2)
    train("--overwrite", data={"features": csv, "label_column": "kind"}, output={"save_metrics": False})
    assert entries(here / "models/fastpdr_model") == PARTS - {"metrics.json"} | {"labels.npy"}
    train(data=section, output={"overwrite_existing": True})
    (here / "models/fastpdr_model/model/thesis.txt").write_text("mine")
    assert "did not write" in train("--overwrite", data=section, code=2)


@pytest.mark.parametrize(
    ("name", "writer"),
    [
        ("model", "fastpdr.estimators.saving.save_file"),
        ("embedding.npy", "fastpdr.cli.data.write_map"),
        ("labels.npy", "fastpdr.cli.fit.save_array"),
        ("metrics.json", "fastpdr.cli.output.write_json"),
        ("train.yml", "pathlib.Path.write_text"),
        ("map.png", "fastpdr.cli.showing.draw_map"),
        ("report.html", "fastpdr.cli.showing.write_report"),
    ],
)
def test_a_full_disk_leaves_the_older_results(csv, here, monkeypatch, name, writer):
    """At whichever file it happens."""
    section = {"features": csv, "label_column": "kind"}
    train(data=section)
    folder = here / "models/fastpdr_model"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    config, writes = write("full.yml", data=section, model=SMALL), resolve_name(writer)

    def full(*arguments, **options):
        if name == "model" or any(Path(part).name == name for part in arguments if isinstance(part, str | Path)):
            raise OSError(28, "No space left on device")
        return writes(*arguments, **options)

    monkeypatch.setattr(writer, full)
    output = run("train", "--config", config, "--overwrite", "--seed", 9, code=1)
    assert "Error: No space left on device" in output
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_failed_training_leaves_nothing(csv, here, monkeypatch):
    def fail(*_):
        raise FloatingPointError("loss is nan")

    monkeypatch.setattr(fastpdr.MultiscaleParametricTSNE, "fit_transform", fail)
    assert "Error: loss is nan" in train(data={"features": csv, "label_column": "kind"}, code=1)
    assert entries(here) == {csv, "train.yml"}


def test_debug_shows_the_traceback(here):
    (here / "bad.yml").write_text("model: {lr: fast}")
    result = CliRunner().invoke(main, ["--debug", "train", "--config", "bad.yml"])
    assert isinstance(result.exception, ValueError)


# pipeline


def test_pipeline_saves_a_folder(csv, here):
    output = pipeline(data={"source": "file", "features": csv, "label_column": "kind"})
    assert "fastpdr.load('models/fastpdr_pipeline')" in output
    names = {"fastpdr_pipeline", "fastpdr_pipeline_embeddings.npy", "fastpdr_pipeline_metrics.json"}
    assert entries(here / "models") == names
    model = fastpdr.load("models/fastpdr_pipeline")
    frame = pd.read_csv(csv).drop(columns="kind")
    np.testing.assert_array_equal(model.transform(frame), np.load("models/fastpdr_pipeline_embeddings.npy"))
    content = json.loads((here / "models/fastpdr_pipeline_metrics.json").read_text())
    assert content["metrics"].keys() == {
        "trustworthiness", "silhouette", "neighborhood_preservation", "final_loss", "training_time_seconds"
    }  # fmt: skip
    assert content["embedding_shape"] == [N, 2]
    assert content["config"]["algorithm"]["n_epochs"] == 2


def test_a_joblib_on_request_loads_in_another_program(csv):
    paths = {"model_path": "out/p.joblib", "embeddings_path": "z.csv", "metrics_path": "elsewhere/m.json"}
    output = pipeline(data={"features": csv, "label_column": "kind"}, output=paths)
    assert "Warning: out/p.joblib: loading a joblib file runs code" in output
    program = "import joblib, numpy; print(joblib.load('out/p.joblib').transform(numpy.ones((1, 4))).shape)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "(1, 2)"
    Z = joblib.load("out/p.joblib").transform(pd.read_csv(csv).drop(columns="kind"))
    np.testing.assert_allclose(pd.read_csv("z.csv")[["projection_x", "projection_y"]], Z, rtol=1e-5)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"data": {"source": "file"}}, "data: source: file needs features"),
        ({"data": {"source": "sklearn_digits", "features": "x"}}, "data: source: sklearn_digits takes no features"),
        ({"data": {"source": "iris"}}, "data.source: expected 'sklearn_digits' or 'file', got 'iris'"),
        ({"model": {}}, "model: unknown key; known are data, preprocessing, algorithm, tracking, output"),
        ({"algorithm": {"n_itre": 3}}, "algorithm.n_itre: unknown key; did you mean n_iter?"),
        ({"output": {"embeddings_path": "z.txt"}}, "output.embeddings_path z.txt: the suffix must be one of"),
        ({"output": {"save_neighbors": 5}}, "save_neighbors needs an embeddings_path that ends in .csv or .parquet"),
        ({"output": {"model_dir": "x"}}, "output.model_dir: unknown key"),
    ],
)
def test_bad_pipelines(here, sections, message):
    assert message in pipeline(**sections, code=2)
    assert entries(here) == {"sklearn.yml"}


def test_older_pipelines_are_replaced_on_request_only(csv, here):
    section = {"features": csv, "label_column": "kind"}
    pipeline(data=section)
    assert "output: there is models/fastpdr_pipeline, " in pipeline(data=section, code=2)
    pipeline("--overwrite", "--seed", 4, data=section)
    assert fastpdr.load("models/fastpdr_pipeline").steps[-1][1].random_state == 4
    (here / "models/fastpdr_pipeline/thesis.txt").write_text("mine")
    assert "is no model that fastpdr wrote" in pipeline("--overwrite", data=section, code=2)


def test_a_full_disk_leaves_the_older_pipeline(csv, here, monkeypatch):
    section = {"features": csv, "label_column": "kind"}
    pipeline(data=section)
    before = {path: path.read_bytes() for path in (here / "models").rglob("*") if path.is_file()}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fastpdr.estimators.saving.save_file", full)
    assert "No space left on device" in pipeline("--overwrite", "--seed", 9, data=section, code=1)
    assert {path: path.read_bytes() for path in (here / "models").rglob("*") if path.is_file()} == before


# Costs


def test_the_library_does_without_pydantic_and_yaml():
    program = "import sys, fastpdr.cli, fastpdr.estimators; print({'pydantic', 'yaml'} & sys.modules.keys())"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
