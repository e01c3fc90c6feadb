"""layer_norm_gelu: the kernel against its reference, the reference against the formula and PyTorch's modules."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import FLOAT64_RMS, SIZES, no_gpu, relative_rms
from torch import nn

from fastpdr import _native, ops, reference

native = pytest.mark.skipif("cpu" not in _native.KERNELS["layer_norm_gelu"], reason="no compiled kernels")
BACKENDS = [pytest.param(module.layer_norm_gelu, id=name) for name, module in (("ops", ops), ("reference", reference))]

WIDTHS = [2, 7, 15, 16, 17, 31, 33, 100, 256, 257]
RESULTS = ("y", "grad_x", "grad_weight", "grad_bias")
# In bfloat16 y, slope and gradient of x are rounded to 8 bits.
BFLOAT16_RMS = 1e-2
# Two nearby entries of a row have hardly a gradient, of which rounding would be all: not with a large eps.
EPS = 0.1


def layer(generator, n, d, dtype=torch.float32):
    """Rows [n, d] away from the origin, weight, bias, and the gradient that comes in."""
    sizes = ((n, d), (d,), (d,), (n, d))
    x, weight, bias, grad = (torch.randn(size, generator=generator) for size in sizes)
    return (2 * x + 1).to(dtype), weight, bias, grad.to(dtype)


def value_and_gradients(function, x, weight, bias, grad, **settings):
    leaves = [tensor.detach().clone().requires_grad_() for tensor in (x, weight, bias)]
    y = function(*leaves, **settings)
    y.backward(grad)
    return (y.detach(), *(leaf.grad for leaf in leaves))


def exact(x, weight, bias, grad, **settings):
    double = (tensor.double() for tensor in (x, weight, bias, grad))
    return value_and_gradients(reference.layer_norm_gelu, *double, **settings)


def require_agreement(arguments, close, *tolerance, **settings):
    results = value_and_gradients(ops.layer_norm_gelu, *arguments, **settings)
    for result, expected in zip(results, exact(*arguments, **settings), strict=True):
        close(result, expected, *tolerance)
    return results


def same_bits(results, others):
    return all(torch.equal(a, b) for a, b in zip(results, others, strict=True))


@pytest.mark.parametrize("d", WIDTHS)
@pytest.mark.parametrize("n", SIZES)
def test_kernel_agrees_with_reference(n, d, generator, close):
    results = require_agreement(layer(generator, n, d), close, eps=EPS)
    assert all(result.dtype == torch.float32 for result in results)
    assert [list(result.shape) for result in results] == [[n, d], [n, d], [d], [d]]


@pytest.mark.parametrize("d", WIDTHS)
@pytest.mark.parametrize("n", SIZES)
def test_kernel_agrees_with_reference_in_bfloat16(n, d, generator, close):
    arguments = layer(generator, n, d, torch.bfloat16)
    # Rows of two numbers nearly all have the same z and -z, whose slopes are rounded alike: no mean takes it away.
    results = require_agreement(arguments, close, 2 * BFLOAT16_RMS if d == 2 else BFLOAT16_RMS, eps=EPS)
    kept = torch.float32
    assert [result.dtype for result in results] == [torch.bfloat16, torch.bfloat16, kept, kept]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("n", SIZES)
def test_one_column_is_its_bias(n, backend, generator, close):
    x, weight, bias, grad = layer(generator, n, 1)
    y, grad_x, grad_weight, grad_bias = value_and_gradients(backend, x, weight, bias, grad)
    z = bias.double().requires_grad_()
    expected = nn.functional.gelu(z)
    expected.backward(grad.double().sum(0))
    close(y, expected.detach().expand(n, 1))
    assert (grad_bias - z.grad).abs() <= 1e-6 * grad.abs().sum()
    assert grad_x.norm() <= 1e-4 * grad.norm()
    assert grad_weight.norm() <= 1e-4 * grad.norm()


@native
@pytest.mark.parametrize("spread", [0.5, 2.0, 6.0])
def test_bfloat16_is_float32_rounded(spread, generator):
    """To the nearest, ties to even; where weights are wide, in the tails of the normal distribution as well."""
    x, weight, bias, _ = layer(generator, 65, 100, torch.bfloat16)
    rounded = ops.layer_norm_gelu(x, spread * weight, bias)
    assert torch.equal(rounded, ops.layer_norm_gelu(x.float(), spread * weight, bias).bfloat16())


def test_reference_is_the_formula(generator, close):
    x, weight, bias, _ = (tensor.double() for tensor in layer(generator, 30, 19))
    h = (x - x.mean(1, keepdim=True)) / (x.var(1, correction=0, keepdim=True) + 1e-3).sqrt()
    z = h * weight + bias
    close(reference.layer_norm_gelu(x, weight, bias, eps=1e-3), z * (1 + (z / math.sqrt(2)).erf()) / 2, FLOAT64_RMS)


@pytest.mark.parametrize("backend", BACKENDS)
def test_it_is_what_the_modules_do(backend, generator, close):
    norm = nn.LayerNorm(33)
    x, weight, bias, grad = layer(generator, 70, 33)
    for parameter, values in ((norm.weight, weight), (norm.bias, bias)):
        parameter.data.copy_(values)
    leaf = x.clone().requires_grad_()
    expected = nn.GELU()(norm(leaf))
    expected.backward(grad)
    results = value_and_gradients(backend, x, weight, bias, grad)  # eps is LayerNorm's where none is given
    theirs = expected.detach(), leaf.grad, norm.weight.grad, norm.bias.grad
    for result, their in zip(results, theirs, strict=True):
        close(result, their)


def test_gradcheck_of_the_reference(generator):
    arguments = [tensor.double().requires_grad_() for tensor in layer(generator, 5, 7)[:3]]
    assert torch.autograd.gradcheck(reference.layer_norm_gelu, arguments)


@native
@pytest.mark.parametrize("place", ["x", "weight", "bias"])
def test_gradient_is_that_of_finite_differences(place, generator):
    """Of the kernel's own values: along the gradient they rise as it says."""
    x, weight, bias, grad = layer(generator, 40, 33)
    arguments = {"x": x, "weight": weight, "bias": bias}
    gradients = value_and_gradients(ops.layer_norm_gelu, *arguments.values(), grad)[1:]
    gradient = dict(zip(arguments, gradients, strict=True))[place].double()
    step = (1e-2 * gradient / gradient.abs().max()).float()
    above, below = (
        (ops.layer_norm_gelu(**{**arguments, place: arguments[place] + sign * step}).double() * grad).sum()
        for sign in (1, -1)
    )
    assert float((above - below) / 2) == pytest.approx(float((gradient * step).sum()), rel=2e-3)


@native
def test_values_in_the_tails_of_the_distribution():
    """A row of zeros, whose z are its bias: from -12 to 12. The gradient of the bias is then the slope."""
    z = torch.linspace(-12, 12, 4801)
    one, zero = torch.ones_like(z), torch.zeros_like(z)
    y, _, _, slope = value_and_gradients(ops.layer_norm_gelu, zero[None], one, z, one[None])
    expected = z.double().requires_grad_()
    exactly = nn.functional.gelu(expected)
    exactly.sum().backward()
    assert (y[0] - exactly.detach()).abs().max() <= 1e-6
    assert (slope - expected.grad).abs().max() <= 1e-6
    assert (y[0, z < -10].abs() < 1e-20).all()
    assert torch.equal(y[0, z > 10], z[z > 10])


@pytest.mark.parametrize("size", [1e3, 1e4, 1e5, 1e6])
def test_rows_far_from_the_origin_lose_no_more_than_pytorchs(size, generator):
    x, weight, bias, grad = layer(generator, 64, 257)
    arguments = x + size, weight, bias, grad
    expected = exact(*arguments)
    ours = value_and_gradients(ops.layer_norm_gelu, *arguments)
    theirs = value_and_gradients(reference.layer_norm_gelu, *arguments)
    for name, result, other, exactly in zip(RESULTS, ours, theirs, expected, strict=True):
        assert relative_rms(result, exactly) <= 1.5 * relative_rms(other, exactly) + 1e-6, name


@pytest.mark.parametrize("d", [2, 3, 16, 100, 257])
@pytest.mark.parametrize("number", [0.0, 0.1, -1000.1, 1e6 + 0.1, 3e10])
def test_a_row_of_one_number_is_its_bias(number, d, generator, close):
    _, weight, bias, grad = layer(generator, 5, d)
    y, grad_x, grad_weight, _ = value_and_gradients(ops.layer_norm_gelu, torch.full((5, d), number), weight, bias, grad)
    close(y, nn.functional.gelu(bias.double()).expand(5, d))
    assert grad_x.isfinite().all()
    if "cpu" in _native.KERNELS["layer_norm_gelu"]:
        assert (grad_weight == 0).all()


@pytest.mark.parametrize("scale", [1e-15, 1e-6, 1e6, 1e15])
def test_scale_of_the_rows(scale, generator, close):
    x, *others = layer(generator, 40, 33)
    require_agreement((scale * x, *others), close)
    if scale > 1:
        close(ops.layer_norm_gelu(scale * x, *others[:2]), ops.layer_norm_gelu(x, *others[:2]), 1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("column", [0, 18])
def test_what_is_not_finite_stays_in_its_row(column, bad, backend, dtype, generator):
    x, *others = layer(generator, 40, 19, dtype)
    clean = value_and_gradients(backend, x, *others)
    x[7, column] = bad
    y, grad_x, grad_weight, grad_bias = value_and_gradients(backend, x, *others)
    kept = torch.arange(40) != 7
    for result, expected in ((y, clean[0]), (grad_x, clean[1])):
        assert result[7].isnan().all()
        assert torch.equal(result[kept], expected[kept])
    assert grad_weight.isnan().all()
    assert grad_bias.isnan().all()


def test_no_rows(generator):
    y, grad_x, grad_weight, grad_bias = value_and_gradients(ops.layer_norm_gelu, *layer(generator, 0, 5))
    assert y.shape == grad_x.shape == (0, 5)
    assert torch.equal(grad_weight, torch.zeros(5))
    assert torch.equal(grad_bias, torch.zeros(5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_strided_and_expanded_inputs_and_gradients(dtype, generator):
    x, weight, bias, grad = layer(generator, 40, 33, dtype)

    def strided(x, weight, bias):
        return ops.layer_norm_gelu(x.T.contiguous().T, torch.stack([weight, bias], 1)[:, 0], bias)

    def padded(x, weight, bias):
        return ops.layer_norm_gelu(nn.functional.pad(x, (2, 5))[:, 2:-5], weight, bias)

    expected = value_and_gradients(ops.layer_norm_gelu, x, weight, bias, grad)
    for function in (strided, padded):
        assert same_bits(value_and_gradients(function, x, weight, bias, grad.T.contiguous().T), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_expanded_inputs_and_gradients(dtype, generator):
    x, weight, bias, grad = (tensor[:1].expand_as(tensor) for tensor in layer(generator, 40, 33, dtype))
    whole = [tensor.contiguous() for tensor in (x, weight, bias, grad)]
    y = ops.layer_norm_gelu(x, weight, bias)
    assert torch.equal(y, ops.layer_norm_gelu(*whole[:3]))
    expected = value_and_gradients(ops.layer_norm_gelu, *whole)
    assert same_bits(value_and_gradients(ops.layer_norm_gelu, *whole[:3], grad), expected)


def test_inputs_stay_as_they_are(generator):
    arguments = layer(generator, 9, 17)
    copies = [tensor.clone() for tensor in arguments]
    x, weight, bias, grad = arguments
    ops.layer_norm_gelu(*(tensor.requires_grad_() for tensor in (x, weight, bias))).backward(grad)
    assert same_bits([tensor.detach() for tensor in arguments], copies)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_gradients_of_one_argument_alone(place, generator):
    arguments = layer(generator, 20, 17)
    *leaves, grad = arguments
    expected = value_and_gradients(ops.layer_norm_gelu, *arguments)[1 + place]
    leaves[place].requires_grad_()
    ops.layer_norm_gelu(*leaves).backward(grad)
    assert torch.equal(leaves[place].grad, expected)
    with torch.no_grad():
        assert not ops.layer_norm_gelu(*leaves).requires_grad


@native
def test_differentiable_once(generator):
    x, weight, bias, _ = layer(generator, 5, 7)
    y = ops.layer_norm_gelu(x.requires_grad_(), weight, bias)
    (gradient,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@native
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_threads_do_not_change_the_bits(dtype, generator):
    arguments = layer(generator, 700, 257, dtype)
    before, results = torch.get_num_threads(), []
    for count in (1, 2, 3, 3):
        torch.set_num_threads(count)
        results.append(value_and_gradients(ops.layer_norm_gelu, *arguments))
    torch.set_num_threads(before)
    assert all(same_bits(result, results[0]) for result in results)


@native
@pytest.mark.parametrize("n", [0, 1, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_opcheck(dtype, n, generator):
    x, weight, bias, grad = layer(generator, n, 17, dtype)
    forward, backward = torch.ops.fastpdr.layer_norm_gelu.default, torch.ops.fastpdr.layer_norm_gelu_backward.default
    torch.library.opcheck(forward, (x, weight, bias, 1e-5))
    torch.library.opcheck(forward, (x.T.contiguous().T, weight, bias, 1e-5))
    _, slope, mean, scale = forward(x, weight, bias, 1e-5)
    torch.library.opcheck(backward, (grad, x, slope, weight, mean, scale))
    strided = weight.repeat(2, 1).T[:, 0]
    torch.library.opcheck(backward, (grad, x.T.contiguous().T, slope, strided, mean, scale))


@native
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiles_without_a_graph_break(dtype, generator):
    def function(x, weight, bias):
        return ops.layer_norm_gelu(2.0 * x, weight, bias)

    compiled = torch.compile(function, fullgraph=True)
    for n in (40, 41, 43):
        arguments = layer(generator, n, 33, dtype)
        expected = value_and_gradients(function, *arguments)
        assert same_bits(value_and_gradients(compiled, *arguments), expected)


@native
def test_one_graph_serves_any_number_of_rows(generator):
    graphs = []

    def keep(module, _):
        graphs.append(module)
        return module.forward

    def function(x, weight, bias):
        return ops.layer_norm_gelu(x, weight, bias)

    compiled = torch.compile(function, fullgraph=True, backend=keep)
    for n in (40, 41, 43):
        x, weight, bias, _ = layer(generator, n, 33)
        assert torch.equal(compiled(x, weight, bias), ops.layer_norm_gelu(x, weight, bias))
    assert len(graphs) == 2  # the first is of one number of rows


@pytest.mark.parametrize("backend", BACKENDS)
def test_under_autocast(backend, generator, close):
    """As training in bf16 does it: the product rounds, parameters and their gradients do not."""
    x, weight, bias, grad = layer(generator, 40, 33)
    linear = nn.Linear(33, 33)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = linear(x)
        results = value_and_gradients(backend, hidden, weight, bias, grad.bfloat16())
    expected = exact(hidden.detach(), weight, bias, grad.bfloat16())
    assert [result.dtype for result in results] == [*[torch.bfloat16] * 2, *[torch.float32] * 2]
    for result, exactly in zip(results, expected, strict=True):
        close(result, exactly, BFLOAT16_RMS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        backend(linear(x), weight, bias).sum().backward()
    assert linear.weight.grad.dtype == torch.float32


def test_float64_runs_the_reference(generator):
    arguments = [tensor.double() for tensor in layer(generator, 9, 14)]
    results = value_and_gradients(ops.layer_norm_gelu, *arguments)
    assert same_bits(results, value_and_gradients(reference.layer_norm_gelu, *arguments))
    assert all(result.dtype == torch.float64 for result in results)


@no_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("d", WIDTHS)
@pytest.mark.parametrize("n", SIZES)
def test_a_gpu_agrees_with_reference(n, d, dtype, generator, close):
    arguments = layer(generator, n, d, dtype)
    results = value_and_gradients(ops.layer_norm_gelu, *(tensor.cuda() for tensor in arguments), eps=EPS)
    assert all(result.is_cuda for result in results)
    assert [result.dtype for result in results] == [dtype, dtype, torch.float32, torch.float32]
    rounding = 2 * BFLOAT16_RMS if d == 2 else BFLOAT16_RMS
    for result, expected in zip(results, exact(*arguments, eps=EPS), strict=True):
        close(result.cpu(), expected, *([rounding] if dtype is torch.bfloat16 else []))
    again = value_and_gradients(ops.layer_norm_gelu, *(tensor.cuda() for tensor in arguments), eps=EPS)
    assert same_bits(results, again)


def good():
    return {"x": torch.ones(3, 2), "weight": torch.ones(2), "bias": torch.ones(2)}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": [[1.0]]}, TypeError, r"x must be a float32 or float64 tensor \[n, d\], got list"),
        ({"x": torch.ones(3)}, ValueError, r"x must be float32 \(or float64\) \[n, d\], got float32 \[3\]"),
        ({"x": torch.ones(3).bfloat16()}, ValueError, r"x must be \[n, d\] .*, got bfloat16 \[3\]"),
        ({"x": torch.ones(3, 2).half()}, ValueError, r"x must be float32 .*, got float16 \[3, 2\]"),
        ({"x": torch.ones(3, 0)}, ValueError, r"x must be \[n, d\] with at least one column, got float32 \[3, 0\]"),
        ({"weight": 1.0}, TypeError, r"weight must be a float32 or float64 tensor \[d\], got float"),
        ({"weight": torch.ones(3)}, ValueError, r"weight must be float32 \[2\] on cpu like .*, got float32 \[3\]"),
        ({"weight": torch.ones(2, 1)}, ValueError, r"weight must be float32 .* \[d\], got float32 \[2, 1\]"),
        ({"bias": torch.ones(2).double()}, ValueError, r"bias must be float32 \[2\] .*, got float64 \[2\]"),
        ({"bias": torch.ones(2).bfloat16()}, ValueError, r"bias must be float32 .*, got bfloat16 \[2\]"),
        ({"x": torch.ones(3, 2).double()}, ValueError, r"weight must be float64 \[2\] .*, got float32 \[2\]"),
        ({"bias": torch.ones(2, device="meta")}, ValueError, r"bias must be .* on cpu .*, got .* on meta"),
        ({"eps": -1e-5}, ValueError, "eps must be >= 0, got -1e-05"),
        ({"eps": "small"}, ValueError, "eps must be >= 0, got 'small'"),
    ],
)
def test_bad_arguments_are_named(change, error, message):
    with pytest.raises(error, match=f"layer_norm_gelu: {message}"):
        ops.layer_norm_gelu(**{**good(), **change})


@native
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.ones(4)}, "x: wrong dtype or number of dimensions"),
        ({"x": torch.ones(4, 3).double()}, "x: wrong dtype"),
        ({"x": torch.ones(4, 0)}, "x must have at least one column"),
        ({"weight": torch.ones(2)}, "weight must be .* like the columns of x"),
        ({"weight": torch.ones(3).bfloat16()}, "weight: wrong dtype"),
        ({"bias": torch.ones(4)}, r"bias must be \[3\]"),
    ],
)
def test_a_direct_call_reads_nothing_astray(change, message):
    arguments = {"x": torch.ones(4, 3), "weight": torch.ones(3), "bias": torch.ones(3)}
    with pytest.raises(RuntimeError, match=f"layer_norm_gelu: {message}"):
        torch.ops.fastpdr.layer_norm_gelu(**{**arguments, **change}, eps=1e-5)


@native
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grad": torch.ones(4, 2)}, r"grad must be \[n, d\] like x"),
        ({"grad": torch.ones(4, 3).bfloat16()}, "grad: wrong dtype"),
        ({"x": torch.ones(5, 3)}, r"grad must be \[n, d\] like x"),
        ({"slope": torch.ones(3, 3)}, r"slope must be \[n, d\] like x"),
        ({"weight": torch.ones(4)}, "weight must be .* like the columns of x"),
        ({"mean": torch.ones(3)}, r"mean must be \[4\]"),
        ({"scale": torch.ones(4, 1)}, "scale: wrong dtype or number of dimensions"),
    ],
)
def test_a_direct_call_of_backward_reads_nothing_astray(change, message):
    rows, numbers = torch.ones(4, 3), torch.ones(4)
    arguments = {"grad": rows, "x": rows, "slope": rows, "weight": torch.ones(3), "mean": numbers, "scale": numbers}
    with pytest.raises(RuntimeError, match=f"layer_norm_gelu_backward: {message}"):
        torch.ops.fastpdr.layer_norm_gelu_backward(**{**arguments, **change})
