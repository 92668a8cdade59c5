"""safetensors files written by hand, with kinds of numbers that NumPy does not have."""

import json
import struct


def safetensors_bytes(tensors):
    """A safetensors file of ``{name: (dtype, shape, bytes)}``, written by hand."""
    header, data = {}, b""
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data
