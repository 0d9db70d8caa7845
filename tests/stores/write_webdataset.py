"""Writes WebDataset shards with webdataset itself.

    write_webdataset.py FOLDER OUT    FOLDER/CLASS/IMAGE.jpg; OUT gets cls.tar and json.tar

Beside each, NAME.json lists [key, label, SHA-256 of the image file].
"""

import hashlib
import json
import pathlib
import sys

import webdataset


def main(folder, out):
    images = sorted(pathlib.Path(folder).glob("*/*"))
    classes = sorted({path.parent.name for path in images})
    for form in ("cls", "json"):
        rows = []
        with webdataset.TarWriter(f"{out}/{form}.tar") as writer:
            for number, path in enumerate(images):
                data, label = path.read_bytes(), classes.index(path.parent.name)
                key = f"{path.parent.name}/{number:06d}"
                told = {"cls": label} if form == "cls" else {"json": {"label": label}}
                writer.write({"__key__": key, "jpg": data, **told})
                rows.append([key, label, hashlib.sha256(data).hexdigest()])
        pathlib.Path(f"{out}/{form}.json").write_text(json.dumps(rows))


if __name__ == "__main__":
    main(*sys.argv[1:])
