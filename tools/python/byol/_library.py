"""The C library behind the package: found, declared, its errors raised. Structs and functions are those of byol.h."""
import ctypes
import ctypes.util
import os
import shutil
import subprocess
from ctypes import POINTER, byref, c_char, c_char_p, c_double, c_float, c_int, c_int32, c_size_t, c_uint8, c_uint32, c_uint64, c_void_p
from pathlib import Path
from typing import Iterator, Optional

SONAME = "libbyol.so.0"
END = 50
NOWHERE = 2**64 - 1
OUT_OF_BUFFERS = 30


class ErrorStruct(ctypes.Structure):
    _fields_ = [
        ("status", c_int32), ("unused", c_uint32), ("offset", c_uint64), ("record", c_uint64),
        ("path", c_char * 512), ("reason", c_char * 512),
    ]  # fmt: skip


class Position(ctypes.Structure):
    _fields_ = [("epoch", c_uint32), ("unused", c_uint32), ("batch", c_uint64)]


class Options(ctypes.Structure):
    _fields_ = [
        ("size", c_size_t), ("recipe", c_char_p), ("settings", c_char_p), ("seed", c_uint64), ("batch", c_uint32),
        ("epochs", c_uint32), ("threads", c_uint32), ("slots", c_uint32), ("shuffle", c_int32), ("keep_last", c_int32),
        ("layout", c_int32), ("pixels", c_int32), ("mean", c_float * 3), ("deviation", c_float * 3), ("policy", c_int32),
        ("io", c_int32), ("max_skips", c_uint64), ("cache", c_uint64), ("depth", c_uint32), ("direct", c_int32),
        ("rank", c_uint32), ("ranks", c_uint32), ("start", Position),
    ]  # fmt: skip


class BatchStruct(ctypes.Structure):
    _fields_ = [
        ("position", Position), ("count", c_uint32), ("size", c_uint32), ("views", c_uint32), ("unused", c_uint32),
        ("view", c_void_p * 2), ("bytes", c_void_p * 2), ("rest", c_void_p * 2), ("labels", c_void_p), ("records", c_void_p),
    ]  # fmt: skip


class StatisticsStruct(ctypes.Structure):
    _fields_ = [
        *((name, c_double) for name in ("read_wait", "unpack", "decode", "augment", "slot_wait", "consumer_wait")),
        *((name, c_uint64) for name in ("batches", "records", "skips", "bytes", "reads", "read_bytes", "kept", "memory")),
        ("threads", c_uint32), ("held", c_uint32),
    ]  # fmt: skip


class Error(Exception):
    """What the library refuses or cannot do.

    `status` is the name of the cause ("corrupt", "not_found", "invalid", ...), `file`, `offset` (byte) and `record` say where,
    None for what does not apply; `reason` is the sentence alone.
    """

    status: str
    reason: str
    file: Optional[str]
    offset: Optional[int]
    record: Optional[int]

    def __init__(self, text: str, status: str = "invalid", reason: Optional[str] = None, file: Optional[str] = None,
                 offset: Optional[int] = None, record: Optional[int] = None) -> None:  # fmt: skip
        super().__init__(text)
        self.status, self.reason, self.file, self.offset, self.record = status, reason or text, file, offset, record


def _candidates() -> Iterator[str]:
    """BYOL_LIBRARY decides alone; else the package's own, that of pkg-config, those of the dynamic linker and of a checkout."""
    given = os.environ.get("BYOL_LIBRARY")
    if given and given != "system":
        yield given
        return
    here = Path(__file__).resolve()
    if not given:
        yield str(here.parent / SONAME)
    if shutil.which("pkg-config"):
        answer = subprocess.run(["pkg-config", "--variable=libdir", "byol"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        if answer.returncode == 0:
            yield f"{answer.stdout.decode().strip()}/{SONAME}"
    yield SONAME
    if not given and len(here.parents) > 3:
        yield str(here.parents[3] / "build" / SONAME)


def _open() -> ctypes.CDLL:
    reasons = []
    for path in _candidates():
        try:
            return ctypes.CDLL(path)
        except OSError as reason:
            reasons.append(str(reason))
    raise ImportError(f"{SONAME} was not found (`make`, `make install-api`, or BYOL_LIBRARY=FILE): " + "; ".join(reasons))


library = _open()


def _declare(name: str, result: object, *arguments: object) -> None:
    function = getattr(library, name)
    function.restype, function.argtypes = result, arguments


_error, _handle = POINTER(ErrorStruct), c_void_p
_declare("byol_version", c_char_p)
_declare("byol_error_text", c_char_p, _error, c_char_p, c_size_t)
_declare("byol_status_name", c_char_p, c_int)
_declare("byol_free", None, c_void_p)
_declare("byol_dataset_open", c_int, POINTER(c_void_p), c_char_p, _error)
_declare("byol_dataset_close", None, POINTER(c_void_p))
_declare("byol_dataset_count", c_uint64, _handle)
_declare("byol_dataset_id", c_uint64, _handle)
_declare("byol_dataset_class_count", c_uint32, _handle)
_declare("byol_dataset_class_name", c_char_p, _handle, c_uint32)
_declare("byol_dataset_name", c_char_p, _handle, c_uint64)
_declare("byol_dataset_label", c_int32, _handle, c_uint64)
_declare("byol_dataset_labels", None, _handle, c_void_p)
_declare("byol_dataset_image_size", c_int, _handle, c_uint64, POINTER(c_uint32), POINTER(c_uint32), _error)
_declare("byol_dataset_read", c_int, _handle, c_uint64, POINTER(c_void_p), POINTER(c_size_t), _error)
_declare("byol_recipe_name", c_char_p, c_size_t)
_declare("byol_recipe_describe", c_int, c_char_p, c_char_p, POINTER(c_void_p), _error)
_declare("byol_loader_options_init", None, POINTER(Options), c_size_t)
_declare("byol_loader_open", c_int, POINTER(c_void_p), _handle, POINTER(Options), _error)
_declare("byol_loader_next", c_int, _handle, POINTER(POINTER(BatchStruct)), _error)
_declare("byol_batch_release", None, _handle, POINTER(BatchStruct))
_declare("byol_loader_position", Position, _handle)
_declare("byol_loader_close", None, POINTER(c_void_p))
_declare("byol_loader_batches_per_epoch", c_uint64, _handle)
_declare("byol_loader_statistics", None, _handle, POINTER(StatisticsStruct), c_size_t)
_declare("byol_loader_skips", c_size_t, _handle, POINTER(ErrorStruct), c_size_t)


def error_of(error: ErrorStruct) -> Error:
    text = ctypes.create_string_buffer(2048)
    library.byol_error_text(byref(error), text, len(text))
    return Error(
        text.value.decode(errors="replace"),
        library.byol_status_name(error.status).decode(),
        error.reason.decode(errors="replace"),
        os.fsdecode(error.path) or None,
        None if error.offset == NOWHERE else error.offset,
        None if error.record == NOWHERE else error.record,
    )


def check(function: object, *arguments: object) -> None:
    """Calls a function whose last argument is the error, and raises it."""
    error = ErrorStruct()
    if function(*arguments, byref(error)) != 0:  # type: ignore[operator]
        raise error_of(error)


class Handle:
    """A pointer that the library gave, closed when nobody refers to this any more.

    A process that was forked has the memory but not the threads: there it is neither used nor closed.
    """

    def __init__(self, close: object) -> None:
        self.pointer, self._close, self._process = c_void_p(), close, os.getpid()

    def here(self) -> c_void_p:
        if os.getpid() != self._process:
            raise Error("opened by another process: a byol object does not survive fork (DataLoader workers); open it there")
        return self.pointer

    def __del__(self) -> None:
        if self.pointer and os.getpid() == self._process:
            self._close(byref(self.pointer))  # type: ignore[operator]
