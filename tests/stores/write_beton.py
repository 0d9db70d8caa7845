"""Writes .beton files with ffcv itself.

    write_beton.py FOLDER OUT     FOLDER/CLASS/IMAGE.jpg; OUT gets jpg.beton, raw.beton and mixed.beton

Beside each, NAME.json lists [label, SHA-256]: of the JPEG that ffcv stored, of the RGB pixels for raw images.
"""

import hashlib
import json
import pathlib
import sys

import numpy
from ffcv.fields import BytesField, FloatField, IntField, RGBImageField
from ffcv.reader import Reader
from ffcv.writer import DatasetWriter
from PIL import Image


class Images:
    def __init__(self, folder, side):
        self.images = sorted(pathlib.Path(folder).glob("*/*"))
        self.classes = sorted({path.parent.name for path in self.images})
        self.side = side

    def __len__(self):
        return len(self.images)

    def __getitem__(self, number):
        path = self.images[number]
        pixels = Image.open(path).convert("RGB")
        if self.side:
            pixels = pixels.resize((self.side, self.side + 8))
        note = numpy.frombuffer(path.name.encode(), "u1")
        return 0.5, note, numpy.asarray(pixels), self.classes.index(path.parent.name)


def list_beton(path):
    """What ffcv's own reader says: labels, and the bytes of its allocations."""
    reader = Reader(str(path))
    names = list(reader.field_names)
    image, label = (f"f{names.index(name)}" for name in ("image", "label"))
    sizes = {int(entry["ptr"]): int(entry["size"]) for entry in reader.alloc_table}
    data = pathlib.Path(path).read_bytes()
    rows = []
    for entry in reader.metadata:
        at = int(entry[image]["data_ptr"])
        rows.append([int(entry[label]), hashlib.sha256(data[at : at + sizes[at]]).hexdigest()])
    return rows


def main(folder, out):
    for name, mode, side in (("jpg", "jpg", 0), ("raw", "raw", 64), ("mixed", "proportion", 64)):
        path = pathlib.Path(out) / f"{name}.beton"
        fields = {
            "weight": FloatField(),
            "note": BytesField(),
            "image": RGBImageField(write_mode=mode),
            "label": IntField(),
        }
        DatasetWriter(str(path), fields, num_workers=2).from_indexed_dataset(Images(folder, side))
        path.with_suffix(".json").write_text(json.dumps(list_beton(path)))


if __name__ == "__main__":
    main(*sys.argv[1:])
