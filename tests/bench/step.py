#!/usr/bin/env python3
"""Times our training step beside PyTorch's: `make bench-step`. Every run is a process of its own; ours and PyTorch's take turns, round after
round, so that what disturbs the machine disturbs both. Needs nothing but Python 3.9 and the peers' environment `main` (setup.sh)."""
import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import machine
import step_report

PEER = Path(__file__).parent / "peers" / "torch_step.py"
FEWEST, MOST = 4, 200  # timed steps of a run

# Name, network, stem, pixels, batch, and a guess at a step's seconds for the first run.
CONFIGURATIONS = [
    ("ResNet-18, 32 px, batch 64", "resnet18", "small", 32, 64, 1.5),
    ("ResNet-18, 64 px, batch 64", "resnet18", "imagenet", 64, 64, 0.6),
    ("ResNet-50, 224 px, batch 8", "resnet50", "imagenet", 224, 8, 2.5),
]
PEERS = [
    ("PyTorch bf16 autocast, channels last", "bf16-channels-last"),
    ("PyTorch f32, channels last", "f32-channels-last"),
    ("PyTorch f32, contiguous", "f32-contiguous"),
]
COMPILED = [("PyTorch bf16 autocast, compiled", "bf16-compiled"), ("PyTorch f32, compiled", "f32-compiled")]


def say(text):
    print(text, file=sys.stderr, flush=True)


def fail(text):
    sys.exit(f"bench-step: {text}")


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--byol", help="our program")
    parser.add_argument("--python", help="Python with PyTorch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8, help="of timed steps in each run")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", help="regular expression of 'configuration: row', e.g. '32 px.*bf16'")
    parser.add_argument("--compile", action="store_true", help="also torch.compile, which takes 1 to 2 minutes a run")
    parser.add_argument("--json", default="", help="keep all runs and the table in this file")
    parser.add_argument("--report", default="", help="only print the table of such a file")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    options = parser.parse_args()
    if not options.report and not (options.byol and options.python):
        parser.error("--byol and --python are needed")
    return options


# --- one run -------------------------------------------------------------------------------------


class Failed(Exception):
    """Why a run gave no result."""


def run(command, threads):
    """The answer of a program, with what it took: peak memory as the kernel counts it, share of the machine that others took meanwhile."""
    processors = set(sorted(os.sched_getaffinity(0))[:threads])
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    busy, start = machine.busy_seconds(), time.monotonic()
    with open(os.devnull) as nothing, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [str(word) for word in command],
            stdin=nothing,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
            preexec_fn=lambda: os.sched_setaffinity(0, processors),
        )
        try:
            answer = process.stdout.read()
        except BaseException:  # Ctrl-C: nothing may go on behind our back
            process.kill()
            raise
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        errors.seek(0)
        message = errors.read().strip()
    if process.returncode:
        raise Failed((message or f"ended with {process.returncode}").splitlines()[-1][:200])
    result = json.loads(answer)
    elapsed, used = time.monotonic() - start, usage.ru_utime + usage.ru_stime
    result["memory"] = usage.ru_maxrss * 1024
    result["foreign"] = round(max(0.0, machine.busy_seconds() - busy - used) / elapsed / os.cpu_count(), 4)
    return result


def rows(options):
    """Every row: configuration, name, precision, and its command but for the number of steps."""
    help_text = subprocess.run([options.byol, "bench", "step", "--help"], capture_output=True, text=True, check=False).stdout
    ours = [("byol bf16", "bf16"), ("byol f32", "f32")] if "--precision" in help_text else [("byol f32", "")]
    peers = PEERS + (COMPILED if options.compile else [])
    for name, net, stem, size, batch, guess in CONFIGURATIONS:
        shape = ["--net", net, "--stem", stem, "--size", size, "--batch", batch, "--hidden", 4096, "--threads", options.threads]
        found = [(row, [options.byol, "bench", "step", *shape, "--json", *(["--precision", value] if value else [])]) for row, value in ours]
        theirs = [(row, [options.python, PEER, "--mode", mode, *shape]) for row, mode in peers]
        # In turn: ours, theirs, ours, theirs, …
        order = [row for pair in zip(found, theirs) for row in pair] + found[len(theirs) :] + theirs[len(found) :]
        for row, command in order:
            if re.search(options.only, f"{name}: {row}", re.IGNORECASE):
                yield {"configuration": name, "row": row, "command": command, "step": guess, "batch": batch}


def check_peers(options):
    if not os.access(options.byol, os.X_OK):
        fail(f"{options.byol}: not found; run make first")
    if not os.access(options.python, os.X_OK):
        fail(f"{options.python}: not found; install the peers by: make bench-peers VENVS=…")


def keep(options, result):
    if options.json:
        Path(options.json).write_text(json.dumps({**result, "table": step_report.summary(result)}, indent=1))


def measure(options):
    check_peers(options)
    chosen = list(rows(options))
    if not chosen:
        fail(f"no row matches '{options.only}'")
    result = {"machine": machine.describe(), "date": time.strftime("%Y-%m-%d"), "threads": options.threads, "runs": [], "absent": []}
    for number in range(options.rounds):
        for row in [row for row in chosen if row["step"]]:
            place = {"configuration": row["configuration"], "row": row["row"]}
            steps = min(max(round(options.seconds / row["step"]), FEWEST), MOST)
            try:
                answer = run([*row["command"], "--steps", steps], options.threads)
            except Failed as reason:
                say(f"{row['configuration']}: {row['row']}: {reason}")
                result["absent"].append({**place, "reason": str(reason)})
                row["step"] = 0
                continue
            row["step"] = answer["step_seconds"]
            result["runs"].append({**place, "round": number, **answer})
            keep(options, result)
            disturbed = f", others took {100 * answer['foreign']:.0f} %" if answer["foreign"] > step_report.FOREIGN else ""
            say(f"{number + 1}/{options.rounds}  {row['configuration']}: {row['row']}: {answer['pairs_per_second']:.2f} pairs/s{disturbed}")
    return result


def main():
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _: sys.exit(128 + received))
    options = parse()
    result = json.loads(Path(options.report).read_text()) if options.report else measure(options)
    if not result["runs"]:
        fail("nothing was measured")
    print(step_report.text(result, options.markdown))


if __name__ == "__main__":
    main()
