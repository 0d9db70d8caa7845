#!/usr/bin/env python3
"""Reads a run's event files with TensorBoard's own EventAccumulator and compares every scalar with
metrics.jsonl.

  check_tensorboard.py RUN        needs the package tensorboard

Exit codes: 0 the same, 1 not the same.
"""

import json
import pathlib
import struct
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def as_float32(value):
    return struct.unpack("f", struct.pack("f", value))[0]


def scalars_of_log(path):
    """{tag: [(step, value), ...]} of metrics.jsonl."""
    scalars = {}
    for text in path.read_text().splitlines():
        line = json.loads(text)
        groups = {"time": line["timing"]}
        groups["eval" if "probe" in line else "train"] = line.get("probe", line)
        for group, figures in groups.items():
            for key, value in figures.items():
                if isinstance(value, (int, float)) and key not in ("step", "time"):
                    entry = (line["step"], as_float32(float(value)))
                    scalars.setdefault(f"{group}/{key}", []).append(entry)
    return scalars


def main():
    run = pathlib.Path(sys.argv[1])
    accumulator = EventAccumulator(str(run), size_guidance={"scalars": 0, "tensors": 0})
    accumulator.Reload()
    expected = scalars_of_log(run / "metrics.jsonl")
    tags = accumulator.Tags()["scalars"]
    if sorted(tags) != sorted(expected):
        print(f"tags differ: {sorted(set(tags) ^ set(expected))}")
        return 1
    for tag, values in expected.items():
        found = [(event.step, event.value) for event in accumulator.Scalars(tag)]
        if found != values:
            print(f"{tag}: the log has {values[:3]}…, TensorBoard {found[:3]}…")
            return 1
    print(f"{len(tags)} tags, {sum(map(len, expected.values()))} scalars are the same")
    return 0


if __name__ == "__main__":
    sys.exit(main())
