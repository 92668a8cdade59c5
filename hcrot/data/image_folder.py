"""A folder of one's own pictures as one array: PNG, JPEG, WebP and what else Pillow reads, classes from the subfolders.

    flowers/rose/1.jpg  flowers/rose/2.png  flowers/tulip/holiday/3.webp        classes ["rose", "tulip"]

Pictures are decoded, cut and resized once. The result is a file of bytes in the cache folder, which is mapped into memory: a folder may be
larger than memory, and the next run begins at once. Beside the pixels is a hash of the names, sizes and times of the files that they were
made from; a folder that was copied or moved is prepared anew.
"""

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from hcrot.data.cache import cache_folder
from hcrot.files.json_and_arrays import read_json, replacing_folder, write_json
from hcrot.init import is_int

__all__ = ["SUFFIXES", "ImageFolder"]

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
GREY = ("1", "L", "LA", "La", "I;16", "I;16B", "I;16L", "I;16N")  # Pillow's modes without colour
PIXELS, INDEX = "images.bin", "index.json"
VERSION = 1  # of how pictures are prepared: what another version has prepared is made anew
CHUNK = 256  # pictures that are in memory at once
WORKERS = 4  # Pillow decodes and resizes outside Python's lock


class ImageFolder:
    """The pictures below a folder, each of ``resolution`` x ``resolution`` pixels.

        flowers = ImageFolder("flowers", resolution=64)
        for images, labels in Batches(flowers.images, flowers.labels, batch_size=32, generator=rng):
            x = prepare_images(images)                                  # float32 (32, 3, 64, 64) in [-1, 1]

    Each subfolder that holds pictures, at any depth, is a class, in the order of the names, as in torchvision. Without subfolders there
    are no classes and every label is 0. Hidden files and files that are no pictures by their names are passed over. Transparent pictures
    are laid on white; a photograph is turned as its camera says; of an animation the first picture counts.

    Args:
        folder: where the pictures are.
        resolution: height and width of the result.
        channels: 3 for colour, 1 for grey. None: 1 if every picture is grey, else 3.
        center_crop: True: the largest square in the middle, resized. False: the whole picture, stretched to a square.
        strict: True: a picture that cannot be read is an error. False: one line on stderr names it, and it is left out.
        cache: the folder for the prepared pixels. None: ``images`` in the cache folder (``$HCROT_DATA``, ``$XDG_CACHE_HOME/hcrot`` or
            ``~/.cache/hcrot``).

    Attributes:
        images: uint8 (N, channels, resolution, resolution), mapped from the file of the prepared pixels, read-only.
        labels: int64 (N,).
        classes: the names of the subfolders; [] if there are none.
        paths: the N files, relative to the folder, sorted by class and name.
        skipped: of each file that could not be read, why.
        enlarged: how many pictures were smaller than the resolution.

    Raises:
        FileNotFoundError: no such folder, or no pictures in it.
        ValueError: pictures beside the subfolders of classes; with ``strict`` a picture that cannot be read; a resolution or channels that
            cannot be. OSError: the cache cannot be written.

    Example:
        >>> from PIL import Image
        >>> for name in ("cat", "dog"):
        ...     (folder / name).mkdir()
        ...     Image.new("RGB", (40, 30), "red").save(folder / name / "1.png")
        >>> pictures = hcrot.data.ImageFolder(folder, 16, cache=folder / "cache")
        >>> pictures.images.shape, pictures.labels, pictures.classes
        ((2, 3, 16, 16), array([0, 1]), ['cat', 'dog'])
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        resolution: int = 64,
        *,
        channels: int | None = None,
        center_crop: bool = True,
        strict: bool = False,
        cache: str | os.PathLike | None = None,
    ):
        if not is_int(resolution) or resolution < 1:
            raise ValueError(f"ImageFolder: resolution must be an int of at least 1, got {resolution!r}")
        if channels not in (None, 1, 3):
            raise ValueError(f"ImageFolder: channels must be 1, 3 or None, got {channels!r}")
        self.folder = Path(folder).expanduser()
        self.classes, files = find_pictures(self.folder)
        how = {"resolution": int(resolution), "channels": channels, "center_crop": bool(center_crop), "version": VERSION}
        place = hashlib.sha256(f"{self.folder.resolve()}{json.dumps(how)}".encode()).hexdigest()[:16]
        target = (Path(cache).expanduser() if cache is not None else cache_folder("images")) / f"{self.folder.resolve().name}-{place}"
        contents = hash_of_files(self.folder, files)
        index = read_index(target, contents)
        if index is None or (strict and index["skipped"]):
            with replacing_folder("ImageFolder", target, f"{PIXELS}|{INDEX}") as new:
                write_json(new / INDEX, prepare(self.folder, files, how, strict, new / PIXELS) | {"hash": contents})
            index = read_json(target / INDEX)
        shape = tuple(index["shape"])
        self.images: np.ndarray = np.memmap(target / PIXELS, np.uint8, "r", shape=shape)
        self.skipped: dict[str, str] = index["skipped"]
        self.enlarged: int = index["enlarged"]
        self.paths = [file for file in files if file not in self.skipped]
        self.labels = np.array([self.classes.index(file.split("/")[0]) if self.classes else 0 for file in self.paths], np.int64)

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        _, channels, height, width = self.images.shape
        kind = "grey" if channels == 1 else "colour"
        return f"ImageFolder({str(self.folder)!r}: {len(self):,} {kind} pictures of {height}x{width}, {len(self.classes)} classes)"


def find_pictures(folder: Path) -> tuple[list[str], list[str]]:
    """The names of the classes, and the pictures by their paths in the folder, both sorted."""
    if not folder.is_dir():
        raise FileNotFoundError(f"ImageFolder: there is no folder {folder}")
    files = sorted(walk(folder), key=lambda file: file.split("/"))
    if not files:
        raise FileNotFoundError(f"ImageFolder: {folder} and its subfolders hold no pictures ({', '.join(SUFFIXES)})")
    classes = sorted({file.split("/")[0] for file in files if "/" in file})
    beside = [file for file in files if "/" not in file]
    if classes and beside:
        raise ValueError(f"ImageFolder: {folder} holds {len(beside)} pictures, such as {beside[0]}, beside the subfolders of its "
                         f"{len(classes)} classes: expected pictures in subfolders only, or no subfolders")
    return classes, files


def walk(folder: Path) -> Iterator[str]:
    """Paths of pictures below a folder, relative to it. Links are followed, but no folder is entered twice."""
    entered = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = [] if real in entered else sorted(name for name in folders if not name.startswith("."))
        if real not in entered:
            yield from (
                (Path(place) / name).relative_to(folder).as_posix()
                for name in files
                if name.lower().endswith(SUFFIXES) and not name.startswith(".")
            )
        entered.add(real)


def hash_of_files(folder: Path, files: Sequence[str]) -> str:
    """Of the names, sizes and times, not of the pixels, which would all have to be read at each start.

    Whoever writes a picture, or puts another in its place, changes one of these, even if he sets the time of change back: the status has a
    time of its own, which nobody can set. (On Windows it is the time at which the file was made.) A file that is gone, or a link that leads
    nowhere, has none of them.
    """
    digest = hashlib.sha256()
    for file in files:
        try:
            status = os.stat(folder / file)
            known = f"{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}"
        except OSError:
            known = "cannot be read"
        digest.update(f"{file}\0{known}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def read_index(target: Path, contents: str) -> dict[str, Any] | None:
    """What is known of the prepared pixels; None, if there are none, if they are damaged, or made from other pictures."""
    try:
        index = read_json(target / INDEX)
        size = os.path.getsize(target / PIXELS)
        return index if index["hash"] == contents and size == np.prod(index["shape"], dtype=np.int64) else None
    except (OSError, ValueError, KeyError):
        return None


def prepare(folder: Path, files: Sequence[str], how: dict[str, Any], strict: bool, target: Path) -> dict[str, Any]:
    """Write the pixels of all pictures, one after the other, and return what the index says of them."""
    from tqdm import tqdm  # who only looks at arrays does not wait for it

    skipped: dict[str, str] = {}
    count = enlarged = 0

    def refuse(file: str, error: Exception) -> None:
        reason = str(error).replace(str(folder / file), file) or type(error).__name__
        if strict:
            raise ValueError(f"ImageFolder: {folder / file} cannot be read: {reason}") from error
        print(f"hcrot: {folder / file} is left out: {reason}", file=sys.stderr)
        skipped[file] = reason

    with ThreadPoolExecutor(WORKERS) as pool, open(target, "wb") as pixels:
        channels = how["channels"] or (1 if all(pool.map(lambda file: is_grey(folder / file), files)) else 3)

        def decode(file: str) -> tuple[np.ndarray, bool] | Exception:
            try:
                return read_picture(folder / file, how["resolution"], channels, how["center_crop"])
            except Exception as error:  # Pillow's decoders raise whatever the damage leads to
                return error

        with tqdm(total=len(files), desc="preparing pictures", leave=False, disable=len(files) < CHUNK or sys.stderr is None) as bar:
            for start in range(0, len(files), CHUNK):
                chunk = files[start : start + CHUNK]
                for file, result in zip(chunk, pool.map(decode, chunk), strict=True):
                    if isinstance(result, Exception):
                        refuse(file, result)
                    else:
                        pixels.write(result[0].tobytes())
                        count, enlarged = count + 1, enlarged + result[1]
                bar.update(len(chunk))
    if not count:
        raise ValueError(f"ImageFolder: none of the {len(files)} pictures in {folder} can be read, such as {files[0]}: {skipped[files[0]]}")
    return {"shape": [count, channels, how["resolution"], how["resolution"]], "skipped": skipped, "enlarged": enlarged}


def is_grey(path: Path) -> bool:
    """Whether a picture has no colour; one that cannot be read, which is refused later, has none."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return picture.mode in GREY
    except Exception:  # as in decode
        return True


def read_picture(path: Path, resolution: int, channels: int, center_crop: bool) -> tuple[np.ndarray, bool]:
    """The pixels, uint8 (channels, resolution, resolution), and whether the picture was smaller."""
    from PIL import Image, ImageOps

    with Image.open(path) as opened:
        opened.draft("RGB" if channels == 3 else "L", (2 * resolution, 2 * resolution))  # a JPEG is decoded at a fraction of its size
        smaller = min(opened.size) < resolution
        picture = ImageOps.exif_transpose(opened)
        if picture.mode in ("I", "F"):
            raise ValueError(f"its pixels are of the mode {picture.mode}, whose largest value is not known")
        if picture.mode.startswith("I;16"):
            picture = Image.fromarray((np.asarray(picture) // 257).astype(np.uint8))
        if picture.has_transparency_data:
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture.convert("RGBA"))
        picture = picture.convert("RGB" if channels == 3 else "L")
        shape, method = (resolution, resolution), Image.Resampling.BICUBIC
        picture = ImageOps.fit(picture, shape, method) if center_crop else picture.resize(shape, method)
    pixels = np.asarray(picture)
    return (pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)), smaller
