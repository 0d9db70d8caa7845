#!/usr/bin/env python3
"""Exported weights in the real torchvision and onnxruntime, and the ResNets of torchvision and timm in byol: pooled features of the same pixels.

`make check-export` runs this. Networks begin from weights that PyTorch drew (`--init`), with scales that keep features near 1, and learn for
two steps. Prints one row for each comparison; exits 1 when features are further apart than 1e-4, or tensors do not come back as they were.
Without the packages it says what is missing and succeeds.
"""
import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "tools"))

try:
    import numpy as np
    import onnx
    import onnxruntime
    import safetensors.torch
    import timm
    import torch
    import torchvision
    from PIL import Image

    import byol_resnet
except ImportError as missing:
    print(f"skipped: {missing}; needs torch, torchvision, timm, safetensors, onnx, onnxruntime, Pillow and numpy")
    sys.exit(0)

CLOSE = 1e-4
TORCH = ["padding=torch", "shortcut=torch"]

# Name, settings, side of the images that are compared.
NETWORKS = [
    ("resnet18, torch", ["encoder=resnet18", *TORCH], 224),
    ("resnet18, same", ["encoder=resnet18"], 224),
    ("resnet50, torch", ["encoder=resnet50", *TORCH], 224),
    ("resnet50, same", ["encoder=resnet50"], 224),
    ("resnet50 x2, torch", ["encoder=resnet50", "width=2", *TORCH], 224),
    ("resnet50 x2, same", ["encoder=resnet50", "width=2"], 224),
    ("resnet50, same, 225 px", ["encoder=resnet50"], 225),
    ("resnet18 small stem, torch", ["encoder=resnet18", "stem=small", *TORCH], 32),
    ("resnet18 small stem, same", ["encoder=resnet18", "stem=small"], 32),
    ("resnet18 v2, group norm, standardised", ["encoder=resnet18", "v2=true", "norm=group", "weight_standardisation=true"], 96),
]
# Makers of others' models, the settings that say what they are, and whether their batch norm counts.
OTHERS = [
    ("torchvision resnet18", lambda: torchvision.models.resnet18(), ["encoder=resnet18"]),
    ("torchvision resnet50", lambda: torchvision.models.resnet50(), []),
    ("timm resnet18", lambda: timm.create_model("resnet18", pretrained=False), ["encoder=resnet18"]),
    ("timm resnet50", lambda: timm.create_model("resnet50", pretrained=False), ["encoder=resnet50"]),
]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--byol", required=True)
    parser.add_argument("--work", required=True, help="folder that is emptied")
    parser.add_argument("--only", default="", help="rows whose names hold this")
    parser.add_argument("--json", default="", help="file for the figures")
    return parser.parse_args()


class Check:
    def __init__(self, options):
        self.byol, self.work, self.only, self.rows = options.byol, Path(options.work), options.only, []
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True)

    def ours(self, *words, fails=False):
        done = subprocess.run([self.byol, *map(str, words)], capture_output=True, text=True, check=False)
        if (done.returncode != 0) != fails:
            sys.exit(f"check-export: byol {' '.join(map(str, words))}: {done.stderr.strip() or 'succeeded'}")
        return done.stderr if fails else done.stdout

    def row(self, name, what, apart, limit=CLOSE):
        ok = bool(apart <= limit)
        self.rows.append({"network": name, "compared": what, "apart": float(apart), "ok": ok})
        print(f"{name:40} {what:54} {apart:9.2g} {'ok' if ok else 'TOO FAR'}", flush=True)

    def features_row(self, name, what, theirs, mine):
        self.row(name, f"{what} (largest {mine.abs().max():.3g})", (theirs - mine).abs().max())

    # --- data --------------------------------------------------------------------------------

    def make_images(self):
        """Photograph-like noise of several scales."""
        generator = np.random.default_rng(0)
        for i in range(8):
            scales = [generator.uniform(-1, 1, (side, side, 3)) for side in (4, 16, 64, 256)]
            planes = [np.kron(scale, np.ones((256 // len(scale), 256 // len(scale), 1))) for scale in scales]
            pixels = 128 + 40 * sum(planes)
            path = self.work / "images" / str(i % 2) / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
        self.data = self.work / "dataset"
        self.ours("convert", self.work / "images", "-o", self.data, "--quiet")

    def pixels(self, size, whole):
        """What our probes see, [N, 3, size, size] in [0, 1]."""
        raw = self.work / f"pixels-{size}-{whole}.npy"
        if not raw.exists():
            recipe = self.work / f"recipe-{size}-{whole}.yaml"
            recipe.write_text(f"views:\n  base: eval\n  size: {size}\n  view1:\n    crop: {'whole' if whole else 'center'}\n")
            self.ours("views", self.data, "--recipe", recipe, "--raw", raw, "--count", 8, "--pairs", 1)
        return torch.from_numpy(np.load(raw)[:, 0]).permute(0, 3, 1, 2).contiguous()

    def features(self, weights, settings):
        folder = self.work / "features"
        shutil.rmtree(folder, ignore_errors=True)
        words = [word for setting in settings for word in ("--set", setting)]
        self.ours("eval", "features", "--weights", weights, *words, "--data", self.data, "-o", folder, "--quiet")
        return torch.from_numpy(np.load(folder / "features.npy")).float()

    # --- out ---------------------------------------------------------------------------------

    def draw(self, settings):
        """A file of weights for a network of these settings, from PyTorch."""
        given = dict(setting.split("=") for setting in settings)
        known = {key: given[key] for key in ("encoder", "stem", "padding", "shortcut") if key in given}
        torch.manual_seed(1)
        made = byol_resnet.resnet(width=float(given.get("width", 1)), **known)
        for name, module in made.named_modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                last = name.endswith("bn3") or (given["encoder"] == "resnet18" and name.endswith("bn2"))
                module.weight.data.uniform_(*((0.1, 0.4) if last else (0.5, 1)))
                module.bias.data.uniform_(-0.2, 0.2)
        path = self.work / "drawn.safetensors"
        safetensors.torch.save_file(made.state_dict(), path)
        return [f"init={path}"]

    def train(self, settings):
        run = self.work / "run"
        settings = settings + (self.draw(settings) if "v2=true" not in settings else [])
        shutil.rmtree(run, ignore_errors=True)
        side = 32 if "stem=small" in settings else 64
        small = ["projector_hidden=32", "projector_output=16", "predictor_hidden=32", "batch=4", "epochs=1", "warmup_epochs=0"]
        small += [f"views.size={side}", "precision=f32", "base_learning_rate=2", *settings]
        words = [word for setting in small for word in ("--set", setting)]
        self.ours("pretrain", "--data", self.data, "--run", run, "--quiet", *words)
        return run

    def onnx(self, name, run, size, images, mine):
        model = self.work / "model.onnx"
        model.unlink(missing_ok=True)
        told = json.loads(self.ours("export", "--run", run, "-o", model, "--size", size, "--check", "--json"))
        self.row(name, "our reading of the ONNX file", told["largest_difference"])
        onnx.checker.check_model(str(model), full_check=True)
        session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        theirs = np.concatenate([session.run(["features"], {"images": part.numpy()})[0] for part in images.split((3, 5))])
        self.features_row(name, "onnxruntime, ONNX file", torch.from_numpy(theirs), mine)

    def networks(self):
        for name, settings, size in NETWORKS:
            if self.only not in name:
                continue
            run, weights = self.train(settings), self.work / "weights.safetensors"
            weights.unlink(missing_ok=True)
            for_torchvision = "padding=torch" in settings or size % 32 == 1
            words = ["export", "--run", run, "-o", weights, "--size", size, "--check", "--json"]
            if not for_torchvision:
                refusal = self.ours(*words, fails=True)
                if not weights.exists() and "torchvision" not in refusal:
                    sys.exit(f"check-export: no reason for the refusal: {refusal}")
                words.append("--force")
            told = json.loads(self.ours(*words))
            self.row(name, "our reading of the .safetensors file", told["largest_difference"], 0)
            mine = self.features(weights, [f"views.size={size}"])
            images = byol_resnet.normalise(self.pixels(size, "stem=small" in settings))
            if "v2=true" not in settings:
                self.torch_side(name, weights, images, mine, plain=for_torchvision and "width=2" not in settings)
            self.onnx(name, run, size, images, mine)

    @torch.no_grad()
    def torch_side(self, name, weights, images, mine, plain):
        self.features_row(name, "byol_resnet.py", byol_resnet.load(weights).eval()(images), mine)
        if not plain:
            return
        made = getattr(torchvision.models, name.split(",")[0].split()[0])()
        if "small stem" in name:
            made.conv1, made.maxpool = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False), torch.nn.Identity()
        told = made.load_state_dict(safetensors.torch.load_file(weights), strict=False)
        if set(told.missing_keys) != {"fc.weight", "fc.bias"} or told.unexpected_keys:
            sys.exit(f"check-export: {name}: torchvision misses {told.missing_keys}, does not know {told.unexpected_keys}")
        made.fc = torch.nn.Identity()
        self.features_row(name, "torchvision's own module", made.eval()(images), mine)

    # --- heads -------------------------------------------------------------------------------

    @torch.no_grad()
    def heads(self, network):
        """Projector, predictor (of the target there is none) and classifier, in both formats."""
        name = f"resnet18 with heads, {network}"
        if self.only not in name:
            return
        run = self.train(["encoder=resnet18", "projector_layers=32,24"])
        weights, model = self.work / f"{network}.safetensors", self.work / f"{network}.onnx"
        words = ["--network", network, "--heads", "--classifier", "--size", 64]
        self.ours("export", "--run", run, "-o", weights, *words, "--force", "--check")
        self.ours("export", "--run", run, "-o", model, *words, "--check")
        images = byol_resnet.normalise(self.pixels(64, False))
        encoder, heads = byol_resnet.load(weights).eval(), byol_resnet.heads(weights).eval()
        theirs = {"logits": encoder(images)}
        encoder.fc = torch.nn.Identity()
        theirs["features"] = encoder(images)
        theirs["projection"] = heads["projector"](theirs["features"])
        if network == "online":
            theirs["prediction"] = heads["predictor"](theirs["projection"])
        session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        for output, values in zip(theirs, session.run(list(theirs), {"images": images.numpy()})):
            self.row(name, f"onnxruntime and byol_resnet.py, {output}", (torch.from_numpy(values) - theirs[output]).abs().max())

    # --- in ----------------------------------------------------------------------------------

    @torch.no_grad()
    def others(self):
        for name, make, settings in OTHERS:
            if self.only not in name:
                continue
            torch.manual_seed(0)
            made = make()
            for module in made.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.weight.uniform_(0.5, 1)
                    module.bias.uniform_(-0.2, 0.2)
                    module.running_mean.uniform_(-0.2, 0.2)
                    module.running_var.uniform_(0.5, 1.5)
                    module.num_batches_tracked.fill_(1234)
            weights, again = self.work / "theirs.safetensors", self.work / "again.safetensors"
            again.unlink(missing_ok=True)
            safetensors.torch.save_file(made.state_dict(), weights)
            words = [word for setting in settings for word in ("--set", setting)]
            self.ours("export", weights, *words, "--classifier", "-o", again, "--check")
            before, after = safetensors.torch.load_file(weights), safetensors.torch.load_file(again)
            same = before.keys() == after.keys() and all(
                before[key].dtype == after[key].dtype and torch.equal(before[key], after[key]) for key in before
            )
            self.row(name, "tensors after in and out again (0: the same bytes)", 0.0 if same else 1.0, 0)
            made.fc = torch.nn.Identity()
            theirs = made.eval()(byol_resnet.normalise(self.pixels(224, False)))
            self.features_row(name, "byol eval features --weights", theirs, self.features(weights, settings))


def main():
    options = arguments()
    check = Check(options)
    print(f"torch {torch.__version__}, torchvision {torchvision.__version__}, onnxruntime {onnxruntime.__version__}, timm {timm.__version__}")
    check.make_images()
    check.networks()
    check.heads("online")
    check.heads("target")
    check.others()
    if options.json:
        Path(options.json).write_text(json.dumps(check.rows, indent=2))
    wrong = [row for row in check.rows if not row["ok"]]
    print(f"{len(check.rows)} comparisons, {len(wrong)} too far apart")
    sys.exit(1 if wrong or not check.rows else 0)


if __name__ == "__main__":
    main()
