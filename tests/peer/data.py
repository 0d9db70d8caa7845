"""Folders of JPEG files as tensors, and settings as `byol pretrain --settings` prints them."""
from pathlib import Path

import numpy as np
import torch
from PIL import Image


def load(folder):
    """Bytes [images, 3, side, side] and labels, by class and name: the order of `byol convert`."""
    files = sorted(Path(folder).glob("*/*.jpg"))
    classes = sorted({path.parent.name for path in files})
    pixels = [np.asarray(Image.open(path).convert("RGB")) for path in files]
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()
    return images, torch.tensor([classes.index(path.parent.name) for path in files])


def _value(text):
    text = text.strip().strip('"')
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return {"true": True, "false": False}.get(text, text)


def settings(path):
    lines = [line for line in Path(path).read_text().splitlines() if line and not line.startswith("#")]
    return {name: _value(value) for name, value in (line.split(":", 1) for line in lines)}


def view_recipes(values):
    """Settings of the first and the second view."""
    return [{name.split(".")[2]: value for name, value in values.items() if name.startswith(f"views.view{i}.")} for i in (1, 2)]
