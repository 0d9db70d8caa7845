"""Reads a Parquet file of images for `byol convert` and writes what formats/source_stream.h describes to stdout.

    parquet_stream.py -- FILE

Needs pyarrow. Row groups are read a few rows at a time, so memory does not grow with the file.
"""

import json
import struct
import sys

FILE, CLASS, LAYOUT, END, FAILURE, BAD = 1, 4, 5, 6, 7, 8
NUMBERED = 1
NO_LABEL = -1
UNSUPPORTED, CORRUPT = 22, 20
NAME_BYTES = 4096
WHY_BYTES = 400
ROWS = 32
IMAGE_NAMES = ("image", "img", "jpg", "jpeg", "png", "picture")
LABEL_NAMES = ("label", "labels", "class", "cls", "target", "y", "fine_label")


class Refused(Exception):
    """The file is none that we read; the text says why."""


def put(out, what, name="", label=NO_LABEL, flags=0, payload=b""):
    text = name.encode("utf-8", "replace")[:NAME_BYTES]
    out.write(struct.pack("<IIiIIIQ", what, flags, label, len(text), 0, 0, len(payload)))
    out.write(text)
    out.write(payload)


def features_of(schema):
    """What Hugging Face's datasets noted of the columns, or {}."""
    try:
        return json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}


def pick(candidates, names):
    """The first of `names` among the candidates, else the only candidate, else None."""
    by_name = {name.lower(): name for name in candidates}
    for name in names:
        if name in by_name:
            return by_name[name]
    return candidates[0] if len(candidates) == 1 else None


def is_bytes(types, kind):
    return types.is_binary(kind) or types.is_large_binary(kind)


def find_image(types, schema):
    """The image's column, and whether it is a struct."""

    def holds_image(field):
        if types.is_struct(field.type):
            return any(part.name == "bytes" and is_bytes(types, part.type) for part in field.type)
        return is_bytes(types, field.type)

    name = pick([field.name for field in schema if holds_image(field)], IMAGE_NAMES)
    if name is None:
        raise Refused("no column of images (a struct with bytes, or bytes) among " + ", ".join(schema.names))
    return name, types.is_struct(schema.field(name).type)


def find_label(types, schema, features):
    """The label's column and the names of its classes."""
    classes = [name for name, about in features.items() if isinstance(about, dict) and about.get("_type") == "ClassLabel"]
    numbers = [field.name for field in schema if types.is_integer(field.type)]
    label = pick([name for name in classes if name in numbers] or numbers, LABEL_NAMES)
    names = features[label].get("names") if label in classes else None
    return label, names if isinstance(names, list) else []


def ending_of(data):
    if data[:3] == b"\xff\xd8\xff":
        return ".jpg"
    return ".png" if data[:8] == b"\x89PNG\r\n\x1a\n" else ""


def name_of(number, path, data):
    base = (path or "").replace("\\", "/").split("/")[-1]
    return f"{number:09d}_{base}" if base else f"{number:09d}{ending_of(data)}"


def put_rows(out, batch, first, image, label, is_struct):
    images = batch.column(image).to_pylist()
    labels = batch.column(label).to_pylist() if label else [None] * len(images)
    for number, (value, one) in enumerate(zip(images, labels), first):
        path = value.get("path") if is_struct and value else None
        data = value.get("bytes") if is_struct and value else value
        why = None
        if not data:
            why = "no bytes of an image" + (f", only the path {path}" if path else "")
        elif one is not None and not -1 <= one < 2**31:
            why = f"the label {one}"
        if why is not None and number == 0:
            raise Refused("the first row has " + why)  # so have the others
        if why is not None:
            put(out, BAD, name_of(number, path, b""), NO_LABEL, NUMBERED, f"the row has {why}".encode()[:WHY_BYTES])
            continue
        put(out, FILE, name_of(number, path, data), NO_LABEL if one is None else one, NUMBERED, data)


def stream(out, path):
    try:
        import pyarrow.parquet
        import pyarrow.types
    except ImportError:
        raise Refused("a Parquet file; to read it, install pyarrow for " + sys.executable + " (pip install pyarrow)")
    file = pyarrow.parquet.ParquetFile(path, memory_map=False, pre_buffer=False)
    schema = file.schema_arrow
    image, is_struct = find_image(pyarrow.types, schema)
    label, names = find_label(pyarrow.types, schema, features_of(schema))
    labels = f"labels from '{label}'" + (f" with {len(names)} names" if names else "") if label else "no labels"
    put(out, LAYOUT, f"{file.metadata.num_rows} rows, images from '{image}', {labels}")
    for name in names:
        put(out, CLASS, str(name))
    first = 0
    for batch in file.iter_batches(batch_size=ROWS, columns=[image, label] if label else [image], use_threads=False):
        put_rows(out, batch, first, image, label, is_struct)
        first += batch.num_rows
    if first != file.metadata.num_rows:
        raise ValueError(f"{first} rows of {file.metadata.num_rows}")
    put(out, END)


def main(path):
    out = sys.stdout.buffer
    out.write(b"BYOLIMG1")
    try:
        stream(out, path)
    except Refused as reason:
        put(out, FAILURE, str(reason), UNSUPPORTED)
    except BrokenPipeError:
        return
    except Exception as reason:  # whatever pyarrow finds in a damaged file becomes a message
        put(out, FAILURE, f"pyarrow cannot read it: {type(reason).__name__}: {reason}", CORRUPT)
    out.flush()


if __name__ == "__main__":
    main(sys.argv[-1])
