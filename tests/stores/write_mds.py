"""Writes MosaicML streaming datasets (MDS) with mosaicml-streaming itself.

    write_mds.py FOLDER OUT       FOLDER/CLASS/IMAGE.jpg; OUT gets a directory for each form

Beside each, NAME.json lists [label, SHA-256]: of the image file, of the RGB pixels of PIL images.
"""

import hashlib
import json
import pathlib
import sys

from PIL import Image
from streaming import MDSWriter

FORMS = {
    "jpeg": ({"i": "int", "x": "jpeg", "y": "int"}, {}),
    "hashed": ({"image": "jpeg", "class": "uint16"}, {"hashes": ["sha1", "xxh64"]}),
    "zstd": ({"image": "bytes", "label": "int64", "name": "str"}, {"compression": "zstd:7", "hashes": ["sha1", "xxh64"]}),
    "pil": ({"x": "pil", "y": "int"}, {"compression": "zstd"}),
    "png": ({"image": "png", "label": "uint8"}, {}),
}


def sample(form, number, label, path):
    """The columns, and the bytes that should come back (None for PNGs: streaming encodes them)."""
    data = path.read_bytes()
    if form == "jpeg":
        return {"i": number, "x": Image.open(path), "y": label}, data
    if form == "hashed":
        return {"image": Image.open(path), "class": label}, data
    if form == "zstd":
        return {"image": data, "label": label, "name": path.name}, data
    small = Image.open(path).convert("L" if number % 2 else "RGB").resize((40, 30))
    pixels = small.convert("RGB").tobytes()
    if form == "pil":
        return {"x": small, "y": label}, pixels
    return {"image": small, "label": label}, pixels


def main(folder, out):
    images = sorted(pathlib.Path(folder).glob("*/*"))
    classes = sorted({path.parent.name for path in images})
    for form, (columns, options) in FORMS.items():
        rows = []
        with MDSWriter(out=f"{out}/{form}", columns=columns, size_limit=1 << 20, **options) as writer:
            for number, path in enumerate(images):
                label = classes.index(path.parent.name)
                columns_of_one, content = sample(form, number, label, path)
                writer.write(columns_of_one)
                rows.append([label, hashlib.sha256(content).hexdigest()])
        pathlib.Path(f"{out}/{form}.json").write_text(json.dumps(rows))


if __name__ == "__main__":
    main(*sys.argv[1:])
