import numpy as np
import pytest

from hcrot.data import CIFAR10_CLASSES, load_cifar10


@pytest.fixture
def records(tmp_path):
    """Seven files in CIFAR-10's form, each of two pictures; as arrays by name."""
    rng, folder, made = np.random.default_rng(0), tmp_path / "cifar-10-batches-bin", {}
    folder.mkdir()
    for name in [f"data_batch_{number}.bin" for number in range(1, 6)] + ["test_batch.bin"]:
        made[name] = np.concatenate([rng.integers(0, 10, (2, 1)), rng.integers(0, 256, (2, 3072))], axis=1).astype(np.uint8)
        made[name].tofile(folder / name)
    return made


def test_both_splits(records, tmp_path):
    for place in (tmp_path, tmp_path / "cifar-10-batches-bin"):
        images, labels = load_cifar10(place, "test")
        assert images.shape == (2, 3, 32, 32) and images.dtype == labels.dtype == np.uint8
        record = records["test_batch.bin"][1]
        assert labels[1] == record[0] and images[1, 2, 5, 7] == record[1 + 2 * 1024 + 5 * 32 + 7]
    images, labels = load_cifar10(tmp_path)
    assert images.shape == (10, 3, 32, 32) and labels[9] == records["data_batch_5.bin"][1, 0]
    assert len(CIFAR10_CLASSES) == 10 and CIFAR10_CLASSES[3] == "cat"


def test_bad_input(records, tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    with pytest.raises(ValueError, match="split must be 'train' or 'test', got 'val'"):
        load_cifar10(folder, "val")
    records["test_batch.bin"][0, 0] = 10
    records["test_batch.bin"].tofile(folder / "test_batch.bin")
    with pytest.raises(ValueError, match=r"test_batch\.bin has the label 10"):
        load_cifar10(folder, "test")
    (folder / "test_batch.bin").write_bytes(b"abc")
    with pytest.raises(ValueError, match="has 3 bytes, expected a multiple of 3073"):
        load_cifar10(folder, "test")
    (folder / "data_batch_3.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"data_batch_3\.bin"):
        load_cifar10(folder)
