"""Sizes in words, and how much is free: of the machine, within the limits of its control groups."""

from __future__ import annotations

import pytest

from fastpdr import _memory


@pytest.mark.parametrize(
    ("value", "expected"),
    [(5, 5), ("8GB", 8e9), ("1.5 GiB", 1.5 * 2**30), ("500 mb", 5e8), ("20K", 20_000), ("7", 7), ("2tb", 2e12)],
)
def test_sizes(value, expected):
    assert _memory.as_bytes("f", value) == expected


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "", "GB", "8 XB", "8GBB", "0MB", "-3GB", None])
def test_what_is_no_size(value):
    with pytest.raises(ValueError, match=r"f: memory_limit must be bytes > 0 or a size as '8GB', got"):
        _memory.as_bytes("f", value)


def test_words():
    assert [_memory.in_words(size) for size in (12, 1500, 2.5e6, 3e9, 4e12, 5e15)] == [
        *("12 bytes", "1.5 kB", "2.5 MB", "3 GB", "4 TB", "5e+03 TB"),
    ]


def system(root, available, groups, files):
    for name, content in {"proc/meminfo": f"MemTotal: 9 kB\nMemAvailable: {available} kB\n", **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    (root / "proc/self").mkdir()
    (root / "proc/self/cgroup").write_text(groups)
    return _memory.free_host_memory(root)


def test_the_machine_without_limits(tmp_path):
    files = {"sys/fs/cgroup/app/memory.max": "max\n", "sys/fs/cgroup/app/memory.current": "5\n"}
    assert system(tmp_path, 1000, "0::/app\n", files) == 1_024_000


def test_the_smallest_of_nested_limits_counts_and_pages_of_files_are_free(tmp_path):
    files = {
        "sys/fs/cgroup/memory.max": "900000\n",
        "sys/fs/cgroup/memory.current": "500000\n",
        "sys/fs/cgroup/memory.stat": "anon 1\ninactive_file 100000\n",
        "sys/fs/cgroup/app/memory.max": "800000\n",
        "sys/fs/cgroup/app/memory.current": "100000\n",
    }
    assert system(tmp_path, 1000, "0::/app\n", files) == 500_000


def test_control_groups_of_version_1(tmp_path):
    folder = "sys/fs/cgroup/memory/docker"
    files = {
        f"{folder}/memory.limit_in_bytes": "300000\n",
        f"{folder}/memory.usage_in_bytes": "250000\n",
        f"{folder}/memory.stat": "inactive_file 7\ntotal_inactive_file 20000\n",
    }
    assert system(tmp_path, 1000, "5:cpu,cpuacct:/x\n4:memory:/docker\n", files) == 70_000


def test_this_machine():
    assert 10**6 < _memory.free_host_memory() < 10**14


def test_a_limit_counts_while_it_is_set():
    with _memory.limited_to(1000):
        assert _memory.free_host_memory() == 1000
    assert _memory.free_host_memory() > 10**6
