#!/usr/bin/env python3
"""Times PyTorch's training step: forward, CosFace over all classes, backward, clip, SGD.

One fixed batch of random pixels, fresh random labels each step (so that nothing is learnt by heart
and gradients keep their size); one JSON line. Meant to run with LD_PRELOAD=libjemalloc.so.2
(bench/step does), which makes PyTorch faster.
"""

import os
import sys
import time

import torch

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../tests/parity"))
import peer
import timing


def main():
    parser = timing.arguments(__doc__, batch=16)
    parser.add_argument("--classes", type=int, default=1334)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(2048)
    net = peer.build(args.network).train()
    embedding = 128 if args.network == "y1" else 512
    pixels = torch.randint(0, 256, (args.batch, 112, 112, 3), dtype=torch.uint8)
    if args.channels_last:
        net = net.to(memory_format=torch.channels_last)
    step = peer.Step(net, torch.randn(args.classes, embedding) * 0.01,
                     peer.Margin("cosface", 64.0, 0.4), rate=0.1)
    forward = torch.compile(net) if args.compile else net
    if args.bf16:
        compiled = forward

        def forward(x):
            with torch.autocast("cpu", torch.bfloat16):
                return compiled(x)

    step.forward = forward

    seconds = []
    for _ in range(args.warmup + args.steps):
        labels = torch.randint(0, args.classes, (args.batch,))
        begin = time.perf_counter()
        images = peer.normalise(pixels)
        if args.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        loss, _ = step.run(images, labels)
        loss = loss.item()
        seconds.append(time.perf_counter() - begin)
    timing.report(args, seconds, classes=args.classes, loss=loss)


if __name__ == "__main__":
    main()
