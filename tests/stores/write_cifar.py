"""Writes binaries in the official layouts of CIFAR-10 and CIFAR-100 (https://www.cs.toronto.edu/~kriz/cifar.html).

    write_cifar.py FOLDER OUT     FOLDER/CLASS/IMAGE.jpg; OUT gets data_batch_1.bin and train.bin

Beside each, NAME.json lists [label, SHA-256 of the RGB pixels]. Needs numpy and Pillow.
"""

import hashlib
import json
import pathlib
import sys

import numpy
from PIL import Image


def main(folder, out):
    images = sorted(pathlib.Path(folder).glob("*/*"))
    classes = sorted({path.parent.name for path in images})
    for name, coarse in (("data_batch_1", b""), ("train", b"\x07")):
        rows, data = [], b""
        for path in images:
            label = classes.index(path.parent.name) % 10
            pixels = numpy.asarray(Image.open(path).convert("RGB").resize((32, 32)))
            data += coarse + bytes([label]) + pixels.transpose(2, 0, 1).tobytes()
            rows.append([label, hashlib.sha256(pixels.tobytes()).hexdigest()])
        pathlib.Path(f"{out}/{name}.bin").write_bytes(data)
        pathlib.Path(f"{out}/{name}.json").write_text(json.dumps(rows))


if __name__ == "__main__":
    main(*sys.argv[1:])
