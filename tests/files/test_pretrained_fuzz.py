"""Hundreds of damaged folders of networks: never a crash, never half a network, never more memory than the files warrant."""

import json
import os
import struct
import tracemalloc
from collections import Counter

import numpy as np
import safetensors.numpy

from hcrot.files.json_and_arrays import write_arrays
from hcrot.models.unet_2d import UNet2dModel
from support.small_unets import tiny_model

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
INDEX = WEIGHTS + ".index.json"

ODD_VALUES = [
    None, True, False, 0, -1, 1, 2, 3, 7, 10**9, 10**18, 10**400, -(10**9), 0.5, 1e300, float("nan"), float("inf"), "", "silu", "x" * 5000,
    [], {}, [[]], [None, None], [4], [4, 8, 8], [10**7, 10**7], [4, 10**12], [4.0, 8.0], ["DownBlock2D"], ["4", "8"], {"a": 1}, [True],
]  # fmt: skip


def flip(path, rng, start, stop, count=1):
    content = bytearray(path.read_bytes())
    for _ in range(count):
        content[int(rng.integers(start, min(stop, len(content))))] ^= 1 << int(rng.integers(8))
    path.write_bytes(content)


def header_end(path):
    return 8 + struct.unpack("<Q", path.read_bytes()[:8])[0]


def change_header(path, change):
    """Let ``change`` work on the header as an object, and write it back in front of the same data."""
    content, end = path.read_bytes(), header_end(path)
    header = json.loads(content[8:end])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[end:])


def some_weights(folder, rng):
    files = sorted(folder.glob("*.safetensors"))
    return files[rng.integers(len(files))]


def truncate(folder, rng):
    files = sorted(folder.iterdir())
    path = files[rng.integers(len(files))]
    os.truncate(path, rng.integers(path.stat().st_size - 1))  # more than the newline at the end


def truncate_header(folder, rng):
    path = some_weights(folder, rng)
    os.truncate(path, rng.integers(header_end(path)))


def flip_header(folder, rng):
    path = some_weights(folder, rng)
    flip(path, rng, 0, header_end(path), count=rng.integers(1, 4))


def declared_length(folder, rng):
    path = some_weights(folder, rng)
    length = [0, 1, 2**31, 2**40, 2**63, 2**64 - 1, header_end(path) - 9, header_end(path) + 1][rng.integers(8)]
    path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])


def change_entry(field, new_value):
    def change(folder, rng):
        def on_header(header):
            names = sorted(header.keys() - {"__metadata__"})
            entry = header[names[rng.integers(len(names))]]
            entry[field] = new_value(entry[field], rng)

        change_header(some_weights(folder, rng), on_header)

    return change


def wrong_shape(shape, rng):
    first, *rest = shape
    return [[*shape, 1], shape[:-1], [2 * first, *rest], [0, *shape], [first + 1, *rest], [-1], "4", None][rng.integers(8)]


def huge_shape(shape, rng):
    return [[10**6, 10**6], [2**62, 4], [2**32, 2**32], [2**63], [10**30], [10**9] * 9, [0, 2**62], [2**31] * len(shape)][rng.integers(8)]


def overlap(offsets, rng):
    start, stop = offsets
    moved = int(rng.integers(1, 64)) * 4
    before, after = [start - moved, stop - moved], [start + moved, stop + moved]
    return [before, after, [start, stop + 4], [stop, start], [start, 2**63], [start], [-4, 0]][rng.integers(7)]


def another_type(kind, rng):
    return ["F16", "BF16", "F64", "I32", "U32", "F8_E4M3", "C64", "f32", "", 3, None][rng.integers(11)]


def change_names(folder, rng):
    def on_header(header):
        names = sorted(header.keys() - {"__metadata__"})
        name, other = (names[index] for index in rng.permutation(len(names))[:2])
        new = [f"{name}.more", name[1:], name.upper(), "", other, name.replace("weight", "query").replace("bias", "key")][rng.integers(6)]
        header[new] = header.pop(name)

    change_header(some_weights(folder, rng), on_header)


def extra_tensor(folder, rng):
    path = some_weights(folder, rng)
    arrays = safetensors.numpy.load_file(path)
    write_arrays(path, arrays | {f"extra.{rng.integers(99)}": np.zeros(int(rng.integers(9)), np.float32)})


def key_twice(folder, rng):
    path = folder / [CONFIG, INDEX][rng.integers(1 + (folder / INDEX).exists())]
    text = path.read_text()
    names = list(json.loads(text))
    path.write_text(f'{{"{names[rng.integers(len(names))]}": NaN, {text[1:]}')


def header_key_twice(folder, rng):
    path = some_weights(folder, rng)
    content, end = path.read_bytes(), header_end(path)
    header = json.loads(content[8:end])
    names = sorted(header.keys() - {"__metadata__"})
    name = names[rng.integers(len(names))]
    text = (json.dumps(header)[:-1] + f", {json.dumps(name)}: {json.dumps(header[name])}}}").encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[end:])


def odd_argument(folder, rng):
    config = json.loads((folder / CONFIG).read_text())
    names = sorted(config.keys() - {"_diffusers_version"})
    config[names[rng.integers(len(names))]] = ODD_VALUES[rng.integers(len(ODD_VALUES))]
    (folder / CONFIG).write_text(json.dumps(config))


def flip_configuration(folder, rng):
    flip(folder / CONFIG, rng, 0, 10**9, count=rng.integers(1, 3))


def lost_argument(folder, rng):
    config = json.loads((folder / CONFIG).read_text())
    for _ in range(rng.integers(1, 5)):
        config.pop(sorted(config)[rng.integers(len(config))])
    (folder / CONFIG).write_text(json.dumps(config))


def odd_index(folder, rng):
    if not (folder / INDEX).exists():
        return flip_header(folder, rng)
    index = json.loads((folder / INDEX).read_text())
    names = sorted(index["weight_map"])
    odd = ["", ".", "..", "/etc/passwd", "no.safetensors", CONFIG, 3, None, [], "x" * 300 + ".safetensors", "\0", "w.bin"][rng.integers(12)]
    index["weight_map"][names[rng.integers(len(names))]] = odd
    (folder / INDEX).write_text(json.dumps(index))


def lost_file(folder, rng):
    files = sorted(folder.iterdir())
    files[rng.integers(len(files))].unlink()


MAY_LOAD = {flip_header, change_names, odd_argument, flip_configuration, lost_argument, odd_index}
"""What may leave the weights what they were: a flip in the metadata, sample_size, an argument that was at its default anyway."""

DAMAGES = [
    truncate, truncate_header, flip_header, declared_length, change_entry("shape", wrong_shape), change_entry("shape", huge_shape),
    change_entry("data_offsets", overlap), change_entry("dtype", another_type), change_names, extra_tensor, key_twice, header_key_twice,
    odd_argument, flip_configuration, lost_argument, odd_index, lost_file,
]  # fmt: skip


def test_fuzz(tmp_path):
    """Damaged folders by the hundred: an error of a plain kind that names a file of the folder, or the very same weights; little memory."""
    model, rng = tiny_model(), np.random.default_rng(2024)
    state = {name: array.tobytes() for name, array in model.state_dict().items()}
    originals, outcomes = [], Counter()
    for number, size in enumerate(("10GB", 20_000)):
        model.save_pretrained(tmp_path / str(number), max_shard_size=size)
        originals.append({path.name: path.read_bytes() for path in (tmp_path / str(number)).iterdir()})
    limit = 10 * sum(map(len, originals[0].values())) + 500_000
    for number in range(680):
        damage, folder = DAMAGES[number % len(DAMAGES)], tmp_path / f"m{number}"
        folder.mkdir()
        for name, content in originals[number // len(DAMAGES) % 2].items():
            (folder / name).write_bytes(content)
        damage(folder, rng)
        tracemalloc.start()
        try:
            loaded = UNet2dModel.from_pretrained(folder)
        except (ValueError, FileNotFoundError, NotImplementedError) as error:
            outcomes["error"] += 1
            assert str(folder) in str(error), (damage, error)
            assert isinstance(error, FileNotFoundError) or any(name in str(error) for name in (CONFIG, WEIGHTS, INDEX, "model-0000"))
        except OSError as error:  # a name that the file system does not like
            assert damage is odd_index and str(folder) in str(error)
        else:
            outcomes["loaded"] += 1
            assert damage in MAY_LOAD, damage
            assert {name: array.tobytes() for name, array in loaded.state_dict().items()} == state
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < limit, (damage, peak)
    assert outcomes["error"] > 500 and outcomes["loaded"] > 20
