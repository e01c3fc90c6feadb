"""How many instructions the kernels need, by callgrind: a figure without noise, compared with one that is committed.

    python -m bench.instructions [--update] [--build FOLDER]

Exits with 1 where a kernel needs over 5% more than bench/results/instructions.json says. Counts are those of one
thread, of one compiler and of AVX2, the widest set that valgrind knows: they tell whether a kernel does more work than
it did, not how fast it is. What another compiler or instruction set makes is not compared.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import click

from fastpdr._files import written_aside
from fastpdr.cli.output import aligned

HERE = Path(__file__).parent
BASELINE = HERE.parent / "results" / "instructions.json"
ALLOWED = 0.05  # more than the baseline


def build(folder: Path, core: str | None) -> Path:
    """Compile the program, against an installed core where one is named; returns it."""
    configure: list[str | Path] = ["cmake", "-S", HERE, "-B", folder, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release"]
    for command in ([*configure, f"-Dfastpdr_DIR={core or ''}"], ["cmake", "--build", folder]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise click.ClickException(done.stdout + done.stderr)
    return folder / "kernels"


def under_callgrind(program: Path, *case: str) -> subprocess.CompletedProcess[str]:
    """Run it with one thread."""
    options = ["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=counted"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = ["valgrind", *options, program, *case]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment)


def count(program: Path) -> dict[str, Any]:
    """Compiler, instruction set, and the instructions of every case."""
    compiler, simd, *cases = under_callgrind(program).stdout.splitlines()
    counts = {}
    for case in cases:
        found = re.search(r"Collected : (\d+)", under_callgrind(program, case).stderr)
        assert found, "callgrind has changed its last lines"
        counts[case] = int(found[1])
    return {"compiler": compiler, "simd": simd, "instructions": counts}


def compare(before: dict[str, Any], now: dict[str, Any]) -> tuple[list[list[str]], list[str]]:
    """Rows of a table, and the cases that need too many instructions or are not in the baseline."""
    table, worse = [], []
    for case, number in now["instructions"].items():
        old = before["instructions"].get(case)
        change = "new" if old is None else f"{100 * (number / old - 1):+.1f}%"
        table.append([case, "-" if old is None else f"{old:,}", f"{number:,}", change])
        if old is None or number > (1 + ALLOWED) * old:
            worse.append(case)
    return table, worse


@click.command(help=__doc__)
@click.option("--update", is_flag=True, help="Make today's counts the baseline.")
@click.option("--build", "folder", type=click.Path(path_type=Path), help="Where to compile; aside otherwise.")
@click.option(
    "--core", help="fastpdr_DIR of an installed fastpdr::core, to count that instead of compiling this tree's."
)
def main(update: bool, folder: Path | None, core: str | None) -> None:
    """Count and compare."""
    if shutil.which("valgrind") is None:
        raise click.ClickException("valgrind is not there: apt-get install valgrind")
    with tempfile.TemporaryDirectory() as aside:
        now = count(build(folder or Path(aside), core))
    before = json.loads(BASELINE.read_text(encoding="utf-8")) if BASELINE.exists() else {"instructions": {}}
    what = [f"{facts.get('compiler')}, {facts.get('simd')}" for facts in (before, now)]
    if update:
        with written_aside(BASELINE) as file:
            file.write_text(json.dumps(now, indent=1) + "\n", encoding="utf-8")
        click.echo(f"{BASELINE}: {what[1]}")
    elif what[0] != what[1]:
        click.echo(f"not compared: the baseline is of {what[0]}, this is {what[1]}")
        return
    table, worse = compare(before, now)
    click.echo(aligned([["kernel", "baseline", "now", "change"], *table], numbers=True))
    if worse and not update:
        raise click.ClickException(
            f"more than {100 * ALLOWED:.0f}% above the baseline, or not in it: {', '.join(worse)}; if that is meant, "
            "python -m bench.instructions --update"
        )


if __name__ == "__main__":
    main()
