#!/usr/bin/env python3
"""Writes a parity case: the inputs of ten training steps and what PyTorch makes of them.

    make.py CASE FOLDER   backbone.safetensors, centers.safetensors, train.rec, train.idx, job.toml,
                          expected.json
    make.py --store       runs every case and rewrites tests/parity/expected/CASE.json
    make.py --list

Needs torch, numpy, pillow and safetensors; the stored results need none of them (README.md).
"""

import argparse
import io
import json
import os
import struct
import sys

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import save_file

import formula
import peer

HERE = os.path.dirname(os.path.abspath(__file__))
STEPS = 10
CLASSES = 40
RECIPE = {"rate": 0.001, "momentum": 0.9, "weight_decay": 5e-4, "clip": 5.0}

R18 = {"network": "r18", "embedding": 512, "batch": 4, "samples": 40}
MBF = {"network": "mbf", "embedding": 512, "batch": 8, "samples": 80}
Y1 = {"network": "y1", "embedding": 128, "batch": 8, "samples": 80}
COSFACE = {"plugin": "cosface", "scale": 64.0, "margin": 0.4, "gradient": "exact"}
ARCFACE = {"plugin": "arcface", "scale": 64.0, "margin": 0.5, "gradient": "exact"}
COMBINED = {"plugin": "combined", "scale": 64.0, "m1": 1.1, "m2": 0.3, "m3": 0.2,
            "gradient": "exact"}

CASES = {
    "r18_cosface": {**R18, "head": COSFACE},
    "r18_arcface": {**R18, "head": ARCFACE},
    "r18_softmax": {**R18, "head": {"plugin": "softmax"}},
    "mbf_cosface": {**MBF, "head": COSFACE},
    "mbf_arcface_straight": {**MBF, "head": {**ARCFACE, "gradient": "straight_through"}},
    "mbf_normalized_softmax": {**MBF, "head": {"plugin": "normalized_softmax", "scale": 64.0}},
    "y1_combined": {**Y1, "head": COMBINED},
}

BACKBONE_KEYS = {
    "r18": 'plugin = "iresnet"\ndepth = 18\nembedding = 512\nfc = "FC"\n',
    "mbf": 'plugin = "mobilefacenet"\nembedding = 512\n',
    "y1": 'plugin = "mobilefacenet"\nembedding = 128\nscale = 1\neps = 1e-3\n',
}


def weights(case):
    """The backbone's state_dict entries (batch counters left out) and the class centers."""
    net = peer.build(case["network"])
    state = {
        name: formula.weight(name, tuple(value.shape), case["network"])
        for name, value in net.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    return state, formula.normal("centers.weight", (CLASSES, case["embedding"]), 0.01)


def data(case):
    images = np.stack([formula.image(i) for i in range(case["samples"])])
    return images, [formula.label(i, CLASSES) for i in range(case["samples"])]


def margin(head):
    options = {k: v for k, v in head.items() if k != "plugin"}
    return peer.Margin(head["plugin"], **options)


def run(case, state, centers, images, labels, dtype):
    """Ten steps in `dtype`; numbers as python floats."""
    net = peer.build(case["network"])
    missing, unexpected = net.load_state_dict(
        {k: torch.from_numpy(v) for k, v in state.items()}, strict=False
    )
    assert not unexpected and all(m.endswith("num_batches_tracked") for m in missing)
    net = net.to(dtype).train()
    step = peer.Step(net, torch.from_numpy(centers.copy()).to(dtype), margin(case["head"]),
                     exact_norm=True, **RECIPE)
    pixels = peer.normalise(torch.from_numpy(images), dtype)
    names = torch.tensor(labels)
    out = {"loss": [], "gradient_norm": []}
    for t in range(STEPS):
        rows = [(t * case["batch"] + i) % case["samples"] for i in range(case["batch"])]
        loss, embedding = step.gradients(pixels[rows], names[rows])
        if t == 0:
            out["step1"] = {
                "embedding": describe(embedding),
                "gradient_norms": {
                    name: norm(p.grad) for name, p in net.named_parameters() if p.requires_grad
                },
                "centers_gradient_norm": norm(step.centers.grad),
            }
        gradient = step.update()
        out["loss"].append(loss.item())
        out["gradient_norm"].append(gradient.item())
    net.eval()
    with torch.no_grad():
        out["eval_embedding"] = describe(net(pixels[: case["batch"]]))
    out["weight_norms"] = {
        name: norm(value)
        for name, value in net.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    out["centers_norm"] = norm(step.centers)
    return out


def norm(tensor):
    return tensor.detach().double().norm().item()


def describe(embedding):
    return [{"first": row[:4].tolist(), "norm": norm(row)} for row in embedding.double()]


def expected(name):
    """The case's result: float64's numbers, float32's losses for reference, and its inputs."""
    case = CASES[name]
    state, centers = weights(case)
    images, labels = data(case)
    double = run(case, state, centers, images, labels, torch.float64)
    single = run(case, state, centers, images, labels, torch.float32)
    result = {
        "case": name,
        "network": case["network"],
        "embedding": case["embedding"],
        "classes": CLASSES,
        "samples": case["samples"],
        "batch": case["batch"],
        "steps": STEPS,
        "recipe": RECIPE,
        "head": case["head"],
        "labels": labels,
        "inputs": inputs(state, centers, images),
        **double,
        "float32": {k: single[k] for k in ("loss", "gradient_norm", "eval_embedding")},
        "torch": torch.__version__.split("+")[0],
    }
    return result, state, centers, images, labels


def inputs(state, centers, images):
    """By which another writing of the formula shows that it has the same inputs."""
    return {
        "tensors": {name: checksum(value) for name, value in state.items()},
        "centers": checksum(centers),
        "centers_first": [float(v) for v in centers.reshape(-1)[:4]],
        "image0_first": images[0].reshape(-1)[:12].tolist(),
        "image_sums": [int(i.astype(np.int64).sum()) for i in images],
    }


def checksum(tensor):
    """FNV-1a of the little-endian bytes of the first 1024 elements."""
    return f"{fnv_bytes(tensor.reshape(-1)[:1024].astype('<f4').tobytes()):016x}"


def fnv_bytes(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = ((value ^ byte) * 0x100000001B3) & formula.MASK64
    return value


def write_records(folder, images, labels):
    """train.rec and train.idx in im2rec's dialect: keys 0..N-1, scalar labels, PNG."""
    with open(os.path.join(folder, "train.rec"), "wb") as rec, open(
        os.path.join(folder, "train.idx"), "w"
    ) as idx:
        for i, (pixels, label) in enumerate(zip(images, labels)):
            png = io.BytesIO()
            Image.fromarray(pixels).save(png, "PNG")
            payload = struct.pack("<IfQQ", 0, label, i, 0) + png.getvalue()
            idx.write(f"{i}\t{rec.tell()}\n")
            rec.write(split_record(payload))


def split_record(payload):
    """dmlc framing; a payload with an aligned magic word is cut there, as its writer does."""
    magic = struct.pack("<I", 0xCED7230A)
    cuts = [at for at in range(0, len(payload) - 3, 4) if payload[at : at + 4] == magic]
    parts = [payload[a:b] for a, b in zip([0] + [c + 4 for c in cuts], cuts + [len(payload)])]
    out = b""
    for i, part in enumerate(parts):
        flag = 0 if len(parts) == 1 else 1 if i == 0 else 3 if i == len(parts) - 1 else 2
        out += magic + struct.pack("<I", flag << 29 | len(part)) + part + b"\0" * (-len(part) % 4)
    return out


def write_job(folder, name):
    case = CASES[name]

    def line(key, value):
        return f"{key} = {json.dumps(value)}\n"

    text = f'name = "parity-{name}"\nseed = 2048\n\n[device]\nplugin = "cpu"\nprecision = "fp32"\n'
    text += f'\n[backbone]\n{BACKBONE_KEYS[case["network"]]}'
    text += "\n[head]\n" + "".join(line(k, v) for k, v in case["head"].items())
    text += '\n[parallelism]\nplugin = "model_parallel"\n'
    text += '\n[optimizer]\nplugin = "sgd"\n' + "".join(line(k, v) for k, v in RECIPE.items())
    text += '\n[schedule]\nplugin = "step"\n'
    text += '\n[dataset]\nplugin = "recordio"\npath = "train.rec"\n'
    text += f'classes = {CLASSES}\nbatch = {case["batch"]}\nshuffle = false\nflip = 0.0\n'
    text += '\n[init]\nbackbone = "backbone.safetensors"\ncenters = "centers.safetensors"\n'
    text += f"\n[run]\nsteps = {STEPS}\n"
    with open(os.path.join(folder, "job.toml"), "w") as file:
        file.write(text)


def write_json(path, result):
    with open(path, "w") as file:
        json.dump(result, file, indent=1)
        file.write("\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("case", nargs="?", choices=sorted(CASES))
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--store", nargs="*", metavar="CASE", help="rewrite expected/*.json")
    parser.add_argument("--list", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(2)
    if args.list:
        print("\n".join(CASES))
    elif args.store is not None:
        folder = os.path.join(HERE, "expected")
        os.makedirs(folder, exist_ok=True)
        for name in args.store or CASES:
            result = expected(name)[0]
            write_json(os.path.join(folder, name + ".json"), result)
            print(f"{name}: loss {result['loss'][0]:.6f} .. {result['loss'][-1]:.6f}", flush=True)
    elif args.folder:
        os.makedirs(args.folder, exist_ok=True)
        result, state, centers, images, labels = expected(args.case)
        save_file(state, os.path.join(args.folder, "backbone.safetensors"))
        save_file({"weight": centers}, os.path.join(args.folder, "centers.safetensors"))
        write_records(args.folder, images, labels)
        write_job(args.folder, args.case)
        write_json(os.path.join(args.folder, "expected.json"), result)
    else:
        parser.error("give a case and a folder, --store or --list")
    return 0


if __name__ == "__main__":
    sys.exit(main())
