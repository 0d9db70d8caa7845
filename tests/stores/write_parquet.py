"""Writes Parquet files as Hugging Face's datasets do, with pyarrow.

    write_parquet.py FOLDER OUT   FOLDER/CLASS/IMAGE.jpg

named.parquet: image struct {bytes, path} and a label with the names of its classes in the schema's metadata;
plain.parquet: a column of bytes and one of numbers. Beside each, NAME.json lists [label, SHA-256 of the image file].
"""

import hashlib
import json
import pathlib
import sys

import pyarrow
import pyarrow.parquet


def named_table(images, labels, classes):
    image = [{"bytes": path.read_bytes(), "path": path.name} for path in images]
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    features = {"image": {"_type": "Image"}, "label": {"names": classes, "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    schema = pyarrow.schema([("image", kind), ("label", pyarrow.int64())], metadata=metadata)
    return pyarrow.table([pyarrow.array(image, kind), labels], schema=schema)


def main(folder, out):
    images = sorted(pathlib.Path(folder).glob("*/*"))
    classes = sorted({path.parent.name for path in images})
    labels = [classes.index(path.parent.name) for path in images]
    tables = {
        "named": named_table(images, labels, classes),
        "plain": pyarrow.table({"number": labels[::-1], "jpg": [path.read_bytes() for path in images], "label": labels}),
    }
    rows = [[label, hashlib.sha256(path.read_bytes()).hexdigest()] for path, label in zip(images, labels)]
    for name, table in tables.items():
        pyarrow.parquet.write_table(table, f"{out}/{name}.parquet", row_group_size=20)
        pathlib.Path(f"{out}/{name}.json").write_text(json.dumps(rows))


if __name__ == "__main__":
    main(*sys.argv[1:])
