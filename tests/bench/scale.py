#!/usr/bin/env python3
"""Converts a tar of very many tiny images to both stores and says what the datasets cost.

    python3 tests/bench/scale.py --byol build/byol --probe build/tests/bench/scale --work /tmp --records 1281167

The tar (a kilobyte a record) and the datasets are written below --work and removed.
"""

import argparse
import pathlib
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zlib

CLASSES = 1000


def png(number):
    """A picture of 2 x 2 pixels, different for each number."""
    raw = b"".join(b"\0" + bytes((number >> shift & 255) for shift in (0, 8, 16)) * 2 for _ in range(2))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 2, 2, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def member(name, data):
    header = bytearray(512)
    header[0 : len(name)] = name.encode()
    header[100:108] = b"0000644\0"
    header[124:136] = b"%011o\0" % len(data)
    header[148:156] = b" " * 8
    header[156:157] = b"0"
    header[257:265] = b"ustar\00000"
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + data + b"\0" * (-len(data) % 512)


def write_tar(path, records):
    with open(path, "wb", buffering=1 << 20) as tar:
        for number in range(records):
            tar.write(member(f"n{number * CLASSES // records:08d}/{number:08d}.png", png(number)))
        tar.write(b"\0" * 1024)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--byol", default="build/byol")
    parser.add_argument("--probe", default="build/tests/bench/scale")
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("/tmp"))
    parser.add_argument("--records", type=int, default=1281167)
    options = parser.parse_args()
    work = pathlib.Path(tempfile.mkdtemp(prefix="byol-scale-", dir=options.work))
    try:
        write_tar(work / "many.tar", options.records)
        print(f"{options.records} records, a tar of {(work / 'many.tar').stat().st_size / 1e9:.2f} GB")
        for store in ("lmdb", "shards"):
            start = time.monotonic()
            command = [options.byol, "convert", work / "many.tar", "-o", work / store, "--store", store, "--quiet"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3
            print(f"{store}: converted in {time.monotonic() - start:.1f} s, at most {peak:.0f} MB resident", flush=True)
            subprocess.run([options.probe, work / store], check=True)
            sys.stdout.flush()
            shutil.rmtree(work / store)
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
