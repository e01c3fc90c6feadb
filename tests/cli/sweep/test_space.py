"""W&B's distributions: what they draw, what a grid makes of them, and every way to get one wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fastpdr.cli.sweep import space

optuna = pytest.importorskip("optuna")
optuna.logging.set_verbosity(optuna.logging.WARNING)

DRAWS = 400
E = math.e


def draws(content, n=DRAWS):
    """Many values by optuna's random sampler."""
    (distribution,) = space.read({"p": content}).values()
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [distribution.draw(study.ask(), "p") for _ in range(n)]


def of(kind, **keys):
    return {"distribution": kind, **keys}


@pytest.mark.parametrize(
    ("content", "low", "high", "median"),
    [
        (of("uniform", min=2, max=4), 2, 4, 3),
        ({"min": 2.0, "max": 4}, 2, 4, 3),
        (of("int_uniform", min=0, max=100), 0, 100, 50),
        ({"min": 0, "max": 100}, 0, 100, 50),
        (of("q_uniform", min=0, max=100, q=10), 0, 100, 50),
        (of("q_uniform", min=0.1, max=0.7, q=0.1), 0.1, 0.7, 0.4),
        (of("log_uniform_values", min=1e-4, max=1), 1e-4, 1, 1e-2),
        (of("inv_log_uniform_values", min=1e-4, max=1), 1e-4, 1, 1e-2),
        (of("log_uniform", min=-4, max=0), E**-4, 1, E**-2),
        (of("inv_log_uniform", min=-4, max=0), 1, E**4, E**2),
        (of("q_log_uniform_values", min=1, max=1024), 1, 1024, 32),
        (of("q_log_uniform_values", min=4, max=1024, q=4), 4, 1024, 64),
        (of("q_log_uniform", min=0, max=6), 1, 403, E**3),
        (of("normal", mu=5, sigma=2), -2, 12, 5),
        (of("q_normal", mu=50, sigma=20, q=5), -20, 120, 50),
        (of("log_normal", mu=1, sigma=0.5), E**-1, E**3, E),
        (of("q_log_normal", mu=3, sigma=0.5, q=2), 2, E**5, E**3),
        (of("beta", a=2, b=2), 0, 1, 0.5),
        (of("q_beta", a=2, b=2, q=0.25), 0, 1, 0.5),
    ],
    ids=lambda value: value.get("distribution", "by its keys") if isinstance(value, dict) else None,
)
def test_ranges(content, low, high, median):
    values = np.array(draws(content), dtype=float)
    assert low - 1e-9 <= values.min()
    assert values.max() <= high + 1e-9
    quarters = np.quantile(values, [0.25, 0.75])
    assert quarters[0] < median < quarters[1]
    share = (values < median).mean() + (values == median).mean() / 2
    assert abs(share - 0.5) < 0.1
    q = content.get("q")
    if q is not None:
        assert np.allclose(values / q, np.round(values / q))


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ({"min": 1, "max": 5}, int),
        (of("q_uniform", min=0, max=100, q=10), int),
        (of("q_uniform", min=0, max=1, q=0.1), float),
        (of("q_log_uniform_values", min=1, max=100), int),
        (of("q_log_uniform_values", min=4, max=100, q=2), int),
        (of("q_log_normal", mu=3.0, sigma=0.5), int),
        ({"min": 1, "max": 5.0}, float),
        (of("uniform", min=1, max=5), float),
    ],
)
def test_integers_are_integers(content, kind):
    assert {type(value) for value in draws(content, 20)} == {kind}


def test_steps_have_no_digits_of_rounding():
    assert set(draws(of("q_uniform", min=0.1, max=0.7, q=0.1))) == {0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7}


def test_steps_stay_within_the_bounds():
    assert set(draws(of("q_uniform", min=1, max=29, q=10))) == {10, 20}


def test_values():
    assert set(draws({"value": 3}, 5)) == {3}
    assert set(draws({"values": ["a", None, True, 0.5]}, 50)) == {"a", None, True, 0.5}
    lists = draws({"values": [[512, 256], [64]]}, 20)
    assert [512, 256] in lists
    assert [64] in lists


@pytest.mark.parametrize("kind", ["categorical", "categorical_w_probabilities", None])
def test_probabilities(kind):
    content = {"values": ["a", "b", "c", "d"], "probabilities": [0, 3, 1, 0]} | ({"distribution": kind} if kind else {})
    values = draws(content)
    assert set(values) == {"b", "c"}
    assert abs(values.count("b") / DRAWS - 0.75) < 0.08


def test_nested_parameters_have_names_with_dots():
    found = space.read({"model": {"parameters": {"lr": {"value": 1}, "deep": {"parameters": {"x": {"value": 2}}}}}})
    assert list(found) == ["model.lr", "model.deep.x"]


def test_grid():
    parameters = space.read(
        {
            "a": {"values": [1, 2]},
            "b": of("q_uniform", min=0, max=1, q=0.5),
            "c": {"min": 3, "max": 4},
            "d": {"value": 0},
        }
    )
    everywhere = [tuple(point.values()) for point in space.grid(parameters, lambda *_: True)]
    assert everywhere[:3] == [(1, 0.0, 3, 0), (1, 0.0, 4, 0), (1, 0.5, 3, 0)]
    assert len(set(everywhere)) == len(everywhere) == 12
    points = list(space.grid(parameters, lambda name, known: name != "b" or known["a"] == 1))
    assert len(points) == 6 + 2
    assert sum("b" not in point for point in points) == 2


@pytest.mark.parametrize(
    "content", [of("uniform", min=0, max=1), of("normal"), of("q_log_uniform_values", min=1, max=9)]
)
def test_some_have_no_grid(content):
    assert space.read({"p": content})["p"].choices() is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            of("loguniform", min=1, max=2),
            "p.distribution: expected one of W&B's, got 'loguniform'; did you mean log_uni",
        ),
        (of(3, min=1, max=2), "p.distribution: expected one of W&B's, got 3; known are constant, "),
        (of("uniform", min=1), "p.max: has to be given"),
        (of("uniform", min=1, max=2, mu=3), "p.mu: unknown key; known are distribution, min, max"),
        (of("uniform", min="a", max=2), "p.min: expected a valid number, got 'a'"),
        (of("int_uniform", min=1, max=2.5), "p.max: expected a valid integer, got 2.5"),
        ({"min": 3, "max": 3}, "p: min must be less than max, got 3 and 3"),
        (of("log_uniform_values", min=0, max=1), "p.min: expected greater than 0, got 0"),
        (of("q_uniform", min=1, max=5, q=0), "p.q: expected greater than 0"),
        (of("q_uniform", min=11, max=19, q=10), "p: there is no multiple of q=10 from 11.0 to 19.0"),
        (of("normal", sigma=0), "p.sigma: expected greater than 0, got 0"),
        (of("beta", a=-1), "p.a: expected greater than 0, got -1"),
        ({"values": []}, "p.values: List should have at least 1 item"),
        ({"values": 3}, "p.values: expected a valid list, got 3"),
        ({"values": [1, 2], "probabilities": [1]}, "p: probabilities must be one for each of the 2 values"),
        ({"values": [1, 2], "probabilities": [0, 0]}, "not all 0"),
        (
            {"values": [1, 2], "probabilities": [-1, 2]},
            "p.probabilities[0]: expected greater than or equal to 0, got -1",
        ),
        (
            {"vals": [1, 2]},
            "p: expected value, values, min and max, or a distribution, got {'vals': [1, 2]}; did you mean",
        ),
        ({"min": 1}, "p: expected value, values, min and max, or a distribution"),
        (3, "p: expected value, values, or min and max, got 3"),
        ({"parameters": {}}, "p.parameters: expected parameters and their distributions, got {}"),
        ({"parameters": {"x": {"values": []}}}, "p.parameters.x.values: List should have at least 1 item"),
    ],
)
def test_what_is_wrong_is_named(content, message):
    with pytest.raises(ValueError, match="^parameters.p") as caught:
        space.read({"p": content})
    assert message in str(caught.value)


def test_all_that_is_wrong_is_said_at_once():
    with pytest.raises(ValueError, match=r"parameters.a: .*\n  parameters.b: "):
        space.read({"a": 3, "ok": {"value": 1}, "b": 4})
    for nothing in (None, {}, [1]):
        with pytest.raises(ValueError, match="parameters: expected parameters and their distributions"):
            space.read(nothing)
