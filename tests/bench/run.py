#!/usr/bin/env python3
"""Measures our loader and the installed peers on the same images, window by window in turn, so that what disturbs the machine
disturbs all of them. `make bench-loader` runs this; needs nothing but Python 3.8 and the peers' environments (setup.sh)."""
import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import machine
import report
from contestants import Floor, Ours, Peer, Unavailable, measure

PLAIN, SHARDS, RECODED, FLOOR = "byol, JPEGs", "byol, JPEGs in shards", "byol, recoded", "floor: decoding alone"
IMAGES = {".jpg", ".jpeg"}


def say(text):
    print(text, file=sys.stderr, flush=True)


def fail(text):
    sys.exit(f"bench: {text}")


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--byol", required=True, help="our program")
    parser.add_argument("--data", required=True, help="tar or folder of JPEG files")
    parser.add_argument("--work", required=True, help="folder for stores and results, kept between runs")
    parser.add_argument("--venvs", required=True, help="folder of the peers' environments")
    parser.add_argument("--recipe", choices=["byol", "small"], default="byol")
    parser.add_argument("--reference", default="", help="folder of the original implementation")
    parser.add_argument("--only", default="", help="regular expression: rows to measure")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--window", type=float, default=2.5, help="seconds")
    parser.add_argument("--cores", default="1 2", help="numbers of processors to measure with")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--svg", default="", help="draw the table into this file")
    return parser.parse_args()


# --- what must be there first --------------------------------------------------------------------


def run_ours(options, *arguments):
    done = subprocess.run([options.byol, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        fail(done.stderr.strip() or f"{options.byol} ended with {done.returncode}")
    return done.stdout


def unpack_images(data, folder):
    """The peers read files."""
    if folder.exists():
        return
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    done = subprocess.run(["tar", "-xf", str(data), "-C", str(partial)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        fail(f"{data}: {done.stderr.strip()}")
    partial.rename(folder)


def prepare(options):
    data = Path(options.data)
    if not data.exists():
        fail(f"{data}: not found; DATA names a tar or a folder of JPEG files")
    if not os.access(options.byol, os.X_OK):
        fail(f"{options.byol}: not found; run make first")
    options.work = Path(options.work).resolve() / f"{data.name}-{int(data.stat().st_mtime)}"
    options.images = data.resolve() if data.is_dir() else options.work / "images"
    options.work.mkdir(parents=True, exist_ok=True)
    if not data.is_dir():
        unpack_images(data, options.images)
    files = [path for path in options.images.rglob("*") if path.suffix.lower() in IMAGES]
    if len(files) < 64:
        fail(f"{data}: {len(files)} JPEG files, fewer than a batch")
    for path in files:  # into the page cache
        path.read_bytes()
    return {"files": len(files), "bytes": sum(path.stat().st_size for path in files)}


def store(options, name, *arguments):
    path = options.work / re.sub(r"\W+", "-", name)
    if not path.exists():
        say(f"converting: {name}")
        run_ours(options, "convert", str(options.data), "-o", str(path), *arguments)
    return path


# --- rows ----------------------------------------------------------------------------------------


def rows(options):
    """Name and a function from cores to contestant, in the order of measuring."""

    def ours(name, note, *arguments):
        return name, lambda cores: Ours(name, options, cores, store(options, name, *arguments), note)

    def peer(name, environment, script, *arguments):
        return name, lambda cores: Peer(name, options, cores, environment, script, *arguments)

    exact = "the reference's arithmetic, float32"
    found = [ours(PLAIN, exact)]
    if options.recipe == "small":
        found.append(ours(SHARDS, exact, "--store", "shards"))
    if "--recode" in run_ours(options, "convert", "--help"):
        found.append(ours(RECODED, exact + ", from recoded JPEGs with the same pixels", "--recode"))
    note = "libjpeg-turbo, whole images, no views; images/s"
    found.append((FLOOR, lambda cores: Floor(FLOOR, options, cores, store(options, PLAIN), note)))
    found.append(peer("FFCV, JPEGs", "ffcv", "ffcv_peer.py", "--variant", "original"))
    found.append(peer("FFCV, raw store", "ffcv", "ffcv_peer.py", "--variant", "raw"))
    found.append(peer("albumentations + OpenCV", "main", "albumentations_peer.py"))
    if options.recipe == "byol":
        found.append(peer("DALI on the CPU", "main", "dali_peer.py"))
        found.append(peer("torchvision + Pillow", "main", "torchvision_peer.py"))
        found.append(peer("tf.data + JAX (the reference)", "tf", "reference_peer.py", "--reference", options.reference))
    chosen = [row for row in found if re.search(options.only, row[0], re.IGNORECASE)]
    if not chosen:
        fail(f"no row matches '{options.only}'; there are: " + "; ".join(name for name, _ in found))
    return chosen


# --- measuring -----------------------------------------------------------------------------------


class Log:
    """JSON lines, one for each window, row or absence."""

    def __init__(self, path):
        self.path, self.lines = path, []
        path.write_text("")

    def add(self, kind, **values):
        line = {"kind": kind, **values}
        self.lines.append(line)
        with open(self.path, "a") as file:
            file.write(json.dumps(line) + "\n")


def start_all(chosen, options, cores, log):
    running = []
    for name, make in chosen:
        contestant = make(cores)
        try:
            if "reference" in name and not options.reference:
                raise Unavailable("BYOL_REFERENCE does not name a copy of the original implementation")
            started = time.monotonic()
            contestant.start()
            running.append(contestant)
            log.add("row", name=name, cores=cores, note=contestant.note)
            say(f"  {name}: ready after {time.monotonic() - started:.0f} s")
        except Unavailable as reason:
            contestant.close()
            log.add("absent", name=name, cores=cores, reason=str(reason))
            say(f"  {name}: left out, {reason}")
        except BaseException:
            for other in running + [contestant]:
                other.close()
            raise
    return running


def run_rounds(running, options, cores, log):
    for number in range(options.rounds):
        for contestant in list(running):
            try:
                log.add("window", name=contestant.name, cores=cores, round=number, **measure(contestant))
            except Unavailable as reason:
                say(f"  {contestant.name}: {reason}")
                log.add("absent", name=contestant.name, cores=cores, reason=str(reason))
                contestant.close()
                running.remove(contestant)
        say(f"  round {number + 1} of {options.rounds}")


def main():
    for number in (signal.SIGTERM, signal.SIGHUP):  # like Ctrl-C: no peer may be left behind, stopped
        signal.signal(number, lambda received, _: sys.exit(128 + received))
    options = parse()
    data = prepare(options)
    log = Log(options.work / "results.jsonl")
    log.add("run", machine=machine.describe(), date=time.strftime("%Y-%m-%d"), recipe=options.recipe, data=Path(options.data).name, **data)
    chosen = rows(options)
    for cores in [int(word) for word in options.cores.split()]:
        if cores > len(os.sched_getaffinity(0)):
            say(f"{cores} cores: there are fewer here, left out")
            continue
        say(f"{cores} core{'s' if cores > 1 else ''}")
        running = start_all(chosen, options, cores, log)
        try:
            if running:
                run_rounds(running, options, cores, log)
        finally:
            for contestant in running:
                contestant.close()
    say(f"every window: {log.path}")
    report.write(log.lines, options.markdown, options.svg)


if __name__ == "__main__":
    main()
