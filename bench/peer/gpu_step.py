#!/usr/bin/env python3
"""Times PyTorch's training step on a GPU, as people run it: one JSON line.

    stock    arcface_torch's way: NCHW, fp16 autocast of the backbone with GradScaler, the head of
             PartialFC V2 in fp32 (dense gradient, momentum and decay on every row), torch's default
             SGD, loss read every step
    tuned    channels_last, bf16 autocast, fused SGD, no GradScaler, loss left on the device
    compile  tuned, network and head through torch.compile(mode="max-autotune")

Random pixels (already on the device: reading and decoding are no part of it), random labels each
step, CosFace 64 / 0.4, clip 5, SGD with momentum 0.9 and decay 5e-4. --device cpu runs the same
program on a CPU, to try it.
"""

import argparse
import contextlib
import json
import os
import statistics
import sys
import time

import torch
import torch.nn.functional as F

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../tests/parity"))
import peer
from timing import NETWORKS

SCALE, MARGIN, RATE, MOMENTUM, DECAY, CLIP = 64.0, 0.4, 0.1, 0.9, 5e-4, 5.0


class PartialFC(torch.nn.Module):
    """PartialFC V2 of one rank: below rate 1 the labels' classes and the largest random numbers."""

    def __init__(self, classes, width, rate):
        super().__init__()
        self.rate, self.count = rate, int(rate * classes)
        self.weight = torch.nn.Parameter(torch.randn(classes, width) * 0.01)

    def sample(self, labels):
        with torch.no_grad():
            positive = torch.unique(labels, sorted=True)
            draw = torch.rand(len(self.weight), device=labels.device)
            draw[positive] = 2.0
            index = torch.topk(draw, k=max(self.count, len(positive)))[1].sort()[0]
            return index, torch.searchsorted(index, labels)

    def forward(self, embedding, labels):
        weight = self.weight
        if self.rate < 1:
            index, labels = self.sample(labels)
            weight = weight[index]
        return self.loss(embedding.float(), weight, labels)

    @staticmethod
    def loss(embedding, weight, labels):
        logits = F.linear(F.normalize(embedding), F.normalize(weight)).clamp(-1, 1) * SCALE
        rows = torch.arange(len(labels), device=labels.device)
        logits[rows, labels] -= MARGIN * SCALE
        return F.cross_entropy(logits, labels)


class Step:
    def __init__(self, args):
        self.args = args
        self.stock = args.way == "stock"
        self.net = peer.build(args.network).train().to(args.device)
        self.head = PartialFC(args.classes, 512, args.sample_rate).to(args.device)
        self.forward, loss = self.net, self.head.loss
        if not self.stock:
            self.net.to(memory_format=torch.channels_last)
        if args.way == "compile":
            self.forward = torch.compile(self.net, mode="max-autotune")
            self.head.loss = torch.compile(loss, mode="max-autotune", dynamic=False)
        self.scaler = torch.amp.GradScaler(args.device, init_scale=65536, growth_interval=100,
                                           enabled=self.stock)
        fused = not self.stock and args.device == "cuda"
        parameters = [*self.net.parameters(), *self.head.parameters()]
        self.sgd = torch.optim.SGD(parameters, RATE, momentum=MOMENTUM, weight_decay=DECAY,
                                   fused=fused)

    def autocast(self):
        # A CPU has no fp16 of every op.
        half = torch.float16 if self.stock and self.args.device == "cuda" else torch.bfloat16
        return torch.autocast(self.args.device, half) if self.args.half else contextlib.nullcontext()

    def run(self, pixels, labels):
        images = peer.normalise(pixels)
        if not self.stock:
            images = images.contiguous(memory_format=torch.channels_last)
        with self.autocast():
            embedding = self.forward(images)
        loss = self.head(embedding, labels)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.sgd)
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), CLIP)
        self.scaler.step(self.sgd)
        self.scaler.update()
        self.sgd.zero_grad(set_to_none=True)
        return loss.item() if self.stock else loss.detach()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("way", choices=["stock", "tuned", "compile"])
    parser.add_argument("--network", default="r50", choices=NETWORKS)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--classes", type=int, default=93431)
    parser.add_argument("--sample-rate", type=float, default=1.0)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--warmup", type=int, default=10)
    parser.add_argument("--fp32", dest="half", action="store_false", help="no autocast")
    parser.add_argument("--tf32", action="store_true", help="products of fp32 in tf32")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    args = parser.parse_args()

    torch.manual_seed(2048)
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = args.tf32
    step = Step(args)
    pixels = torch.randint(0, 256, (args.batch, 112, 112, 3), dtype=torch.uint8)
    pixels = pixels.to(args.device)
    drawn = torch.randint(0, args.classes, (args.warmup + args.steps, args.batch))
    drawn = drawn.to(args.device)
    wait = torch.cuda.synchronize if args.device == "cuda" else lambda: None

    for labels in drawn[: args.warmup]:
        step.run(pixels, labels)
    # Runs of a few steps each, so that waiting for the device costs nothing, and a median of them.
    seconds, run = [], max(1, args.steps // 5)
    for begin in range(args.warmup, args.warmup + args.steps - run + 1, run):
        wait()
        start = time.perf_counter()
        for labels in drawn[begin : begin + run]:
            loss = step.run(pixels, labels)
        wait()
        seconds.append((time.perf_counter() - start) / run)
    median = statistics.median(seconds)
    peak = torch.cuda.max_memory_reserved() if args.device == "cuda" else 0
    print(json.dumps({
        "way": args.way, "network": args.network, "batch": args.batch, "classes": args.classes,
        "sample_rate": args.sample_rate, "seconds": median,
        "samples_per_second": args.batch / median, "device_bytes": peak,
        "loss": float(loss), "torch": torch.__version__,
    }))


if __name__ == "__main__":
    main()
