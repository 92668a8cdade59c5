"""Every script in benchmarks/ runs in its smallest setting, and leaves figures and a picture behind."""

import importlib.util
import itertools
import json
import math
import multiprocessing
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import hcrot
from hcrot.kernels import jit
from hcrot.kernels.launch import recorded

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = [
    "accuracy", "company", "compare_pytorch", "convolution_story", "kernels", "machines", "products", "profile_layers", "rivals", "scaling",
    "threads",
]  # fmt: skip
ONE_CORE = {"machines", "products"}


@pytest.fixture
def script(monkeypatch, tmp_path):
    """``script(name, *arguments)`` runs one as a user does, on one thread, and returns the figures that it wrote into tmp_path."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jit, "_threads", None)  # what --threads sets ends with the test

    monkeypatch.setattr(importlib.import_module("common"), "PAUSE", 0)
    monkeypatch.setattr(importlib.import_module("common"), "BURST", 0)
    monkeypatch.setattr(importlib.import_module("kernels"), "LARGE", 64)

    def run(name, *arguments):
        threads = [] if name in ONE_CORE else ["--threads", "1"]
        importlib.import_module(name).main(["--quick", *threads, "--output", "out", *arguments])
        with Image.open(f"out/{name}.png") as picture:
            assert picture.width > 400 and len(picture.convert("L").getcolors()) > 20
        assert sorted(path.name for path in Path("out").iterdir()) == [f"{name}.json", f"{name}.png"]
        figures = json.loads(Path("out", f"{name}.json").read_text())
        assert figures["benchmark"] == name and figures["machine"]["cores"] >= 1 and figures["options"]["quick"]
        return figures

    return run


def numbers(values):
    values = list(values)
    return len(values) > 0 and all(math.isfinite(value) and value > 0 for value in values)


def without_torch(monkeypatch, name):
    """Let the script called ``name`` find no PyTorch."""
    for module in [importlib.import_module("common"), importlib.import_module(name)]:
        monkeypatch.setattr(module, "has_torch", lambda: False)


def test_kernels_times_every_convolution_of_a_network_beside_pytorch(script, capsys):
    figures = script("kernels", "--network", "seed", "--batch", "1", "--seconds", "0.01", "--markdown")
    assert numbers(figures["ceiling"])
    *rows, all_forward, all_both = figures["rows"]
    assert [row["pass"] for row in rows] == ["forward", "with gradients"] * (len(rows) // 2)
    timed = {"im2col", "winograd", "auto"} | ({"PyTorch"} if importlib.util.find_spec("torch") else set())
    assert all(set(row["seconds"]) == timed and numbers(row["seconds"].values()) for row in rows)
    # 14x14, 7x7, 4x4: conv_in, two for each of 6 + 2 + 9 residual blocks, two upsamplers, conv_out
    assert all_forward["uses"] == all_both["uses"] == 1 + 2 * 17 + 2 + 1
    first = next(row for row in rows if row["shape"] == "32 -> 32, 14x14")
    assert first["operations"] == 2 * 9 * 14 * 14 * 32 * 32
    assert all_both["operations"] == 3 * all_forward["operations"] == 3 * sum(r["uses"] * r["operations"] for r in rows[::2])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(rows) + 2 and len({line.count("|") for line in lines}) == 1


def test_scaling_varies_one_thing_at_a_time(script):
    figures = script("scaling", "--libraries", "hcrot", "--only", "width", "--seconds", "0.01")
    assert [(row["sweep"], row["value"]) for row in figures["rows"]] == [("width", 8), ("width", 16)]
    assert all(numbers(row["seconds"].values()) and list(row["seconds"]) == ["hcrot, 1 thread"] for row in figures["rows"])
    narrow, wide = (row["memory"]["hcrot"] for row in figures["rows"])
    assert 0.5 < narrow < wide


def test_the_story_is_told_in_seven_ways_that_agree(script):
    figures = script("convolution_story", "--dataset", "digits", "--images", "8", "--patience", "0.01")
    rows = figures["rows"]
    assert len(rows) == 7 and rows[0]["route"] == "seven Python loops"
    for task in ("epoch", "layer"):
        assert numbers(row[task] for row in rows)
    assert rows[0]["layer is scaled"] and rows[0]["layer"] > 10 * rows[5]["layer"]


def test_a_way_that_computes_something_else_is_found(script, monkeypatch):
    routes = importlib.import_module("convolution_routes")
    right = routes.im2col_by_indices

    def shifted(x, size, padding):
        return np.roll(right(x, size, padding), 1, axis=1)

    monkeypatch.setitem(routes.ROUTES, "NumPy im2col, fancy index", lambda layer: routes.Unfolded(layer, shifted, routes.col2im_by_indices))
    with pytest.raises(AssertionError, match="NumPy im2col, fancy index: the results differ"):
        script("convolution_story", "--dataset", "digits", "--images", "4", "--patience", "0.001")


def test_the_profile_adds_up_and_can_be_compared(script, tmp_path, monkeypatch):
    """By a clock that goes on by 0.1 ms at each look, so that all steps take the same time, however busy the machine is."""
    looks = itertools.count()
    profile_layers = importlib.import_module("profile_layers")
    monkeypatch.setattr(profile_layers, "time", SimpleNamespace(perf_counter=lambda: 1e-4 * next(looks)))
    first = script("profile_layers", "--network", "seed", "--batch", "1", "--seconds", "0.01")
    parts = first["parts"]
    assert {"Conv2d 3x3", "Conv2d 3x3, stride 2", "GroupNormSiLU", "Linear", "Upsample", "joining blocks", "loss"} <= parts.keys()
    assert parts["Conv2d 3x3"].keys() == {"forward", "backward"}
    total = sum(sum(part.values()) for part in parts.values())
    assert total == pytest.approx(first["whole"], rel=1e-9)
    earlier = tmp_path / "earlier.json"
    Path("out/profile_layers.json").rename(earlier)
    script("profile_layers", "--network", "seed", "--batch", "1", "--seconds", "0.01", "--before", str(earlier))


def test_every_kernel_is_timed_in_one_thread_and_more(script):
    figures = script("threads", "--seconds", "0.001")
    assert len(figures["times"]) > 20 and all(len(spent) == 1 and numbers(spent) for spent in figures["times"].values())


def test_the_rounding_of_convolutions(script):
    """That of Winograd's algorithm is a few times that of plain sums, and as large a part whatever the weights are."""
    figures = script("accuracy")
    for row in figures["rows"]:
        for result, error in row["errors"]["winograd"].items():
            assert 0 < row["errors"]["im2col"][result] < 1e-6 and 0 < error < 3e-6
    assert 0 < figures["spill"]["winograd"] < 0.02 and figures["spill"]["im2col"] == 0


def test_steps_are_timed_in_company(script):
    figures = script("company", "--seconds", "0.01")
    (row,) = figures["rows"]
    assert all(len(spent) == 3 and numbers(spent) for spent in row["times"].values()) and numbers(row["slower"].values())
    assert not [other for other in multiprocessing.active_children() if other.name.startswith("Process")]  # nobody is left counting


def test_products_are_compared_with_numpys_and_with_the_roofline(script, monkeypatch):
    module = importlib.import_module("products")
    monkeypatch.setattr(module, "SIZES", [size for size in module.SIZES if size.where != "large"])
    figures = script("products", "--seconds", "0.0001")
    assert len(figures["rows"]) == 2 * len(module.SIZES)
    for row in figures["rows"]:
        assert numbers([row["hcrot"], row["NumPy"], row["roofline"]]) and row["roofline"] <= row["memory"]


def test_comparing_watches_the_memory_of_a_long_run(script, capsys):
    figures = script("compare_pytorch", "--only", "steady", "--steps", "20")
    assert [step for step, _ in figures["steady"]] == list(range(1, 21)) and numbers(megabytes for _, megabytes in figures["steady"])
    assert "steady memory, seed, batch 4: " in capsys.readouterr().out


def test_avx2_is_played_by_a_process_of_its_own(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("compare_pytorch")
    monkeypatch.delenv("NUMBA_CPU_NAME", raising=False)
    started = []

    def start(command, env):
        started.append((command[2:], {name: env[name] for name in module.AVX2}, env["NUMBA_CACHE_DIR"]))
        return SimpleNamespace(returncode=3)

    monkeypatch.setattr(module.subprocess, "run", start)
    with pytest.raises(SystemExit) as ended:
        module.main(["--isa", "avx2", "--only", "steady"])
    assert ended.value.code == 3
    assert started[0][:2] == (["--isa", "avx2", "--only", "steady"], module.AVX2)
    assert not Path(started[0][2]).exists()  # the cache of its own is gone


def test_comparing_with_pytorch(script, capsys):
    pytest.importorskip("torch")
    pytest.importorskip("diffusers")
    figures = script("compare_pytorch", "--only", "seed-forward-1", "--seconds", "0.01")
    (row,) = figures["rows"]
    assert numbers([row["hcrot"], row["PyTorch"]]) and row["ratio"] == row["hcrot"] / row["PyTorch"] and row["at most"] == 0.18
    assert "seed, forward, batch 1" in capsys.readouterr().out


def test_ranks_are_compared_with_one_process_and_simulated(script):
    pytest.importorskip("mpi4py")
    figures = script("machines")
    assert numbers(figures["steps"].values()) and numbers(figures["sums"]) and figures["waiting"] > 0
    assert len(figures["steps"]) == 3 and numbers([figures["late"], figures["waiting_late"]]) and 0 < figures["backward"] < 1
    assert [row["ranks"] for row in figures["rows"]] == [2**k for k in range(11)]
    assert figures["rows"][0]["ring"] == pytest.approx(1, abs=0.2)
    module = importlib.import_module("machines")
    latency, bandwidth = module.fitted(np.array([1e3, 1e5, 1e7]), 2e-5 + np.array([1e3, 1e5, 1e7]) / 5e8)
    assert latency == pytest.approx(2e-5) and bandwidth == pytest.approx(5e8)
    times = module.communication(4, 8e6, 10, 1e-5, 1e9)  # three quarters of 8 MB, twice; of a tree's two levels all, twice
    assert times["ring"] == pytest.approx(6e-4 + 12e-3) and times["tree"] == pytest.approx(4e-4 + 32e-3)


def test_rivals_are_compared_before_they_are_timed(script, capsys):
    pytest.importorskip("torch")
    pytest.importorskip("diffusers")
    figures = script("rivals", "--only", "seed-forward-1", "--seconds", "0.01", "--rivals", "PyTorch", "PyTorch, channels_last")
    (row,) = figures["rows"]
    assert list(row["seconds"]) == ["hcrot", "PyTorch", "PyTorch, channels_last"] and numbers(row["seconds"].values())
    assert row["differences"]["PyTorch"] == 0 < row["differences"]["hcrot"] < 1e-5
    assert row["failures"] == {} and "seed-forward-1" in capsys.readouterr().out


def test_floors_count_what_kernels_do(monkeypatch):
    """Operations and bytes of recorded calls against their definitions."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    floors = importlib.import_module("floors")

    def counts(layer, *shape):
        x = np.ones(shape, np.float32)
        with recorded() as calls:
            y = layer(x)
            layer.backward(y)
        return [(name, floors.operations(name, arguments), floors.traffic(name, arguments))
                for name, arguments in ((compiled.__name__, arguments) for compiled, arguments, _ in calls)]  # fmt: skip

    strided = counts(hcrot.Conv2d(3, 5, 3, stride=2, padding=1), 2, 3, 8, 8)
    assert [operations for _, operations, _ in strided] == [2 * 2 * 16 * 5 * 3 * 9] * 3
    fast = {name: operations for name, operations, _ in counts(hcrot.Conv2d(16, 8, 3, padding=1, algorithm="winograd"), 2, 16, 8, 8)}
    assert fast["_winograd"] == fast["_weight_gradient"] == 2 * 36 * 2 * 4 * 16 * 8
    norm = {name: traffic for name, _, traffic in counts(hcrot.GroupNorm(2, 4), 2, 4, 3, 3)}
    assert 2 * 4 * 72 < norm["_group_norm"] < 3 * 4 * 72 < norm["_group_norm_backward"]
    attention = [operations for name, operations, _ in counts(hcrot.Attention(8), 2, 8, 4, 4) if "attention" in name]
    assert attention == [2 * 2 * 2 * 16 * 16 * 8, 5 * 2 * 2 * 16 * 16 * 8]


def test_comparing_says_that_pytorch_is_missing(script, monkeypatch, capsys):
    without_torch(monkeypatch, "compare_pytorch")
    with pytest.raises(SystemExit) as stop:
        script("compare_pytorch", "--only", "seed-forward-1", "steady")
    assert stop.value.code == 2 and "needs PyTorch and diffusers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("kernels", ["--batch", "0"], "argument --batch: expected a whole number of at least 1, got '0'"),
        ("kernels", ["--seconds", "nan"], "argument --seconds: expected a number above 0, got 'nan'"),
        ("scaling", ["--threads", "100000"], "threads must be an int from 1 to"),
        ("scaling", ["--only", "depth"], "invalid choice: 'depth'"),
        ("profile_layers", ["--before", "nowhere.json"], "nowhere.json"),
        ("profile_layers", ["--before", "other.json"], "no JSON that profile_layers.py wrote"),
        ("convolution_story", ["--data-dir", "nowhere"], "folder nowhere does not exist"),
        ("compare_pytorch", ["--only", "steady", "--output", "other.json"], "other.json"),
    ],
)
def test_bad_input_ends_in_one_sentence(script, capsys, name, arguments, message):
    Path("other.json").write_text("{}")
    with pytest.raises(SystemExit) as stop:
        script(name, *arguments)
    (line,) = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and message in line


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_explains(monkeypatch, capsys, name):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    with pytest.raises(SystemExit) as stop:
        importlib.import_module(name).main(["--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0 and f"python benchmarks/{name}.py" in text
    for option in ("output", "markdown", "quick", *(["threads"] if name not in ONE_CORE else [])):
        assert f"--{option} " in text


def test_all_scripts_are_tested():
    shared = {"common", "convolution_routes", "floors", "networks", "rival_jax", "rival_steps"}
    assert sorted(path.stem for path in BENCHMARKS.glob("*.py") if path.stem not in shared) == SCRIPTS
