#!/usr/bin/env python3
"""Does bf16 learn what f32 learns? The same run in both precisions, and their loss curves beside each other.

    make check-precision            # 200 steps of a ResNet-18 on CIFAR-10: about ten minutes on two quiet cores
    python3 tests/bench/precision.py --byol build/byol --work build/precision --steps 20 --set width=0.25 --set batch=16

Seed, images, views and their order are the same on both sides. Curves are running means over --smooth steps; fails when they
lie further apart than --bound anywhere.
"""
import argparse
import json
import pathlib
import shutil
import subprocess
import sys

# The learning rate, the paper's, is up after a tenth of the steps: a schedule that hardly starts would compare two untrained networks. At
# ten times that rate differences grow from step to step whatever they come from, and curves part after some 90 steps.
SETTINGS = {
    "encoder": "resnet18", "stem": "small", "views.base": "small", "batch": 64, "epochs": 2, "warmup_epochs": 0.15,
    "base_learning_rate": 0.2, "tau_base": 0.97, "log_steps": 1, "keep_checkpoints": 2,
}
CURVES = ("loss", "representation")  # the first decides


def fail(reason):
    sys.exit(f"precision: {reason}")


def call(command):
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        fail(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stderr}")


def dataset(options):
    target = options.work / "dataset"
    if not target.exists():
        if not pathlib.Path(options.data).exists():
            fail(f"no {options.data} (--data names a tar or folder of images)")
        call([options.byol, "convert", options.data, "-o", target])
    return target


def curves(options, precision, data):
    """Runs all steps from the start; returns {name: [value a step]}."""
    run = options.work / precision
    shutil.rmtree(run, ignore_errors=True)
    settings = dict(SETTINGS, max_steps=options.steps, precision=precision)
    settings.update(assignment.split("=", 1) for assignment in options.set)
    command = [options.byol, "pretrain", "--data", data, "--run", run]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    call(command)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    lines = [line for line in lines if "loss" in line]
    if len(lines) != options.steps:
        fail(f"{run} logged {len(lines)} of {options.steps} steps")
    return {name: [line[name] for line in lines] for name in CURVES}


def smoothed(values, width):
    return [sum(values[i:i + width]) / width for i in range(len(values) - width + 1)]


def compare(name, exact, half, options):
    """Prints one curve; returns its largest deviation as a share of the value in f32."""
    exact, half = smoothed(exact, options.smooth), smoothed(half, options.smooth)
    deviations = [abs(b / a - 1) for a, b in zip(exact, half)]
    print(f"{name} (mean of {options.smooth} steps)\n  after step        f32       bf16  deviation")
    for i in sorted({round(k * (len(exact) - 1) / 10) for k in range(11)}):
        print(f"  {i + options.smooth:10d} {exact[i]:10.4f} {half[i]:10.4f} {100 * (half[i] / exact[i] - 1):+9.2f} %")
    worst = max(range(len(deviations)), key=deviations.__getitem__)
    print(f"  largest deviation {100 * deviations[worst]:.2f} %, after step {worst + options.smooth}")
    return deviations[worst]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--byol", default="build/byol")
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("build/precision"))
    parser.add_argument("--data", default="../shared/data/cifar10-test.tar.zst")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--smooth", type=int, default=10)
    parser.add_argument("--bound", type=float, default=0.02)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of both runs")
    options = parser.parse_args()
    if not 1 <= options.smooth <= options.steps:
        fail("--smooth wants 1 to --steps")
    options.work.mkdir(parents=True, exist_ok=True)
    data = dataset(options)
    exact, half = curves(options, "f32", data), curves(options, "bf16", data)
    deviations = [compare(name, exact[name], half[name], options) for name in CURVES]
    if not deviations[0] <= options.bound:
        fail(f"the loss curves lie {100 * deviations[0]:.2f} % apart, bound {100 * options.bound:g} %")


if __name__ == "__main__":
    main()
