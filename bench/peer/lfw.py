#!/usr/bin/env python3
"""The recipe of configs/lfw.toml in PyTorch: MobileFaceNet trained from scratch on LFW.

Batch 32, SGD 0.05 (one epoch of warm-up, then cosine to 0), momentum 0.9, weight decay 5e-4,
clip 5, CosFace scale 24 margin 0.1, random flip; after each epoch the held-out pairs, 10-fold.

    lfw.py FOLDER                 10 epochs; FOLDER holds train.rec and folds9_10.bin
    lfw.py FOLDER --only-steps 5  times five steps and stops
"""

import argparse
import io
import json
import math
import os
import pickle
import statistics
import struct
import sys
import time

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../tests/parity"))
import peer

MAGIC = 0xCED7230A


def decode(encoded):
    return np.asarray(Image.open(io.BytesIO(bytes(encoded))).convert("RGB"))


def read_records(path):
    """All images u8 [N, 112, 112, 3] and labels; records without an image are metadata."""
    with open(path, "rb") as file:
        data = file.read()
    images, labels, at = [], [], 0
    while at < len(data):
        magic, head = struct.unpack_from("<II", data, at)
        length = head & ((1 << 29) - 1)
        if magic != MAGIC or head >> 29:
            sys.exit(f"{path}: no whole record at byte {at}")
        flag, label = struct.unpack_from("<If", data, at + 8)
        begin = at + 8 + 24 + 4 * flag
        end = at + 8 + length
        if end > begin:
            if flag:
                (label,) = struct.unpack_from("<f", data, at + 32)
            images.append(decode(data[begin:end]))
            labels.append(int(label))
        at = at + 8 + (length + 3) // 4 * 4
    return torch.from_numpy(np.stack(images)), torch.tensor(labels)


class Restricted(pickle.Unpickler):
    """Only what verification files hold: numpy arrays of bytes."""

    def find_class(self, module, name):
        if module.split(".")[0] == "numpy" and name in (
            "_reconstruct", "ndarray", "dtype", "scalar", "bool_", "_frombuffer",
        ) or (module, name) == ("_codecs", "encode"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a verification file")


def read_pairs(path):
    with open(path, "rb") as file:
        bins, same = Restricted(file, encoding="bytes").load()
    images = [decode(b if isinstance(b, bytes) else np.asarray(b).tobytes()) for b in bins]
    return torch.from_numpy(np.stack(images)), np.asarray(same, bool)


def verify(net, images, same, batch=64):
    """Accuracy-Flip: embeddings of both orientations added, 10 folds over squared distance."""
    net.eval()
    rows = []
    with torch.no_grad():
        for begin in range(0, len(images), batch):
            x = peer.normalise(images[begin : begin + batch])
            rows.append(net(x) + net(x.flip(3)))
    net.train()
    embedding = torch.nn.functional.normalize(torch.cat(rows)).double().numpy()
    distance = ((embedding[0::2] - embedding[1::2]) ** 2).sum(1)
    right = (distance[None, :] < np.arange(0, 4, 0.01)[:, None]) == same[None, :]
    folds = np.array_split(np.arange(len(same)), 10)
    scores = []
    for fold in folds:
        rest = np.setdiff1d(np.arange(len(same)), fold)
        scores.append(right[right[:, rest].mean(1).argmax(), fold].mean())
    return float(np.mean(scores)), float(np.std(scores))


def rate_at(step, steps_per_epoch, total, base):
    """One epoch of linear warm-up, then cosine to 0."""
    if step < steps_per_epoch:
        return base * (step + 1) / steps_per_epoch
    done = (step - steps_per_epoch) / max(1, total - steps_per_epoch)
    return base * 0.5 * (1 + math.cos(math.pi * done))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("--pairs", default="folds9_10.bin")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--only-steps", type=int, metavar="N",
                        help="time N steps, estimate the whole training, no verification")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=2048)
    parser.add_argument("--channels-last", action="store_true")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    images, labels = read_records(os.path.join(args.folder, "train.rec"))
    classes = int(labels.max()) + 1
    print(f"{len(images)} images of {classes} people", flush=True)
    net = peer.build("mbf").train()
    if args.channels_last:
        net = net.to(memory_format=torch.channels_last)
    step = peer.Step(net, torch.randn(classes, 512) * 0.01, peer.Margin("cosface", 24.0, 0.1))

    per_epoch = len(images) // args.batch
    total = per_epoch * args.epochs
    seconds, losses, begin = [], [], time.perf_counter()
    for t in range(total):
        if t % per_epoch == 0:
            order = torch.randperm(len(images))
        start = time.perf_counter()
        rows = order[t % per_epoch * args.batch :][: args.batch]
        x = peer.normalise(images[rows])
        flip = torch.rand(len(rows)) < 0.5
        x = torch.where(flip[:, None, None, None], x.flip(3), x)
        if args.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        step.set_rate(rate_at(t, per_epoch, total, 0.05))
        loss, _ = step.run(x, labels[rows])
        losses.append(loss.item())
        seconds.append(time.perf_counter() - start)
        if args.only_steps and t + 1 == args.only_steps:
            median = statistics.median(seconds[1:] or seconds)
            print(json.dumps({
                "seconds_per_step": median,
                "samples_per_second": args.batch / median,
                "estimated_seconds": median * total,
                "losses": losses,
            }))
            return
        if (t + 1) % per_epoch == 0:
            epoch = (t + 1) // per_epoch
            images_of, same = read_pairs(os.path.join(args.folder, args.pairs))
            mean, deviation = verify(net, images_of, same)
            print(json.dumps({
                "epoch": epoch,
                "loss": statistics.fmean(losses[-per_epoch:]),
                "accuracy": mean,
                "deviation": deviation,
                "samples_per_second": args.batch / statistics.median(seconds[-per_epoch:]),
                "seconds": time.perf_counter() - begin,
            }), flush=True)


if __name__ == "__main__":
    main()
