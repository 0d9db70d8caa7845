"""The loader: an iterator over batches, whose arrays are the memory that the C library rendered into."""
import ctypes
import math
import os
from ctypes import POINTER, byref
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
import numpy.typing as npt

from ._dataset import Dataset, opened
from ._library import END, BatchStruct, Error, ErrorStruct, Handle, Options, Position, StatisticsStruct, check, error_of, library
from ._recipe import Settings, describe_recipe, settings_text

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)

_REST = np.dtype(
    [
        *((name, np.uint8) for name in ("flip", "jitter", "grayscale", "blur", "solarize")),
        ("order", np.uint8, 4), ("unused", np.uint8, 3), ("taps", np.uint32),
        *((name, np.float32) for name in ("brightness", "contrast", "saturation", "hue", "sigma", "threshold")),
        ("unused_too", np.uint32, 6),
    ]
)  # fmt: skip


class Statistics(NamedTuple):
    """Seconds summed over threads, and counts, since the loader opened."""

    read_wait: float  # threads waiting for bytes
    unpack: float
    decode: float
    augment: float
    slot_wait: float  # threads waiting for a free buffer: the training is the bottleneck
    consumer_wait: float  # Python waiting for a batch: the loader is the bottleneck
    batches: int
    records: int
    skips: int  # bad records so far
    bytes: int  # of image files decoded
    reads: int
    read_bytes: int
    kept: int  # records that came from memory
    memory: int  # bytes planned when it opened, all of it
    threads: int
    held: int  # batches that are out now


class _Lease:
    """Room for one batch that is out. It goes back when neither the Batch nor any array of it is referred to."""

    def __init__(self, handle: Handle) -> None:
        self.handle, self.pointer, self._process = handle, POINTER(BatchStruct)(), os.getpid()

    def __del__(self) -> None:
        if self.pointer and os.getpid() == self._process:
            library.byol_batch_release(self.handle.pointer, self.pointer)


class _Memory:
    """What NumPy asks for the address; the array keeps it, and so the lease, alive."""

    def __init__(self, lease: _Lease, address: int, shape: Tuple[int, ...], dtype: Any) -> None:
        self._lease = lease
        dtype = np.dtype(dtype)
        self.__array_interface__: Dict[str, Any] = {
            "version": 3, "data": (address, False), "shape": shape, "typestr": dtype.str, "descr": dtype.descr,
        }  # fmt: skip


class Batch:
    """Views, labels and numbers of some images. Its arrays are the loader's memory: nothing is copied.

    It stays valid as long as anything refers to it or to one of its arrays (or a tensor made of one by `torch.from_numpy` or
    `from_dlpack`), and then gives its buffer back. At most `slots` batches can be out; `copy()` takes one out of the count.
    """

    views: Tuple["npt.NDArray[Any]", ...]  # float32 [N, 3, S, S] or [N, S, S, 3]; uint8 [N, S, S, 3] with pixels="uint8"
    labels: "npt.NDArray[np.int32]"  # [N], -1 where there is none
    ids: "npt.NDArray[np.int64]"  # [N], numbers of the dataset's records
    rest: Tuple["npt.NDArray[Any]", ...]  # with pixels="uint8", what remains to be done to each view; else ()
    epoch: int
    index: int  # within the epoch

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator["npt.NDArray[Any]"]:
        """`view1, view2 = batch`"""
        return iter(self.views)

    def copy(self) -> "Batch":
        """The same in memory of its own."""
        twin = Batch()
        twin.views, twin.rest = tuple(view.copy() for view in self.views), tuple(rest.copy() for rest in self.rest)
        twin.labels, twin.ids = self.labels.copy(), self.ids.copy()
        twin.epoch, twin.index = self.epoch, self.index
        return twin


def _batch(lease: _Lease, channels_first: bool) -> Batch:
    raw = lease.pointer.contents

    def array(address: Optional[int], shape: Tuple[int, ...], dtype: Any) -> "npt.NDArray[Any]":
        if not address or 0 in shape:
            return np.empty(shape, dtype)
        return np.asarray(_Memory(lease, address, shape, dtype))

    count, size, number, batch = raw.count, raw.size, raw.views, Batch()
    if raw.bytes[0]:
        batch.views = tuple(array(raw.bytes[i], (count, size, size, 3), np.uint8) for i in range(number))
        batch.rest = tuple(array(raw.rest[i], (count,), _REST) for i in range(number))
    else:
        shape = (count, 3, size, size) if channels_first else (count, size, size, 3)
        batch.views, batch.rest = tuple(array(raw.view[i], shape, np.float32) for i in range(number)), ()
    batch.labels = array(raw.labels, (count,), np.int32)
    batch.ids = array(raw.records, (count,), np.int64)  # below 2^32
    batch.epoch, batch.index = raw.position.epoch, raw.position.batch
    return batch


def _values(recipe: Union[str, "os.PathLike[str]"], settings: Settings) -> str:
    """All keys of a recipe with their values: what a file held when it was read, wherever it was."""
    lines = describe_recipe(recipe, settings).splitlines()
    return "\n".join(line for line in lines if not line.startswith("#"))


def _choice(name: str, value: str, *choices: str) -> int:
    if value not in choices:
        raise Error(f"{name} is one of {', '.join(choices)}, not {value!r}")
    return choices.index(value)


def _whole(name: str, value: int, most: int) -> int:
    if not isinstance(value, (int, np.integer)) or not 0 <= value <= most:
        raise Error(f"{name} must be a whole number from 0 to {most}, not {value!r}")
    return int(value)


class Loader:
    """Batches of views of a dataset, in an order that depends on the seed alone.

    Iterating gives the rest of the present epoch, and the next time the next epoch, as PyTorch's DataLoader does:

        for epoch in range(100):
            for batch in loader: ...

    What a batch holds depends on dataset, recipe, settings, layout, mean, deviation, seed, batch, rank, ranks and position, never
    on threads or timing. Threads of the library work beside Python; there are no worker processes.

    dataset         a byol.Dataset or the path of one
    recipe          a built-in's name (`byol.recipes()`) or the path of a YAML file with a `views:` mapping, which may be that of
                    `byol pretrain`: its keys of training are passed over
    settings        changes to it: {"size": 96, "view1": {"blur": 0.5}}, or YAML
    batch           images of a batch, of this rank
    seed            of order and draws
    epochs          iteration is over after so many, counted from epoch 0; 0: never
    threads         that decode and render, at most two a core; 0: one a core
    shuffle         False: the dataset's order
    keep_last       True: an epoch's last batch may be short; False: the remainder is left out
    slots           batch buffers, at least 2: so many batches may be held at once
    layout          "NCHW" or "NHWC"
    mean, deviation of each channel: pixels are (x - mean) / deviation of x in [0, 1]
    pixels          "float32", or "uint8": crop and resize alone, the rest as `batch.rest`
    policy          "fatal" or "skip": what a bad image does; `max_skips` bad ones are put up with (0: the larger of 16 and 0.1 %)
    rank, ranks     this process's share of every batch
    io, depth, direct, cache   how bytes are read (`byol bench loader --help`)

    One thread at a time may iterate. After fork, as in DataLoader workers, a loader raises: open it in the process that uses it.
    """

    def __init__(
        self,
        dataset: Union[Dataset, str, "os.PathLike[str]"],
        recipe: Union[str, "os.PathLike[str]"] = "byol",
        batch: int = 64,
        *,
        settings: Settings = None,
        seed: int = 0,
        epochs: int = 0,
        threads: int = 0,
        shuffle: bool = True,
        keep_last: bool = False,
        slots: int = 3,
        layout: str = "NCHW",
        mean: Sequence[float] = (0, 0, 0),
        deviation: Sequence[float] = (1, 1, 1),
        pixels: str = "float32",
        policy: str = "fatal",
        max_skips: int = 0,
        rank: int = 0,
        ranks: int = 1,
        io: str = "auto",
        depth: int = 64,
        direct: bool = False,
        cache: int = 96 << 20,
    ) -> None:
        self.dataset = opened(dataset)
        options = Options()
        library.byol_loader_options_init(byref(options), ctypes.sizeof(options))
        options.recipe, options.settings = os.fsencode(recipe), settings_text(settings)
        for name, value in (("seed", seed), ("max_skips", max_skips), ("cache", cache)):
            setattr(options, name, _whole(name, value, 2**64 - 1))
        for name, value in (("batch", batch), ("epochs", epochs), ("threads", threads), ("slots", slots), ("depth", depth),
                            ("rank", rank), ("ranks", ranks)):  # fmt: skip
            setattr(options, name, _whole(name, value, 2**32 - 1))
        options.shuffle, options.keep_last, options.direct = bool(shuffle), bool(keep_last), bool(direct)
        options.layout = _choice("layout", layout, "NCHW", "NHWC")
        options.pixels = _choice("pixels", pixels, "float32", "uint8")
        options.policy = _choice("policy", policy, "fatal", "skip")
        options.io = _choice("io", io, "auto", "uring", "pread")
        if len(mean) != 3 or len(deviation) != 3 or not all(map(math.isfinite, (*mean, *deviation))):
            raise Error("mean and deviation are three numbers each")
        options.mean[:], options.deviation[:] = mean, deviation
        self._options, self._views = options, _values(recipe, settings)
        self._handle: Optional[Handle] = None
        self._open()

    def _open(self) -> None:
        handle = Handle(library.byol_loader_close)
        check(library.byol_loader_open, byref(handle.pointer), self.dataset._handle.here(), byref(self._options))
        self._handle, self._taken = handle, _Lease(handle)

    def _here(self) -> Any:
        if self._handle is None:
            raise Error("the loader is closed")
        return self._handle.here()

    def __len__(self) -> int:
        """Batches of an epoch."""
        return int(library.byol_loader_batches_per_epoch(self._here()))

    def next(self) -> Optional[Batch]:
        """The next batch, whatever its epoch; None when all epochs are over.

        Error ("invalid") while all `slots` batches are held: waiting for one would last for ever.
        """
        handle, lease, error = self._here(), self._taken, ErrorStruct()
        if not lease.pointer:  # else Ctrl-C came when the batch was there and nobody had it yet
            status = library.byol_loader_next(handle, byref(lease.pointer), byref(error))
            if status == END:
                return None
            if status != 0:
                raise error_of(error)
        batch = _batch(lease, self._options.layout == 0)
        self._taken = _Lease(lease.handle)
        return batch

    def __iter__(self) -> Iterator[Batch]:
        epoch = self.position[0]
        while self.position[0] == epoch:
            batch = self.next()
            if batch is None:
                return
            yield batch
            del batch  # or this frame would hold it while the next one is waited for

    @property
    def position(self) -> Tuple[int, int]:
        """(epoch, batch within it) of the next batch. Prefetching does not move it."""
        handle, taken = self._here(), self._taken.pointer
        position = taken.contents.position if taken else library.byol_loader_position(handle)
        return position.epoch, position.batch

    @property
    def statistics(self) -> Statistics:
        """What the loader did and waited for."""
        raw = StatisticsStruct()
        library.byol_loader_statistics(self._here(), byref(raw), ctypes.sizeof(raw))
        return Statistics(*(getattr(raw, name) for name in Statistics._fields))

    def skips(self) -> List[Error]:
        """The bad images so far, in the order found (policy="skip")."""
        handle = self._here()
        errors = (ErrorStruct * int(library.byol_loader_skips(handle, None, 0)))()
        count = library.byol_loader_skips(handle, errors, len(errors))
        return [error_of(error) for error in errors[:count]]

    def _stream(self) -> Dict[str, Any]:
        """All that decides what the batches hold."""
        options = self._options
        names = ("seed", "batch", "shuffle", "keep_last", "layout", "pixels", "policy", "rank", "ranks")
        stream: Dict[str, Any] = {name: int(getattr(options, name)) for name in names}
        return {"dataset": self.dataset.id, "recipe": self._views, "mean": list(options.mean), "deviation": list(options.deviation), **stream}

    def state_dict(self) -> Dict[str, Any]:
        """Where the stream stands and which one it is: plain numbers and text, for a checkpoint."""
        epoch, batch = self.position
        return {"version": 2, "epoch": epoch, "batch_index": batch, "stream": self._stream()}

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        """Goes on where `state` was taken, with the same bytes. Error where it is of another stream. Held batches stay valid."""
        if state.get("version") != 2:
            raise Error("this is no state of a byol.Loader of this version", "version")
        other = [key for key, value in self._stream().items() if state["stream"].get(key) != value]
        if other:
            raise Error(f"the state is of another stream: {', '.join(other)} differ")
        epoch = _whole("epoch", state["epoch"], 2**32 - 1)
        self._options.start = Position(epoch=epoch, batch=_whole("batch_index", state["batch_index"], len(self)))
        self.close()  # its memory first
        self._open()

    def close(self) -> None:
        """Stops the threads and frees the buffers, once no batch is held. A loader that nobody refers to closes by itself."""
        self._handle = self._taken = None

    def __enter__(self) -> "Loader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
