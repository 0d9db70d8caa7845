"""Reads a Parquet file of images for `byol convert` and writes what formats/source_stream.h describes to stdout.

    parquet_stream.py -- FILE [--names]

Needs pyarrow. Row groups are read a few rows at a time, so memory does not grow with the file. With --names the images'
bytes are left out, and left unread where each row has a path. Memory and the time without a result are limited.
"""

import json
import resource
import signal
import struct
import sys

FILE, CLASS, LAYOUT, END, FAILURE, BAD = 1, 4, 5, 6, 7, 8
NUMBERED, LEFT_OUT = 1, 2
NO_LABEL = -1
UNSUPPORTED, CORRUPT = 22, 20
NAME_BYTES = 4096
WHY_BYTES = 400
ROWS, ROWS_OF_NAMES = 32, 4096
SIZE_UNKNOWN = 2**64 - 1
MEMORY_BYTES = 8 << 30
IDLE_SECONDS = 300
PAGE_BYTES = 1 << 20
IMAGE_NAMES = ("image", "img", "jpg", "jpeg", "png", "picture")
LABEL_NAMES = ("label", "labels", "class", "cls", "target", "y", "fine_label")


class Refused(Exception):
    """The file is none that we read; the text says why."""


def put(out, what, name="", label=NO_LABEL, flags=0, payload=b"", size=None):
    text = name.encode("utf-8", "replace")[:NAME_BYTES]
    out.write(struct.pack("<IIiIIIQ", what, flags, label, len(text), 0, 0, len(payload) if size is None else size))
    out.write(text)
    out.write(payload)
    signal.setitimer(signal.ITIMER_PROF, IDLE_SECONDS)


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


def base_of(path):
    return (path or "").replace("\\", "/").split("/")[-1]


def name_of(number, path, data):
    base = base_of(path)
    return f"{number:09d}_{base}" if base else f"{number:09d}{ending_of(data)}"


def is_label(number):
    return number is None or -1 <= number < 2**31


def fault_of(data, path, label):
    """Why a row is no image with a label, or None."""
    if not data:
        return "no bytes of an image" + (f", only the path {path}" if path else "")
    return None if is_label(label) else f"the label {label}"


def rows_of(file, columns, count):
    """(number, image, label or None) of each row."""
    first = 0
    for batch in file.iter_batches(batch_size=count, columns=columns, use_threads=False):
        values = [column.to_pylist() for column in batch.columns]
        for number, row in enumerate(zip(*values), first):
            yield number, row[0], row[1] if len(row) > 1 else None
        first += batch.num_rows
    if first != file.metadata.num_rows:
        raise ValueError(f"{first} rows of {file.metadata.num_rows}")


def put_rows(out, file, columns, is_struct, names_only):
    for number, value, label in rows_of(file, columns, ROWS):
        path = value.get("path") if is_struct and value else None
        data = value.get("bytes") if is_struct and value else value
        why = fault_of(data, path, label)
        if why is not None and number == 0:
            raise Refused("the first row has " + why)  # so have the others
        if why is not None:
            put(out, BAD, name_of(number, path, b""), NO_LABEL, NUMBERED, f"the row has {why}".encode()[:WHY_BYTES])
            continue
        name, label = name_of(number, path, data), NO_LABEL if label is None else label
        if names_only:
            put(out, FILE, name, label, NUMBERED | LEFT_OUT, size=len(data))
        else:
            put(out, FILE, name, label, NUMBERED, data)


def have_paths(file, image):
    """Whether each row can be named without its image's bytes."""
    rows = rows_of(file, [f"{image}.path"], ROWS_OF_NAMES)
    return all(value and base_of(value.get("path")) for _, value, _ in rows)


def put_paths(out, file, columns):
    for number, value, label in rows_of(file, [f"{columns[0]}.path"] + columns[1:], ROWS_OF_NAMES):
        known = label is not None and is_label(label)
        put(out, FILE, name_of(number, value["path"], b""), label if known else NO_LABEL, NUMBERED | LEFT_OUT, size=SIZE_UNKNOWN)


def stream(out, path, names_only):
    try:
        import pyarrow.parquet
        import pyarrow.types
    except ImportError:
        raise Refused("a Parquet file; to read it, install pyarrow for " + sys.executable + " (pip install pyarrow)")
    file = pyarrow.parquet.ParquetFile(path, memory_map=False, pre_buffer=False, buffer_size=PAGE_BYTES)
    schema = file.schema_arrow
    image, is_struct = find_image(pyarrow.types, schema)
    label, names = find_label(pyarrow.types, schema, features_of(schema))
    labels = f"labels from '{label}'" + (f" with {len(names)} names" if names else "") if label else "no labels"
    put(out, LAYOUT, f"{file.metadata.num_rows} rows, images from '{image}', {labels}")
    for name in names:
        put(out, CLASS, str(name))
    columns = [image] + ([label] if label else [])
    has_path = is_struct and any(part.name == "path" for part in schema.field(image).type)
    if names_only and has_path and have_paths(file, image):
        put_paths(out, file, columns)
    else:
        put_rows(out, file, columns, is_struct, names_only)
    put(out, END)


def limit():
    for what, most in ((resource.RLIMIT_AS, MEMORY_BYTES), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0)):
        _, hard = resource.getrlimit(what)
        if hard == resource.RLIM_INFINITY or hard > most:
            resource.setrlimit(what, (most, most))


def main(path, names_only):
    limit()
    out = sys.stdout.buffer
    out.write(b"BYOLIMG1")
    try:
        stream(out, path, names_only)
    except Refused as reason:
        put(out, FAILURE, str(reason), UNSUPPORTED)
    except BrokenPipeError:
        return
    except Exception as reason:  # whatever pyarrow finds in a damaged file becomes a message
        put(out, FAILURE, f"pyarrow cannot read it: {type(reason).__name__}: {reason}", CORRUPT)
    out.flush()


if __name__ == "__main__":
    main(sys.argv[2], "--names" in sys.argv[3:])
