"""What the timed PyTorch programs share: their command line and the JSON line that they print."""

import argparse
import json
import os
import resource
import statistics

import torch

NETWORKS = ["r18", "r34", "r50", "r100", "r200", "mbf", "mbf_large", "y1"]


def arguments(about, batch):
    """A parser with the options of all; the caller adds its own."""
    parser = argparse.ArgumentParser(description=about.split("\n")[0])
    parser.add_argument("--network", default="r50", choices=NETWORKS)
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--bf16", action="store_true", help="autocast of the backbone")
    return parser


def report(args, seconds, **more):
    """`seconds`: of each run, warm-up included."""
    median = statistics.median(seconds[args.warmup :])
    print(json.dumps({
        "network": args.network,
        "batch": args.batch,
        "threads": args.threads,
        "mode": "+".join(["compile" if args.compile else "eager"]
                         + ["channels_last"] * args.channels_last + ["bf16"] * args.bf16),
        "seconds": median,
        "samples_per_second": args.batch / median,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        **more,
        "torch": torch.__version__.split("+")[0],
        "allocator": "jemalloc" if "jemalloc" in os.environ.get("LD_PRELOAD", "") else "system",
    }))
