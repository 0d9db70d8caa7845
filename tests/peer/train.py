#!/usr/bin/env python3
"""Learns from a folder of small images by BYOL in PyTorch, with the settings of a run of ours, and scores each epoch by nearest neighbours.

Prints one line of JSON for the untrained network and for each epoch: loss, knn (percent), seconds, pairs_per_second.
"""
import argparse
import copy
import json
import time

import torch

import data
import network
import views


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", required=True, help="what `byol pretrain --settings` printed")
    parser.add_argument("--train", required=True, help="folder of class folders")
    parser.add_argument("--test", required=True)
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--k", type=int, default=200)
    parser.add_argument("--temperature", type=float, default=0.1)
    return parser.parse_args()


class Probe:
    """Weighted nearest neighbours (Wu et al. 2018) on the encoder's output, running statistics, whole images."""

    def __init__(self, train, test, options):
        self.train, self.test, self.options = train, test, options

    @torch.no_grad()
    def features(self, encoder, images):
        parts = []
        with torch.autocast("cpu", torch.bfloat16, enabled=self.options.precision == "bf16"):
            for part in images.split(256):
                part = views.normalise(part.float() / 255).contiguous(memory_format=torch.channels_last)
                parts.append(encoder(part).float())
        return torch.nn.functional.normalize(torch.cat(parts))

    @torch.no_grad()
    def score(self, encoder):
        encoder.eval()
        bank, labels = self.features(encoder, self.train[0]), self.train[1]
        similarity = self.features(encoder, self.test[0]) @ bank.T
        encoder.train()
        values, neighbours = similarity.topk(min(self.options.k, len(bank)), 1)
        votes = torch.zeros(len(similarity), int(labels.max()) + 1)
        votes.scatter_add_(1, labels[neighbours], (values / self.options.temperature).exp())
        return 100 * (votes.argmax(1) == self.test[1]).float().mean().item()

    def score_untrained(self, encoder, batch):
        """Running statistics come from 32 batches of plain images first."""
        encoder = copy.deepcopy(encoder)
        for _ in range(32):
            chosen = torch.randperm(len(self.train[0]))[:batch]
            self.features(encoder, self.train[0][chosen])
        return self.score(encoder)


def build(values, precision):
    branches = network.build(
        values["encoder"], values["stem"], values["width"], values["projector_hidden"], values["projector_output"], values["predictor_hidden"]
    )
    online, target = [branch.to(memory_format=torch.channels_last) for branch in branches]
    return network.Byol(online, target, values["weight_decay"], values["momentum"], values["trust"], precision == "bf16")


def make_views(images, values, generator):
    pair = []
    for recipe in data.view_recipes(values):
        params = views.draw(len(images), images.shape[-1], recipe, generator)
        view = views.render(images, params, values["views.size"], recipe["solarize_threshold"])
        pair.append(views.normalise(view).contiguous(memory_format=torch.channels_last))
    return pair


def train(values, images, byol, report):
    generator = torch.Generator().manual_seed(values["seed"])
    batch, step = values["batch"], 0
    per_epoch = len(images) // batch
    total, warmup = values["epochs"] * per_epoch, int(values["warmup_epochs"] * len(images) / batch)
    for epoch in range(1, values["epochs"] + 1):
        start, losses = time.monotonic(), []
        order = torch.randperm(len(images), generator=generator)[: per_epoch * batch]
        for chosen in order.split(batch):
            pair = make_views(images[chosen], values, generator)
            rate = network.learning_rate(step, values["base_learning_rate"], batch, warmup, total)
            losses.append(float(byol.step(*pair, rate, network.target_decay(step, values["tau_base"], total))))
            step += 1
        report(epoch, losses, time.monotonic() - start)


def main():
    options = arguments()
    values = data.settings(options.settings)
    torch.set_num_threads(options.threads)
    torch.manual_seed(values["seed"])
    probe = Probe(data.load(options.train), data.load(options.test), options)
    byol = build(values, options.precision)

    def report(epoch, losses, seconds):
        line = {"epoch": epoch, "loss": sum(losses) / len(losses), "knn": probe.score(byol.online.encoder), "seconds": seconds}
        line["pairs_per_second"] = len(losses) * values["batch"] / seconds
        print(json.dumps(line), flush=True)

    baseline = probe.score_untrained(byol.online.encoder, values["batch"])
    print(json.dumps({"epoch": 0, "knn": baseline, "parameters": network.parameters(byol.online)}), flush=True)
    train(values, probe.train[0], byol, report)


if __name__ == "__main__":
    main()
