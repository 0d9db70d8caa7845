#!/usr/bin/env python3
"""Our arithmetic beside PyTorch's on the very same numbers: rendered views, what is drawn for them, training steps from a checkpoint, and
the features of a checkpoint. Prints JSON; exits 1 when something is further apart than rounding explains.

The images are stored as PNG for this, since JPEG decoders differ by a few units of a byte.
"""
import argparse
import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

import data
import network
import train
import views
from PIL import Image

# Largest differences that rounding explains. A threshold (solarize) or a hue at a corner may turn single values.
VIEW, SHARE_BEYOND, DRAWN, LOSS, CHANGE, STATISTIC, FEATURE = 2e-3, 1e-4, 4.5, 2e-3, 0.05, 1e-4, 1e-2


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--byol", required=True)
    parser.add_argument("--recipe", required=True, help="file of the recipe")
    parser.add_argument("--set", action="append", default=[], help="settings that win over the recipe, as `byol pretrain` takes them")
    parser.add_argument("--images", required=True, help="folder of class folders, all of one size")
    parser.add_argument("--work", required=True, help="empty folder")
    parser.add_argument("--steps", type=int, default=6)
    return parser.parse_args()


def ours(options, *words):
    done = subprocess.run([options.byol, *map(str, words)], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"check: {done.stderr.strip()}")
    return done.stdout


def tensors(path):
    """A safetensors file of float32."""
    content = Path(path).read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    header.pop("__metadata__")
    body = memoryview(content)[8 + length :]
    return {
        name: torch.from_numpy(np.frombuffer(body[slice(*entry["data_offsets"])], np.float32).reshape(entry["shape"]).copy())
        for name, entry in header.items()
    }


def store(images, labels, folder):
    for i, (image, label) in enumerate(zip(images, labels.tolist())):
        path = Path(folder) / str(label) / f"{i:06}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)


# --- views ---------------------------------------------------------------------------------------


def columns(records, view):
    """Our drawn parameters as the peer's tensors, one row for each view number `view` drawn."""
    drawn = [one["params"] for record in records for one in record["views"] if one["view"] == view]
    names = ["brightness", "contrast", "saturation", "hue"]
    params = {key: torch.tensor([float(one["crop"][key]) for one in drawn]) for key in ("x", "y", "width", "height")}
    params |= {key: torch.tensor([one[key] for one in drawn]) for key in ["flip", "jitter", "grayscale", "solarize", *names]}
    params["order"] = torch.tensor([[names.index(name) for name in one["order"]] for one in drawn])
    return params


def distance_in_deviations(mine, theirs):
    """How many standard errors the means are apart."""
    mine, theirs = mine.double(), theirs.double()
    error = (mine.var() / len(mine) + theirs.var() / len(theirs)).sqrt()
    return ((mine.mean() - theirs.mean()).abs() / error).item() if error > 0 else float(mine.mean() != theirs.mean())


def check_views(options, dataset, images, values):
    raw = Path(options.work) / "views.npy"
    printed = ours(options, "views", dataset, "--recipe", options.recipe, "--params", "--raw", raw, "--count", len(images), "--pairs", 8)
    records, pixels = json.loads(printed)["records"], torch.from_numpy(np.load(raw)).permute(0, 1, 4, 2, 3)
    worst, furthest, beyond = 0.0, 0.0, 0.0
    for view, recipe in enumerate(data.view_recipes(values)):
        params = columns(records, view)
        repeated = images.repeat_interleave(8, 0)
        rendered = views.render(repeated, params, values["views.size"], recipe["solarize_threshold"])
        difference = (rendered - pixels[:, view::2].reshape(rendered.shape)).abs()
        worst = max(worst, difference.max().item())
        beyond = max(beyond, (difference > VIEW).float().mean().item())
        drawn = views.draw(20000, images.shape[-1], recipe, torch.Generator().manual_seed(1))
        drawn["order"], params["order"] = drawn["order"].argsort(1), params["order"].argsort(1)  # the place of each operation
        for name in drawn:
            one, other = (value.float().reshape(len(value), -1) for value in (drawn[name], params[name]))
            for column in range(one.shape[1]):
                for power in (1, 2):
                    furthest = max(furthest, distance_in_deviations(one[:, column] ** power, other[:, column] ** power))
    return {
        "rendered": 2 * len(images) * 8,
        "largest_difference": worst,
        "share_beyond": beyond,
        "drawn_standard_errors": furthest,
        "ok": beyond <= SHARE_BEYOND and furthest <= DRAWN,
    }


# --- steps ---------------------------------------------------------------------------------------


def modules(branch):
    """Our name of each convolution, normalisation and linear layer."""
    encoder = branch.encoder
    yield "resnet/initial_conv", encoder.convolution
    yield "resnet/initial_batchnorm", encoder.norm
    for g, group in enumerate(encoder.groups):
        for b, block in enumerate(group):
            place = f"resnet/block_group_{g}/block_{b}"
            yield from ((f"{place}/conv_{i}", one) for i, one in enumerate(block.convolutions))
            yield from ((f"{place}/batchnorm_{i}", one) for i, one in enumerate(block.norms))
            if block.shortcut is not None:
                yield f"{place}/shortcut_conv", block.shortcut
                yield f"{place}/shortcut_batchnorm", block.shortcut_norm
    for name, head in (("projector", branch.projector), ("predictor", branch.predictor)):
        if head is not None:
            yield f"{name}/linear", head.first
            yield f"{name}/batch_norm", head.norm
            yield f"{name}/linear_1", head.second


def named(branch):
    for name, module in modules(branch):
        norm = isinstance(module, network.Norm)
        yield f"{name}/{'scale' if norm else 'w'}", module.weight
        if getattr(module, "bias", None) is not None:
            yield f"{name}/{'offset' if norm else 'b'}", module.bias


def as_theirs(tensor):
    """HWIO to OIHW, [in, out] to [out, in]."""
    return tensor.permute(3, 2, 0, 1) if tensor.ndim == 4 else tensor.T if tensor.ndim == 2 else tensor


@torch.no_grad()
def take(byol, stored):
    """Parameters, momenta and running statistics of a checkpoint of ours; every tensor of it must have its place."""
    momenta = dict(zip(map(id, byol.optimiser.weights + byol.optimiser.vectors), byol.optimiser.momenta))
    left = {name for name in stored if "target/predictor/" not in name}  # a moving average that nothing reads
    for branch, prefix in ((byol.online, "online"), (byol.target, "target")):
        for name, parameter in named(branch):
            parameter.copy_(as_theirs(stored[f"{prefix}/{name}"]))
            left.discard(f"{prefix}/{name}")
            if prefix == "online":
                momenta[id(parameter)].copy_(as_theirs(stored[f"momentum/{name}"]))
                left.discard(f"momentum/{name}")
        for name, norm in ((name, module) for name, module in modules(branch) if isinstance(module, network.Norm)):
            counter, mean, variance, _, _ = stored[f"state/{prefix}/{name}"].split([1] + 4 * [len(norm.bias)])
            norm.seen.fill_(int(counter))
            norm.mean.copy_(mean)
            norm.variance.copy_(variance * norm.samples / (norm.samples - 1))
            left.discard(f"state/{prefix}/{name}")
    if left:
        sys.exit(f"check: the peer has no place for {sorted(left)[:3]}")


def relative(mine, theirs):
    return ((mine - theirs).norm() / theirs.norm().clamp_min(1e-12)).item()


def compare(byol, before, after):
    """Largest relative difference of what a tensor became since `before`, and of the running statistics."""
    change, statistic = {}, 0.0
    for branch, prefix in ((byol.online, "online"), (byol.target, "target")):
        for name, parameter in named(branch):
            start, end = (as_theirs(stored[f"{prefix}/{name}"]) for stored in (before, after))
            if not name.endswith("/linear/b"):  # a normalisation follows: its gradient is nothing but rounding
                change[f"{prefix}/{name}"] = relative(parameter.detach() - start, end - start)
        for name, norm in ((name, module) for name, module in modules(branch) if isinstance(module, network.Norm)):
            _, mean, variance = after[f"state/{prefix}/{name}"].split([1 + 2 * len(norm.bias)] + 2 * [len(norm.bias)])
            own_mean, own_variance = norm.averages()
            statistic = max(statistic, relative(own_variance, variance), ((own_mean - mean).norm() / variance.sqrt().norm()).item())
    return change, statistic


def run_ours(options, dataset, values, steps):
    """Every image in every step, so that the order of a batch cannot matter; a checkpoint after each."""
    run = Path(options.work) / "run"
    assignments = [*options.set, f"batch={values['batch']}", f"epochs={steps}", "warmup_epochs=1", "classifier=false", "seed=0"]
    assignments += ["checkpoint_seconds=0", f"keep_checkpoints={steps}", "log_steps=1"]
    words = [word for assignment in assignments for word in ("--set", assignment)]
    ours(options, "pretrain", "--data", dataset, "--run", run, "--recipe", options.recipe, "--quiet", *words)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return lines, [tensors(path) for path in sorted((run / "checkpoints").glob("*.safetensors"))], run


def check_steps(options, dataset, values):
    lines, checkpoints, run = run_ours(options, dataset, values, options.steps)
    raw = Path(options.work) / "pairs.npy"
    ours(options, "views", dataset, "--recipe", options.recipe, "--raw", raw, "--count", values["batch"], "--pairs", options.steps)
    pixels = torch.from_numpy(np.load(raw)).permute(1, 0, 4, 2, 3)
    torch.manual_seed(0)
    byol = train.build(values, "f32")
    with torch.no_grad():  # tells each normalisation how many values it is over
        byol.online(pixels[0]), byol.target(pixels[0])
    take(byol, checkpoints[0])
    losses = []
    for step in range(1, options.steps):
        pair = [views.normalise(view).contiguous(memory_format=torch.channels_last) for view in pixels[2 * step : 2 * step + 2]]
        line = lines[step]
        losses.append((line["loss"], float(byol.step(*pair, line["learning_rate"], line["tau"]))))
        if step == 1:
            change, statistic = compare(byol, *checkpoints[:2])
    worst = max(change, key=change.get)
    apart = max(abs(mine - theirs) / mine for mine, theirs in losses)
    schedules = max(
        abs(network.learning_rate(s, values["base_learning_rate"], values["batch"], 1, options.steps) - lines[s]["learning_rate"])
        + abs(network.target_decay(s, values["tau_base"], options.steps) - lines[s]["tau"])
        for s in range(options.steps)
    )
    take(byol, checkpoints[-1])
    return byol, run, {
        "tensors": len(checkpoints[0]),
        "parameters": network.parameters(byol.online),
        "losses": losses,
        "loss_difference": apart,
        "first_step_median": float(np.median(list(change.values()))),
        "first_step_worst": [worst, change[worst]],
        "statistics": statistic,
        "schedules": schedules,
        "ok": apart <= LOSS and change[worst] <= CHANGE and statistic <= STATISTIC and schedules < 1e-5,
    }


def check_features(options, byol, run, dataset, images):
    """The same weights and running statistics, plain images."""
    folder = Path(options.work) / "features"
    ours(options, "eval", "features", "--run", run, "--data", dataset, "-o", folder, "--quiet")
    mine = torch.nn.functional.normalize(torch.from_numpy(np.load(folder / "features.npy")).float())
    probe = train.Probe(None, None, argparse.Namespace(precision="f32"))
    theirs = probe.features(byol.online.encoder.eval(), images)
    furthest = (mine - theirs).norm(dim=1).max().item()
    return {"largest_distance": furthest, "ok": furthest <= FEATURE}


def main():
    options = arguments()
    images, labels = data.load(options.images)
    dataset, table = Path(options.work) / "dataset", Path(options.work) / "settings.txt"
    store(images, labels, Path(options.work) / "images")
    ours(options, "convert", Path(options.work) / "images", "-o", dataset, "--quiet")
    words = [word for assignment in options.set for word in ("--set", assignment)]
    table.write_text(ours(options, "pretrain", "--settings", "--recipe", options.recipe, *words))
    values = data.settings(table) | {"batch": len(images)}
    byol, run, steps = check_steps(options, dataset, values)
    result = {
        "views": check_views(options, dataset, images, values),
        "steps": steps,
        "features": check_features(options, byol, run, dataset, images),
    }
    print(json.dumps(result, indent=2))
    sys.exit(0 if all(part["ok"] for part in result.values()) else 1)


if __name__ == "__main__":
    main()
