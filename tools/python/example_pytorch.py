"""BYOL in PyTorch with byol's loader, resumable at any batch: example_pytorch.py DATASET [STEPS]

The DataLoader's lines became three (marked <); the rest is the loop that was there.
"""
import copy
import os
import sys

import torch
import torch.nn.functional as F
import torchvision
from torch import nn

import byol

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CHECKPOINT = os.environ.get("CHECKPOINT", "byol.pt")


def head(inputs, hidden=512, outputs=128):
    return nn.Sequential(nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, outputs))


def encoder():
    network = torchvision.models.resnet18()
    network.fc = head(512)
    return network


def loss_of(prediction, target):
    return 2 - 2 * F.cosine_similarity(prediction, target.detach()).mean()


def main():
    dataset, steps = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    online, predictor = encoder().to(DEVICE), head(128).to(DEVICE)
    target = copy.deepcopy(online).requires_grad_(False)
    optimizer = torch.optim.SGD([*online.parameters(), *predictor.parameters()], lr=0.05, momentum=0.9)
    loader = byol.Loader(dataset, recipe="byol", batch=32, settings={"size": 96}, seed=1,  # <
                         mean=byol.IMAGENET_MEAN, deviation=byol.IMAGENET_DEVIATION)  # fmt: skip
    step = 0
    if os.path.exists(CHECKPOINT):
        saved = torch.load(CHECKPOINT)
        loader.load_state_dict(saved["loader"])  # <
        for name, part in (("online", online), ("target", target), ("predictor", predictor), ("optimizer", optimizer)):
            part.load_state_dict(saved[name])
        step = saved["step"]
    while step < steps:
        for batch in loader:
            view1, view2 = (torch.from_dlpack(view).to(DEVICE) for view in batch.views)  # <
            with torch.no_grad():
                goal1, goal2 = target(view1), target(view2)
            loss = loss_of(predictor(online(view1)), goal2) + loss_of(predictor(online(view2)), goal1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                for theirs, ours in zip(target.parameters(), online.parameters()):
                    theirs.lerp_(ours, 0.004)
            step += 1
            print(f"step {step}: loss {loss.item():.4f}", flush=True)
            if step >= steps:
                break
    parts = {"online": online, "target": target, "predictor": predictor, "optimizer": optimizer, "loader": loader}
    torch.save({"step": step, **{name: part.state_dict() for name, part in parts.items()}}, CHECKPOINT)


if __name__ == "__main__":
    main()
