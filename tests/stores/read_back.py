"""Reads what byol wrote with the library that others read it with, and compares it with the image files.

    read_back.py webdataset|tfrecord|lmdb FOLDER PATH...    FOLDER/CLASS/IMAGE.jpg

PATH: tars or TFRecord files of `byol export-data`, or a dataset with the store lmdb.
"""

import pathlib
import sys


def read_webdataset(*paths):
    import webdataset

    for sample in webdataset.WebDataset(list(paths), shardshuffle=False):
        yield sample["__key__"] + ".jpg", int(sample["cls"]), sample["jpg"]


def read_tfrecord(*paths):
    import tensorflow

    keys = {
        "image/encoded": tensorflow.io.FixedLenFeature([], tensorflow.string),
        "image/filename": tensorflow.io.FixedLenFeature([], tensorflow.string),
        "image/class/label": tensorflow.io.FixedLenFeature([], tensorflow.int64),
        "image/class/text": tensorflow.io.FixedLenFeature([], tensorflow.string),
    }
    for record in tensorflow.data.TFRecordDataset(list(paths)):
        one = tensorflow.io.parse_single_example(record, keys)
        name = one["image/filename"].numpy().decode()
        assert one["image/class/text"].numpy().decode() == name.split("/")[0]
        yield name, int(one["image/class/label"]) - 1, one["image/encoded"].numpy()


def read_lmdb(path):
    import lmdb

    with lmdb.open(path, readonly=True, lock=False) as store, store.begin() as transaction:
        for key, value in transaction.cursor():
            yield int(key), None, value


READERS = {"webdataset": read_webdataset, "tfrecord": read_tfrecord, "lmdb": read_lmdb}


def main(form, folder, *paths):
    folder = pathlib.Path(folder)
    wanted = sorted(folder.glob("*/*"))
    classes = sorted({path.parent.name for path in wanted})
    found = list(READERS[form](*paths))
    if len(found) != len(wanted):
        sys.exit(f"{form}: {len(found)} images, {len(wanted)} expected")
    for number, ((name, label, data), path) in enumerate(zip(found, wanted)):
        want = (number, None) if form == "lmdb" else (str(path.relative_to(folder)), classes.index(path.parent.name))
        if (name, label) != want or data != path.read_bytes():
            sys.exit(f"{form}: image {number} is {name} with label {label}; {want} expected, or other bytes")
    print(f"{form}: {len(found)} images equal")


if __name__ == "__main__":
    main(*sys.argv[1:])
