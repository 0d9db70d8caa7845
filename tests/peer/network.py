"""BYOL in PyTorch, from the paper's and the reference's definitions: networks, loss, LARS and the moving average.

It shares no code with ours and is what `make peer-gate` learns beside and `make bench-step` runs beside. As in the reference: a projection
shortcut in the first block of every group, stride in the 3x3, "SAME" padding, heads of Linear (bias), BatchNorm, ReLU, Linear (none), batch
statistics of each view by itself, biased running variances without the bias of their start at zero.
"""
import math

import torch
import torch.nn.functional as F
from torch import nn

DECAY, EPSILON = 0.9, 1e-5  # of batch normalisation

# Blocks of each group, and whether they are bottlenecks.
ENCODERS = {
    "resnet18": ((2, 2, 2, 2), False),
    "resnet34": ((3, 4, 6, 3), False),
    "resnet50": ((3, 4, 6, 3), True),
    "resnet101": ((3, 4, 23, 3), True),
}


def _same(size, kernel, stride):
    """What TensorFlow's SAME adds before and after."""
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _padded(x, kernel, stride, same, value=0.0):
    """The input and the symmetric padding that is left to the next op."""
    if not same:
        return x, (kernel - 1) // 2
    (top, bottom), (left, right) = _same(x.shape[2], kernel, stride), _same(x.shape[3], kernel, stride)
    if top == bottom == left == right:
        return x, top
    return F.pad(x, (left, right, top, bottom), value=value), 0


def _draw(weight, fan_in):
    """A normal distribution cut at two deviations, of which 1 / sqrt(fan_in) is one before the cut."""
    deviation = 1 / math.sqrt(fan_in)
    nn.init.trunc_normal_(weight, std=deviation, a=-2 * deviation, b=2 * deviation)


class Convolution(nn.Module):
    def __init__(self, inputs, outputs, kernel, stride, same):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, kernel, kernel))
        self.kernel, self.stride, self.same = kernel, stride, same
        _draw(self.weight, inputs * kernel * kernel)

    def forward(self, x):
        x, padding = _padded(x, self.kernel, self.stride, self.same)
        return F.conv2d(x, self.weight, None, self.stride, padding)


class Norm(nn.Module):
    """Batch normalisation; every call in training is one batch (a view) and moves the running statistics once."""

    def __init__(self, channels, scale=1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), scale))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.samples = 2  # values that a channel's statistics are taken over
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.zeros(channels))  # PyTorch keeps the unbiased one

    def averages(self):
        share = 1 - DECAY ** self.seen.double()
        return (self.mean / share).float(), (self.variance * ((self.samples - 1) / self.samples) / share).float()

    def forward(self, x):
        if self.training:
            self.seen.add_(1)
            self.samples = x.numel() // x.shape[1]
            return F.batch_norm(x, self.mean, self.variance, self.weight, self.bias, True, 1 - DECAY, EPSILON)
        return F.batch_norm(x, *self.averages(), self.weight, self.bias, False, 0.0, EPSILON)


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride, bottleneck, project, same):
        super().__init__()
        inner = outputs // 4
        shapes = [(inputs, outputs, 3, stride), (outputs, outputs, 3, 1)]
        if bottleneck:
            shapes = [(inputs, inner, 1, 1), (inner, inner, 3, stride), (inner, outputs, 1, 1)]
        self.convolutions = nn.ModuleList(Convolution(*shape, same) for shape in shapes)
        self.norms = nn.ModuleList(Norm(shape[1]) for shape in shapes)
        if bottleneck:
            nn.init.zeros_(self.norms[-1].weight)
        self.shortcut = Convolution(inputs, outputs, 1, stride, same) if project else None
        self.shortcut_norm = Norm(outputs) if project else None

    def forward(self, x):
        y, last = x, len(self.norms) - 1
        for i, (convolution, norm) in enumerate(zip(self.convolutions, self.norms)):
            y = norm(convolution(y))
            y = y if i == last else F.relu(y, inplace=True)
        if self.shortcut is not None:
            x = self.shortcut_norm(self.shortcut(x))
        return F.relu(y + x, inplace=True)


class Encoder(nn.Module):
    def __init__(self, name, stem="imagenet", width=1.0, same=True):
        super().__init__()
        blocks, bottleneck = ENCODERS[name]
        first, self.small, self.same = int(64 * width), stem == "small", same
        self.convolution = Convolution(3, first, 3, 1, same) if self.small else Convolution(3, first, 7, 2, same)
        self.norm = Norm(first)
        self.groups, inputs = nn.ModuleList(), first
        for g, count in enumerate(blocks):
            outputs = int((256 if bottleneck else 64) * 2**g * width)
            group = nn.ModuleList()
            for b in range(count):
                group.append(Block(inputs, outputs, 2 if g and not b else 1, bottleneck, b == 0, same))
                inputs = outputs
            self.groups.append(group)
        self.features = inputs

    def forward(self, x):
        x = F.relu(self.norm(self.convolution(x)), inplace=True)
        if not self.small:
            x, padding = _padded(x, 3, 2, self.same, -math.inf)
            x = F.max_pool2d(x, 3, 2, padding)
        for group in self.groups:
            for block in group:
                x = block(x)
        return x.mean((2, 3))


class Head(nn.Module):
    def __init__(self, inputs, hidden, outputs):
        super().__init__()
        self.first = nn.Linear(inputs, hidden)
        self.norm = Norm(hidden)
        self.second = nn.Linear(hidden, outputs, bias=False)
        _draw(self.first.weight, inputs)
        nn.init.zeros_(self.first.bias)
        _draw(self.second.weight, hidden)

    def forward(self, x):
        return self.second(F.relu(self.norm(self.first(x)), inplace=True))


class Branch(nn.Module):
    """Encoder and projector; with `predictor` it is the online network."""

    def __init__(self, encoder, hidden, output, predictor=0):
        super().__init__()
        self.encoder = encoder
        self.projector = Head(encoder.features, hidden, output)
        self.predictor = Head(output, predictor, output) if predictor else None

    def forward(self, x):
        projection = self.projector(self.encoder(x))
        return projection if self.predictor is None else self.predictor(projection)


def _unit(x):
    return x.float() * torch.rsqrt(x.float().square().sum(-1, keepdim=True).clamp_min(1e-12))


def distance(predictions, projections):
    """Squared distances of the directions, a mean over the batch."""
    return (_unit(predictions) - _unit(projections)).square().sum(-1).mean()


class Lars:
    """Decay and the trust ratio are for weights alone; momentum comes after the ratio, the rate last."""

    def __init__(self, parameters, weight_decay, momentum, trust):
        parameters = list(parameters)
        self.weights = [p for p in parameters if p.ndim > 1]
        self.vectors = [p for p in parameters if p.ndim <= 1]
        self.momenta = [torch.zeros_like(p) for p in self.weights + self.vectors]
        self.weight_decay, self.momentum, self.trust = weight_decay, momentum, trust

    @torch.no_grad()
    def step(self, rate):
        gradients = [p.grad for p in self.weights]
        torch._foreach_add_(gradients, self.weights, alpha=self.weight_decay)
        lengths = torch.stack(torch._foreach_norm(self.weights))
        slopes = torch.stack(torch._foreach_norm(gradients))
        ratios = torch.where((lengths > 0) & (slopes > 0), self.trust * lengths / slopes, torch.ones_like(lengths))
        torch._foreach_mul_(gradients, list(ratios.unbind()))
        torch._foreach_mul_(self.momenta, self.momentum)
        torch._foreach_add_(self.momenta, gradients + [p.grad for p in self.vectors])
        torch._foreach_add_(self.weights + self.vectors, self.momenta, alpha=-rate)
        for parameter in self.weights + self.vectors:
            parameter.grad = None


class Byol:
    """Both branches and one training step; `forward` may be torch.compile."""

    def __init__(self, online, target, weight_decay=1e-6, momentum=0.9, trust=1e-3, bf16=False, forward=lambda network: network):
        self.online, self.target, self.bf16 = online, target, bf16
        self.optimiser = Lars(online.parameters(), weight_decay, momentum, trust)
        self.followed = [*online.encoder.parameters(), *online.projector.parameters()]
        self.following = list(target.parameters())
        self.predict, self.project = forward(online), forward(target)

    def losses(self, first, second):
        """The loss, with gradients; every network sees each view by itself."""
        with torch.autocast(first.device.type, torch.bfloat16, enabled=self.bf16):
            with torch.no_grad():
                projections = self.project(first).float(), self.project(second).float()
            loss = distance(self.predict(first), projections[1])
            return loss + distance(self.predict(second), projections[0])

    def step(self, first, second, rate, tau):
        """The loss as a tensor: asking for its number waits for a GPU."""
        loss = self.losses(first, second)
        loss.backward()
        self.optimiser.step(rate)
        with torch.no_grad():
            torch._foreach_lerp_(self.following, self.followed, 1 - tau)
        return loss.detach()


def build(encoder, stem, width, hidden, output, predictor, same=True):
    """Online and target network, drawn one after the other: they start apart, as in the reference."""
    online = Branch(Encoder(encoder, stem, width, same), hidden, output, predictor)
    return online, Branch(Encoder(encoder, stem, width, same), hidden, output)


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def learning_rate(step, base, batch, warmup, total):
    peak = base * batch / 256
    if step < warmup:
        return peak * step / warmup
    return peak * (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2


def target_decay(step, base, total):
    return 1 - (1 - base) * (1 + math.cos(math.pi * step / total)) / 2
