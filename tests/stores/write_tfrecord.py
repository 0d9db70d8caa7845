"""Writes TFRecord files with TensorFlow.

    write_tfrecord.py FOLDER OUT  FOLDER/CLASS/IMAGE.jpg; OUT gets NAME.tfrecord-00000-of-00001 for each form

classic (the keys of ImageNet's scripts, labels from 1), tfds (TensorFlow Datasets'), gzip (classic, packed as a whole).
Beside each, NAME.json lists [name, label, SHA-256 of the image file].
"""

import hashlib
import json
import pathlib
import sys

import tensorflow


def text(value):
    value = value.encode() if isinstance(value, str) else value
    return tensorflow.train.Feature(bytes_list=tensorflow.train.BytesList(value=[value]))


def number(value):
    return tensorflow.train.Feature(int64_list=tensorflow.train.Int64List(value=[value]))


def classic(path, label, data):
    return {
        "image/height": number(1),
        "image/width": number(1),
        "image/colorspace": text("RGB"),
        "image/channels": number(3),
        "image/class/label": number(label + 1),
        "image/class/synset": text(path.parent.name),
        "image/class/text": text(path.parent.name),
        "image/format": text("JPEG"),
        "image/filename": text(f"{path.parent.name}_{path.name}"),
        "image/encoded": text(data),
    }


def tfds(path, label, data):
    return {"image": text(data), "label": number(label), "file_name": text(f"{path.parent.name}/{path.name}")}


def main(folder, out):
    images = sorted(pathlib.Path(folder).glob("*/*"))
    classes = sorted({path.parent.name for path in images})
    for name, features, packing in (("classic", classic, ""), ("tfds", tfds, ""), ("gzip", classic, "GZIP")):
        rows = []
        with tensorflow.io.TFRecordWriter(f"{out}/{name}.tfrecord-00000-of-00001", packing) as writer:
            for path in images:
                data, label = path.read_bytes(), classes.index(path.parent.name)
                example = tensorflow.train.Example(
                    features=tensorflow.train.Features(feature=features(path, label, data))
                )
                writer.write(example.SerializeToString())
                rows.append([f"{path.parent.name}/{path.name}", label, hashlib.sha256(data).hexdigest()])
        pathlib.Path(f"{out}/{name}.json").write_text(json.dumps(rows))


if __name__ == "__main__":
    main(*sys.argv[1:])
