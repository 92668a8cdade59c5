"""hcrot.data.ImageFolder on real files."""

import io
import os

import numpy as np
import pytest
from PIL import Image

from hcrot.data import ImageFolder, image_folder

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HCROT_DATA", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "pictures"


def put(path, picture, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, **options)


def plain(colour, size=(8, 8), mode="RGB"):
    return Image.new(mode, size, colour)


def test_classes_are_the_subfolders_and_files_come_sorted(folder):
    put(folder / "rose" / "2.png", plain(RED))
    put(folder / "rose" / "10.webp", plain(BLUE), lossless=True)
    put(folder / "anemone" / "holiday" / "x.JPEG", plain(WHITE))
    (folder / "rose" / "notes.txt").write_text("no picture")
    put(folder / ".hidden" / "1.png", plain(RED))
    put(folder / "rose" / ".thumbnail.png", plain(RED))
    pictures = ImageFolder(folder, 4)
    assert pictures.classes == ["anemone", "rose"]
    assert pictures.paths == ["anemone/holiday/x.JPEG", "rose/10.webp", "rose/2.png"]
    assert pictures.labels.dtype == np.int64 and pictures.labels.tolist() == [0, 1, 1]
    assert pictures.images.shape == (3, 3, 4, 4) and pictures.images.dtype == np.uint8 and not pictures.images.flags.writeable
    for image, colour in zip(pictures.images, (WHITE, BLUE, RED), strict=True):
        assert (image == np.array(colour)[:, None, None]).all()
    assert len(pictures) == 3 and repr(pictures).endswith("3 colour pictures of 4x4, 2 classes)")


def test_without_subfolders_there_are_no_classes(folder):
    put(folder / "b.png", plain(7, mode="L"))
    put(folder / "a.bmp", plain(9, mode="L"))
    pictures = ImageFolder(folder, 4)
    assert pictures.classes == [] and pictures.labels.tolist() == [0, 0]
    assert pictures.images.shape == (2, 1, 4, 4) and pictures.images[:, 0, 0, 0].tolist() == [9, 7]


def test_the_middle_is_cut_out_or_the_whole_is_stretched(folder):
    picture = plain(RED, (24, 8))
    picture.paste(GREEN, (8, 0, 16, 8))
    put(folder / "wide.png", picture)
    cropped, stretched = ImageFolder(folder, 8).images[0], ImageFolder(folder, 8, center_crop=False).images[0]
    assert (cropped[1] == 255).all() and (cropped[0] == 0).all()
    assert (stretched[0, :, [0, 7]] == 255).all() and (stretched[1, :, 4] > 200).all()


def test_resizing_is_pillows_bicubic(folder):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    put(folder / "noise.png", Image.fromarray(pixels))
    expected = np.asarray(Image.fromarray(pixels).resize((16, 16), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(ImageFolder(folder, 16).images[0].transpose(1, 2, 0), expected)


def test_colour_by_argument(folder):
    put(folder / "grey.png", plain(100, mode="L"))
    put(folder / "red.png", plain(RED))
    assert ImageFolder(folder, 4).images[0].reshape(3, -1)[:, 0].tolist() == [100] * 3
    assert ImageFolder(folder, 4, channels=1).images[:, 0, 0, 0].tolist() == [100, 76]  # 0.299 of 255


def test_modes_of_every_kind(folder):
    transparent = plain((255, 0, 0, 0), mode="RGBA")
    transparent.paste((0, 0, 255, 255), (0, 0, 4, 8))
    put(folder / "1.png", transparent)
    put(folder / "2.png", Image.fromarray(np.full((8, 8), 51 * 257, np.uint16)))
    put(folder / "3.gif", plain(GREEN).convert("P"))
    turned = plain(RED, (8, 8))
    turned.paste(BLUE, (0, 0, 4, 8))
    exif = turned.getexif()
    exif[0x0112] = 3  # by half a turn
    put(folder / "4.png", turned, exif=exif)
    one, two, three, four = ImageFolder(folder, 8).images
    assert one[:, 0, 0].tolist() == list(BLUE) and one[:, 0, 7].tolist() == list(WHITE)
    assert (two == 51).all()
    assert three[:, 0, 0].tolist() == list(GREEN)
    assert four[:, 0, 0].tolist() == list(RED) and four[:, 0, 7].tolist() == list(BLUE)


def damaged(folder):
    put(folder / "good.png", plain(RED))
    put(folder / "other.png", plain(BLUE))
    whole = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(whole, "PNG")
    (folder / "half.png").write_bytes(whole.getvalue()[:3000])
    (folder / "empty.jpg").write_bytes(b"")


def test_a_broken_file_is_named_and_left_out(folder, capfd):
    damaged(folder)
    for _ in range(2):  # the second time from the cache
        pictures = ImageFolder(folder, 4)
        assert pictures.paths == ["good.png", "other.png"] and len(pictures.images) == len(pictures.labels) == 2
        assert set(pictures.skipped) == {"empty.jpg", "half.png"} and "truncated" in pictures.skipped["half.png"]
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 2 and all("is left out: " in line for line in lines) and str(folder / "empty.jpg") in lines[0]


def test_strict_refuses_a_broken_file(folder):
    damaged(folder)
    ImageFolder(folder, 4)
    with pytest.raises(ValueError, match=r"empty\.jpg cannot be read: cannot identify image file"):
        ImageFolder(folder, 4, strict=True)


def test_a_link_that_leads_nowhere_and_a_file_that_goes_away_are_broken_files(folder, monkeypatch, capfd):
    put(folder / "good.png", plain(RED))
    put(folder / "gone.png", plain(RED))
    (folder / "link.png").symlink_to(folder.parent / "elsewhere.png")
    walk = image_folder.walk
    monkeypatch.setattr(image_folder, "walk", lambda place: [*walk(place), (place / "gone.png").unlink(missing_ok=True)][:-1])
    pictures = ImageFolder(folder, 4)
    assert pictures.paths == ["good.png"] and set(pictures.skipped) == {"gone.png", "link.png"}
    assert "link.png is left out: [Errno 2] No such file or directory: 'link.png'" in capfd.readouterr().err
    with pytest.raises(ValueError, match=r"link\.png cannot be read: .* No such file"):
        ImageFolder(folder, 4, strict=True)
    (folder.parent / "elsewhere.png").write_bytes((folder / "good.png").read_bytes())
    assert len(ImageFolder(folder, 4)) == 2


def test_another_picture_of_the_same_size_and_time_is_seen(folder):
    put(folder / "a.bmp", plain(RED))
    ImageFolder(folder, 4)
    status = (folder / "a.bmp").stat()
    put(folder / "a.bmp", plain(BLUE))
    os.utime(folder / "a.bmp", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (folder / "a.bmp").stat().st_size == status.st_size
    assert ImageFolder(folder, 4).images[0, :, 0, 0].tolist() == list(BLUE)


def test_a_folder_is_prepared_once(folder, monkeypatch):
    put(folder / "a.png", plain(RED))
    first = ImageFolder(folder, 4)
    monkeypatch.setattr(image_folder, "read_picture", None)  # whoever decodes fails now
    again = ImageFolder(folder, 4)
    np.testing.assert_array_equal(again.images, first.images)
    with pytest.raises(ValueError, match="none of the 1 pictures"):
        ImageFolder(folder, 8)


def test_what_changes_in_the_folder_is_seen(folder, tmp_path):
    put(folder / "a.png", plain(RED))
    old = ImageFolder(folder, 4)
    put(folder / "b.png", plain(BLUE))
    put(folder / "a.png", plain(GREEN, (9, 9)))
    new = ImageFolder(folder, 4)
    assert [image[:, 0, 0].tolist() for image in new.images] == [list(GREEN), list(BLUE)]
    assert old.images[0, :, 0, 0].tolist() == list(RED)  # still mapped by who uses it
    assert len(list((tmp_path / "cache" / "images").iterdir())) == 1


def test_damaged_pixels_are_made_anew(folder, tmp_path):
    put(folder / "a.png", plain(RED))
    ImageFolder(folder, 4, cache=tmp_path / "own")
    [pixels] = (tmp_path / "own").rglob("images.bin")
    pixels.write_bytes(b"short")
    assert (ImageFolder(folder, 4, cache=tmp_path / "own").images[0, 0] == 255).all()


def test_small_pictures_are_counted(folder):
    put(folder / "a.png", plain(RED, (4, 9)))
    put(folder / "b.png", plain(RED, (5, 5)))
    assert ImageFolder(folder, 5).enlarged == 1


def test_links_are_followed_once(folder):
    put(folder / "a" / "1.png", plain(RED))
    (folder / "a" / "round").symlink_to(folder)
    (folder / "b").symlink_to(folder / "a")
    assert ImageFolder(folder, 4).paths == ["a/1.png"]


def test_bad_input(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        ImageFolder(folder)
    folder.mkdir()
    with pytest.raises(FileNotFoundError, match="hold no pictures"):
        ImageFolder(folder)
    put(folder / "a" / "1.png", plain(RED))
    put(folder / "2.png", plain(RED))
    with pytest.raises(ValueError, match=r"1 pictures, such as 2\.png, beside the subfolders of its 1 classes"):
        ImageFolder(folder)
    for options in ({"resolution": 0}, {"resolution": 4.0}, {"channels": 4}):
        [name] = options
        with pytest.raises(ValueError, match=f"ImageFolder: {name} must be"):
            ImageFolder(folder, **options)
