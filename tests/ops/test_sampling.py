"""alias_table and sample_edges: the kernels against their reference, the draws against the weights."""

from __future__ import annotations

import pytest
import torch
from conftest import DEVICES, SIZES, on

from fastpdr import _native, ops, reference
from fastpdr.reference import sampling

native = pytest.mark.skipif("cpu" not in _native.KERNELS["sample_edges"], reason="no compiled kernels")

ONE = 2**32
SEED, STEP = 2**62 + 12_345_678_901, 2**61 + 9_876_543_210_987  # all four words are in use


def uniform(generator, e):
    return torch.ones(e)


def random(generator, e):
    return torch.rand(e, generator=generator) + 1e-3


def uneven(generator, e):
    return torch.rand(e, generator=generator, dtype=torch.float64) ** 20 + 1e-12


def one_heavy(generator, e):
    weights = torch.rand(e, generator=generator)
    weights[e // 2] = 10 * e
    return weights


def with_zeros(generator, e):
    weights = torch.rand(e, generator=generator) * (torch.rand(e, generator=generator) < 0.3)
    weights[-1] = 1.0
    return weights


def zeros_first(generator, e):
    return (torch.arange(e) >= e // 2).double() * 0.1


def huge(generator, e):
    return torch.rand(e, generator=generator, dtype=torch.float64) * 1e308 + 1.0


SHAPES = [uniform, random, uneven, one_heavy, with_zeros, zeros_first, huge]


def parts(table):
    """Thresholds, 2^32 where an entry keeps all of its share, and aliases."""
    aliases = table & (2**31 - 1)
    return torch.where(aliases == torch.arange(len(table)), ONE, table >> 31), aliases


def units(table):
    """What the table gives to every entry, in 2^-32 of the mean."""
    thresholds, aliases = parts(table)
    return thresholds.clone().index_add_(0, aliases, ONE - thresholds)


def expected_units(weights):
    weights = weights.double() / weights.double().max()
    return weights / weights.sum() * len(weights) * ONE


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("weights_of", SHAPES)
@pytest.mark.parametrize("e", [size for size in SIZES if size > 0] + [1023, 1025, 20_000])
def test_kernel_agrees_with_reference_bit_for_bit(e, weights_of, device, generator):
    weights = weights_of(generator, e)
    table = on(device, ops.alias_table)(weights)
    assert table.dtype == torch.int64
    assert torch.equal(table, reference.alias_table(weights))
    for n_edges in (0, 1, 127, 128, 129, 1000):
        edges = on(device, ops.sample_edges)(table, n_edges, seed=SEED, step=STEP)
        assert edges.dtype == torch.int64
        assert torch.equal(edges, reference.sample_edges(table, n_edges, seed=SEED, step=STEP))


@pytest.mark.parametrize("build", [ops.alias_table, reference.alias_table], ids=["ops", "reference"])
@pytest.mark.parametrize("weights_of", SHAPES)
@pytest.mark.parametrize("e", [1, 2, 33, 1000, 20_000])
def test_table_holds_the_weights(e, weights_of, build, generator):
    weights = weights_of(generator, e)
    table = build(weights)
    assert table.shape == (e,)
    thresholds, aliases = parts(table)
    assert ((thresholds >= 0) & (thresholds <= ONE)).all()
    assert (aliases < e).all()
    given, expected = units(table), expected_units(weights)
    assert int(given.sum()) == e * ONE
    assert ((given - expected).abs() <= 2.0 * expected.div(ONE).clamp_min(1.0)).all()
    assert (given[weights == 0] == 0).all()


def test_uniform_weights_are_exact():
    table = ops.alias_table(torch.full((1000,), 0.1))
    assert (parts(table)[0] == ONE).all()


@pytest.mark.parametrize("weights_of", [uniform, random, one_heavy, with_zeros, zeros_first])
def test_draws_follow_the_weights(weights_of, generator):
    from scipy.stats import chisquare

    weights = weights_of(generator, 50)
    edges = ops.sample_edges(ops.alias_table(weights), 400_000, seed=3, step=5)
    counts = torch.bincount(edges, minlength=50)
    assert (counts[weights == 0] == 0).all()
    drawn = weights > 0
    expected = weights[drawn].double() / weights.double().sum() * 400_000
    assert chisquare(counts[drawn].numpy(), expected.numpy(), sum_check=False).pvalue > 1e-4


def test_zero_is_never_drawn_and_the_only_entry_always():
    weights = torch.zeros(1000)
    weights[617] = 1e-30
    assert (ops.sample_edges(ops.alias_table(weights), 5000, seed=0, step=0) == 617).all()
    assert (ops.sample_edges(ops.alias_table(torch.tensor([5.0])), 10, seed=0, step=0) == 0).all()


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_philox_gives_the_known_answers(counter, key, expected):
    """The vectors that Random123 ships for philox4x32-10."""
    words = sampling.philox(tuple(torch.tensor([word]) for word in counter), tuple(key))
    assert [int(word) for word in words] == expected


@pytest.mark.parametrize("e", [1, 3, 2**31 - 1, 2**32 + 7, 2**40 - 3, 2**62 + 12345, 2**63 - 1])
def test_row_of_a_draw_is_exact_for_any_number_of_entries(e, generator):
    words = torch.randint(0, ONE, (200, 2), generator=generator)
    words[0], words[1] = 0, ONE - 1
    rows = sampling._scale(words[:, 0], words[:, 1], e)
    assert rows.tolist() == [((high << 32) + low) * e >> 64 for high, low in words.tolist()]


def test_draws_are_the_same_whatever_the_precision_of_the_weights(generator):
    weights = random(generator, 1000)
    assert torch.equal(ops.alias_table(weights), ops.alias_table(weights.double()))


def test_draws_do_not_depend_on_how_many_are_drawn(generator):
    table = ops.alias_table(random(generator, 1000))
    many = ops.sample_edges(table, 20_000, seed=7, step=9)
    for n_edges in (1, 100, 128, 5000):
        assert torch.equal(ops.sample_edges(table, n_edges, seed=7, step=9), many[:n_edges])


def test_other_steps_and_seeds_are_other_draws(generator):
    table = ops.alias_table(torch.ones(1000))
    base = ops.sample_edges(table, 50_000, seed=7, step=9)
    assert torch.equal(base, ops.sample_edges(table, 50_000, seed=7, step=9))
    for seed, step in ((7, 10), (8, 9), (9, 7), (7 + ONE, 9), (7, 9 + ONE)):
        other = ops.sample_edges(table, 50_000, seed=seed, step=step)
        assert (other == base).double().mean() < 3e-3  # one in a thousand is equal by chance
        correlation = torch.corrcoef(torch.stack([base, other]).double())[0, 1]
        assert correlation.abs() < 0.025  # 5 deviations


@native
def test_threads_do_not_change_the_draws(generator):
    table = ops.alias_table(random(generator, 1000))
    before, results = torch.get_num_threads(), []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        results.append(ops.sample_edges(table, 100_001, seed=1, step=2))
    torch.set_num_threads(before)
    assert all(torch.equal(result, results[0]) for result in results)


def test_strided_and_expanded_inputs(generator):
    weights = random(generator, 200)
    table = ops.alias_table(weights)
    assert torch.equal(ops.alias_table(torch.stack([weights, weights], dim=1)[:, 0]), table)
    assert torch.equal(ops.alias_table(weights[:1].expand(33)), ops.alias_table(torch.ones(33)))
    edges = ops.sample_edges(torch.stack([table, table], dim=1)[:, 0], 500, seed=1, step=2)
    assert torch.equal(edges, ops.sample_edges(table, 500, seed=1, step=2))


def test_weights_that_ask_for_gradients_are_left_alone(generator):
    weights = random(generator, 50).requires_grad_()
    copy = weights.detach().clone()
    assert not ops.alias_table(weights).requires_grad
    assert torch.equal(weights.detach(), copy)


@native
def test_opcheck(generator):
    weights = random(generator, 40)
    torch.library.opcheck(torch.ops.fastpdr.alias_table.default, (weights,))
    torch.library.opcheck(torch.ops.fastpdr.sample_edges.default, (ops.alias_table(weights), 100, 1, 2))


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ([1.0], TypeError, r"weights must be a float32 or float64 tensor \[e\], got list"),
        (torch.ones(2, 2), ValueError, r"weights must be float32 \(or float64\) \[e\], got float32 \[2, 2\]"),
        (torch.ones(2, dtype=torch.int64), ValueError, r"got int64 \[2\]"),
        (torch.ones(0), ValueError, "weights must have 1 <= e < 2.31 entries, got 0"),
        (torch.ones(1).expand(2**31), ValueError, "weights must have 1 <= e < 2.31 entries, got 2147483648"),
        (torch.zeros(3), ValueError, "weights must be finite, >= 0 and not all 0, got values from 0.0 to 0.0"),
        (torch.tensor([1.0, -1.0]), ValueError, "got values from -1.0 to 1.0"),
        (torch.tensor([1.0, torch.inf]), ValueError, "got values from 1.0 to inf"),
        (torch.tensor([1.0, torch.nan]), ValueError, "got values from nan to nan"),
    ],
)
def test_bad_weights_are_named(weights, error, message):
    with pytest.raises(error, match="alias_table: .*" + message):
        ops.alias_table(weights)


@native
@pytest.mark.parametrize("weights", [[], [0.0], [-1.0, 2.0], [1.0, torch.inf], [1.0, torch.nan]])
def test_the_operator_itself_refuses_bad_weights(weights):
    with pytest.raises(RuntimeError, match="alias_table: weights must be"):
        torch.ops.fastpdr.alias_table(torch.tensor(weights, dtype=torch.float64))


TABLE = torch.tensor([(ONE - 1) << 31])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([[1, 0]], 1, 0, 0), TypeError, r"table must be an int64 tensor \[e\], got list"),
        ((TABLE.double(), 1, 0, 0), ValueError, r"table must be int64 \[e\], got float64 \[1\]"),
        ((TABLE[None], 1, 0, 0), ValueError, r"table must be int64 \[e\], got int64 \[1, 1\]"),
        ((TABLE[:0], 1, 0, 0), ValueError, r"table must be \[e\] with e >= 1, got int64 \[0\]"),
        ((TABLE, -1, 0, 0), ValueError, r"n_edges must be an integer in \[0, 2\^63\), got -1"),
        ((TABLE, 1.0, 0, 0), TypeError, "n_edges must be an integer, got 1.0"),
        ((TABLE, 1, -1, 0), ValueError, r"seed must be an integer in \[0, 2\^63\), got -1"),
        ((TABLE, 1, 2**63, 0), ValueError, r"seed must be an integer in \[0, 2\^63\), got 9223372036854775808"),
        ((TABLE, 1, 0, "a"), TypeError, "step must be an integer, got 'a'"),
        ((TABLE, 1, 0, -5), ValueError, r"step must be an integer in \[0, 2\^63\), got -5"),
    ],
)
def test_bad_arguments_of_a_draw_are_named(arguments, error, message):
    table, n_edges, seed, step = arguments
    with pytest.raises(error, match="sample_edges: " + message):
        ops.sample_edges(table, n_edges, seed=seed, step=step)
