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

    for path in paths:
        for record in tensorflow.compat.v1.io.tf_record_iterator(path):
            features = tensorflow.train.Example.FromString(record).features.feature
            name = features["image/filename"].bytes_list.value[0].decode()
            assert features["image/class/text"].bytes_list.value[0].decode() == name.split("/")[0]
            label = features["image/class/label"].int64_list.value[0] - 1
            yield name, label, features["image/encoded"].bytes_list.value[0]


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
