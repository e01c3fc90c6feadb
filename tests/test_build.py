"""What is compiled, how a backend is forced, and what importing the package costs."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError

import numpy as np
import pytest
import torch

import fastpdr
from fastpdr import _native

native = pytest.mark.skipif(not fastpdr.build_info()["native"], reason="no compiled kernels")
CPU_ALONE = {"coranking"}


def run(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    settings = {**os.environ, **environment}
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=settings)


def test_build_info_says_what_there_is():
    info = fastpdr.build_info()
    assert info["version"] == fastpdr.__version__
    assert set(info["kernels"]) == set(_native.OPS)
    assert info["threads"] == torch.get_num_threads()
    assert list(info["devices"]) == ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if info["version"] != "0+unknown":  # of a checkout that is not installed nobody knows what it needs
        assert set(info["packages"]) >= {"click", "numpy", "scikit-learn"}
        assert info["packages"]["numpy"] == np.__version__
    assert not {"pytest", "torch", "fastpdr"} & set(info["packages"])
    if info["native"]:
        assert info["simd_used"] in info["simd_compiled"]
        devices = ["cpu", "cuda"] if info["cuda_architectures"] else ["cpu"]
        for op, kernels in info["kernels"].items():
            assert kernels == (["cpu"] if op in CPU_ALONE else devices), op
    else:
        assert info["reason"]


def test_packages_are_those_that_are_there(monkeypatch):
    known = {"click": "8.5", "matplotlib": "3.9"}

    def version(name):
        if name not in known:
            raise PackageNotFoundError(name)
        return known[name]

    extras = [f"{name}>=1; extra == '{extra}'" for name, extra in (("matplotlib", "plot"), ("ruff", "lint"))]
    monkeypatch.setattr(_native, "requires", lambda _: ["torch>=2", "click (>=8)", "pandas[x]<3", *extras])
    monkeypatch.setattr(_native, "version", version)
    assert _native._packages() == known

    def not_installed(_):
        raise PackageNotFoundError

    monkeypatch.setattr(_native, "requires", not_installed)
    assert _native._packages() == {}


def test_reference_can_be_forced():
    program = "import fastpdr; info = fastpdr.build_info(); print(info['native'], info['kernels']['student_t_kl'])"
    result = run(program, FASTPDR_BACKEND="reference")
    assert result.stdout.strip() == "False []"


@native
def test_native_can_be_forced_and_then_refuses_what_it_cannot():
    program = "import torch, fastpdr; fastpdr.ops.perplexity_search(torch.ones(2, 3, dtype=torch.float64), 2.0)"
    result = run(program, FASTPDR_BACKEND="native")
    assert "FASTPDR_BACKEND=native, but perplexity_search has no kernel for torch.float64 on cpu" in result.stderr


def test_unknown_backend_is_an_error():
    result = run("import fastpdr", FASTPDR_BACKEND="fortran")
    assert "FASTPDR_BACKEND must be 'native' or 'reference', got 'fortran'" in result.stderr


def test_missing_module_is_an_error_only_where_native_is_forced():
    block = "import sys; sys.modules['fastpdr._C'] = None; import fastpdr; print(fastpdr.build_info()['native'])"
    assert run(block, FASTPDR_BACKEND="auto").stdout.strip() == "False"
    assert "the compiled module cannot be loaded" in run(block, FASTPDR_BACKEND="native").stderr


@pytest.mark.skipif(not fastpdr.build_info().get("cuda_architectures"), reason="built without CUDA kernels")
def test_cuda_kernels_are_registered_beside_any_torch():
    assert fastpdr.build_info()["cuda_architectures"] == ["sm_80", "sm_90", "compute_90"]
    for op in _native.OPS:
        there = torch._C._dispatch_has_kernel_for_dispatch_key(f"fastpdr::{op}", "CUDA")
        assert there == (op not in CPU_ALONE), op


@native
def test_the_three_instruction_sets_are_in_the_binary():
    assert fastpdr.build_info()["simd_compiled"][0] == "baseline"


def test_import_leaves_heavy_packages_alone():
    heavy = [
        "sklearn",
        "scipy",
        "matplotlib",
        "plotly",
        "pandas",
        "pyarrow",
        "click",
        "openTSNE",
        "numba",
        "umap",
        "faiss",
    ]
    program = f"import sys, fastpdr; print([name for name in {heavy} if name in sys.modules])"
    assert run(program).stdout.strip() == "[]"


def test_everything_named_can_be_had():
    assert all(getattr(fastpdr, name) is not None for name in fastpdr.__all__)
    assert dir(fastpdr) == sorted(fastpdr.__all__)
    with pytest.raises(AttributeError, match="no attribute 'UMAP'"):
        fastpdr.UMAP  # noqa: B018


def test_float_behaviour_of_the_process_is_left_alone():
    """A library linked with -ffast-math would flush subnormal numbers to zero for everyone."""
    program = "import fastpdr, numpy as np; print(np.float32(1e-40) * np.float32(1.0) > 0)"
    assert run(program).stdout.strip() == "True"
