"""What an op says and does where devices are mixed, a dtype has no kernel there, or memory runs out."""

from __future__ import annotations

import pytest
import torch
from conftest import no_gpu

import fastpdr
from fastpdr import ops, reference

native = pytest.mark.skipif(not fastpdr.build_info()["native"], reason="no compiled kernels")
two_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two GPUs on this machine")

INDPTR, INDICES, VALUES = torch.tensor([0, 1, 2]), torch.tensor([1, 0]), torch.ones(2)


@native
def test_memory_that_is_not_there_is_named():
    table = ops.alias_table(torch.ones(3))
    with pytest.raises(
        RuntimeError, match=r"sample_edges could not allocate 8796093022208 MiB for \[1152921504606846976"
    ):
        ops.sample_edges(table, 2**60, seed=0, step=0)


@no_gpu
def test_memory_of_a_gpu_that_is_not_there_is_named():
    table = ops.alias_table(torch.ones(3)).cuda()
    with pytest.raises(RuntimeError, match=r"could not allocate 8388608 MiB .* on cuda:0: pass fewer rows at a time"):
        ops.sample_edges(table, 2**40, seed=0, step=0)
    assert len(ops.sample_edges(table, 5, seed=0, step=0)) == 5  # it goes on


@native
@no_gpu
@pytest.mark.parametrize("level", ["ops", "operator"])
@pytest.mark.parametrize("stray", ["indptr", "indices", "rows"])
def test_mixed_devices_are_named(stray, level):
    function = ops.subgraph if level == "ops" else torch.ops.fastpdr.subgraph
    arguments = {"indptr": INDPTR, "indices": INDICES, "values": VALUES, "rows": torch.tensor([1, 0])}
    arguments = {name: tensor if name == stray else tensor.cuda() for name, tensor in arguments.items()}
    with pytest.raises((ValueError, RuntimeError), match=f"subgraph: {stray} must be on cuda:0 like values, got"):
        function(**arguments)


@two_gpus
def test_another_device_index_is_named_and_used():
    y = torch.randn(50, 2, device="cuda:1")
    p = torch.rand(50, 50)
    with pytest.raises(ValueError, match="p must be .* on cuda:1 like y"):
        ops.student_t_kl(y, p.to("cuda:0"))
    loss = ops.student_t_kl(y, p.to(y.device))
    assert loss.device == y.device
    assert torch.cuda.current_device() == 0
    assert torch.isclose(loss.cpu(), ops.student_t_kl(y.cpu(), p), rtol=1e-5)


@no_gpu
def test_float64_on_a_gpu_takes_the_reference():
    y, p = torch.randn(50, 2).double(), torch.rand(50, 50).double()
    loss = ops.student_t_kl(y.cuda(), p.cuda())
    assert loss.dtype == torch.float64
    assert torch.isclose(loss.cpu(), reference.student_t_kl(y, p), rtol=1e-10)


@no_gpu
def test_the_current_stream_is_used():
    """A kernel on another stream than its input would read what is not there yet."""
    y, p = torch.randn(3000, 2, device="cuda"), torch.rand(3000, 3000, device="cuda")
    expected = ops.student_t_kl(y, p)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)
        moved = y + 0.0
        loss = ops.student_t_kl(moved, p)
    stream.synchronize()
    assert torch.equal(loss, expected)
