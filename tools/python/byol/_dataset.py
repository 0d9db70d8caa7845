"""Datasets that `byol convert` made."""
import ctypes
import operator
import os
from ctypes import byref, c_size_t, c_uint32, c_void_p
from typing import List, Optional, Tuple, Union

import numpy as np
import numpy.typing as npt

from ._library import Error, Handle, check, library


class Dataset:
    """A dataset, open for reading: `len(dataset)` images, numbered from 0. Any number of threads may use it."""

    def __init__(self, directory: Union[str, "os.PathLike[str]"]) -> None:
        self.directory: str = os.fspath(directory)
        self._handle = Handle(library.byol_dataset_close)
        check(library.byol_dataset_open, byref(self._handle.pointer), os.fsencode(self.directory))
        self._labels: Optional["npt.NDArray[np.int32]"] = None

    def __repr__(self) -> str:
        return f"byol.Dataset({self.directory!r}): {len(self)} images of {len(self.classes)} classes"

    def __len__(self) -> int:
        return int(library.byol_dataset_count(self._handle.here()))

    @property
    def id(self) -> int:
        """A number that changes with anything in the dataset."""
        return int(library.byol_dataset_id(self._handle.here()))

    @property
    def classes(self) -> List[str]:
        """Names by label; empty where the images have no labels."""
        handle = self._handle.here()
        count = library.byol_dataset_class_count(handle)
        return [library.byol_dataset_class_name(handle, label).decode(errors="replace") for label in range(count)]

    @property
    def labels(self) -> "npt.NDArray[np.int32]":
        """Of all images, -1 where there is none; read-only."""
        if self._labels is None:
            labels = np.empty(len(self), np.int32)
            library.byol_dataset_labels(self._handle.here(), labels.ctypes.data)
            labels.flags.writeable = False
            self._labels = labels
        return self._labels

    def _record(self, record: int) -> int:
        number = operator.index(record)
        if not 0 <= number < len(self):
            raise IndexError(f"record {number} of {len(self)}")
        return number

    def name(self, record: int) -> str:
        """The name that the image had in its source, such as "cat/017.jpg"."""
        return os.fsdecode(library.byol_dataset_name(self._handle.here(), self._record(record)))

    def size(self, record: int) -> Tuple[int, int]:
        """Width and height in pixels."""
        width, height = c_uint32(), c_uint32()
        check(library.byol_dataset_image_size, self._handle.here(), self._record(record), byref(width), byref(height))
        return width.value, height.value

    def read(self, record: int) -> bytes:
        """The image file, JPEG or PNG, its checksum verified."""
        memory, length = c_void_p(), c_size_t()
        check(library.byol_dataset_read, self._handle.here(), self._record(record), byref(memory), byref(length))
        try:
            return ctypes.string_at(memory, length.value)
        finally:
            library.byol_free(memory)


def opened(dataset: Union[Dataset, str, "os.PathLike[str]"]) -> Dataset:
    if isinstance(dataset, Dataset):
        return dataset
    if isinstance(dataset, (str, os.PathLike)):
        return Dataset(dataset)
    raise Error(f"a dataset is a byol.Dataset or a path, not {type(dataset).__name__}")
