#!/usr/bin/env python3
"""Times PyTorch's class-center step alone: CosFace 64 / 0.4 over C classes, backward to features and
weight, SGD with momentum 0.9 and weight decay. A JSON line with the
seconds of each step for each way of doing it.

    dense   every class; below rate 1 arcface_torch's PartialFC V2: sample, weight[index], a dense
            gradient, momentum and decay on every row
    sparse  below rate 1: rows of weight and momentum taken out, updated and written back alone

Ways that are timed beside each other: eager or torch.compile for loss and gradient; the fused or the
default SGD. bench/class_center runs this under jemalloc and takes the fastest.
"""

import argparse
import json
import time

import torch
import torch.nn.functional as F

SCALE, MARGIN, RATE, MOMENTUM, DECAY = 64.0, 0.4, 0.1, 0.9, 5e-4


def loss_of(x, weight, labels):
    cosines = F.linear(F.normalize(x), F.normalize(weight)).clamp(-1, 1)
    rows = torch.arange(x.shape[0])
    margin = torch.zeros_like(cosines)
    margin[rows, labels] = MARGIN
    return F.cross_entropy((cosines - margin) * SCALE, labels)


def loss_in_place(x, weight, labels):
    """Without a second matrix for the margin: what arcface_torch does."""
    cosines = F.linear(F.normalize(x), F.normalize(weight)).clamp(-1, 1)
    logits = cosines * SCALE
    logits[torch.arange(x.shape[0]), labels] -= MARGIN * SCALE
    return F.cross_entropy(logits, labels)


def sample(classes, count, labels):
    """PartialFC V2: the labels' classes, then the largest of random numbers."""
    positive = torch.unique(labels, sorted=True)
    draw = torch.rand(classes)
    draw[positive] = 2.0
    index = torch.topk(draw, k=max(count, len(positive)))[1].sort()[0]
    return index, torch.searchsorted(index, labels)


class Dense:
    def __init__(self, args, loss, fused):
        self.args, self.loss = args, loss
        self.weight = torch.nn.Parameter(torch.randn(args.classes, args.width) * 0.01)
        self.sgd = torch.optim.SGD([self.weight], RATE, momentum=MOMENTUM, weight_decay=DECAY,
                                   fused=fused)

    def step(self, x, labels):
        weight = self.weight
        if self.args.sample_rate < 1:
            count = int(self.args.sample_rate * self.args.classes)
            index, labels = sample(self.args.classes, count, labels)
            weight = weight[index]
        loss = self.loss(x, weight, labels)
        loss.backward()
        self.sgd.step()
        self.sgd.zero_grad(set_to_none=True)
        return loss


class Sparse:
    def __init__(self, args, loss, fused):
        self.args, self.loss = args, loss
        self.weight = torch.randn(args.classes, args.width) * 0.01
        self.momentum = torch.zeros(args.classes, args.width)

    def step(self, x, labels):
        count = int(self.args.sample_rate * self.args.classes)
        index, labels = sample(self.args.classes, count, labels)
        rows = self.weight.index_select(0, index).requires_grad_()
        loss = self.loss(x, rows, labels)
        loss.backward()
        with torch.no_grad():
            momentum = self.momentum.index_select(0, index)
            momentum.mul_(MOMENTUM).add_(rows.grad).add_(rows, alpha=DECAY)
            rows.sub_(momentum, alpha=RATE)
            self.weight.index_copy_(0, index, rows)
            self.momentum.index_copy_(0, index, momentum)
        return loss


def timed(way, args):
    seconds = []
    for turn in range(args.warmup + args.steps):
        x = torch.randn(args.batch, args.width, requires_grad=True)
        labels = torch.randint(0, args.classes, (args.batch,))
        begin = time.perf_counter()
        way.step(x, labels).item()
        if turn >= args.warmup:
            seconds.append(time.perf_counter() - begin)
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--classes", type=int, default=85742)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--sample-rate", type=float, default=1.0)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true", help="try torch.compile too")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(2048)
    losses = {"eager": loss_in_place}
    if args.compile:
        losses["compile"] = torch.compile(loss_of)
    for name, loss in losses.items():
        kinds = [("dense", Dense, False), ("dense", Dense, True)]
        if args.sample_rate < 1:
            kinds.append(("sparse", Sparse, False))
        for kind, make, fused in kinds:
            seconds = timed(make(args, loss, fused), args)
            print(json.dumps({"kind": kind, "way": name + "+fused" * fused, "seconds": seconds}))


if __name__ == "__main__":
    main()
