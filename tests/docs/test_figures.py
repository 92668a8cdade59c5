"""The tables of docs/performance.md and of the README say what the files in docs/performance/ hold, as far as there is one."""

import importlib
import inspect
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hcrot.kernels.conv import ROWS_AT_ONCE
from hcrot.models.unet_2d_base import UNetBase

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
SCALES = {"s": 1, "ms": 1e-3, "µs": 1e-6, "MB": 1}


def figures(name):
    return json.loads((ROOT / "docs" / "performance" / f"{name}.json").read_text(encoding="utf-8"))


def table(first_row, page=PAGE):
    """The cells of the rows below the titles that begin like this."""
    lines = page[page.index(f"\n{first_row}") + 1 :].splitlines()[2:]
    rows = lines[: next(index for index, line in enumerate([*lines, ""]) if not line.startswith("|"))]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def is_rounded(text, value):
    """Whether "6.1 ms" is what 0.00605 is to so many digits."""
    number, _, unit = text.replace(",", "").partition(" ")
    scale, digits = SCALES[unit] if unit else 1, len(number.partition(".")[2])
    return abs(float(number) - value / scale) <= 0.5001 * 10**-digits


def bounds(text):
    """Between what "6.1 ms", or the sum "6.1 ms + 2 ms", may have been before it was rounded."""
    sizes = np.zeros(2)
    for part in text.split(" + "):
        number, _, unit = part.partition(" ")
        half = 0.5001 * 10.0 ** -len(number.partition(".")[2])
        sizes += np.array([float(number) - half, float(number) + half]) * SCALES.get(unit, 1)
    return sizes


def is_quotient(ratio, above, below):
    """Whether a typed ratio can be that of two typed figures, all rounded."""
    (low, high), (least, most), (smallest, largest) = bounds(ratio), bounds(above), bounds(below)
    return low <= most / smallest and least / largest <= high


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module


def test_beside_pytorch(benchmark):
    duration, in_megabytes = benchmark("common").duration, benchmark("compare_pytorch").in_megabytes
    expected = []
    for row in figures("compare_pytorch")["rows"]:
        form = in_megabytes if row["unit"] == "MB" else duration
        aim = "-" if row["at most"] is None else f"{row['at most']:.2f}"
        expected.append([row["label"], form(row["hcrot"]), form(row["PyTorch"]), f"{row['ratio']:.2f}", aim])
    assert table("| network, task, batch | hcrot | PyTorch | ratio | at most |") == expected


def test_the_story_of_a_convolution(benchmark):
    about, found = benchmark("convolution_story").about, figures("convolution_story")
    expected = [[row["route"], *(about(row[task], row[f"{task} is scaled"]) for task in found["titles"])] for row in found["rows"]]
    assert table(f"| convolution by | {' | '.join(found['titles'].values())} |") == expected


def test_one_convolution_at_a_time(benchmark):
    kernels, found, expected = benchmark("kernels"), figures("kernels"), []
    printed = SimpleNamespace(row=lambda *cells: expected.append(list(cells)))
    for row in found["rows"]:
        kernels.print_row(printed, row, found["ceiling"][0])
    assert table("| shape | uses | pass | hcrot | im2col |") == expected


def test_where_the_time_goes(benchmark):
    duration, found = benchmark("common").duration, figures("profile_layers")
    for name, forward, backward, share, before, ratio in table("| kind | forward | backward | of the step | before |"):
        part = found["parts"][name]
        both = sum(part.values())
        assert [forward, backward, share] == [duration(part["forward"]), duration(part["backward"]), f"{both / found['whole']:.1%}"], name
        assert is_quotient(ratio, f"{forward} + {backward}", before), name


def test_size_batch_and_width(benchmark):
    duration = benchmark("common").duration
    expected = [
        [f"{row['sweep']} {row['value']}", *map(duration, row["seconds"].values()), *(f"{size:.0f} MB" for size in row["memory"].values())]
        for row in figures("scaling")["rows"]
    ]
    assert table("| varied | hcrot, 1 thread |") == expected


RATIOS = {
    "| network, task, batch | hcrot | PyTorch | ratio | earlier |": lambda row: (row[3], row[1], row[2]),
    "| kernel, 28x28x32 | before | after |": lambda row: (row[3], row[2], row[1]),
    "| step | hcrot alone | in company |": lambda row: (row[3], row[2], row[1]),
    "| where | rows x depth x columns | hcrot | NumPy |": lambda row: (row[5], row[2], row[3]),
    "| kind | forward | backward | of the step | floor |": lambda row: (row[5], f"{row[1]} + {row[2]}".removeprefix("- + "), row[4]),
}


@pytest.mark.parametrize("title", RATIOS)
def test_the_ratios_of_a_table_without_a_file_are_those_of_its_figures(title):
    rows = table(title)
    assert len(rows) > 2 and not [row for row in rows if not is_quotient(*RATIOS[title](row))]


def test_the_readme_has_the_same_figures():
    measured = figures("compare_pytorch")["rows"]
    avx2 = {name: ratio for name, _, _, ratio, _ in table("| network, task, batch | hcrot | PyTorch | ratio | earlier |")}
    rows = table("| | hcrot, AVX-512, earlier | PyTorch, eager | ratio |", README)
    assert len(rows) == len(measured)
    for (name, ours, theirs, ratio, on_avx2), row in zip(rows, measured, strict=True):
        batch = row["label"].rpartition(" ")[2]
        assert re.search(rf"batch {batch}\b", name) and is_rounded(ours, row["hcrot"]) and is_rounded(theirs, row["PyTorch"]), name
        assert is_rounded(ratio, row["ratio"]) and on_avx2 == avx2[row["label"]], name


def test_the_backward_of_the_u_net_is_as_long_as_the_readme_says():
    lines = inspect.getsource(UNetBase.backward).splitlines()[1:]
    beside = r"check|counts|config|dcontext = |dsample = 2|gradients \+?="  # as in chapter 11
    plain = [line for line in lines if not re.search(beside, line)]
    assert f"whose backward is {len(lines)} lines, and {len(plain)} without checks and special cases" in " ".join(README.split())


def test_prose():
    held = {f"{megabytes:.1f}" for _, megabytes in figures("compare_pytorch")["steady"]}
    assert len(held) == 1 and f"it was {min(held)} MB after a tenth of them, {min(held)} MB at the end" in " ".join(PAGE.split())
    assert f"unfolds {ROWS_AT_ONCE} pixels at a time" in PAGE
