"""Writes HDF5 files in the layouts that people keep images in, with h5py.

    write_hdf5.py FOLDER OUT      FOLDER/CLASS/IMAGE.jpg

classes.h5 (solo-learn's: a group a class, a compressed dataset an image), vlen.h5 (one dataset of byte strings and one
of labels), pixels.h5 and grey.h5 ([N, H, W, 3] and [N, H, W] with labels). Beside each, NAME.json lists [label, SHA-256]:
of the image file, of the RGB pixels.
"""

import hashlib
import json
import pathlib
import sys

import h5py
import numpy
from PIL import Image


def digest(data):
    return hashlib.sha256(data).hexdigest()


def write_classes(file, images, labels):
    for path in images:
        group = file.require_group(path.parent.name)
        data = numpy.frombuffer(path.read_bytes(), dtype="uint8")
        group.create_dataset(path.name, data=data, compression="gzip", compression_opts=9)
    return [[label, digest(path.read_bytes())] for path, label in zip(images, labels)]


def write_vlen(file, images, labels):
    rows = file.create_dataset("images", (len(images),), dtype=h5py.vlen_dtype(numpy.uint8))
    for number, path in enumerate(images):
        rows[number] = numpy.frombuffer(path.read_bytes(), dtype="uint8")
    file["labels"] = numpy.array(labels, dtype="int32")
    return [[label, digest(path.read_bytes())] for path, label in zip(images, labels)]


def write_pixels(file, images, labels, mode):
    pixels = [Image.open(path).convert(mode).resize((40, 30)) for path in images]
    stack = numpy.stack([numpy.asarray(image) for image in pixels])
    file.create_dataset("x", data=stack, chunks=(7, *stack.shape[1:]), compression="gzip")
    file["y"] = numpy.array(labels, dtype="int64").reshape(-1, 1, 1, 1)
    return [[label, digest(image.convert("RGB").tobytes())] for image, label in zip(pixels, labels)]


def main(folder, out):
    images = sorted(pathlib.Path(folder).glob("*/*"))
    classes = sorted({path.parent.name for path in images})
    labels = [classes.index(path.parent.name) for path in images]
    writers = {
        "classes": write_classes,
        "vlen": write_vlen,
        "pixels": lambda *arguments: write_pixels(*arguments, "RGB"),
        "grey": lambda *arguments: write_pixels(*arguments, "L"),
    }
    for name, write in writers.items():
        with h5py.File(f"{out}/{name}.h5", "w") as file:
            rows = write(file, images, labels)
        pathlib.Path(f"{out}/{name}.json").write_text(json.dumps(rows))


if __name__ == "__main__":
    main(*sys.argv[1:])
