"""Writes LMDBs as others do, with the package lmdb: image files by key, Caffe's Datums (encoded, raw), pickles, msgpack.

    write_lmdb.py FOLDER OUT      FOLDER/CLASS/IMAGE.jpg; OUT gets a directory for each form

Beside each, NAME.json lists [key, label, SHA-256 of the image file or of its RGB pixels].
"""

import hashlib
import json
import pathlib
import pickle
import sys

import lmdb
import msgpack
import numpy
from PIL import Image


def varint(value):
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def datum(label, data, shape=None):
    """shape: (channels, height, width) of raw planes; None for an encoded image."""
    out = b""
    for number, value in enumerate(shape or (), 1):
        out += bytes([number << 3]) + varint(value)
    out += b"\x22" + varint(len(data)) + data + b"\x28" + varint(label)
    return out + (b"" if shape else b"\x38\x01")


def raw_datum(label, data):
    pixels = Image.open(data).convert("RGB").resize((48, 32))
    planes = numpy.asarray(pixels)[:, :, ::-1].transpose(2, 0, 1)
    return datum(label, planes.tobytes(), planes.shape), pixels.tobytes()


def forms(path, label):
    data = path.read_bytes()
    raw, pixels = raw_datum(label, path)
    yield "files", label, data, data
    yield "datum", label, datum(label, data), data
    yield "raw", label, raw, pixels
    yield "msgpack", label, msgpack.packb((data, label)), data
    for protocol in (3, 4, 5):
        yield f"pickle{protocol}", label, pickle.dumps((data, label), protocol), data


def main(folder, out):
    images = sorted(pathlib.Path(folder).glob("*/*"))
    classes = sorted({path.parent.name for path in images})
    stores, lists = {}, {}
    for number, path in enumerate(images):
        for form, label, value, content in forms(path, classes.index(path.parent.name)):
            if form not in stores:
                stores[form] = lmdb.open(f"{out}/{form}", map_size=1 << 30)
                lists[form] = []
            key = f"{path.parent.name}/{path.name}" if form == "files" else f"{number:08d}"
            with stores[form].begin(write=True) as transaction:
                transaction.put(key.encode(), value)
            lists[form].append([key, label, hashlib.sha256(content).hexdigest()])
    for form, store in stores.items():
        if form.startswith("pickle"):
            with store.begin(write=True) as transaction:
                transaction.put(b"__len__", pickle.dumps(len(images)))
        store.close()
        pathlib.Path(f"{out}/{form}.json").write_text(json.dumps(lists[form]))


if __name__ == "__main__":
    main(*sys.argv[1:])
