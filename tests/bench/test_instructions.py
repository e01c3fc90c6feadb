"""The judgement of instruction counts; the counting itself is a part of .ci/run."""

from __future__ import annotations

import json

from bench.instructions.__main__ import BASELINE, compare


def test_the_baseline_says_what_it_is_of():
    baseline = json.loads(BASELINE.read_text())
    assert baseline["simd"] == "x86-64-v3"
    assert all(number > 10_000 for number in baseline["instructions"].values())


def test_five_percent_are_allowed():
    before = {"instructions": {"pairs": 1000, "fuzzy": 1000, "sampling": 1000}}
    table, worse = compare(before, {"instructions": {"pairs": 1050, "fuzzy": 1051, "sampling": 10}})
    assert worse == ["fuzzy"]
    assert [row[3] for row in table] == ["+5.0%", "+5.1%", "-99.0%"]


def test_a_case_without_a_baseline_is_named():
    assert compare({"instructions": {}}, {"instructions": {"pairs": 1}})[1] == ["pairs"]
