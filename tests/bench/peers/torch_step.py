#!/usr/bin/env python3
"""A training step of BYOL in PyTorch, timed in a process of its own; prints one line of JSON. bench/step.py runs it.

The network is tests/peer/network.py, in the way that PyTorch does fastest: padding inside the convolutions, batched (foreach) updates.
"""
import argparse
import json
import resource
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "peer"))

import torch

import network

MODES = {  # bfloat16, channels last, compiled
    "bf16-channels-last": (True, True, False),
    "f32-channels-last": (False, True, False),
    "f32-contiguous": (False, False, False),
    "bf16-compiled": (True, True, True),
    "f32-compiled": (False, True, True),
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mode", choices=MODES, required=True)
    parser.add_argument("--net", choices=network.ENCODERS, required=True)
    parser.add_argument("--stem", choices=["imagenet", "small"], default="imagenet")
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--output", type=int, default=256)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5)
    return parser.parse_args()


def timed_on_cpu(step, steps):
    seconds = []
    for _ in range(steps):
        start = time.perf_counter()
        loss = float(step())
        seconds.append(time.perf_counter() - start)
    return seconds, loss


def timed_on_gpu(step, steps):
    """Steps are queued one after the other, as a training does that reads its loss late; the GPU notes when each one ends."""
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(steps + 1)]
    marks[0].record()
    for mark in marks[1:]:
        loss = step()
        mark.record()
    torch.cuda.synchronize()
    return [before.elapsed_time(after) / 1000 for before, after in zip(marks, marks[1:])], float(loss)


def main():
    options = arguments()
    if options.device == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = options.mode.startswith("bf16")
    bf16, channels_last, compiled = MODES[options.mode]
    imported = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    form = torch.channels_last if channels_last else torch.contiguous_format
    branches = network.build(options.net, options.stem, 1.0, options.hidden, options.output, options.hidden, same=False)
    online, target = [branch.to(options.device, memory_format=form) for branch in branches]
    byol = network.Byol(online, target, bf16=bf16, **({"forward": torch.compile} if compiled else {}))
    views = [torch.rand(options.batch, 3, options.size, options.size, device=options.device).contiguous(memory_format=form) for _ in range(2)]

    def step():
        return byol.step(*views, 0.2 * options.batch / 256, 0.99)

    start = time.perf_counter()
    float(step()), float(step())
    warm = time.perf_counter() - start
    seconds, loss = (timed_on_cpu if options.device == "cpu" else timed_on_gpu)(step, options.steps)
    middle = statistics.median(seconds)
    result = {
        "pairs_per_second": options.batch / middle,
        "step_seconds": middle,
        "fastest_step_seconds": min(seconds),
        "steps": len(seconds),
        "parameters": network.parameters(online),
        "imported_bytes": imported,
        "warm_up_seconds": warm,
        "loss": loss,
        "version": torch.__version__,
    }
    if options.device == "cuda":
        result["device_bytes"] = torch.cuda.max_memory_reserved()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
