"""Compares a converted dataset with the list that a writer of this folder left beside its file.

    check.py DATASET LIST.json    the list's rows end with a label and the SHA-256 of an image file, or of RGB pixels

Reads the dataset through its specification (formats/README.md), not through byol. Needs Pillow.
"""

import hashlib
import io
import json
import pathlib
import struct
import sys

from PIL import Image


def records(dataset):
    """(label, bytes) of each record of a dataset with the store lmdb."""
    index = (pathlib.Path(dataset) / "index.byol").read_bytes()
    at, _, count, _, _ = struct.unpack_from("<QQQII", index, 24 + 2 * 32)
    with open(pathlib.Path(dataset) / "data.mdb", "rb") as file:
        for entry in range(at, at + 48 * count, 48):
            offset, _, stored = struct.unpack_from("<QII", index, entry)
            (label,) = struct.unpack_from("<i", index, entry + 32)
            file.seek(offset)
            yield label, file.read(stored)


def matches(data, digest):
    if hashlib.sha256(data).hexdigest() == digest:
        return True
    pixels = Image.open(io.BytesIO(data)).convert("RGB").tobytes()
    return hashlib.sha256(pixels).hexdigest() == digest


def main(dataset, listing):
    wanted = [row[-2:] for row in json.loads(pathlib.Path(listing).read_text())]
    found = list(records(dataset))
    if len(found) != len(wanted):
        sys.exit(f"{dataset}: {len(found)} records, {len(wanted)} expected")
    for number, ((label, data), (want, digest)) in enumerate(zip(found, wanted)):
        if label != want:
            sys.exit(f"{dataset}: record {number} has the label {label}, not {want}")
        if not matches(data, digest):
            sys.exit(f"{dataset}: record {number} has other bytes")
    print(f"{dataset}: {len(found)} records equal")


if __name__ == "__main__":
    main(*sys.argv[1:])
