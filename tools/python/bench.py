"""byol's loader in Python beside torchvision's DataLoader, in turn in one run: bench.py IMAGES DATASET

IMAGES: a folder of JPEGs; DATASET: what `byol convert` made of it. Both make pairs of views of 224 px, float32, normalised, batches
of 64, which a loop takes as torch tensors and drops. Prints a table: medians (least to largest) of the turns.
"""
import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PEERS = Path(__file__).resolve().parents[2] / "tests" / "bench" / "peers"
BATCH, LEAST_BATCHES = 64, 4


def ours(dataset, cores, layout="NCHW"):
    import torch

    import byol

    loader = byol.Loader(dataset, batch=BATCH, threads=cores, mean=byol.IMAGENET_MEAN, deviation=byol.IMAGENET_DEVIATION, layout=layout)
    while True:
        for batch in loader:
            yield tuple(torch.from_dlpack(view) for view in batch.views)


def window(batches, seconds):
    start, count = time.monotonic(), 0
    while count < LEAST_BATCHES or time.monotonic() - start < seconds:
        view1, view2 = next(batches)
        assert view1.shape == view2.shape == (BATCH, 3, 224, 224)
        count += 1
    return count * BATCH / (time.monotonic() - start)


def serve(dataset, cores):
    """As the peers do: "ready", then a window for each line on standard input."""
    batches = ours(dataset, cores)
    window(batches, 1)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        print(json.dumps({"rate": window(batches, float(line.split()[1]))}), flush=True)


class Contestant:
    """A process that is stopped while it is not its turn."""

    def __init__(self, command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
        json.loads(self.process.stdout.readline())
        self.stop(signal.SIGSTOP)

    def stop(self, number):
        os.killpg(self.process.pid, number)

    def turn(self, seconds):
        self.stop(signal.SIGCONT)
        self.process.stdin.write(f"go {seconds}\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        self.stop(signal.SIGSTOP)
        return answer.get("rate") or answer["pairs"] / answer["seconds"]

    def end(self):
        self.stop(signal.SIGKILL)
        self.process.wait()


def spread(values):
    return f"{statistics.median(values):,.0f} ({min(values):,.0f} to {max(values):,.0f})"


def measure(given, cores, work):
    pin = ["taskset", "-c", ",".join(map(str, range(cores)))]
    peer = [sys.executable, str(PEERS / "torchvision_peer.py"), "--images", given.images, "--work", work, "--recipe", "byol"]
    contestants = [
        Contestant([*pin, sys.executable, __file__, given.images, given.dataset, "--serve", str(cores)]),
        Contestant([*pin, *peer, "--cores", str(cores)]),
    ]
    try:
        rates = [[contestant.turn(given.seconds) for contestant in contestants] for _ in range(given.rounds)]
    finally:
        for contestant in contestants:
            contestant.end()
    mine, theirs = zip(*rates)
    ratio = statistics.median(a / b for a, b in rates)
    print(f"| {cores} | {spread(mine)} | {spread(theirs)} | {ratio:.1f}x |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images")
    parser.add_argument("dataset")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=2.5)
    parser.add_argument("--cores", default="1 2", help="numbers of threads, and of worker processes")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        return serve(given.dataset, given.serve)
    print("| threads or workers | byol in Python, pairs/s | torchvision's DataLoader, pairs/s | ratio |\n| ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as work:
        for cores in map(int, given.cores.split()):
            measure(given, cores, work)


if __name__ == "__main__":
    main()
