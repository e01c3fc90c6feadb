"""Files of sweeps: W&B's syntax, the earlier implementation's form of it, and every way to get one wrong."""

from __future__ import annotations

import pytest
import yaml
from running import entries, run

from fastpdr.cli import METHODS
from fastpdr.cli.sweep import config

pytest.importorskip("optuna")

SPACE = {"learning_rate": {"values": [0.001, 0.01]}}

# PyTorch multiscale parametric t-SNE's file, as it has been published.
HP_CONFIG = """
data:
  features: null
  labels: null
  label_column: null
  format: auto
project: "msp-tsne-MNIST-sweep"
sweep_count: 1000
modes:
  sweep: {enabled: true}
  smoke_test: {enabled: true, sample_size: 50, iterations: 5, batch_size: 10, early_exaggeration_epochs: 1, verbose: 0}
saving:
  save_model: false
sweep_config:
  method: 'bayes'
  metric: {name: 'final_kl_loss', goal: 'maximize'}
  parameters:
    nl1: {distribution: 'int_uniform', min: 500, max: 1500}
    nl2: {distribution: 'int_uniform', min: 250, max: 750}
    nl3: {distribution: 'int_uniform', min: 100, max: 500}
    n_iter: {distribution: 'int_uniform', min: 500, max: 2000}
    batch_size: {distribution: 'int_uniform', min: 100, max: 1000}
    early_exaggeration_epochs: {distribution: 'int_uniform', min: 25, max: 100}
    early_exaggeration_value: {distribution: 'uniform', min: 2.0, max: 8.0}
    early_stopping_epochs: {distribution: 'int_uniform', min: 100, max: 1000}
    early_stopping_min_improvement: {values: [0.0001, 0.0005, 0.001, 0.005, 0.01]}
    lr: {values: [0.0001, 0.0005, 0.001, 0.005, 0.01]}
    alpha: {distribution: 'uniform', min: 0.5, max: 2.0}
    scaler: {values: ['StandardScaler', 'MinMaxScaler']}
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(here, text=None, **content):
    path = here / "sweep.yml"
    path.write_text(text or yaml.safe_dump({"parameters": SPACE} | content, sort_keys=False))
    return config.load(path)


def test_all_keys_of_wandb_are_read(here):
    sweep = load(
        here,
        apiVersion="0.1",
        kind="sweep",
        controller={"type": "local"},
        program="train.py",
        command=["${env}", "python", "${program}", 3],
        job="x",
        image_uri="y",
        entity="me",
        project="maps",
        name="first",
        description="of many",
        method="random",
        run_cap=7,
        metric={
            "name": "silhouette",
            "goal": "maximize",
            "target": 0.5,
            "impute": "worst",
            "impute_while_running": "false",
        },
        early_terminate={"type": "hyperband", "max_iter": 27, "s": 2, "eta": 3, "strict": True},
    )
    assert (sweep.method, sweep.metric, sweep.target, sweep.count) == ("random", "silhouette", 0.5, 7)
    assert sweep.wandb["project"] == "maps"
    assert sweep.wandb["metric"] == {"name": "silhouette", "goal": "maximize", "target": 0.5}
    assert sweep.wandb["parameters"] == SPACE


def test_the_shortest_file_has_defaults(here):
    sweep = load(here)
    assert (sweep.method, sweep.metric, sweep.maximize, sweep.count) == ("bayes", "trustworthiness", True, None)
    assert sweep.folder.parts == ("models", "sweep")
    assert sweep.prunes
    resolved = sweep.config_of({"learning_rate": 0.01})
    assert resolved.data.held_out == 0.2
    assert resolved.model.method == "mstsne"
    assert load(here, data={"held_out": None}).fixed["data"]["held_out"] == 0.2
    assert resolved.model.learning_rate == 0.01


@pytest.mark.parametrize(
    ("method", "early_terminate", "prunes"),
    [("bayes", {}, True), ("random", {}, True), ("grid", {}, False), ("bayes", {"early_terminate": None}, False)],
)
def test_when_trials_are_pruned_by_themselves(here, method, early_terminate, prunes):
    assert load(here, method=method, **early_terminate).prunes is prunes


@pytest.mark.parametrize(
    ("content", "bands"),
    [
        ({"min_iter": 3}, [3, 9, 27, 81]),
        ({"min_iter": 10, "eta": 2}, [10, 20, 40, 80]),
        ({"max_iter": 27, "s": 2}, [3, 9, 27, 81]),
        ({"max_iter": 5, "s": 4, "eta": 2}, [1, 2, 4, 8, 16, 32, 64]),
        ({"min_iter": 10, "eta": 2.5}, [10, 30, 90]),
        ({"min_iter": 100}, []),
    ],
)
def test_bands_of_hyperband(here, content, bands):
    sweep = load(here, early_terminate={"type": "hyperband", **content})
    assert sweep.early_terminate.bands(100) == bands


def test_sections_of_train_are_fixed(here):
    sweep = load(
        here,
        parameters={"n_neighbors": {"values": [5, 15]}, "pca": {"values": [2, 0.9, None]}, **SPACE},
        data={"features": "x.csv", "label_column": "kind", "held_out": 0.3},
        preprocessing={"scaler": "MinMaxScaler"},
        model={"method": "umap", "n_iter": 7, "random_state": 3},
        output={"model_dir": "out", "model_name": "s"},
    )
    resolved = sweep.config_of({"n_neighbors": 5, "pca": 0.9, "learning_rate": 0.001})
    assert resolved.data.features == "x.csv"
    assert resolved.data.held_out == 0.3
    assert (resolved.preprocessing.scaler, resolved.preprocessing.pca) == ("MinMaxScaler", 0.9)
    assert (resolved.model.n_epochs, resolved.model.n_neighbors, resolved.model.random_state) == (7, 5, 3)
    assert sweep.folder.parts == ("out", "s")


def test_nested_and_dotted_names(here):
    nested = {"model": {"parameters": {"lr": {"value": 0.5}}}, "preprocessing.scaler": {"values": ["none"]}}
    resolved = load(here, parameters=nested).config_of({"model.lr": 0.5, "preprocessing.scaler": "none"})
    assert resolved.model.learning_rate == 0.5
    assert resolved.preprocessing.scaler == "none"


def test_parameters_of_methods_that_are_not_drawn_are_left_out(here):
    parameters = {
        "perplexity": {"values": [5, 10]},
        "n_neighbors": {"values": [5, 10, 15]},
        "method": {"values": ["umap", "tsne", "mstsne"]},
        "alpha": {"values": [1.0]},
    }
    sweep = load(here, parameters=parameters, method="grid")
    points = list(sweep.grid())
    assert sweep.grid_size == len(points) == 3 + 2 + 1
    assert {tuple(sorted(point)) for point in points} == {
        ("method", "n_neighbors"),
        ("alpha", "method", "perplexity"),
        ("alpha", "method"),
    }
    assert (
        load(here, parameters={"lr": {"min": 1, "max": 3}, **{"nl1": {"values": [5, 6]}}}, method="grid").grid_size == 6
    )


# The earlier implementation


def test_the_earlier_file_is_read_with_its_metric_put_right(here):
    with pytest.warns(UserWarning, match="metric") as caught:
        sweep = load(here, HP_CONFIG)
    warned = [str(warning.message) for warning in caught]
    assert warned[0] == "metric.goal: maximize final_kl_loss would search for the worst: minimize it"
    assert "trustworthiness of held-out rows does" in warned[1]
    assert (sweep.metric, sweep.direction, sweep.count) == ("final_loss", "minimize", 1000)
    assert sweep.wandb["metric"]["goal"] == "minimize"
    assert sweep.wandb["project"] == "msp-tsne-MNIST-sweep"
    assert not sweep.save_model
    first = sweep.config_of(config.first_values(sweep))
    assert first.model.hidden_dims == [500, 250, 100]
    assert (first.model.n_epochs, first.model.batch_size, first.model.early_stopping_patience) == (500, 100, 100)
    assert first.preprocessing.scaler == "StandardScaler"


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("trustworthiness_score", "trustworthiness"),
        ("neighborhood_preservation_ratio", "neighborhood_preservation"),
        ("silhouette_score", "silhouette"),
        ("training_time", "training_time_seconds"),
    ],
)
def test_names_of_their_metrics(here, theirs, ours):
    assert load(here, metric={"name": theirs}).metric == ours


def test_the_smoke_test_of_the_earlier_file(here):
    (here / "hp_config.yml").write_text(HP_CONFIG)
    output = run("sweep", "--config", "hp_config.yml", "--smoke-test")
    assert "Smoke test passed: 50 rows, 5 epochs" in output
    assert entries(here) == {"hp_config.yml"}


@pytest.mark.parametrize("mode", ["sweep", "smoke_test"])
def test_modes_that_are_switched_off(here, mode):
    (here / "s.yml").write_text(yaml.safe_dump({"parameters": SPACE, "modes": {mode: {"enabled": False}}}))
    options = ["--smoke-test"] if mode == "smoke_test" else ["--count", 1]
    assert f"modes.{mode}.enabled is false" in run("sweep", "--config", "s.yml", *options, code=2)


# What is wrong


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"methd": "bayes"}, "methd: unknown key; did you mean method?"),
        ({"method": "tpe"}, "method: expected 'bayes', 'random' or 'grid', got 'tpe'"),
        ({"run_cap": 0}, "run_cap: expected greater than or equal to 1, got 0"),
        ({"metric": "loss"}, "metric: expected a mapping of keys, got 'loss'"),
        ({"metric": {"name": "trust"}}, "got 'trust'; did you mean trustworthiness?"),
        ({"metric": {"name": "silhouette", "goal": "up"}}, "metric.goal: expected 'maximize' or 'minimize', got 'up'"),
        ({"metric": {"nam": "silhouette"}}, "metric.nam: unknown key; did you mean name?"),
        ({"metrics": []}, "metrics: one metric is searched for: give metric"),
        ({"sweep_config": {"scheduler": {}}}, "sweep_config.scheduler: the search is chosen by --engine"),
        ({"sweep_config": {"parameters": SPACE}}, "parameters and sweep_config.parameters: give one of them"),
        ({"sweep_config": 3}, "sweep_config: expected method, metric and parameters, got 3"),
        ({"early_terminate": {"type": "median"}}, "early_terminate.type: expected 'hyperband', got 'median'"),
        ({"early_terminate": {"type": "hyperband"}}, "early_terminate: give min_iter, or max_iter and s"),
        (
            {"early_terminate": {"type": "hyperband", "min_itre": 3}},
            "early_terminate.min_itre: unknown key; did you mean",
        ),
        ({"modes": {"smoke": {}}}, "modes.smoke: unknown key; did you mean smoke_test?"),
        (
            {"modes": {"smoke_test": {"iterations": 0}}},
            "modes.smoke_test.iterations: expected greater than or equal to 1",
        ),
        ({"saving": {"save": 1}}, "saving.save: unknown key; did you mean save_model?"),
        ({"parameters": None}, "parameters: expected parameters and their distributions, got None"),
        (
            {"parameters": {"lr": {"distribution": "lognormal"}}},
            "parameters.lr.distribution: expected one of W&B's, got",
        ),
        ({"parameters": {"n_itre": {"value": 1}}}, "parameters.n_itre: unknown key; did you mean n_iter?"),
        ({"parameters": {"scalar": {"value": 1}}}, "parameters.scalar: unknown key; did you mean scaler?"),
        ({"parameters": {"perplexity": {"value": 3}}}, "perplexity: unknown key for method mstsne; it is for tsne and"),
        ({"parameters": {"preprocessing.lr": {"value": 3}}}, "parameters.preprocessing.lr: unknown key; did you mean"),
        ({"parameters": {"data.format": {"value": 3}}}, "model and preprocessing are searched, not data"),
        (
            {"parameters": {"lr": {"value": 1}, "learning_rate": {"value": 1}}},
            "parameters.learning_rate and parameters.lr mean the",
        ),
        ({"model": {"learning_rate": 1.0}}, "parameters.learning_rate: model.learning_rate is given as well"),
        ({"model": {"lr": 1.0}}, "model.learning_rate and model.lr mean the same: give one of them"),
        ({"parameters": {"method": {"values": ["umap", "tsen"]}}}, "expected tsne, mstsne, umap, largevis, got 'tsen'"),
        ({"parameters": {"lr": {"values": [0.1, "fast"]}}}, "model.lr: expected a valid number, got 'fast'"),
        ({"parameters": {"lr": {"min": -1.0, "max": 1.0}}}, "The 'learning_rate' parameter of Multiscale"),
        ({"parameters": {"n_epochs": {"min": 5.0, "max": 9.0}}}, "model.n_epochs: expected a valid integer, got 5.004"),
        ({"model": {"n_itre": 3}}, "model.n_itre: unknown key; did you mean n_iter?"),
        ({"data": {"featuers": "x"}}, "data.featuers: unknown key; did you mean features?"),
        ({"data": {"held_out": 1.5}}, "data.held_out: expected less than 1, got 1.5"),
        ({"data": [1]}, "data: expected a mapping of keys, got [1]"),
        ({"output": {"model_nam": "x"}}, "output.model_nam: unknown key; did you mean model_name?"),
        ({"method": "grid", "parameters": {"lr": {"min": 0.1, "max": 0.2}}}, "these are not: lr (uniform)"),
    ],
)
def test_bad_files(here, content, message):
    (here / "bad.yml").write_text(yaml.safe_dump({"parameters": SPACE} | content))
    output = run("sweep", "--config", "bad.yml", "--count", 1, code=2)
    assert "Error: bad.yml: " in output
    assert message in output
    assert entries(here) == {"bad.yml"}


def test_files_that_are_none(here):
    (here / "bad.yml").write_text("parameters: {lr: {min: 1\n")
    assert "bad.yml: line 2: not YAML" in run("sweep", "--config", "bad.yml", code=2)
    assert "nowhere.yml" in run("sweep", "--config", "nowhere.yml", code=2)
    (here / "empty.yml").write_text("")
    assert "parameters: expected parameters" in run("sweep", "--config", "empty.yml", code=2)


def test_the_number_of_trials_has_to_be_said(here):
    (here / "s.yml").write_text(yaml.safe_dump({"parameters": SPACE}))
    assert "how many trials? --count says it, or run_cap in the file" in run("sweep", "--config", "s.yml", code=2)


def test_methods_have_the_keys_that_files_have():
    for method in METHODS:
        assert {"nl1", "n_epochs", "learning_rate", "lr"} <= config.known_to(method)
        assert ("alpha" in config.known_to(method)) == ("tsne" in method)
