"""The examples in docstrings run as printed; trainings of automatic length take one epoch."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import fastpdr


def examples():
    """Every docstring of the package that has examples."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    names = [module.name for module in pkgutil.walk_packages(fastpdr.__path__, "fastpdr.")]
    modules = [importlib.import_module(name) for name in names if not name.endswith(("._C", ".__main__"))]
    return {test.name: test for module in modules for test in finder.find(module) if test.examples}


EXAMPLES = examples()


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples(name, tmp_path, monkeypatch, one_epoch):
    monkeypatch.chdir(tmp_path)
    report = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    runner.run(EXAMPLES[name], out=report.append)
    assert runner.failures == 0, "".join(report)
