"""Writes TFRecord files with TensorFlow.

    write_tfrecord.py FOLDER OUT  FOLDER/CLASS/IMAGE.jpg; OUT gets NAME.tfrecord-00000-of-00001 for each form

classic (the keys of ImageNet's scripts, labels from 1), tfds (written by TensorFlow Datasets itself, with its
features.json and label.labels.txt), gzip (classic, packed as a whole). Beside each, NAME.json lists [name, label,
SHA-256 of the image file], and NAME.classes the names of the classes by label.
"""

import hashlib
import json
import pathlib
import sys

import tensorflow
import tensorflow_datasets


def text(value):
    value = value.encode() if isinstance(value, str) else value
    return tensorflow.train.Feature(bytes_list=tensorflow.train.BytesList(value=[value]))


def number(value):
    return tensorflow.train.Feature(int64_list=tensorflow.train.Int64List(value=[value]))


def classic(path, label):
    example = {
        "image/height": number(1),
        "image/width": number(1),
        "image/colorspace": text("RGB"),
        "image/channels": number(3),
        "image/class/label": number(label + 1),
        "image/class/synset": text(path.parent.name),
        "image/class/text": text("a picture"),
        "image/format": text("JPEG"),
        "image/filename": text(f"{path.parent.name}_{path.name}"),
        "image/encoded": text(path.read_bytes()),
    }
    return tensorflow.train.Example(features=tensorflow.train.Features(feature=example)).SerializeToString()


class DatasetsFeatures:
    def __init__(self, classes, out):
        kinds = tensorflow_datasets.features
        label = kinds.ClassLabel(names=classes)
        self.features = kinds.FeaturesDict({"image": kinds.Image(), "label": label, "file_name": kinds.Text()})
        self.features.save_config(out)

    def __call__(self, path, label):
        values = {"image": str(path), "label": label, "file_name": f"{path.parent.name}/{path.name}"}
        return self.features.serialize_example(self.features.encode_example(values))


def write(name, example, packing, images, classes, out):
    rows = []
    with tensorflow.io.TFRecordWriter(f"{out}/{name}.tfrecord-00000-of-00001", packing) as writer:
        for path in images:
            label = classes.index(path.parent.name)
            writer.write(example(path, label))
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            rows.append([f"{path.parent.name}/{path.name}", label, digest])
    pathlib.Path(f"{out}/{name}.json").write_text(json.dumps(rows))
    pathlib.Path(f"{out}/{name}.classes").write_text("\n".join(classes))


def main(folder, out):
    images = sorted(pathlib.Path(folder).glob("*/*"))
    classes = sorted({path.parent.name for path in images})
    write("classic", classic, "", images, classes, out)
    write("gzip", classic, "GZIP", images, classes, out)
    write("tfds", DatasetsFeatures(classes[::-1], out), "", images, classes[::-1], out)


if __name__ == "__main__":
    main(*sys.argv[1:])
