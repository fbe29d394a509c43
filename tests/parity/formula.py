"""The weights, images and labels of the parity cases, as closed formulas (README.md).

Everything is Philox-4x32-10 (ftrain/base/philox.h) and arithmetic whose result is the same to the
bit in C++ and numpy.
"""

import math

import numpy as np

SEED = 2048
MASK32 = np.uint64(0xFFFFFFFF)
MASK64 = (1 << 64) - 1
SQRT3 = 1.7320508075688772


def fnv1a64(text):
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = ((value ^ byte) * 0x100000001B3) & MASK64
    return value


def mix64(a, b):
    z = (a + 0x9E3779B97F4A7C15 * (b + 1)) & MASK64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK64
    return z ^ (z >> 31)


def philox(key, high, low):
    """Words [4, n] of Philox::at(key, high, low[n])."""
    shift = np.uint64(32)
    low = np.asarray(low, np.uint64)
    c = [
        low & MASK32,
        low >> shift,
        np.full_like(low, high & 0xFFFFFFFF),
        np.full_like(low, high >> 32),
    ]
    k0, k1 = key & 0xFFFFFFFF, key >> 32
    for _ in range(10):
        p0 = np.uint64(0xD2511F53) * c[0]
        p1 = np.uint64(0xCD9E8D57) * c[2]
        c = [
            (p1 >> shift) ^ c[1] ^ np.uint64(k0),
            p1 & MASK32,
            (p0 >> shift) ^ c[3] ^ np.uint64(k1),
            p0 & MASK32,
        ]
        k0 = (k0 + 0x9E3779B9) & 0xFFFFFFFF
        k1 = (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack(c).astype(np.uint32)


def normal(name, shape, std, mean=0.0):
    """f32 tensor `name`: (four uniforms - 2) * sqrt(3) * std + mean, in double, rounded once."""
    count = math.prod(shape)
    out = np.empty(count, np.float32)
    key = mix64(SEED, fnv1a64(name))
    for begin in range(0, count, 1 << 18):
        end = min(count, begin + (1 << 18))
        words = philox(key, 0, np.arange(begin, end, dtype=np.uint64)) >> np.uint32(8)
        total = words.astype(np.int64).sum(axis=0).astype(np.float64) / 16777216.0
        out[begin:end] = ((total - 2.0) * SQRT3 * std + mean).astype(np.float32)
    return out.reshape(shape)


def image(index, size=112):
    """u8 [size, size, 3]: bytes on a grid of 16 pixels, bilinear in integers, plus noise."""
    nodes = size // 16 + 1
    grid = philox(mix64(SEED, fnv1a64("image.grid")), index, np.arange(3 * nodes * nodes))[0] >> 24
    grid = grid.astype(np.int32).reshape(3, nodes, nodes)
    at = np.arange(size)
    cell, part = at // 16, at % 16
    y0, fy = cell[:, None], part[:, None]
    x0, fx = cell[None, :], part[None, :]
    smooth = (16 - fy) * ((16 - fx) * grid[:, y0, x0] + fx * grid[:, y0, x0 + 1]) + fy * (
        (16 - fx) * grid[:, y0 + 1, x0] + fx * grid[:, y0 + 1, x0 + 1]
    )
    low = np.arange(size * size * 3)
    noise = philox(mix64(SEED, fnv1a64("image.noise")), index, low)[0] >> 27
    noise = noise.astype(np.int32).reshape(size, size, 3) - 16
    return np.clip((smooth >> 8).transpose(1, 2, 0) + noise, 0, 255).astype(np.uint8)


def label(index, classes):
    """Distinct for fewer samples than classes; sample 0 has the highest class."""
    return (classes - 1 + 33 * index) % classes


def law(name, shape, network):
    """(standard deviation, mean) of a state_dict entry's start value; 0 deviation: constant."""
    iresnet = network.startswith("r")
    if name.endswith("running_mean"):
        return 0.0, 0.0
    if name.endswith("running_var") or (iresnet and name == "features.weight"):
        return 0.0, 1.0
    if name in ("fc.weight", "fc.bias"):
        return 1 / math.sqrt(3 * 25088), 0.0
    if len(shape) == 1:
        if name.endswith("bias"):
            return 0.1, 0.0
        if name.endswith(("prelu.weight", ".layers.2.weight")):
            return 0.05, 0.25 if iresnet else 0.9
        return 0.1, 1.0
    if iresnet:
        return 0.1, 0.0
    return math.sqrt(2.0 / (shape[0] * math.prod(shape[2:]))), 0.0


def weight(name, shape, network):
    """The start value of a state_dict entry."""
    std, mean = law(name, shape, network)
    return normal(name, shape, std, mean) if std else np.full(shape, mean, np.float32)
