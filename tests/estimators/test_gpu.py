"""Where rows are kept, in which precision they are placed, what is said where memory ends; and fits on a GPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import no_gpu
from torch import nn

from fastpdr import MultiscaleParametricTSNE, ParametricLargeVis, ParametricTSNE, ParametricUMAP
from fastpdr._precision import full_float32
from fastpdr.data import open_rows
from fastpdr.estimators import base, resolve
from fastpdr.metrics import trustworthiness

pytestmark = pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning")
SWITCHES = (torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.mkldnn.matmul)
FITS = [
    (ParametricTSNE, {}),
    (ParametricTSNE, {"affinity": "knn", "perplexity": 5}),
    (MultiscaleParametricTSNE, {}),
    (ParametricLargeVis, {"perplexity": 5}),
    (ParametricUMAP, {}),
    (ParametricUMAP, {"parametric_reconstruction": True}),
]


@pytest.fixture
def X(rng):
    centres = 4 * rng.normal(size=(5, 8))
    return (centres[rng.integers(5, size=400)] + rng.normal(size=(400, 8))).astype(np.float32)


@pytest.fixture
def tf32_allowed():
    """As a user may have asked for, for other work."""
    before = [switch.fp32_precision for switch in SWITCHES]
    torch.backends.cuda.matmul.allow_tf32 = True
    yield
    torch.backends.cuda.matmul.allow_tf32 = False
    for switch, precision in zip(SWITCHES, before, strict=True):
        switch.fp32_precision = precision


class Watching(nn.Linear):
    """A network that notes the precision it is run in."""

    def forward(self, x):
        self.seen = [switch.fp32_precision for switch in SWITCHES]
        return super().forward(x)


@pytest.mark.usefixtures("tf32_allowed")
def test_rows_are_placed_in_full_float32_and_switches_are_put_back(X):
    before = [switch.fp32_precision for switch in SWITCHES]
    assert "tf32" in before
    network = Watching(8, 2)
    resolve.place(network, open_rows("test", X), 2)
    assert "tf32" not in network.seen
    assert [switch.fp32_precision for switch in SWITCHES] == before
    assert torch.backends.cuda.matmul.allow_tf32


@pytest.mark.usefixtures("tf32_allowed")
def test_switches_are_put_back_after_an_error():
    before = [switch.fp32_precision for switch in SWITCHES]
    with pytest.raises(KeyError), full_float32():
        raise KeyError
    assert [switch.fp32_precision for switch in SWITCHES] == before


@pytest.mark.parametrize(("free", "home"), [(2**40, "cuda"), (1_000_000, "cpu")])
def test_rows_are_kept_where_they_fit(free, home, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, free))
    assert resolve.home_of(700_000, torch.device("cuda")).type == home
    assert resolve.home_of(2**50, torch.device("cpu")).type == "cpu"


def test_the_margin_is_of_free_memory(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (1000, 9999))
    assert resolve.home_of(600, torch.device("cuda")).type == "cuda"
    assert resolve.home_of(601, torch.device("cuda")).type == "cpu"


@pytest.mark.parametrize("part", ["fit", "transform"])
def test_where_memory_ends_the_error_says_how_much_was_asked_and_what_to_change(part, X, monkeypatch):
    umap = ParametricUMAP(n_epochs=1, hidden_dims=(8,))
    if part == "transform":
        umap.fit(X)

    def fail(*arguments, **settings):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 98.00 GiB. GPU 0 has ...\nmore")

    monkeypatch.setattr(base, "train" if part == "fit" else "place", fail)
    with pytest.raises(torch.OutOfMemoryError, match="98.00 GiB") as error:
        getattr(umap, part)(X)
    assert str(error.value).startswith("ParametricUMAP: no memory for X of shape (400, 8): ")
    assert ("batch_size" if part == "fit" else "fewer rows at a time") in str(error.value)
    assert "device='cpu'" in str(error.value)


def test_a_graphics_card_that_is_not_there_is_named(X):
    number = torch.cuda.device_count()
    with pytest.raises(ValueError, match=f"device must be .*got 'cuda:{number}'"):
        ParametricUMAP(device=f"cuda:{number}").fit(X)


@no_gpu
@pytest.mark.parametrize(("cls", "settings"), FITS)
@pytest.mark.parametrize("host", [False, True])
def test_fits_on_a_gpu(cls, settings, host, X, monkeypatch):
    """With the rows there, and with rows of the host."""
    if host:
        monkeypatch.setattr(base, "home_of", lambda *_: torch.device("cpu"))
    model = cls(device="cuda", random_state=0, hidden_dims=(64, 64), batch_size=100, n_epochs=20, **settings).fit(X)
    assert next(model.encoder_.parameters()).is_cuda
    assert trustworthiness(X, model.embedding_) > 0.75
    assert np.array_equal(model.transform(X), model.embedding_)
    alone = np.concatenate([model.transform(X[i : i + 1]) for i in range(10)])
    np.testing.assert_allclose(alone, model.embedding_[:10], rtol=1e-4, atol=1e-4)


@no_gpu
@pytest.mark.parametrize("encoder", [nn.BatchNorm1d(16), nn.Dropout(0.1)], ids=["BatchNorm", "Dropout"])
def test_own_networks_are_recorded(encoder, X, caplog):
    network = nn.Sequential(nn.Linear(8, 16), encoder, nn.ReLU(), nn.Linear(16, 2))
    with caplog.at_level("INFO", "fastpdr"):
        ParametricUMAP(encoder=network, device="cuda", random_state=0, n_epochs=5).fit(X)
    assert not [record for record in caplog.records if "CUDA graph" in record.message]


@no_gpu
def test_memory_of_a_gpu_that_is_not_there(X):
    network = nn.Sequential(nn.Linear(8, 2**20), nn.Linear(2**20, 2))
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(64 * 2**20 / torch.cuda.get_device_properties(0).total_memory)
    try:
        with pytest.raises(torch.OutOfMemoryError, match=r"ParametricUMAP.*no memory for X of shape \(400, 8\)"):
            ParametricUMAP(encoder=network, device="cuda", n_epochs=1).fit(X)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
