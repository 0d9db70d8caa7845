"""The encoders that `byol export` writes under torchvision's names, as PyTorch modules that compute what byol computes.

    import byol_resnet
    model = byol_resnet.load("encoder.safetensors").eval()
    features = model(byol_resnet.normalise(images))       # images: [N, 3, S, S], RGB in [0, 1]; features: [N, width]

`load` reads from the file what the network is, builds torchvision's ResNet, changes what differs (paddings, the first shortcut, widths,
the stem) and loads the tensors strictly. Their names stay torchvision's, and so do those of the modules (model.layer4, …). Without a
classifier in the file, `fc` is the identity, so that the model gives pooled features; heads are read by `heads`.

Needs torch and torchvision; nothing of byol.
"""
import json
import math
import struct
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ENCODERS = {
    "tiny": (BasicBlock, (1, 1, 1, 1), (8, 8, 8, 8)),
    "resnet18": (BasicBlock, (2, 2, 2, 2), (64, 128, 256, 512)),
    "resnet34": (BasicBlock, (3, 4, 6, 3), (64, 128, 256, 512)),
    "resnet50": (Bottleneck, (3, 4, 6, 3), (64, 128, 256, 512)),
    "resnet101": (Bottleneck, (3, 4, 23, 3), (64, 128, 256, 512)),
    "resnet152": (Bottleneck, (3, 8, 36, 3), (64, 128, 256, 512)),
    "resnet200": (Bottleneck, (3, 24, 36, 3), (64, 128, 256, 512)),
}


def normalise(images):
    """What the encoders take, from RGB in [0, 1]."""
    mean, deviation = (torch.tensor(each, dtype=images.dtype, device=images.device).view(3, 1, 1) for each in (MEAN, DEVIATION))
    return (images - mean) / deviation


def _same(x, kernel, stride, value):
    """Padded as TensorFlow's SAME pads: what is odd of it comes after."""
    rows, columns = (max((math.ceil(size / stride) - 1) * stride + kernel - size, 0) for size in x.shape[2:])
    return F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2), value=value)


class SameConv2d(nn.Conv2d):
    def forward(self, x):
        return F.conv2d(_same(x, self.kernel_size[0], self.stride[0], 0.0), self.weight, self.bias, self.stride)


class SameMaxPool2d(nn.MaxPool2d):
    def forward(self, x):
        return F.max_pool2d(_same(x, self.kernel_size, self.stride, -math.inf), self.kernel_size, self.stride)


def _scaled(channels, width):
    return max(4, 4 * math.floor(channels * width / 4 + 0.5))


def _layer(block, inputs, planes, blocks, stride, first):
    """As torchvision makes it; `first`: the first block's shortcut is a convolution whether needed or not."""
    outputs = planes * block.expansion
    downsample = None
    if first or stride != 1 or inputs != outputs:
        downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
    rest = [block(outputs, planes) for _ in range(1, blocks)]
    return nn.Sequential(block(inputs, planes, stride, downsample), *rest)


def _pad_as_same(module):
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d) and child.kernel_size[0] > 1 and child.stride[0] > 1:
            same = SameConv2d(child.in_channels, child.out_channels, child.kernel_size[0], child.stride, bias=False)
            setattr(module, name, same)
        elif isinstance(child, nn.MaxPool2d):
            setattr(module, name, SameMaxPool2d(child.kernel_size, child.stride))
        else:
            _pad_as_same(child)


def resnet(encoder="resnet50", width=1.0, stem="imagenet", padding="same", shortcut="first", classes=0):
    """torchvision's ResNet with what byol's settings of these names change; `classes` of 0: pooled features."""
    block, blocks, planes = ENCODERS[encoder]
    model = ResNet(block, [1, 1, 1, 1])
    inputs = _scaled(64, width)
    model.conv1 = nn.Conv2d(3, inputs, *((3, 1, 1) if stem == "small" else (7, 2, 3)), bias=False)
    model.bn1 = nn.BatchNorm2d(inputs)
    if stem == "small":
        model.maxpool = nn.Identity()
    for i in range(4):
        plane = _scaled(planes[i], width)
        setattr(model, f"layer{i + 1}", _layer(block, inputs, plane, blocks[i], 2 if i else 1, shortcut == "first"))
        inputs = plane * block.expansion
    model.fc = nn.Linear(inputs, classes) if classes else nn.Identity()
    if padding == "same":
        _pad_as_same(model)
    return model


def read(path):
    """Tensors and metadata of a .safetensors file."""
    content = Path(path).read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    metadata = header.pop("__metadata__", {})
    types = {"F32": torch.float32, "I64": torch.int64}
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        values = bytearray(content[8 + length + begin : 8 + length + end])
        tensors[name] = torch.frombuffer(values, dtype=types[entry["dtype"]]).reshape(entry["shape"])
    return tensors, metadata


def load(path):
    """The encoder of a file that `byol export` wrote; its heads are left aside."""
    tensors, metadata = read(path)
    unlike = [f"{key}={metadata.get(key)}" for key, value in
              {"names": "torchvision", "norm": "batch", "v2": "false", "weight_standardisation": "false"}.items()
              if metadata.get(key) != value]
    if unlike:
        raise ValueError(f"{path}: not a ResNet that this module builds ({', '.join(unlike)})")
    encoder = {name: tensor for name, tensor in tensors.items() if not name.startswith(("projector.", "predictor."))}
    classes = len(encoder["fc.bias"]) if "fc.bias" in encoder else 0
    keys = {key: metadata[key] for key in ("encoder", "stem", "padding", "shortcut")}
    model = resnet(width=float(metadata["width"]), classes=classes, **keys)
    model.load_state_dict(encoder, strict=True)
    return model


def heads(path):
    """Projector and predictor of a file written with --heads: linear layers, each but the last with BatchNorm1d and ReLU."""
    tensors, _ = read(path)
    made = nn.ModuleDict()
    for head in ("projector", "predictor"):
        own = {name[len(head) + 1 :]: tensor for name, tensor in tensors.items() if name.startswith(f"{head}.")}
        if not own:
            continue  # of the target there is no predictor
        layers = []
        for place in sorted({int(name.split(".")[0]) for name in own}):
            weight = own[f"{place}.weight"]
            if weight.ndim == 2:
                layers.append(nn.Linear(weight.shape[1], weight.shape[0], bias=f"{place}.bias" in own))
            else:
                layers += [nn.BatchNorm1d(len(weight)), nn.ReLU()]
        made[head] = nn.Sequential(*layers)
        made[head].load_state_dict(own, strict=True)
    return made
