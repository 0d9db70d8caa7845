#!/usr/bin/env python3
"""Learns from the same images with `byol pretrain` and with PyTorch, and compares loss and nearest-neighbour score of every epoch.

`make peer-gate` runs this. First check.py compares views, steps and features on the same numbers; then both sides train with the same
settings and draws of their own. Exits 1 when a check fails or the scores of an epoch are further apart than three standard errors.
"""
import argparse
import json
import math
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "bench"))

import machine


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--byol", help="our program")
    parser.add_argument("--python", help="Python with PyTorch")
    parser.add_argument("--train", help="tar or folder of class folders with JPEG files of one size")
    parser.add_argument("--test", help="the same, other images")
    parser.add_argument("--work", help="folder for data, runs and results.json")
    parser.add_argument("--recipe", default=str(HERE.parents[1] / "tools/recipes/cifar-cpu.yaml"))
    parser.add_argument("--images", type=int, default=5000, help="to learn from, the same number of each class")
    parser.add_argument("--test-images", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--seeds", default="0", help="one training of each side for each")
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32", help="of both; ours where it has the setting")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], help="further settings, as `byol pretrain --set`")
    parser.add_argument("--no-check", action="store_true", help="only train")
    parser.add_argument("--report", default="", help="only print the tables of this results.json")
    options = parser.parse_args()
    if not options.report and not all([options.byol, options.python, options.train, options.test, options.work]):
        parser.error("--byol, --python, --train, --test and --work are needed")
    return options


def say(text):
    print(text, file=sys.stderr, flush=True)


def fail(text):
    sys.exit(f"peer-gate: {text}")


def run(*words):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"{words[0]} ended with {done.returncode}"]
        fail(lines[-1])
    return done.stdout


# --- data ----------------------------------------------------------------------------------------


def unpacked(source, work):
    source = Path(source)
    if not source.exists():
        fail(f"{source}: not found")
    if source.is_dir():
        return source
    folder = work / "unpacked" / source.name
    if not folder.exists():
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        run("tar", "-xf", source, "-C", partial)
        partial.rename(folder)
    return folder


def subset(source, count, folder):
    """The first images of each class by name, hard-linked or copied."""
    classes = sorted(path for path in source.iterdir() if path.is_dir())
    if not classes:
        fail(f"{source}: no class folders")
    shutil.rmtree(folder, ignore_errors=True)
    each = count // len(classes)
    for one in classes:
        files = sorted(one.glob("*.jpg"))[:each]
        if len(files) < each:
            fail(f"{one}: {len(files)} images, not {each}")
        (folder / one.name).mkdir(parents=True)
        for path in files:
            try:
                os.link(path, folder / one.name / path.name)
            except OSError:
                shutil.copy(path, folder / one.name / path.name)
    return folder


def dataset(options, folder):
    store = folder.with_suffix(".byol")
    run(options.byol, "convert", folder, "-o", store, "--quiet", "--force")
    return store


# --- both sides ----------------------------------------------------------------------------------


def assignments(options, seed):
    values = [f"width={options.width}", f"batch={options.batch}", f"epochs={options.epochs}", f"threads={options.threads}", f"seed={seed}"]
    if "\nprecision:" in run(options.byol, "pretrain", "--settings"):
        values.append(f"precision={options.precision}")
    elif options.precision != "f32":
        say("ours has no setting 'precision': it computes in f32")
    return values + ["classifier=false"] + options.set


def as_words(values):
    return [word for value in values for word in ("--set", value)]


def ours(options, seed, train, test):
    """One entry an epoch, the untrained network first."""
    folder = options.work / f"ours-{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    values = assignments(options, seed) + ["checkpoint_seconds=0", f"keep_checkpoints={options.epochs}", "log_steps=1"]
    start = time.monotonic()
    run(options.byol, "pretrain", "--data", train, "--run", folder, "--recipe", options.recipe, "--quiet", *as_words(values))
    seconds = time.monotonic() - start
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    probe = [options.byol, "eval", "knn", "--train", train, "--test", test, "--threads", options.threads, "--json", "--quiet"]
    curve = [{"epoch": 0, "knn": json.loads(run(*probe, "--run", folder, "--untrained"))["top1"]}]
    for epoch in range(1, options.epochs + 1):
        own = [line for line in lines if line["epoch"] == epoch - 1]
        checkpoint = folder / "checkpoints" / f"checkpoint-{own[-1]['step']:012}.safetensors"
        score = json.loads(run(*probe, "--checkpoint", checkpoint))["top1"]
        curve.append({"epoch": epoch, "knn": score, "loss": statistics.fmean(line["loss"] for line in own)})
    return {"curve": curve, "pairs_per_second": len(lines) * options.batch / seconds}


def theirs(options, seed, train, test):
    table = options.work / f"settings-{seed}.txt"
    table.write_text(run(options.byol, "pretrain", "--settings", "--recipe", options.recipe, *as_words(assignments(options, seed))))
    words = ["--settings", table, "--train", train, "--test", test, "--precision", options.precision, "--threads", options.threads]
    curve = [json.loads(line) for line in run(options.python, HERE / "train.py", *words).splitlines()]
    return {"curve": curve, "pairs_per_second": statistics.median(line["pairs_per_second"] for line in curve[1:])}


def check(options, folder):
    """64 images: what rounding does to gradients grows where batch statistics are over few."""
    work = options.work / "check"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    images = subset(folder, 60, work / "subset")
    words = [options.python, HERE / "check.py", "--byol", options.byol, "--recipe", options.recipe, "--images", images, "--work", work]
    values = [value for value in assignments(options, 0) if value.split("=")[0] in ("width", "threads")]
    if "\nprecision:" in run(options.byol, "pretrain", "--settings"):
        values.append("precision=f32")
    done = subprocess.run([str(word) for word in words + as_words(values)], capture_output=True, text=True, check=False)
    if not done.stdout:
        fail(f"check: {(done.stderr.strip() or 'no answer').splitlines()[-1]}")
    return json.loads(done.stdout)


def begun(options, settings):
    """What results.json holds of the same gate: an interrupted one goes on with the trainings it lacks."""
    try:
        found = json.loads((options.work / "results.json").read_text())
    except (OSError, ValueError):
        return None
    same = all(found.get(name) == value for name, value in settings.items())
    return found if same and found["check"] is not None else None


def measure(options):
    options.work = Path(options.work).resolve()
    options.work.mkdir(parents=True, exist_ok=True)
    folders = [
        subset(unpacked(source, options.work), count, options.work / name)
        for source, count, name in ((options.train, options.images, "train"), (options.test, options.test_images, "test"))
    ]
    datasets = [dataset(options, folder) for folder in folders]
    names = ("images", "test_images", "epochs", "batch", "width", "precision", "threads")
    settings = {"recipe": Path(options.recipe).name, "set": options.set} | {name: getattr(options, name) for name in names}
    result = begun(options, settings)
    if result is None:
        result = {"machine": machine.describe(), "date": time.strftime("%Y-%m-%d")} | settings
        result |= {"check": None if options.no_check else check(options, folders[0]), "trainings": []}
    finished = {(training["side"], training["seed"]) for training in result["trainings"]}
    for seed in map(int, options.seeds.split()):
        for side, train, data in (("ours", ours, datasets), ("torch", theirs, folders)):
            if (side, seed) in finished:
                continue
            start = time.monotonic()
            training = train(options, seed, *data)
            result["trainings"].append({"side": side, "seed": seed, **training})
            last = training["curve"][-1]
            say(f"seed {seed}, {side}: kNN {last['knn']:.1f} %, loss {last['loss']:.3f}, {time.monotonic() - start:.0f} s")
            (options.work / "results.json").write_text(json.dumps(result, indent=1))
    say(f"curves: {options.work / 'results.json'}")
    return result


# --- tables --------------------------------------------------------------------------------------


def spread_of_seeds(result):
    """Deviation of a score between seeds, pooled over sides and epochs; None with one seed."""
    variances = []
    for side in ("ours", "torch"):
        curves = [training["curve"] for training in result["trainings"] if training["side"] == side]
        if len(curves) > 1:
            variances += [statistics.variance([entry["knn"] for entry in epoch]) for epoch in zip(*curves)]
    return math.sqrt(statistics.fmean(variances)) if variances else None


def rows(result):
    """For each epoch: both means of kNN and loss, and the standard error of the difference of the two kNN scores."""
    sides = [[t["curve"] for t in result["trainings"] if t["side"] == side] for side in ("ours", "torch")]
    spread, seeds = spread_of_seeds(result) or 0.0, min(map(len, sides))
    for epoch in range(result["epochs"] + 1):
        means = [statistics.fmean(curve[epoch]["knn"] for curve in curves) for curves in sides]
        losses = [statistics.fmean(curve[epoch]["loss"] for curve in curves) if epoch else None for curves in sides]
        binomial = sum(mean * (100 - mean) for mean in means) / result["test_images"]  # the seeds share the test images
        yield epoch, means, losses, math.sqrt(binomial + 2 * spread**2 / seeds)


def tables(result):
    head = ["epoch", "kNN ours, %", "kNN PyTorch, %", "difference", "standard error", "loss ours", "loss PyTorch"]
    lines = ["| " + " | ".join(head) + " |", "| ---: " * len(head) + "|"]
    within = []
    for epoch, means, losses, error in rows(result):
        difference = means[0] - means[1]
        if epoch:
            within.append(abs(difference) / error)
        cells = [epoch or "untrained", *(f"{mean:.1f}" for mean in means), f"{difference:+.1f}", f"{error:.1f}"]
        cells += [f"{loss:.3f}" if loss is not None else "" for loss in losses]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return lines, within


def notes(result, within):
    seeds, spread = sorted({training["seed"] for training in result["trainings"]}), spread_of_seeds(result)
    rates = [statistics.median(t["pairs_per_second"] for t in result["trainings"] if t["side"] == side) for side in ("ours", "torch")]
    lines = [
        f"{result['recipe']}{', '.join([''] + result['set'])}, width {result['width']:g}, {result['images']:,} images, batch {result['batch']}, "
        f"{result['epochs']} epochs, {result['precision']}, mean of {len(seeds)} seed{'s' if len(seeds) > 1 else ''}; "
        f"kNN (k 200, T 0.1) with {result['test_images']:,} test images. {result['machine']}, {result['date']}.",
        "The standard error is of the difference: binomial of both sides"
        + (f", and {spread:.1f} points of deviation between seeds." if spread is not None else "; one seed, so none between seeds."),
        f"Within one standard error: {sum(z <= 1 for z in within)} of {len(within)} epochs; two: {sum(z <= 2 for z in within)}; "
        f"three: {sum(z <= 3 for z in within)}. Pairs/s while training: ours {rates[0]:.0f} with its loader, PyTorch {rates[1]:.0f}.",
    ]
    if result["check"]:
        views, steps, features = (result["check"][part] for part in ("views", "steps", "features"))
        lines.append(
            f"On the same numbers: {views['rendered']:,} views within {views['largest_difference']:.1e}, drawn parameters' means within "
            f"{views['drawn_standard_errors']:.1f} standard errors; loss of {len(steps['losses'])} steps within {100 * steps['loss_difference']:.2f} %; "
            f"what a step changes within {100 * steps['first_step_median']:.1f} % (median of tensors), running statistics within "
            f"{steps['statistics']:.1e}; features within {features['largest_distance']:.1e}. "
            + ("All as rounding explains." if passed(result["check"]) else "NOT all as rounding explains.")
        )
    return lines


def passed(checks):
    return all(part["ok"] for part in checks.values())


def main():
    for number in (signal.SIGTERM, signal.SIGHUP):  # like Ctrl-C: no training may go on alone
        signal.signal(number, lambda received, _: sys.exit(128 + received))
    options = parse()
    result = json.loads(Path(options.report).read_text()) if options.report else measure(options)
    lines, within = tables(result)
    print("\n".join(lines + [""] + notes(result, within)))
    good = max(within) <= 3 and (result["check"] is None or passed(result["check"]))
    print("\npeer-gate: " + ("passed" if good else "FAILED"))
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
