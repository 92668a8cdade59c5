"""``hcrot train --tensorboard``: the files say what metrics.jsonl says."""

import json
import struct
import sys

import numpy as np
import pytest
from PIL import Image

from hcrot.commands import main
from hcrot.kernels import jit
from support.ranks import MPIEXEC, finish, start

TINY = ["--resolution", 8, "--channels", 8, "--layers-per-block", 1, "--train-batch-size", 4, "--attention", "--inference-steps", 2]


@pytest.fixture
def words(tmp_path, monkeypatch):
    monkeypatch.setenv("HCROT_DATA", str(tmp_path / "cache"))
    (tmp_path / "pictures").mkdir()
    for number in range(8):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{number}.png")
    return ["train", str(tmp_path / "pictures"), "--output", str(tmp_path / "run"), "--tensorboard"]


def scalars(path):
    """``{(name, step): value}``: each record is a length of 8 bytes, 4 bytes of checksum, the event, and 4 more of checksum."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    content, found = path.read_bytes(), {}
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        event = event_pb2.Event.FromString(content[12 : 12 + length])
        found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
        content = content[16 + length :]
    return found


def test_the_files_say_what_the_metrics_say(words, tmp_path):
    pytest.importorskip("tensorboardX")
    with pytest.raises(SystemExit) as ended:
        main([*words, "--num-epochs", "2", "--lr-scheduler", "polynomial", "--lr-power", "3", *map(str, TINY)])
    assert ended.value.code == 0
    [path] = (tmp_path / "run" / "tensorboard").iterdir()
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    expected = {(name, numbers["step"]): np.float32(numbers[name]) for numbers in metrics for name in ("loss", "lr", "grad_norm")}
    assert len(expected) == 12 and scalars(path) == expected
    np.testing.assert_allclose([numbers["lr"] for numbers in metrics], [1e-3 * (1 - step / 4) ** 3 for step in range(4)], atol=1e-7)


@pytest.mark.skipif(MPIEXEC is None, reason="there is no mpiexec: pip install hcrot[mpi]")
def test_two_ranks_learn_from_a_folder_and_write_one_file(words, tmp_path, monkeypatch):
    """What one process does in two parts, bit for bit, in both of two networks; a picture that cannot be read is named once."""
    pytest.importorskip("tensorboardX")
    monkeypatch.setattr(jit, "_threads", None)  # what --threads sets ends with the test
    (tmp_path / "pictures" / "broken.png").write_bytes(b"no picture")
    words += ["--num-epochs", "2", "--random-flip", "--threads", "1", *map(str, TINY), "--resolution", "16", "--small", "8"]
    code, out, err = finish(start(2, "-m", "hcrot", *words))
    assert code == 0, err
    assert err.count("broken.png is left out") == 1
    assert out.count("8 grey pictures of 16x16, no classes") == 1 and out.count("2 steps of 8") == 2
    words[3] = str(tmp_path / "one")
    with pytest.raises(SystemExit) as ended:
        main([*words, "--gradient-accumulation-steps", "2"])
    assert ended.value.code == 0
    found = []
    for folder in (tmp_path / run / part for run in ("run", "one") for part in ("", "small")):
        [path] = (folder / "tensorboard").iterdir()
        assert (folder / "samples.png").exists() and len((folder / "metrics.jsonl").read_text().splitlines()) == 2
        weights = (folder / "checkpoint" / "diffusion_pytorch_model.safetensors").read_bytes()
        found.append((scalars(path), weights))
    assert found[:2] == found[2:] and len(found[0][0]) == len(found[1][0]) == 6


def test_without_the_package_one_sentence_and_no_run(words, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code not in (0, None)
    assert "--tensorboard needs the package tensorboardX: pip install 'hcrot[tensorboard]'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
