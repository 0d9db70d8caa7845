#!/usr/bin/env python3
"""Proves and measures the GPU side on a machine that has a GPU: one command, under ten minutes, one JSON file.

Runs in the directory that `make gpu-bundle` makes (which it unpacks there) or in the sources beside a build, stage by stage, and writes
the file anew after each, so that what was found survives when the machine is taken away. Needs Python 3.9; the peer needs PyTorch, the
sanitizers compute-sanitizer; what is absent is left out and named. Exits 1 when a stage failed.
"""
import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
BUNDLED = HERE / "programs.tar.xz"
ARCHIVES = {"imagenet": "imagenet-sample.tar", "cifar-train": "cifar10-train.tar.zst", "cifar-test": "cifar10-test.tar.zst"}

# Table-driven suites run every op on `cuda` and on the devices they compare it with.
SUITES = [
    "trainer/test_cuda_device",
    "trainer/test_device_ops",
    "trainer/test_device_half",
    "trainer/test_device_math",
    "trainer/test_optimisers",
    "trainer/test_gradients",
    "trainer/test_device_views",
    "trainer/test_queue",
    "trainer/test_network",
    "trainer/test_method",
    "trainer/test_recompute",
    "golden/test_loss",
    "golden/test_optimizer",
    "golden/test_network",
    "golden/test_updates",
]
STEP_SUITES = ["trainer/test_cuda_step"]


class Shape(NamedTuple):
    """Of a step."""

    name: str
    net: str
    stem: str
    size: int
    batch: int
    hidden: int = 4096
    steps: int = 30


# The first is the one with a goal, and the one that the input is tried with.
SHAPES = [Shape("ResNet-50, 224 px, batch 256", "resnet50", "imagenet", 224, 256), Shape("ResNet-18, 32 px, batch 512", "resnet18", "small", 32, 512)]
TINY_SHAPES = [Shape("ResNet-18, 32 px, batch 2", "resnet18", "imagenet", 32, 2, 64, 1)]
PEERS = ["bf16-compiled", "bf16-channels-last"]
TINY_STEP = ["--net", "tiny", "--size", "32", "--batch", "8", "--hidden", "32", "--output", "16", "--steps", "2"]


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--build", help="directory with byol and tests, where this is no bundle (build beside the sources)")
    parser.add_argument("--data", default=str(HERE / "data"), help="folder of " + ", ".join(ARCHIVES.values()))
    parser.add_argument("--plugin", help="of the device cuda (libbyol_cuda.so of the build)")
    parser.add_argument("--out", default="gpu-check.json", help="the JSON file")
    parser.add_argument("--python", default=sys.executable, help="Python with PyTorch, for the peer")
    parser.add_argument("--peer-device", choices=["cuda", "cpu"], default="cuda", help="what PyTorch computes on")
    parser.add_argument("--only", default="", help="regular expression of suites")
    parser.add_argument("--tiny", action="store_true", help="small shapes: tries this script, measures nothing")
    parser.add_argument("--stages", default="record,ops,step,ceilings,speed,input,sanitize", help="which, in this order")
    parser.add_argument("--seconds", type=float, default=560, help="in all: stages that would begin later are left out")
    parser.add_argument("--rounds", type=int, default=3, help="of the speed comparison, ours and the peer's in turn")
    parser.add_argument("--train", type=float, default=0, help="seconds of a CIFAR-10 training, resumed where its run stands (stage 'train')")
    parser.add_argument("--run", default="gpu-run", help="directory of that training, from here")
    return parser.parse_args()


class Left(Exception):
    """Why something was left out."""


class Failed(Exception):
    """Why something failed."""


def say(text):
    print(text, file=sys.stderr, flush=True)


class Machine:
    """What stages share: where things are, and the time that is left."""

    def __init__(self, options):
        self.options = options
        self.end = time.monotonic() + options.seconds
        self.root = unpacked(BUNDLED, HERE / "unpacked") if BUNDLED.exists() else HERE.parents[1]  # as the sources lie
        self.build = Path(options.build).resolve() if options.build else self.root / ("" if BUNDLED.exists() else "build")
        self.byol = self.build / "byol"
        if not self.byol.exists():
            sys.exit(f"check: no {self.byol}: build it, or name another directory with --build")
        self.work = self.build / "gpu-check"
        self.work.mkdir(exist_ok=True)
        self.shapes, self.peers = (TINY_SHAPES, PEERS[1:]) if options.tiny else (SHAPES, PEERS)
        self.device = "cpu" if options.tiny else "cuda"  # of what takes too long on an emulated GPU
        self.environment = {**os.environ, "REQUIRE_DEVICE": "1", "OMP_WAIT_POLICY": "passive"}
        self.environment["BYOL_PROGRAM"] = str(self.byol)
        self.environment["BYOL_CUDA_PLUGIN"] = str(Path(options.plugin or self.build / "libbyol_cuda.so").resolve())
        self.environment["LD_LIBRARY_PATH"] = ":".join([*self.libraries(), os.environ.get("LD_LIBRARY_PATH", "")])

    def libraries(self):
        """What the bundle brought, and cuDNN, cuBLAS and NCCL where Python's wheels have put them."""
        ask = "import nvidia; print(list(nvidia.__path__)[0])"
        found = subprocess.run([self.options.python, "-c", ask], capture_output=True, text=True, check=False).stdout.strip()
        return [str(self.build / "lib")] + [str(path) for path in sorted(Path(found).glob("*/lib")) if found]

    def archive(self, name):
        archive = Path(self.options.data).resolve() / ARCHIVES[name]
        if not archive.exists():
            raise Left(f"no {archive}")
        return archive

    def pictures(self, name):
        """A folder of the images' files."""
        return unpacked(self.archive(name), self.work / f"{name}-files")

    def dataset(self, name):
        """The images as training reads them."""
        place = self.work / name
        if not place.exists():
            done, _ = self.run(self.byol, "convert", self.archive(name), "-o", place, "--quiet")
            if done.returncode:
                raise Failed(last_line(done.stderr))
        return place

    def left(self):
        return self.end - time.monotonic()

    def run(self, *words, limit=300, environment=None):
        """Code, output and seconds; what runs longer than its limit, or than there is time, is ended."""
        start = time.monotonic()
        limit = min(limit, self.left())
        if limit < 1:
            raise Left("no time left")
        try:
            done = subprocess.run(
                [str(word) for word in words],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                timeout=limit,
                check=False,
                cwd=self.root,
                env=environment or self.environment,
            )
        except subprocess.TimeoutExpired:
            raise Failed(f"{words[0]}: still running after {limit:.0f} s") from None
        except OSError as error:
            raise Left(f"{words[0]}: {error.strerror}") from None
        return done, time.monotonic() - start

    def json_of(self, *words, **more):
        done, _ = self.run(*words, **more)
        if done.returncode:
            raise Failed(last_line(done.stderr) or f"{words[0]} ended with {done.returncode}")
        return json.loads(done.stdout[done.stdout.index("{") :])


def unpacked(archive, place):
    """A folder of what is in an archive: whole or not at all."""
    if not place.exists():
        partial = place.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.unpack_archive(archive, partial)
        partial.rename(place)
    return place


def last_line(text):
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


# --- stages --------------------------------------------------------------------------------------


def record(machine):
    found = {"byol": machine.run(machine.byol, "--version")[0].stdout.strip(), "cores": os.cpu_count()}
    query = "name,driver_version,memory.total,clocks.max.sm,clocks.max.memory,power.limit,pcie.link.gen.max,pcie.link.width.max"
    try:
        done, _ = machine.run("nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader")
        found["gpu"] = dict(zip(query.split(","), [field.strip() for field in done.stdout.strip().split(",")]))
    except Left as reason:
        found["gpu"] = str(reason)
    return found


def suites(machine, names):
    found, bad = {}, []
    names = [name for name in names if re.search(machine.options.only, name)]
    if not names:
        raise Left(f"no suite '{machine.options.only}'")
    for name in names:
        program = machine.build / "tests" / name
        if not program.exists():
            found[name] = {"left_out": "not built"}
            continue
        done, seconds = machine.run(program, limit=200)
        text = done.stdout + done.stderr
        counts = {word.lower(): sum(map(int, re.findall(rf"\[ +{word} +\] (\d+) test", text))) for word in ("PASSED", "FAILED", "SKIPPED")}
        found[name] = {**counts, "seconds": round(seconds, 1)}
        if done.returncode or counts["failed"]:
            lines = [line for line in text.splitlines() if re.search(r"error|FAILED|cuda", line, re.IGNORECASE)]
            found[name]["lines"] = lines[:20]
            bad.append(name)
        say(f"  {name}: {counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped, {seconds:.0f} s")
    if bad:
        found["failed"] = bad
    return found


def ops(machine):
    return suites(machine, SUITES)


def step(machine):
    return suites(machine, STEP_SUITES)


def ceilings(machine):
    mib = 1 if machine.options.tiny else 512
    return {
        precision: machine.json_of(machine.byol, "bench", "device", "--device", machine.device, "--mib", mib, "--precision", precision, "--json")
        for precision in ("bf16", "f32")
    }


def step_words(shape):
    return ["--net", shape.net, "--stem", shape.stem, "--size", shape.size, "--batch", shape.batch, "--hidden", shape.hidden]


def peer_step(machine, shape, mode, *more):
    """In the environment as it was: PyTorch has libraries of its own."""
    script = machine.root / "tests/bench/peers/torch_step.py"
    words = [machine.options.python, script, "--mode", mode, "--device", machine.options.peer_device, *step_words(shape)]
    return machine.json_of(*words, *(more or ("--steps", shape.steps)), environment=dict(os.environ))


def our_step(machine, shape, mode):
    words = [machine.byol, "bench", "step", "--device", "cuda", "--precision", mode, "--json", *step_words(shape)]
    return machine.json_of(*words, "--steps", shape.steps)


def speed(machine):
    """Both sides in turn; the median of each side's medians."""
    rows = [("byol bf16", our_step, "bf16")] + [(f"PyTorch {mode}", peer_step, mode) for mode in machine.peers]
    found = {}
    for shape in machine.shapes:
        runs, absent = {name: [] for name, _, _ in rows}, {}
        for _ in range(machine.options.rounds):
            for name, measure, mode in [row for row in rows if row[0] not in absent]:
                try:
                    runs[name].append(measure(machine, shape, mode))
                    say(f"  {shape.name}: {name}: {runs[name][-1]['pairs_per_second']:.0f} pairs/s")
                except (Left, Failed) as reason:
                    absent[name] = str(reason)
                    say(f"  {shape.name}: {name}: {reason}")
        rates = {name: statistics.median(run["pairs_per_second"] for run in list_) for name, list_ in runs.items() if list_}
        entry = {"pairs_per_second": rates, "runs": runs, "absent": absent}
        theirs = [rate for name, rate in rates.items() if name != "byol bf16"]
        if theirs and "byol bf16" in rates:
            entry["times_the_best_peer"] = rates["byol bf16"] / max(theirs)
        found[shape.name] = entry
        if "byol bf16" in absent:
            found["failed"] = absent["byol bf16"]
    return found


def pretrain(machine, data, run, seconds, *settings, recipe="byol"):
    """Trains until the time is up; the run's report."""
    words = [machine.byol, "pretrain", "--data", data, "--run", run, "--recipe", recipe, "--quiet"]
    words += [word for setting in ("device=cuda", *settings) for word in ("--set", setting)]
    if (Path(run) / "checkpoints").exists():
        words.append("--resume")
    report = Path(run) / "report.json"
    report.unlink(missing_ok=True)
    done, _ = machine.run("timeout", "--signal=USR1", "--kill-after=60", f"{seconds:.0f}", *words, limit=seconds + 90)
    if not report.exists():
        raise Failed(last_line(done.stderr) or "the training left no report")
    return json.loads(report.read_text())


def our_input(machine, shape, where):
    run = machine.work / f"input-{where}"
    shutil.rmtree(run, ignore_errors=True)
    sizes = {"encoder": shape.net, "stem": shape.stem, "views.size": shape.size, "batch": shape.batch}
    sizes |= {"projector_hidden": shape.hidden, "predictor_hidden": shape.hidden}
    settings = [f"{key}={value}" for key, value in sizes.items()]
    seconds = 10 if machine.options.tiny else 35
    return pretrain(machine, machine.dataset("imagenet"), run, seconds, f"augment={where}", "epochs=100000", "checkpoint_seconds=0", *settings)


def peer_input(machine, shape, mode):
    """As many steps as all its workers have made four batches by."""
    workers = os.cpu_count()
    return peer_step(machine, shape, mode, "--data", machine.pictures("imagenet"), "--workers", workers, "--steps", 4 * workers)


def input_(machine):
    """Both sides with their loaders on the same images: how many pairs, and how long does each wait for them?"""
    found, rates, shape, bad = {}, {}, machine.shapes[0], []
    rows = [(f"byol, augment: {where}", our_input, where) for where in ("host", "device")] + [(f"PyTorch {mode}", peer_input, mode) for mode in machine.peers[:1]]
    for name, measure, how in rows:
        try:
            found[name] = measure(machine, shape, how)
            rates[name] = found[name]["pairs_per_second"]
            say(f"  {name}: {rates[name]:.0f} pairs/s, waits for input {100 * found[name]['data_wait']:.1f} %")
        except (Left, Failed) as reason:
            found[name] = {"left_out": str(reason)}
            bad += [name] if measure is our_input and isinstance(reason, Failed) else []
            say(f"  {name}: {reason}")
    found["pairs_per_second"] = rates
    peer = rates.get(rows[-1][0])
    if peer:
        found["times_the_peer"] = {name: rate / peer for name, rate in rates.items() if name.startswith("byol")}
    if bad:
        found["failed"] = bad
    return found


def train(machine):
    """Part of a long training; its curve so far."""
    if not machine.options.train:
        raise Left("--train says for how many seconds")
    run, test = Path(machine.options.run).resolve(), machine.dataset("cifar-test")
    data = test if machine.options.tiny else machine.dataset("cifar-train")
    settings = ["encoder=tiny", "projector_hidden=64", "predictor_hidden=64", "batch=8"] if machine.options.tiny else []
    found = {"report": pretrain(machine, data, run, machine.options.train, *settings, recipe=machine.root / "tools/recipes/cifar-gpu.yaml")}
    words = [machine.byol, "eval", "knn", "--run", run, "--train", data, "--test", test, "--device", machine.device, "--json"]
    found["knn"] = machine.json_of(*words)
    return found


def sanitize(machine):
    found = {}
    for tool in ("memcheck", "racecheck", "initcheck", "synccheck"):
        words = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9", machine.byol, "bench", "step", "--device", "cuda", *TINY_STEP, "--quiet"]
        try:
            done, seconds = machine.run(*words, limit=120)
            found[tool] = {"clean": done.returncode == 0, "seconds": round(seconds, 1), "last": last_line(done.stdout)}
        except (Left, Failed) as reason:
            found[tool] = {"left_out": str(reason)}
        say(f"  {tool}: {found[tool]}")
    if any(one.get("clean") is False for one in found.values()):
        found["failed"] = [tool for tool, one in found.items() if one.get("clean") is False]
    return found


STAGES = {"record": record, "ops": ops, "step": step, "ceilings": ceilings, "speed": speed, "input": input_, "sanitize": sanitize, "train": train}


def main():
    options = parse()
    machine, result, bad = Machine(options), {"date": time.strftime("%Y-%m-%d"), "stages": {}}, False
    for name in options.stages.split(","):
        if name not in STAGES:
            sys.exit(f"check: no stage '{name}'; there are {', '.join(STAGES)}")
        start = time.monotonic()
        say(f"{name}:")
        try:
            found = STAGES[name](machine)
        except Left as reason:
            found = {"left_out": str(reason)}
        except (Failed, ValueError, KeyError) as reason:
            found = {"failed": f"{type(reason).__name__}: {reason}"}
        bad = bad or "failed" in found
        result["stages"][name] = {**found, "stage_seconds": round(time.monotonic() - start, 1)}
        Path(options.out).write_text(json.dumps(result, indent=1))
        if "failed" in found or "left_out" in found:
            say(f"  {found.get('failed') or found.get('left_out')}")
    print(json.dumps({name: stage.get("failed") or stage.get("left_out") or "ok" for name, stage in result["stages"].items()}))
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
