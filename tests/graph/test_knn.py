"""KNNGraph: exact results, the row itself never among its neighbours, every kind of input, recall, files, errors."""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch
from conftest import no_gpu
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from fastpdr import KNNGraph, _progress
from fastpdr.graph import _rows, inverted, knn, search

METRICS = {
    "euclidean": "euclidean",
    "cosine": "cosine",
    "manhattan": "cityblock",
    "chebyshev": "chebyshev",
    "braycurtis": "braycurtis",
}
BACKENDS = ["faiss", "torch"] if search.has_faiss() else ["torch"]
needs_faiss = pytest.mark.skipif(not search.has_faiss(), reason="FAISS is not installed")


@pytest.fixture
def points(rng):
    return rng.standard_normal((400, 7)).astype(np.float32)


@pytest.fixture
def clusters(rng):
    """[6000, 40] float32 in 60 clusters, 300 rows of them twice."""
    centres = rng.standard_normal((60, 40)) * 3
    x = (centres[rng.integers(60, size=5700)] + rng.standard_normal((5700, 40))).astype(np.float32)
    return np.concatenate([x, x[:300]])


@pytest.fixture
def forced_lists(monkeypatch):
    """The approximate search whatever the size."""
    pytest.importorskip("faiss")
    monkeypatch.setattr(inverted, "EXACT_OPERATIONS", 0)


def require_proper(graph: KNNGraph) -> None:
    assert graph.indices.dtype == np.int64
    assert graph.distances.dtype == np.float32
    assert graph.indices.shape == graph.distances.shape == (graph.n, graph.k)
    assert graph.indices.min() >= 0
    assert graph.indices.max() < graph.n
    assert (graph.indices != np.arange(graph.n)[:, None]).all()
    named = np.sort(graph.indices, axis=1)
    assert (named[:, 1:] != named[:, :-1]).all()
    assert (np.diff(graph.distances, axis=1) >= 0).all()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_exact_distances(points, metric, backend, close):
    if (backend, metric) == ("torch", "braycurtis"):
        pytest.skip("PyTorch has no Bray-Curtis distance")
    x = np.abs(points) if metric == "braycurtis" else points
    graph = KNNGraph.build(x, 9, metric=metric, backend=backend)
    require_proper(graph)
    distances = cdist(x.astype(float), x.astype(float), METRICS[metric])
    found = np.array(graph.distances)
    close(np.take_along_axis(distances, graph.indices, 1), found, 1e-6)
    np.fill_diagonal(distances, np.inf)
    close(found, np.sort(distances, axis=1)[:, :9], 1e-6)


def test_scikit_learn_finds_the_same(points):
    expected = NearestNeighbors(n_neighbors=12).fit(points.astype(float)).kneighbors(return_distance=False)
    for backend in BACKENDS:
        assert np.array_equal(KNNGraph.build(points, 12, backend=backend).indices, expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_others(points, backend):
    graph = KNNGraph.build(points[:30], 29, backend=backend)
    require_proper(graph)
    assert KNNGraph.build(points[:2], 1, backend=backend).indices.tolist() == [[1], [0]]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("offset", [0.0, 1e4, 1e8])
def test_duplicates_are_at_distance_zero(rng, backend, offset):
    x = rng.standard_normal((300, 20)) + offset
    x = np.concatenate([x, x[:100]])
    graph = KNNGraph.build(x, 5, backend=backend)
    require_proper(graph)
    assert (graph.distances[:100, 0] == 0).all()
    assert (graph.indices[300:, 0] == np.arange(100)).all()
    assert (graph.distances[100:300, 0] > 0).all()


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("value", [0.0, 3.0])
def test_all_rows_equal(backend, metric, value):
    graph = KNNGraph.build(np.full((70, 4), value), 6, backend=backend, metric=metric)
    require_proper(graph)
    assert (graph.distances == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_close_rows_far_from_the_centre(rng, backend):
    """Two groups too far apart for the Gram form: squared distances of 1e-4 beside norms of 1e8."""
    x = np.concatenate([rng.standard_normal((100, 5)) * 1e-2 + 1e4, rng.standard_normal((100, 5)) * 1e-2 - 1e4])
    x = x.astype(np.float32)
    expected = NearestNeighbors(n_neighbors=5).fit(x.astype(float)).kneighbors()[0]
    np.testing.assert_allclose(KNNGraph.build(x, 5, backend=backend).distances, expected, rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-25, 1e25])
@pytest.mark.parametrize("backend", BACKENDS)
def test_extreme_scales(points, backend, scale):
    graph = KNNGraph.build(points.astype(float) * scale, 4, backend=backend)
    expected = KNNGraph.build(points, 4)
    assert np.array_equal(graph.indices, expected.indices)
    np.testing.assert_allclose(graph.distances, expected.distances * scale, rtol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_cosine_of_rows_of_zeros(points, backend):
    x = points.copy()
    x[[3, 8]] = 0
    graph = KNNGraph.build(x, 399, metric="cosine", backend=backend)
    assert graph.indices[3, 0] == 8
    assert graph.distances[3, 0] == 0
    np.testing.assert_allclose(graph.distances[3, 1:], 1.0, rtol=1e-6)


def inputs(x, folder):
    """The same numbers (small integers) as everything that is accepted."""
    path = folder / "rows.npy"
    np.save(path, x.astype(np.float64))
    return {
        "float64": x.astype(np.float64),
        "float16": x.astype(np.float16),
        "uint8": x.astype(np.uint8),
        "int64": x.astype(np.int64),
        "bool": x > 0,
        "list": x.tolist(),
        "object": x.astype(object),
        "fortran": np.asfortranarray(x),
        "strided": np.repeat(x, 2, axis=1)[:, ::2],
        "memmap": np.load(path, mmap_mode="r"),
        "csr": scipy.sparse.csr_matrix(x),
        "csc": scipy.sparse.csc_array(x.astype(np.float64)),
        "tensor": torch.from_numpy(x),
        "bfloat16": torch.from_numpy(x).bfloat16(),
        "int tensor": torch.from_numpy(x).int(),
        "gradient": torch.from_numpy(x).requires_grad_(),
    }


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_inputs_agree(rng, tmp_path, metric, monkeypatch):
    monkeypatch.setattr("fastpdr.graph._rows.BLOCK_ELEMENTS", 100)
    x = rng.integers(0, 2, (90, 12)).astype(np.float32)
    for backend in BACKENDS:
        expected = KNNGraph.build(x, 5, metric=metric, backend=backend)
        for name, value in inputs(x, tmp_path).items():
            graph = KNNGraph.build(value, 5, metric=metric, backend=backend)
            np.testing.assert_allclose(graph.distances, expected.distances, atol=1e-6, err_msg=name)


def test_the_input_is_searched_without_a_copy_and_left_alone(points):
    before = points.copy()
    assert np.shares_memory(_rows.prepare("f", points, "euclidean").matrix.numpy(), points)
    points.flags.writeable = False
    KNNGraph.build(points, 3)
    assert np.array_equal(points, before)


def test_blocks_of_the_torch_search(points, monkeypatch):
    expected = KNNGraph.build(points, 6, backend="torch")
    monkeypatch.setattr(search, "TORCH_ELEMENTS", 1000)
    monkeypatch.setattr(search, "QUERIES_AT_ONCE", 33)
    for backend in BACKENDS:
        assert np.array_equal(KNNGraph.build(points, 6, backend=backend).indices, expected.indices)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.usefixtures("forced_lists")
def test_lists_reach_the_recall_they_state(clusters, metric):
    graph = KNNGraph.build(clusters, 15, metric=metric, random_state=0)
    require_proper(graph)
    assert graph.settings["index"].startswith("PCAR40,IVF")
    assert graph.settings["recall"] >= 0.95
    assert abs(graph.recall(sample=2000) - graph.settings["recall"]) < 0.02
    exact = KNNGraph.build(clusters, 15, metric=metric, backend="torch")
    assert exact.recall(sample=500) == 1.0
    known = [np.isin(a, b).mean() for a, b in zip(graph.indices, exact.indices, strict=True)]
    assert np.mean(known) > 0.94


@pytest.mark.usefixtures("forced_lists")
def test_lists_of_few_columns(rng):
    x = rng.standard_normal((4000, 3))
    graph = KNNGraph.build(x, 10, random_state=0)
    require_proper(graph)
    assert graph.settings["index"].endswith("Flat")
    assert graph.settings["recall"] >= 0.95


@pytest.mark.usefixtures("forced_lists")
def test_lists_and_duplicates(clusters, monkeypatch):
    x = np.repeat(clusters[:60], 25, axis=0)  # more copies than neighbours
    for data in (x, np.ones((1500, 30))):
        graph = KNNGraph.build(data, 15, random_state=0)
        require_proper(graph)
        assert (graph.distances == 0).all()
        assert graph.recall() == 1.0
    monkeypatch.setattr(inverted, "FIRST_PROBES", 1)
    monkeypatch.setattr(inverted, "SEARCHED_RECALL", 0.0)  # the first list holds fewer than k rows
    require_proper(KNNGraph.build(clusters, 200, random_state=0))


@pytest.fixture(params=["exact", "lists"])
def large(request, monkeypatch):
    """Rows that stay as they are stored, whatever their size, and are seen in small parts."""
    if request.param == "lists":
        pytest.importorskip("faiss")
    monkeypatch.setattr(inverted, "EXACT_OPERATIONS", 0 if request.param == "lists" else 1e30)
    monkeypatch.setattr(_rows, "LARGE_BYTES", 0)
    monkeypatch.setattr(_rows, "BLOCK_ELEMENTS", 40 * 700)
    monkeypatch.setattr(search, "GATHERED_ELEMENTS", 40 * 1000)


def as_stored(name, clusters, tmp_path):
    """Rows of 16 and 8 bits, in memory and in a file, near the origin and far from it, some of them nothing but 0."""
    x = np.concatenate([clusters[:1700], clusters[:300]]).astype(np.float16)
    x[7] = x[8] = 0
    if name == "bytes":
        return np.clip(x * 8 + 128, 0, 255).astype(np.uint8)
    if name == "far":
        return (x + 300).astype(np.float16)
    if name == "file":
        np.save(tmp_path / "rows.npy", x)
        return np.load(tmp_path / "rows.npy", mmap_mode="r")
    return x


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("name", ["halves", "bytes", "far", "file"])
@pytest.mark.usefixtures("large")
def test_rows_that_stay_as_they_are_stored(name, metric, clusters, tmp_path, monkeypatch):
    x = as_stored(name, clusters, tmp_path)
    assert isinstance(_rows.prepare("f", x, metric), _rows.StoredRows)
    graph = KNNGraph.build(x, 15, metric=metric, random_state=0)
    require_proper(graph)
    assert (graph.distances[:300, 0] == 0).sum() >= 298  # duplicates, but for the two that were made 0
    assert graph.recall(sample=300) >= 0.95
    monkeypatch.setattr(_rows, "LARGE_BYTES", 1 << 27)
    expected = KNNGraph.build(x, 15, metric=metric, random_state=0)
    if metric == "euclidean" and name in ("halves", "file"):  # nothing is rounded
        assert np.array_equal(graph.distances, expected.distances)
    elif graph.settings["index"] == "exact":
        np.testing.assert_allclose(graph.distances, expected.distances, rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("large")
def test_rows_too_large_for_the_memory_are_read_again_and_again(clusters, tmp_path, monkeypatch, caplog):
    np.save(tmp_path / "rows.npy", clusters[:2000].astype(np.float64))
    x = np.load(tmp_path / "rows.npy", mmap_mode="r")
    expected = KNNGraph.build(np.array(x), 10, random_state=0)
    monkeypatch.setattr(_rows, "free_host_memory", lambda: 1000)
    with caplog.at_level(logging.INFO, "fastpdr"):
        graph = KNNGraph.build(x, 10, random_state=0)
    assert "2000 rows of 320 bytes are read from their file again and again" in caplog.text
    np.testing.assert_allclose(graph.distances, expected.distances, rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("large")
def test_sparse_rows_too_large_to_be_dense_stay_sparse(rng, monkeypatch):
    x = scipy.sparse.random(1500, 40, 0.2, format="csr", dtype=np.float32, random_state=0)
    expected = KNNGraph.build(x, 10, random_state=0)
    monkeypatch.setattr(_rows, "free_host_memory", lambda: 1000)
    assert isinstance(_rows.prepare("f", x, "euclidean"), _rows.StoredRows)
    graph = KNNGraph.build(x, 10, random_state=0)
    np.testing.assert_allclose(graph.distances, expected.distances, rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("forced_lists")
def test_rows_that_lists_do_not_help_are_searched_exactly(rng, caplog):
    with caplog.at_level(logging.INFO, "fastpdr"):
        graph = KNNGraph.build(rng.standard_normal((1500, 400)), 15, random_state=0)
    assert dict(graph.settings) == {"backend": "faiss", "index": "exact"}
    assert graph.recall() == 1.0
    assert "lists would not reach" in caplog.text


@pytest.mark.usefixtures("forced_lists")
def test_the_same_seed_finds_the_same(clusters):
    first = KNNGraph.build(clusters, 15, random_state=3)
    for seed in (3, np.int64(3)):
        again = KNNGraph.build(clusters, 15, random_state=seed)
        assert np.array_equal(first.indices, again.indices)
        assert np.array_equal(first.distances, again.distances)
    KNNGraph.build(clusters, 15, random_state=np.random.default_rng(0))
    KNNGraph.build(clusters, 15, random_state=np.random.RandomState(0))
    KNNGraph.build(clusters, 15)


@needs_faiss
def test_lists_are_learnt_alike_by_any_number_of_threads(rng):
    faiss = search.import_faiss()
    matrix = torch.from_numpy(rng.standard_normal((9000, 700)).astype(np.float32))
    learnt = []
    for count in (1, 2):
        with threadpool_limits(count):
            made = inverted._build(
                _rows.Rows(matrix, "euclidean", 1.0), 5, True, np.random.default_rng(0), knn._progress(False)
            )
        learnt.append(faiss.vector_to_array(faiss.downcast_VectorTransform(made.index.chain.at(0)).A))
    assert np.array_equal(*learnt)


def test_threads_are_put_back(points):
    faiss = pytest.importorskip("faiss")
    before = torch.get_num_threads(), faiss.omp_get_max_threads()
    for n_jobs in (1, np.int64(2), -1, None):
        for backend in BACKENDS:
            KNNGraph.build(points, 3, n_jobs=n_jobs, backend=backend)
            assert (torch.get_num_threads(), faiss.omp_get_max_threads()) == before


def test_without_faiss(points, monkeypatch, caplog):
    for module in (knn, search):
        monkeypatch.setattr(module, "has_faiss", lambda: False)
    with caplog.at_level(logging.INFO, "fastpdr"):
        graph = KNNGraph.build(points, 4)
    assert graph.backend == "torch"
    assert "FAISS is not installed" in caplog.text
    monkeypatch.undo()
    assert np.array_equal(graph.indices, KNNGraph.build(points, 4).indices)


def test_faiss_demanded_but_missing(points, monkeypatch):
    monkeypatch.setattr(knn, "has_faiss", lambda: False)
    with pytest.raises(ImportError, match="pip install faiss-cpu"):
        KNNGraph.build(points, 4, backend="faiss")
    with pytest.raises(ValueError, match="metric must be one that PyTorch searches"):
        KNNGraph.build(points, 4, metric="braycurtis")


@pytest.mark.usefixtures("forced_lists")
def test_verbose_says_index_and_recall(clusters, capsys, monkeypatch):
    KNNGraph.build(clusters, 5, verbose=True, random_state=0)
    said = capsys.readouterr().err
    assert "PCAR40,IVF" in said
    assert "recall=" in said
    assert "row/s" not in said  # no terminal
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(_progress, "DELAY", 0)
    KNNGraph.build(clusters, 5, verbose=True, random_state=0)
    assert "row/s" in capsys.readouterr().err


def test_verbose_says_nothing_of_an_exact_search(clusters, capsys):
    KNNGraph.build(clusters[:100], 5, verbose=True)
    assert capsys.readouterr().err == ""


def test_import_stays_light():
    code = (
        "import sys, fastpdr; print(sorted({'faiss', 'scipy', 'sklearn'} & set(sys.modules)), 'graph' in dir(fastpdr))"
    )
    root = Path(__file__).parents[2]
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert result.stdout.split() == ["[]", "True"]


def test_take(points):
    graph = KNNGraph.build(points, 12)
    few = graph.take(5)
    assert np.array_equal(few.indices, KNNGraph.build(points, 5).indices)
    assert few.recall() == 1.0
    for k in (0, 13, 2.0, True):
        with pytest.raises(ValueError, match=r"KNNGraph.take: k must be an integer from 1 to the graph's k = 12, got"):
            graph.take(k)


def test_recall_is_measured(points):
    right = KNNGraph.build(points, 8)
    assert right.recall(sample=100) == right.recall(points) == 1.0
    indices, distances = right.indices.copy(), right.distances.copy()
    far = KNNGraph.build(points, 399)
    indices[:, -2:], distances[:, -2:] = far.indices[:, -2:], far.distances[:, -2:]
    wrong = KNNGraph.from_precomputed(indices, distances)
    assert wrong.recall(points, sample=10_000) == 0.75
    noisy = KNNGraph.from_precomputed(right.indices, np.sort(right.distances * 1.01))  # measured less well
    assert noisy.recall(points) == 1.0
    assert KNNGraph.build(points, 8, metric="manhattan").recall() == 1.0
    with pytest.raises(ValueError, match="X must be given for a graph that was loaded or precomputed"):
        wrong.recall()
    with pytest.raises(ValueError, match="X must have the graph's 400 rows, got 399"):
        wrong.recall(points[1:])
    with pytest.raises(ValueError, match=r"recall: metric must be one of .*, got 'mine'"):
        KNNGraph.from_precomputed(indices, distances, metric="mine").recall(points)


def test_a_graph_is_a_value(points):
    graph = KNNGraph.build(points, 3)
    with pytest.raises(AttributeError):
        graph.metric = "cosine"
    with pytest.raises(ValueError, match="read-only"):
        graph.indices[0, 0] = 1
    with pytest.raises(TypeError):
        graph.settings["backend"] = "torch"
    assert (graph.n, graph.k, graph.backend) == (400, 3, BACKENDS[0])
    assert repr(graph) == f"KNNGraph(n=400, k=3, metric='euclidean', backend={BACKENDS[0]!r}, index='exact')"
    copy = pickle.loads(pickle.dumps(graph))
    assert np.array_equal(copy.distances, graph.distances)
    assert copy.settings == graph.settings


def test_save_and_load(points, tmp_path):
    graph = KNNGraph.build(points, 6, metric="cosine")
    path = tmp_path / "graph"  # no ending is added
    graph.save(path)
    graph.save(path)
    assert os.listdir(tmp_path) == ["graph"]
    loaded = KNNGraph.load(path)
    assert np.array_equal(loaded.indices, graph.indices)
    assert np.array_equal(loaded.distances, graph.distances)
    assert (loaded.metric, loaded.settings) == (graph.metric, graph.settings)
    assert loaded.recall(points) == 1.0
    with pytest.raises(ValueError, match="X must be given"):
        loaded.recall()


def test_load_refuses_other_files(tmp_path):
    path = tmp_path / "file"
    with pytest.raises(FileNotFoundError):
        KNNGraph.load(path)
    with open(path, "wb") as file:
        pickle.dump([1, 2], file)
    with pytest.raises(ValueError, match=r"KNNGraph.load: path must be a graph that KNNGraph.save wrote, got"):
        KNNGraph.load(path)
    for contents in ({"x": np.ones(3)}, {"about": np.array("{}")}, {"about": np.array([1], dtype=object)}):
        with open(path, "wb") as file:
            np.savez(file, indices=np.ones((2, 1)), distances=np.ones((2, 1)), **contents)
        with pytest.raises(ValueError, match=r"KNNGraph.load: path must be a graph"):
            KNNGraph.load(path)
    with open(path, "wb") as file:
        about = np.array('{"format": "other", "metric": "euclidean", "settings": {}}')
        np.savez(file, indices=np.ones((2, 1)), distances=np.ones((2, 1)), about=about)
    with pytest.raises(ValueError, match="of the format 'fastpdr.KNNGraph 1', got 'other'"):
        KNNGraph.load(path)


@pytest.mark.parametrize("place", [0, 2, 4])
def test_precomputed_with_self(points, place):
    graph = KNNGraph.build(points, 4)
    own = np.arange(400)[:, None]
    indices = np.insert(graph.indices, [place], own, axis=1)
    distances = np.insert(graph.distances, [place], 0.0, axis=1)
    for arrays in ((indices, distances), (indices.tolist(), distances.tolist()), (indices.astype(np.int32), distances)):
        taken = KNNGraph.from_precomputed(*arrays, metric="cosine")
        assert np.array_equal(taken.indices, graph.indices)
        assert np.array_equal(taken.distances, graph.distances)
        assert (taken.metric, taken.backend) == ("cosine", "precomputed")


def test_precomputed_is_brought_into_form(points):
    graph = KNNGraph.build(points, 4)
    reverse = KNNGraph.from_precomputed(torch.from_numpy(graph.indices[:, ::-1].copy()), graph.distances[:, ::-1])
    assert np.array_equal(reverse.indices, graph.indices)
    partly = KNNGraph.from_precomputed([[0, 1, 2], [0, 2, 3], [2, 1, 0], [1, 0, 2]], np.tile([0.0, 1.0, 2.0], (4, 1)))
    assert partly.indices.tolist() == [[1, 2], [0, 2], [1, 0], [1, 0]]


def test_precomputed_with_missing_neighbours():
    indices = [[-1, 1, 2], [0, 2, -1], [-1, -1, -1]]
    distances = [[np.inf, 2.0, 1.0], [1.0, 2.0, 7.0], [np.inf, np.inf, np.inf]]
    graph = KNNGraph.from_precomputed(indices, distances)
    assert graph.indices.tolist() == [[2, 1, -1], [0, 2, -1], [-1, -1, -1]]
    assert graph.distances[:, 2].tolist() == [np.inf] * 3
    unreachable = KNNGraph.from_precomputed([[1, 2], [0, 2], [0, 1]], [[1.0, np.inf], [1.0, np.inf], [np.inf, np.inf]])
    assert unreachable.indices.tolist() == [[1, -1], [0, -1], [-1, -1]]


@pytest.mark.parametrize(
    ("indices", "distances", "message"),
    [
        ([1, 0], [1.0, 1.0], r"indices must be integers \[n, k\], got int64 \[2\]"),
        ([[1.0], [0.0]], [[1.0], [1.0]], r"indices must be integers \[n, k\], got float64 \[2, 1\]"),
        ([[1], [0]], [["a"], ["b"]], r"distances must be numbers \[n, k\], got <U1 \[2, 1\]"),
        (np.zeros((0, 2), int), np.zeros((0, 2)), r"indices must be integers \[n, k\], got int64 \[0, 2\]"),
        ([[1], [0]], [[1.0]], r"distances must have the shape of indices, \[2, 1\], got \[1, 1\]"),
        ([[2], [0]], [[1.0], [1.0]], "indices must be rows from 0 to n - 1 = 1, or -1 for none, got 0 to 2"),
        ([[1], [-2]], [[1.0], [1.0]], "or -1 for none, got -2 to 1"),
        ([[1], [0]], [[1.0], [-1.0]], "distances must be >= 0, got -1.0"),
        ([[1], [0]], [[1.0], [np.nan]], "distances must be >= 0, got nan"),
        ([[1, 1], [0, 1]], [[1.0, 1.0], [1.0, 2.0]], r"must not repeat within a row, got \[1, 1\] in row 0"),
        ([[0], [1]], [[0.0], [0.0]], "must name a neighbour besides the row itself, got k = 1"),
    ],
)
def test_bad_precomputed_graphs(indices, distances, message):
    with pytest.raises(ValueError, match=r"KNNGraph.from_precomputed: .*" + message):
        KNNGraph.from_precomputed(indices, distances)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_neighbors": 20}, "n_neighbors must be an integer from 1 to rows - 1, of 20 rows, = 19, got 20"),
        ({"n_neighbors": 0}, "n_neighbors must be an integer from 1 to .*, got 0"),
        ({"n_neighbors": -3}, "n_neighbors must be .*, got -3"),
        ({"n_neighbors": 2.5}, "n_neighbors must be .*, got 2.5"),
        ({"n_neighbors": True}, "n_neighbors must be .*, got True"),
        ({"metric": "canberra"}, "metric must be one of euclidean, l2, cosine, .*, got 'canberra'"),
        ({"metric": len}, "metric must be one of"),
        ({"backend": "annoy"}, "backend must be one of auto, faiss, torch, got 'annoy'"),
        ({"backend": "torch", "metric": "braycurtis"}, "metric must be one that PyTorch searches"),
        ({"n_jobs": 0}, "n_jobs must be an integer >= 1, -1 or None, got 0"),
        ({"n_jobs": 1.5}, "n_jobs must be"),
        ({"random_state": "a"}, "random_state must be"),
        ({"random_state": -1}, "random_state must be"),
        ({"X": np.ones(20)}, r"X must be 2-D \[n, d\] \(one column is \[n, 1\]\), got shape \[20\]"),
        ({"X": np.ones((3, 4, 5))}, r"X must be 2-D \[n, d\], got shape \[3, 4, 5\]"),
        ({"X": np.ones((0, 4))}, r"X must have rows and columns, got shape \[0, 4\]"),
        ({"X": np.ones((1, 4)), "n_neighbors": 1}, "X must have at least 2 rows, got 1"),
        ({"X": np.ones((20, 2), complex)}, "X must hold real numbers, got dtype complex128"),
        ({"X": [["a", "b"]] * 20}, "X must hold real numbers, got dtype <U1"),
        ({"X": np.array([["a", None]] * 20)}, "X must hold real numbers, got could not convert"),
        ({"X": torch.ones(20)}, r"X must be 2-D \[n, d\]"),
        ({"X": torch.ones(20, 2).to_sparse()}, "X must be a dense tensor or a SciPy CSR matrix"),
        ({"X": torch.ones(20, 2, dtype=torch.complex64)}, "X must hold real numbers, got dtype torch.complex64"),
        ({"X": scipy.sparse.csr_matrix((20, 2), dtype=complex)}, "X must hold real numbers, got dtype complex128"),
    ],
)
def test_bad_arguments(rng, arguments, message):
    given = {"X": rng.standard_normal((20, 3)), "n_neighbors": 4, **arguments}
    with pytest.raises(ValueError, match=r"KNNGraph.build: " + message):
        KNNGraph.build(given.pop("X"), given.pop("n_neighbors"), **given)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e31])
def test_bad_values(rng, value):
    x = rng.standard_normal((20, 3))
    x[7, 1] = value
    for data in (x, x.astype(np.float32), torch.from_numpy(x), scipy.sparse.csr_matrix(x)):
        with pytest.raises(ValueError, match=r"X must be finite and within ±1e\+30, got .* in row 7"):
            KNNGraph.build(data, 4)


@pytest.mark.parametrize(("name", "metric"), [("fashion_mnist_70k", "euclidean"), ("glove_341k", "cosine")])
def test_recall_on_real_data(name, metric):
    folder = os.environ.get("FASTPDR_DATA")
    if not folder or not os.environ.get("FASTPDR_SLOW"):
        pytest.skip("set FASTPDR_DATA to a folder with fashion_mnist_70k.npz and glove_341k.npz, and FASTPDR_SLOW=1")
    x = np.load(Path(folder) / f"{name}.npz")["X"]
    graph = KNNGraph.build(x, 15, metric=metric, random_state=0)
    assert graph.recall(sample=1000) >= 0.95


@pytest.fixture
def fake_gpu_faiss(monkeypatch):
    """A FAISS that says it has GPUs, and searches for them by PyTorch."""
    calls = []

    class Faiss:
        StandardGpuResources = object

        @staticmethod
        def get_num_gpus():
            return 1

        @staticmethod
        def knn_gpu(resources, queries, matrix, k):
            calls.append((len(queries), k))
            return torch.cdist(queries, matrix).square().topk(k, largest=False)

    for module in (search, knn):
        monkeypatch.setattr(module, "has_faiss", lambda: True)
    monkeypatch.setattr(search, "import_faiss", Faiss)
    monkeypatch.setattr(search, "import_module", lambda name: calls.append(name))
    for cached in (search.gpu_faiss, search._gpu_resources):
        cached.cache_clear()
    yield calls
    for cached in (search.gpu_faiss, search._gpu_resources):
        cached.cache_clear()


@pytest.mark.usefixtures("fake_gpu_faiss")
def test_faiss_on_a_gpu_is_taken_where_it_can_search():
    x = torch.empty(9, 3, device="meta")  # of a device that is not the CPU
    assert [knn._chosen_backend("f", "auto", metric, x) for metric in ("euclidean", "cosine", "manhattan")] == [
        "faiss",
        "faiss",
        "torch",
    ]


@needs_faiss
def test_faiss_for_the_cpu_leaves_a_gpu_to_torch():
    x = torch.empty(9, 3, device="meta")
    assert not search.gpu_faiss()
    assert knn._chosen_backend("f", "auto", "euclidean", x) == "torch"
    assert knn._chosen_backend("f", "auto", "euclidean", torch.empty(9, 3)) == "faiss"


def test_what_faiss_is_asked_on_a_gpu(points, fake_gpu_faiss):
    matrix = _rows.prepare("f", points, "euclidean")
    indices, distances = search._gpu_faiss_block(matrix, matrix.matrix[:50], 7)
    expected, _ = search._torch_block(matrix, matrix.matrix[:50], 7)
    assert torch.equal(indices, expected)
    assert distances.shape == (50, 7)
    assert fake_gpu_faiss == ["faiss.contrib.torch_utils", (50, 7)]


def test_blocks_on_a_gpu_follow_its_free_memory(monkeypatch):
    device = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 0)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 0)
    for free, elements in ((2**40, 2**28), (2**32, 2**32 // 40), (2**20, 2**24)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _, free=free: (free, free))
        assert search._block_elements(device) == pytest.approx(elements, rel=1e-6)
    assert search._block_elements(torch.device("cpu")) == 2**24


def test_the_search_multiplies_in_full_float32(points, monkeypatch):
    seen = []
    pairwise = search._pairwise
    monkeypatch.setattr(
        search, "_pairwise", lambda *a: seen.append(torch.backends.cuda.matmul.fp32_precision) or pairwise(*a)
    )
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        KNNGraph.build(points, 3, backend="torch")
        assert torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False
    assert seen
    assert "tf32" not in seen


@no_gpu
@pytest.mark.parametrize("metric", ["euclidean", "cosine", "manhattan", "chebyshev"])
def test_a_gpu_finds_the_same(clusters, metric, close):
    expected = KNNGraph.build(clusters, 15, metric=metric, backend="torch")
    graph = KNNGraph.build(torch.from_numpy(clusters).cuda(), 15, metric=metric, backend="torch")
    require_proper(graph)
    assert graph.recall() == 1.0
    close(graph.distances.copy(), expected.distances.copy())


@no_gpu
def test_close_rows_far_from_the_centre_on_a_gpu(rng):
    x = np.concatenate([rng.standard_normal((100, 5)) * 1e-2 + 1e4, rng.standard_normal((100, 5)) * 1e-2 - 1e4])
    x = x.astype(np.float32)
    expected = NearestNeighbors(n_neighbors=5).fit(x.astype(float)).kneighbors()[0]
    graph = KNNGraph.build(torch.from_numpy(x).cuda(), 5, backend="torch")
    np.testing.assert_allclose(graph.distances, expected, rtol=1e-5)
