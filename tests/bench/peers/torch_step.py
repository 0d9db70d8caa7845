#!/usr/bin/env python3
"""A training step of BYOL in PyTorch, timed in a process of its own; prints one line of JSON. bench/step.py runs it.

The network is tests/peer/network.py, in the way that PyTorch does fastest: padding inside the convolutions, batched (foreach) updates.
With --data its views come from a DataLoader with torchvision's transforms instead of being made up once.
"""
import argparse
import os
import resource
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "peer"))

import torch

import network
import protocol

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
    parser.add_argument("--data", help="folder of JPEGs")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes that make views of --data")
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


def loaded(options, form):
    """Batches that worker processes make for ever."""
    import dataloader
    import torchvision_peer

    pair = torchvision_peer.pairs(protocol.RECIPES["byol"]._replace(size=options.size))
    pinned = options.device == "cuda"
    for views in dataloader.batches(protocol.images(options.data), pair, options.workers, batch=options.batch, pinned=pinned):
        yield [view.to(options.device, memory_format=form, non_blocking=True) for view in views]


def timed_with_loader(step, batches, options):
    """A mean, since batches come in bursts: after those made ahead are used up, with the share of waiting for the next one."""
    for _ in range(2 * options.workers):
        float(step(*next(batches)))
    start, waited = time.perf_counter(), 0
    for _ in range(options.steps):
        asked = time.perf_counter()
        views = next(batches)
        waited += time.perf_counter() - asked
        loss = step(*views)
    loss = float(loss)
    elapsed = time.perf_counter() - start
    seconds = elapsed / options.steps
    return {"pairs_per_second": options.batch / seconds, "step_seconds": seconds, "data_wait": waited / elapsed, "loss": loss, "workers": options.workers}


def timed(step, views, options):
    seconds, loss = (timed_on_cpu if options.device == "cpu" else timed_on_gpu)(lambda: step(*views), options.steps)
    middle = statistics.median(seconds)
    return {"pairs_per_second": options.batch / middle, "step_seconds": middle, "fastest_step_seconds": min(seconds), "loss": loss}


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

    def step(first, second):
        return byol.step(first, second, 0.2 * options.batch / 256, 0.99)

    start = time.perf_counter()
    float(step(*views)), float(step(*views))
    warm = time.perf_counter() - start
    result = timed_with_loader(step, loaded(options, form), options) if options.data else timed(step, views, options)
    result |= {
        "steps": options.steps,
        "parameters": network.parameters(online),
        "imported_bytes": imported,
        "warm_up_seconds": warm,
        "version": torch.__version__,
    }
    if options.device == "cuda":
        result["device_bytes"] = torch.cuda.max_memory_reserved()
    protocol.say(result)


if __name__ == "__main__":
    main()
