#!/usr/bin/env python3
"""Times PyTorch's training step: forward, CosFace over all classes, backward, clip, SGD.

One fixed batch of random pixels, fresh random labels each step (so that nothing is learnt by heart
and gradients keep their size); one JSON line. Meant to run with LD_PRELOAD=libjemalloc.so.2
(bench/step does), which makes PyTorch faster.
"""

import argparse
import json
import os
import resource
import statistics
import sys
import time

import torch

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../tests/parity"))
import peer


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--network", default="r50", choices=["r18", "r34", "r50", "r100", "r200",
                                                             "mbf", "mbf_large", "y1"])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--classes", type=int, default=1334)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--bf16", action="store_true", help="autocast of the backbone")
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
    median = statistics.median(seconds[args.warmup :])
    print(json.dumps({
        "network": args.network,
        "batch": args.batch,
        "classes": args.classes,
        "threads": args.threads,
        "mode": "+".join(["compile" if args.compile else "eager"]
                         + ["channels_last"] * args.channels_last + ["bf16"] * args.bf16),
        "seconds_per_step": median,
        "samples_per_second": args.batch / median,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "loss": loss,
        "torch": torch.__version__.split("+")[0],
        "allocator": "jemalloc" if "jemalloc" in os.environ.get("LD_PRELOAD", "") else "system",
    }))


if __name__ == "__main__":
    main()
