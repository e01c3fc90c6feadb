"""Runs of methods, in this process and in one of their own, and the command."""

from __future__ import annotations

import subprocess
import warnings

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from sklearn.decomposition import PCA

from bench.quality import __main__ as command
from bench.quality import gallery, methods, run, sets, table

COMPILED = {"umap-learn", "parametric-umap", "pacmap"}  # the first fit takes half a minute


@pytest.fixture
def spied(monkeypatch):
    """What the method "spy" is given: (rows, seed, threads, parameters) to learn from, rows to place."""
    given = []

    def learn(X, seed, threads, **parameters):
        if parameters.get("shift", 0) < 0:
            raise ValueError("shift must be at least 0")
        given.append((X, seed, threads, parameters))
        pca = PCA(2).fit(X)

        def place(rows):
            given.append(rows)
            return pca.transform(rows)

        return pca.transform(X), place

    monkeypatch.setitem(methods.METHODS, "spy", methods.Method("spy", learn, "numpy", ("numpy",), {"quick": True}))
    threads = torch.get_num_threads()
    yield given
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", sorted(methods.METHODS.keys() - COMPILED))
def test_methods_place_rows(name, rng):
    X = rng.normal(size=(200, 5)).astype(np.float32)
    try:
        method = methods.imported(name)
    except methods.NotInstalledError as error:
        pytest.skip(str(error))
    Z, place = method.fit(X, 0, 1, **method.warm_up)
    assert Z.shape == (200, 2)
    assert place(X[:7]).shape == (7, 2)
    assert method.version().startswith(f"{method.package} ")


def test_components_stand_for_wide_rows(spied, rng):
    X = rng.normal(size=(50, 6)).astype(np.float32)
    Z, place = methods.METHODS["spy"].fit(X, 0, 1, pca=3)
    assert spied[0][0].shape == (50, 3)
    np.testing.assert_allclose(place(X), Z, atol=1e-5)
    methods.METHODS["spy"].fit(X, 0, 1, pca=6)
    np.testing.assert_array_equal(spied[-1][0], X)


def test_a_run_shows_training_rows_then_test_rows_and_no_labels(spied):
    row = run.run("spy", "digits", "scale", seed=3, threads=1, changed={"shift": 2.0})
    data = sets.load("digits", "scale")
    (few, *warm), _, (X, *fit), test = spied
    assert few.shape == (run.WARM_UP_ROWS, 64)
    assert warm == [3, 1, {"shift": 2.0, "quick": True}]
    np.testing.assert_array_equal(X, data.X)
    assert fit == [3, 1, {"shift": 2.0}]
    np.testing.assert_array_equal(test, data.X_test)
    assert (row["method"], row["changed"], row["seed"], row["threads"]) == ("spy", "shift=2.0", 3, 1)
    assert (row["n_train"], row["n_test"], row["torch"]) == (1347, 450, torch.__version__)
    assert {*table.KEY, *table.COLUMNS["scale"]} <= row.keys()


def test_refused_parameters_end_a_run_before_the_data_are_fitted(spied):
    with pytest.raises(run.InputError, match="shift must be at least 0"):
        run.run("spy", "digits", "scale", seed=0, threads=1, changed={"shift": -1})
    assert spied == []


def test_a_package_that_is_missing_is_named(monkeypatch):
    method = methods.Method("gone", lambda: None, "gone-package", ("gone_module",))
    monkeypatch.setitem(methods.METHODS, "gone", method)
    with pytest.raises(methods.NotInstalledError, match="gone_module cannot be imported.*pip install gone-package"):
        run.run("gone", "digits", "scale", seed=0, threads=1, changed={})


def test_the_command_in_a_fresh_process(tmp_path):
    arguments = ["run", "--method", "tsne", "--set", "digits", "--param", "n_epochs=1", "--output", tmp_path]
    ended = invoke(*arguments)
    assert ended.exit_code == 0, ended.output
    (row,) = table.read(tmp_path / "published.csv")
    assert (row["method"], row["changed"], row["seed"]) == ("tsne", "n_epochs=1", "0")
    assert float(row["fit_cpu_s"]) > 0
    assert float(row["import_cpu_s"]) > 0
    assert 0.5 < float(row["test_mu"]) < 1
    shown = invoke("table", "--output", tmp_path).output
    assert "## digits, published protocol" in shown
    assert invoke("table", "--write", "--output", tmp_path).exit_code == 0
    assert (tmp_path / "README.md").read_text() == shown


def test_the_command_goes_on_after_what_is_skipped_or_fails(tmp_path, monkeypatch):
    def ended(arguments, debug):
        if arguments["method"] == "pacmap":
            raise methods.NotInstalledError("pacmap cannot be imported")
        if arguments["seed"] == 1:
            raise run.RunError("the process ended with exit code -9")
        return {**dict.fromkeys(table.KEY), **arguments, "set": arguments["name"]}

    monkeypatch.setattr(command, "in_fresh_process", ended)
    runs = ["--method", "pacmap", "--method", "tsne", "--set", "digits", "--seed", 1, "--seed", 2]
    result = invoke("run", *runs, "--protocol", "scale", "--output", tmp_path)
    assert result.exit_code == 1
    assert "skipped pacmap on digits, seed 1, defaults: pacmap cannot be imported" in result.output
    assert "Error: tsne on digits, seed 1, defaults: the process ended with exit code -9" in result.output
    assert [(row["method"], row["seed"]) for row in table.read(tmp_path / "scale.csv")] == [("tsne", "2")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "glove"], "the published protocol is for digits"),
        (["--set", "mnist"], "FASTPDR_DATA must name the folder"),
        (["--set", "iris"], "'iris' is not one of 'digits'"),
        (["--set", "digits", "--param", "n_epochs"], "expected name=value, got n_epochs"),
        (["--set", "digits", "--param", "a=1", "--param", "a=2"], "a is given twice"),
        (["--set", "digits", "--threads", "0"], "0 is not in the range"),
    ],
)
def test_bad_input_is_refused_before_a_run(arguments, message, monkeypatch, tmp_path):
    monkeypatch.delenv("FASTPDR_DATA", raising=False)
    monkeypatch.setattr(command, "in_fresh_process", lambda *_: pytest.fail("a run has begun"))
    result = invoke("run", "--method", "tsne", *arguments, "--output", tmp_path)
    assert result.exit_code == 2
    assert message in result.output


def test_what_a_method_refuses_ends_the_command(monkeypatch, tmp_path):
    def refuse(arguments, debug):
        raise run.InputError("unexpected keyword argument 'nepochs'")

    monkeypatch.setattr(command, "in_fresh_process", refuse)
    result = invoke("run", "--method", "tsne", "--set", "digits", "--param", "nepochs=1", "--output", tmp_path)
    assert result.exit_code == 2
    assert result.output == "Error: tsne on digits, seed 0, nepochs=1: unexpected keyword argument 'nepochs'\n"


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (methods.NotInstalledError("no torchdr"), methods.NotInstalledError, "^no torchdr$"),
        (run.InputError("perplexity is too large"), run.InputError, "^perplexity is too large$"),
        (FloatingPointError("nan"), run.RunError, "^FloatingPointError: nan$"),
        (SystemExit(3), run.RunError, "^the process ended with exit code 3$"),
    ],
)
def test_errors_come_back_from_a_process(error, kind, message, monkeypatch):
    def fail(**_):
        raise error

    def here(command, env):
        try:
            run.main(*command[3:])
        except SystemExit as end:
            return subprocess.CompletedProcess(command, end.code)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(run, "run", fail)
    monkeypatch.setattr(run.subprocess, "run", here)
    with warnings.catch_warnings(), pytest.raises(kind, match=message):
        run.in_fresh_process({"threads": 1})


def test_a_process_has_its_threads_bound(monkeypatch):
    given = {}

    def look(command, env):
        given.update(env)
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(run.subprocess, "run", look)
    with pytest.raises(run.RunError):
        run.in_fresh_process({"threads": 3})
    assert {given[name] for name in run.THREADS} == {"3"}
    assert "OMP_WAIT_POLICY" in given


def test_there_is_no_table_of_nothing(tmp_path):
    result = invoke("table", "--output", tmp_path)
    assert result.exit_code == 2
    assert "holds no results" in result.output


def test_the_gallery_draws_training_rows_above_rows_never_seen(spied, monkeypatch, tmp_path):
    drawn = {}

    def compare(maps, columns):
        drawn.update(maps, columns=columns)
        return draw(maps, columns=columns)

    draw = gallery.plotting.compare
    monkeypatch.setattr(gallery.plotting, "compare", compare)
    monkeypatch.setattr(gallery, "ROWS", 300)
    monkeypatch.setitem(methods.METHODS, "pacmap", methods.METHODS["spy"])
    result = invoke("gallery", "--method", "pacmap", "--set", "digits", "--param", "shift=1", tmp_path / "maps.png")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "maps.png").read_bytes().startswith(b"\x89PNG")
    above, below, columns = drawn
    assert (columns, drawn["columns"]) == ("columns", 1)
    assert (above, below.partition(": ")[0]) == ("spy: training rows", "spy, never seen")
    data, (X, *_), rows = sets.load("digits", "published"), *spied
    np.testing.assert_array_equal(X, data.X)
    np.testing.assert_array_equal(rows, data.X_test)
    for title, X, y in ((above, data.X, data.y), (below, data.X_test, data.y_test)):
        Z, labels = drawn[title]
        np.testing.assert_allclose(np.abs(Z), np.abs(PCA(2).fit(data.X).transform(X)[:300]), atol=1e-4)
        np.testing.assert_array_equal(labels, y[:300])
    assert spied[0][3] == {"shift": 1}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "pacmap", "--set", "digits"], "gone_module cannot be imported"),
        (["--method", "umap", "--set", "digits", "--param", "shift=-1"], "shift must be at least 0"),
        (["--method", "umap", "--set", "glove"], "the published protocol is for digits"),
    ],
)
def test_the_gallery_refuses_in_one_line(spied, arguments, message, monkeypatch, tmp_path):
    gone = methods.Method("gone", lambda: None, "gone-package", ("gone_module",))
    monkeypatch.setitem(methods.METHODS, "pacmap", gone)
    monkeypatch.setitem(methods.METHODS, "umap", methods.METHODS["spy"])
    result = invoke("gallery", *arguments, tmp_path / "maps.png")
    assert result.exit_code == 2
    assert message in result.output


def invoke(*arguments):
    return CliRunner().invoke(command.main, [str(argument) for argument in arguments])


def test_changes_are_written_as_they_are_given():
    changed = command._parameters("best", ("n_epochs=200", "lr=1e-3", "hidden_dims=[8, 4]", "early=null", "init=pca"))
    assert changed == {
        "preset": "best",
        "n_epochs": 200,
        "lr": 1e-3,
        "hidden_dims": [8, 4],
        "early": None,
        "init": "pca",
    }
    assert run.written(changed) == "early=null hidden_dims=[8,4] init=pca lr=0.001 n_epochs=200 preset=best"
    assert run.written({}) == "defaults"
