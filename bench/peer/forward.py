#!/usr/bin/env python3
"""Times PyTorch's forward pass for verification: network.eval(), inference mode, one JSON line.

One fixed batch of random pixels, normalised in the timed part as `ftrain embed --repeat` does.
Weights and running statistics are random. --fuse folds each batch norm behind a convolution into
it (torch.fx), as PyTorch does for deployment. Run with LD_PRELOAD=libjemalloc.so.2 for PyTorch's
best.
"""

import os
import sys
import time

import torch
from torch import nn

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../tests/parity"))
import peer
import timing


def randomise(network):
    """Running statistics that do something."""
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)


def main():
    parser = timing.arguments(__doc__, batch=32)
    parser.add_argument("--fuse", action="store_true")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(2048)
    net = peer.build(args.network).eval()
    randomise(net)
    if args.fuse:
        from torch.fx.experimental.optimization import fuse

        net = fuse(net)
    if args.compile:
        from torch._inductor import config

        config.freezing = True  # weights are constants: batch norms fold
    if args.channels_last:
        net = net.to(memory_format=torch.channels_last)
    forward = torch.compile(net) if args.compile else net
    pixels = torch.randint(0, 256, (args.batch, 112, 112, 3), dtype=torch.uint8)

    seconds = []
    with torch.inference_mode() if not args.compile else torch.no_grad():
        for _ in range(args.warmup + args.steps):
            begin = time.perf_counter()
            images = peer.normalise(pixels)
            if args.channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
                embedding = forward(images)
            seconds.append(time.perf_counter() - begin)
    timing.report(args, seconds, fuse=args.fuse, finite=bool(torch.isfinite(embedding).all()))


if __name__ == "__main__":
    main()
