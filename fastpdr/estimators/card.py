"""The model card: README.md of a saved model, in the form that Hugging Face's hub reads.

Made from what config.json and metrics.json hold, and from nothing else: it can say no more of the data or the machine
than they do, and no paths.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

SHOWN_NAMES, SHOWN_CHARACTERS = 20, 60
METHODS = {
    "ParametricTSNE": (
        "parametric t-SNE",
        "van der Maaten 2009, Learning a Parametric Embedding by Preserving Local Structure",
    ),
    "MultiscaleParametricTSNE": (
        "multiscale parametric t-SNE",
        "Crecchi, de Bodt, Verleysen, Lee & Bacciu 2020, Perplexity-free Parametric t-SNE",
    ),
    "ParametricLargeVis": (
        "parametric LargeVis",
        "Tang, Liu, Zhang & Mei 2016, Visualizing Large-scale and High-dimensional Data",
    ),
    "ParametricUMAP": (
        "parametric UMAP",
        "Sainburg, McInnes & Gentner 2021, Parametric UMAP Embeddings for Representation and Semisupervised Learning",
    ),
}


def model_card(config: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """Return the text of a model card.

    Parameters
    ----------
    config : mapping
        What config.json holds.
    metrics : mapping
        What metrics.json holds; may be empty.

    Returns
    -------
    str
        Markdown after a block of YAML.
    """
    import yaml

    name, source = METHODS[config["class"]]
    d, c = _first(config)["n_features_in_"], config["parameters"]["n_components"]
    tags = ["dimensionality-reduction", "visualization", name.lower().replace(" ", "-"), "pytorch", "scikit-learn"]
    front = yaml.safe_dump({"library_name": "fastpdr", "tags": tags}, sort_keys=False)
    sections = {
        "Use": _use(config, d, c),
        "Data": _table(_data(config)),
        "Training": _table(_training(config)),
        "Metrics": _table(_flat(metrics)),
        "Versions": _table(config["versions"].items()),
    }
    title = f"# {config['class']}: {d} columns to {c}"
    about = (
        f"A neural network that places rows of {d} numbers on a map of {c} dimensions, each row on its own. It was "
        f"learnt by {name} ({source}). `config.json` holds all settings, the `.safetensors` files all weights; there "
        "is no pickle and no row of the training data."
    )
    parts = [title, about, *(f"## {heading}\n\n{text}" for heading, text in sections.items() if text)]
    return f"---\n{front}---\n\n" + "\n\n".join(parts) + "\n"


def _use(config: Mapping[str, Any], d: int, c: int) -> str:
    own = {name: config[name] for name in ("encoder", "decoder") if config.get(name, "built-in") != "built-in"}
    given = "".join(f", {name}={kind}()" for name, kind in own.items())
    folder = "path/to/this/folder"
    lines = [
        "import fastpdr",
        "",
        f'model = fastpdr.load("{folder}"{given})' + ("  # networks like those that were trained" if own else ""),
        f"Z = model.transform(X)  # rows [n, {d}] as they are in the data, places [n, {c}]",
    ]
    if "decoder" in config:
        lines.append("X = model.inverse_transform(Z)  # what would lie there")
    if (config.get("labels") or {}).get("classes") is not None:
        lines.append(f'kinds = fastpdr.load_label_encoder("{folder}").classes_')
    return "\n".join(["```python", *lines, "```"])


def _data(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    fitted, first, labels = config["fitted"], _first(config), config.get("labels") or {}
    steps = config.get("pipeline", {}).get("steps", [])
    if fitted.get("n_samples_seen_") is not None:
        yield "rows", fitted["n_samples_seen_"]
    yield "columns", first["n_features_in_"]
    if "feature_names_in_" in first:
        yield "names of the columns", _listed(first["feature_names_in_"])
    if steps:
        yield "preprocessing, part of the model", ", ".join(_call(step) for step in steps)
    if labels.get("column") is not None:
        yield "column of the labels", _code(labels["column"])
    if labels.get("classes") is not None:
        yield "labels", _listed(labels["classes"])


def _first(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the first step of the model knows, which is the one that saw the data as it is."""
    steps = config.get("pipeline", {}).get("steps")
    return (steps[0] if steps else config)["fitted"]


def _training(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    fitted = config["fitted"]
    yield "epochs", fitted["n_iter_"]
    yield "final loss", _number(fitted["loss_history_"][-1])
    if fitted.get("training_seconds_") is not None:
        yield "seconds", f"{fitted['training_seconds_']:.1f}"
    for name, value in config["parameters"].items():
        if name != "verbose" and _differs(value, _defaults(config["class"]).get(name)):
            yield f"`{name}`", _code(value)
    if config["omitted_parameters"]:
        yield "given, but of no form in JSON", _listed(config["omitted_parameters"])
    yield "all other parameters", f"as by default in fastpdr {config['fastpdr_version']}"


def _defaults(class_name: str) -> dict[str, Any]:
    from fastpdr import estimators

    parameters = inspect.signature(getattr(estimators, class_name)).parameters
    return {name: parameter.default for name, parameter in parameters.items()}


def _differs(value: Any, default: Any) -> bool:
    return value != (list(default) if isinstance(default, tuple) else default)


def _flat(metrics: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}, ")
        else:
            yield _text(f"{prefix}{name}"), _number(value)


def _call(step: Mapping[str, Any]) -> str:
    components = step["fitted"].get("n_components_")
    return f"`{step['class']}`" + (f" to {components} components" if components else "")


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else _text(value)


def _listed(names: Sequence[Any]) -> str:
    shown = ", ".join(_code(name) for name in names[:SHOWN_NAMES])
    return f"{shown}, ... ({len(names)} in all)" if len(names) > SHOWN_NAMES else shown


def _code(value: Any) -> str:
    text = _text(value)
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def _text(value: Any) -> str:
    """One line for a cell of a table, cut where it is long."""
    text = " ".join(str(value).split())
    return (text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 3] + "...").replace("|", r"\|")


def _table(rows: Any) -> str:
    lines = [f"| {name} | {value} |" for name, value in rows]
    return "\n".join(["| | |", "|---|---|", *lines]) if lines else ""
