"""Small files that stand for MNIST's. The fixtures that put them somewhere are in ``tests/data/conftest.py``."""

import gzip

NAMES = ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"]


def idx_bytes(array, code=0x08):
    header = bytes([0, 0, code, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def serve(web, mirror, contents):
    for name, data in contents.items():
        web[f"{mirror}{name}.gz"] = gzip.compress(data)
