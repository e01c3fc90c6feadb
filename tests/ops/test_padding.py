"""Batches of one shape: rows behind the first `points` are padding, room behind the last entry is not read."""

from __future__ import annotations

import pytest
import torch
from conftest import DEVICES, on

from fastpdr import ops, reference
from fastpdr._sparse import csr_tensor

pytestmark = pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning")
CURVE = {"a": 1.58, "b": 0.9, "repulsion": 5.0, "eps": 1e-3, "clip": 4.0}
LOSSES = [
    (ops.pair_loss, CURVE),
    (ops.student_t_kl, {"normalization": "row", "exaggeration": 2.0}),
    (ops.student_t_kl, {"dof": 0.5, "exaggeration": 2.0}),
]


def map_of(generator, m, b, c=2):
    """(y [m, c], p [m, m]), and the same with padding up to b that must not matter."""
    y = torch.randn(m, c, generator=generator)
    p = torch.rand(m, m, generator=generator).mul_(torch.rand(m, m, generator=generator) < 0.3)
    p = (p + p.T).fill_diagonal_(0).to_sparse_csr()
    padding = torch.full((b - m, c), 1e5).fill_diagonal_(torch.nan)
    indptr = torch.cat([p.crow_indices(), p.crow_indices()[-1:].expand(b - m)])
    room = csr_tensor(
        indptr,
        torch.cat([p.col_indices(), torch.full((50,), -9)]),
        torch.cat([p.values(), torch.full((50,), torch.nan)]),
        b,
    )
    return y, p, torch.cat([y, padding]), room


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("m", [0, 1, 2, 31, 64, 70])
@pytest.mark.parametrize(("loss", "settings"), LOSSES)
@pytest.mark.parametrize("double", [False, True])
def test_losses_do_not_see_padding(m, loss, settings, double, device, generator, close):
    y, p, padded, room = map_of(generator, m, 70)
    if double:
        y, p, padded, room = y.double(), p.double(), padded.double(), room.double()
    y.requires_grad_()
    padded.requires_grad_()
    expected = loss(y, p, **settings)
    value = on(device, loss)(padded, room, **settings, points=torch.tensor(m))
    expected.backward()
    value.backward()
    close(value.detach(), expected.detach())
    close(padded.grad[:m], y.grad)
    assert not padded.grad[m:].any()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("m", [0, 1, 5, 12])
@pytest.mark.parametrize("function", [ops.subgraph, reference.subgraph])
def test_a_subgraph_of_the_first_rows_with_room(m, function, device, generator):
    matrix = map_of(generator, 40, 40)[1]
    parts = matrix.crow_indices(), matrix.col_indices(), matrix.values()
    rows = torch.randperm(40, generator=generator)[:12]
    rows[m:] = rows[0] if m else -3
    expected = ops.subgraph(*parts, rows[:m])
    moved = [part.to(device) for part in (*parts, rows)]
    result = function(*moved, points=torch.tensor(m, device=device), capacity=150)
    indptr, entries = result.crow_indices().cpu(), expected.values().numel()
    assert result.shape == (12, 12)
    assert result.values().numel() == 150
    assert torch.equal(indptr[: m + 1], expected.crow_indices())
    assert (indptr[m:] == entries).all()
    assert torch.equal(result.col_indices()[:entries].cpu(), expected.col_indices())
    assert torch.equal(result.values()[:entries].cpu(), expected.values())


@pytest.mark.parametrize("function", [ops.subgraph, reference.subgraph])
def test_too_little_room_is_an_error_where_it_can_be_seen(function, generator):
    matrix = map_of(generator, 40, 40)[1]
    parts = matrix.crow_indices(), matrix.col_indices(), matrix.values()
    with pytest.raises((ValueError, RuntimeError), match="subgraph: capacity must be the number of entries or more"):
        function(*parts, torch.arange(40), capacity=3)
    with pytest.raises(ValueError, match="subgraph: capacity must be an integer in"):
        ops.subgraph(*parts, torch.arange(40), capacity=-3)


@pytest.mark.parametrize("points", [3, torch.tensor([3]), torch.tensor(3.0), torch.empty((), device="meta").long()])
def test_points_must_be_a_number_on_the_device(points, generator):
    y, p, _, _ = map_of(generator, 10, 10)
    parts = p.crow_indices(), p.col_indices(), p.values()
    for call in (
        lambda: ops.pair_loss(y, p, **CURVE, points=points),
        lambda: ops.student_t_kl(y, p, points=points),
        lambda: ops.subgraph(*parts, torch.arange(10), points=points),
    ):
        with pytest.raises(ValueError, match=r"points must be int64 \[\] on cpu, got"):
            call()


def test_a_dense_p_has_no_padding(generator):
    y = torch.randn(5, 2, generator=generator)
    with pytest.raises(ValueError, match="points must be None with a dense p"):
        ops.student_t_kl(y, torch.rand(5, 5), points=torch.tensor(3))
