"""``hcrot sample --count``: very many pictures, in a folder of shards, which the processes of a job share out.

``pictures-000000000.npz``, ``pictures-000001000.npz``, ... hold ``images`` (uint8) and ``labels`` of the pictures from that number on.
Picture k is of class k modulo the number of classes, and is drawn with the same others at a time whoever draws it, so its bits are the
same whatever the number of processes. A shard is written beside its place and renamed. So a shard that is there is whole, and a job that
was killed goes on with those that are not.
"""

import hashlib
import json
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import hcrot
from hcrot.files.json_and_arrays import open_npz, replacing
from hcrot.tools.arguments import print_json
from hcrot.tools.plotting import as_bytes
from hcrot.training.distributed import Ranks, job

__all__ = ["draw_shards"]


def draw_shards(
    options: Namespace, model: Any, sampler: Any, classes: list[int] | None, draw: Callable[..., Any], small: tuple[Any, Any] | None
) -> int:
    """Draw ``options.count`` pictures of these classes into the one folder of ``options.output``, by ``draw`` of `hcrot.commands.sample`.
    ``small`` is the first of two networks, with its sampler.

    Raises:
        ValueError: another output than one folder, or a shard there is of other pictures than these.
    """
    if len(options.output) != 1 or options.output[0].suffix:
        raise ValueError(f"--count: expected one folder as --output, got {' '.join(map(str, options.output))}")
    [folder] = options.output
    with job() as ranks:
        if options.threads:
            hcrot.set_num_threads(options.threads)
        about = description([(model, sampler), *([small] if small else [])], classes, options)
        starts = range(0, options.count, options.shard_size)
        with ranks.first_goes_ahead():
            folder.mkdir(parents=True, exist_ok=True)
            lacks = np.array([ranks.first and not holds(folder, start, options, about) for start in starts], np.uint8)
        missing = [start for start, lacking in zip(starts, ranks.gather(lacks)[0], strict=True) if lacking]
        draw_missing(missing, folder, partial(draw, model, sampler, small=small), classes, about, options, ranks)
        ranks.wait()
        result = {"pictures": options.count, "drawn": sum(size_of(start, options) for start in missing), "output": str(folder)}
        text = f"{options.count:,} pictures in {len(starts):,} shards in {folder}/, {result['drawn']:,} of them drawn now"
        print_json(result) if options.json else print(text)
    return 0


def draw_missing(
    missing: list[int], folder: Path, draw: Callable[..., Any], classes: list[int] | None, about: str, options: Namespace, ranks: Ranks
) -> None:
    for start in tqdm(missing[ranks.rank :: ranks.size], desc="drawing", unit="shard", leave=False, disable=ranks.quiet):
        numbers = np.arange(start, start + size_of(start, options))
        labels = None if classes is None else np.array(classes)[numbers % len(classes)]
        images, _ = draw(labels, Namespace(**vars(options) | {"number": len(numbers)}), first=start, progress=False)
        arrays: dict[str, Any] = {"images": as_bytes(images), "about": np.array(about)} | ({} if labels is None else {"labels": labels})
        with replacing(path_of(folder, start)) as unfinished, open(unfinished, "wb") as file:
            np.savez(file, **arrays)


def description(networks: list[tuple[Any, Any]], classes: list[int] | None, options: Namespace) -> str:
    """All that the pictures depend on, as JSON."""
    digest = hashlib.blake2b(digest_size=16)
    for model, _ in networks:
        for name, array in model.state_dict().items():
            digest.update(name.encode() + np.ascontiguousarray(array).tobytes())
    schedulers = ", ".join(repr(sampler) for _, sampler in networks)
    chosen = {name: getattr(options, name) for name in ("sampler", "steps", "guidance_scale", "batch_size", "shard_size", "seed")}
    return json.dumps({"weights": digest.hexdigest(), "scheduler": schedulers, "classes": classes} | chosen)


def holds(folder: Path, start: int, options: Namespace, about: str) -> bool:
    """Whether the shard is there with all its pictures; fewer there are if an earlier --count was smaller.

    Raises:
        ValueError: it holds other pictures than these, or is damaged.
    """
    path = path_of(folder, start)
    if not path.exists():
        return False
    try:
        with open_npz(path, "images") as arrays:
            found = str(arrays["about"]) if "about" in arrays else "{}"
            with arrays.zip.open("images.npy") as file:  # its header is enough
                np.lib.format.read_magic(file)
                shape, _, _ = np.lib.format.read_array_header_1_0(file)
    except ValueError as error:
        raise ValueError(f"{error}: no shard of pictures, take it away, or choose another folder (--output)") from error
    if found != about:
        before, now = json.loads(found), json.loads(about)
        differing = [name for name in now if before.get(name) != now[name]]
        raise ValueError(f"{path} holds other pictures, of another {', '.join(differing)}: choose another folder (--output)")
    return bool(shape[0] >= size_of(start, options))


def size_of(start: int, options: Namespace) -> int:
    return min(options.shard_size, options.count - start)


def path_of(folder: Path, start: int) -> Path:
    return folder / f"pictures-{start:09}.npz"
