"""The training step in PyTorch: networks, margin heads, class-center step and optimizer.

Written for comparison only: tests/parity takes its numbers from here, bench/peer its speed.
Parameters carry the names (state_dict keys) of InsightFace's arcface_torch.
`python peer.py` checks the published parameter and entry counts.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

IRESNET_BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 14, 3),
    100: (3, 13, 30, 3),
    200: (6, 26, 60, 6),
}


class Flatten(nn.Module):
    def forward(self, x):
        return x.flatten(1)


class IBasicBlock(nn.Module):
    def __init__(self, inputs, planes, stride, eps):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs, eps=eps)
        self.conv1 = nn.Conv2d(inputs, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes, eps=eps)
        self.prelu = nn.PReLU(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes, eps=eps)
        self.downsample = None
        if stride != 1 or inputs != planes:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, planes, 1, stride, bias=False), nn.BatchNorm2d(planes, eps=eps)
            )

    def forward(self, x):
        out = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        out = self.bn3(self.conv2(out))
        return out + (x if self.downsample is None else self.downsample(x))


class IResNet(nn.Module):
    """`tail`: FC = bn, flatten, fc, bn; E = the same with dropout before fc; GDC = depthwise."""

    def __init__(self, depth, embedding=512, tail="FC", eps=1e-5, dropout=None, size=112):
        super().__init__()
        side = -(-size // 16)
        self.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(64, eps=eps)
        self.prelu = nn.PReLU(64)
        inputs = 64
        for stage, blocks in enumerate(IRESNET_BLOCKS[depth]):
            planes = 64 << stage
            layers = [IBasicBlock(inputs, planes, 2, eps)]
            layers += [IBasicBlock(planes, planes, 1, eps) for _ in range(blocks - 1)]
            setattr(self, f"layer{stage + 1}", nn.Sequential(*layers))
            inputs = planes
        self.tail = tail
        if tail == "GDC":
            self.features = GlobalDepthwise(512, side, embedding, eps)
        else:
            self.bn2 = nn.BatchNorm2d(512, eps=eps)
            if dropout is None:
                dropout = 0.4 if tail == "E" else 0.0
            self.dropout = nn.Dropout(dropout)
            self.fc = nn.Linear(512 * side * side, embedding)
            self.features = nn.BatchNorm1d(embedding, eps=eps)
            self.features.weight.requires_grad = False
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d) and not name.startswith("features"):
                nn.init.normal_(module.weight, 0, 0.1)

    def forward(self, x):
        x = self.prelu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        if self.tail == "GDC":
            return self.features(x)
        return self.features(self.fc(self.dropout(self.bn2(x).flatten(1))))


class ConvBlock(nn.Module):
    """Convolution, batch norm, and PReLU unless `linear`."""

    def __init__(self, inputs, outputs, kernel, stride, padding, groups, eps, linear=False):
        super().__init__()
        layers = [
            nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False),
            nn.BatchNorm2d(outputs, eps=eps),
        ]
        if not linear:
            layers.append(nn.PReLU(outputs))
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        return self.layers(x)


class DepthWise(nn.Module):
    def __init__(self, inputs, middle, outputs, stride, eps, residual=False):
        super().__init__()
        self.residual = residual
        self.layers = nn.Sequential(
            ConvBlock(inputs, middle, 1, 1, 0, 1, eps),
            ConvBlock(middle, middle, 3, stride, 1, middle, eps),
            ConvBlock(middle, outputs, 1, 1, 0, 1, eps, linear=True),
        )

    def forward(self, x):
        return x + self.layers(x) if self.residual else self.layers(x)


class Residual(nn.Module):
    def __init__(self, channels, middle, count, eps):
        super().__init__()
        self.layers = nn.Sequential(
            *[DepthWise(channels, middle, channels, 1, eps, residual=True) for _ in range(count)]
        )

    def forward(self, x):
        return self.layers(x)


class GlobalDepthwise(nn.Module):
    """One depthwise filter over the whole map, then a linear layer and batch norm."""

    def __init__(self, channels, side, embedding, eps):
        super().__init__()
        self.layers = nn.Sequential(
            ConvBlock(channels, channels, side, 1, 0, channels, eps, linear=True),
            Flatten(),
            nn.Linear(channels, embedding, bias=False),
            nn.BatchNorm1d(embedding, eps=eps),
        )
        kaiming(self)

    def forward(self, x):
        return self.layers(x)


def kaiming(root):
    for module in root.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class MobileFaceNet(nn.Module):
    def __init__(self, embedding=512, blocks=(1, 4, 6, 2), scale=2, eps=1e-5, size=112):
        super().__init__()
        c = 64 * scale
        stem = [ConvBlock(3, c, 3, 2, 1, 1, eps)]
        if blocks[0] == 1:
            stem.append(ConvBlock(c, c, 3, 1, 1, 64, eps))
        else:
            stem.append(Residual(c, 128, blocks[0], eps))
        self.layers = nn.ModuleList(
            stem
            + [
                DepthWise(c, 128, c, 2, eps),
                Residual(c, 128, blocks[1], eps),
                DepthWise(c, 256, 2 * c, 2, eps),
                Residual(2 * c, 256, blocks[2], eps),
                DepthWise(2 * c, 512, 2 * c, 2, eps),
                Residual(2 * c, 256, blocks[3], eps),
            ]
        )
        self.conv_sep = ConvBlock(2 * c, 512, 1, 1, 0, 1, eps)
        self.features = GlobalDepthwise(512, -(-size // 16), embedding, eps)
        kaiming(self)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.features(self.conv_sep(x))


def build(network, embedding=None, **options):
    """`network`: r18 r34 r50 r100 r200, mbf (512-d), mbf_large, y1 (128-d)."""
    if network == "mbf":
        return MobileFaceNet(embedding or 512, **options)
    if network == "mbf_large":
        return MobileFaceNet(embedding or 512, blocks=(2, 8, 12, 4), scale=4, **options)
    if network == "y1":
        return MobileFaceNet(embedding or 128, scale=1, **{"eps": 1e-3, **options})
    return IResNet(int(network[1:]), embedding or 512, **options)


class Margin:
    """Turns cosines [rows, classes] into logits.

    kind: softmax (the plain inner product of embedding and center), normalized_softmax, arcface
    (margin), cosface (margin), combined (m1, m2, m3: cos(m1 t + m2) - m3). `gradient`
    "straight_through" gives the target's margin slope 1; a `threshold` above 0 takes other
    classes whose cosine exceeds it out (logit 0, no gradient).
    """

    def __init__(self, kind, scale=64.0, margin=0.5, m1=1.0, m2=0.0, m3=0.0, gradient="exact",
                 threshold=0.0):
        self.kind, self.scale, self.gradient, self.threshold = kind, scale, gradient, threshold
        self.m1, self.m2, self.m3 = m1, m2, m3
        if kind == "arcface":
            self.m1, self.m2, self.m3 = 1.0, margin, 0.0
        elif kind == "cosface":
            self.m1, self.m2, self.m3 = 1.0, 0.0, margin
        elif kind in ("softmax", "normalized_softmax"):
            self.m1, self.m2, self.m3 = 1.0, 0.0, 0.0

    def logits(self, embedding, centers, labels):
        if self.kind == "softmax":
            return embedding @ centers.t()
        cosines = (F.normalize(embedding) @ F.normalize(centers).t()).clamp(-1, 1)
        column = labels[:, None]
        target = cosines.gather(1, column)
        value = target
        if self.m1 != 1.0 or self.m2 != 0.0:
            value = torch.cos(self.m1 * torch.acos(target) + self.m2)
        if self.m3 != 0.0:
            value = value - self.m3
        if self.gradient == "straight_through":
            value = target + (value - target).detach()
        if self.threshold > 0:
            cosines = cosines * (cosines <= self.threshold).to(cosines.dtype)
        return self.scale * cosines.scatter(1, column, value)


class Step:
    """One training step over a backbone and dense class centers; owns both and the optimizer.

    The optimizer covers every parameter, biases and batch norm included; the clip is over the
    backbone's gradient alone.
    """

    def __init__(self, backbone, centers, margin, rate=0.1, momentum=0.9, weight_decay=5e-4,
                 clip=5.0, exact_norm=False):
        self.backbone, self.margin, self.clip = backbone, margin, clip
        self.exact_norm = exact_norm
        self.forward = backbone
        self.centers = nn.Parameter(centers)
        self.trained = [p for p in backbone.parameters() if p.requires_grad]
        self.optimizer = torch.optim.SGD(
            self.trained + [self.centers], lr=rate, momentum=momentum, weight_decay=weight_decay
        )

    def set_rate(self, rate):
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def gradients(self, images, labels):
        """Loss and embedding of a batch of normalised images; leaves gradients in place."""
        self.optimizer.zero_grad(set_to_none=True)
        embedding = self.forward(images)
        embedding = embedding if embedding.dtype != torch.bfloat16 else embedding.float()
        loss = F.cross_entropy(self.margin.logits(embedding, self.centers, labels), labels)
        loss.backward()
        return loss.detach(), embedding.detach()

    def update(self):
        """Clips and applies the gradients; returns the norm before clipping.

        `exact_norm` sums the norm in float64: torch's own float32 sum over the 12.8 million
        elements of IResNet's fc is off by 1e-3.
        """
        if self.exact_norm:
            norm = math.sqrt(sum(p.grad.double().pow(2).sum().item() for p in self.trained))
            norm = torch.tensor(norm, dtype=torch.float64)
            torch.nn.utils.clip_grads_with_norm_(self.trained, self.clip or math.inf, norm)
        else:
            norm = torch.nn.utils.clip_grad_norm_(self.trained, self.clip or math.inf)
        self.optimizer.step()
        return norm

    def run(self, images, labels):
        loss, _ = self.gradients(images, labels)
        return loss, self.update()


def normalise(pixels, dtype=torch.float32):
    """u8 [N, H, W, 3] RGB to [-1, 1] planes [N, 3, H, W]."""
    return ((pixels.to(dtype) / 255 - 0.5) / 0.5).permute(0, 3, 1, 2).contiguous()


PUBLISHED = {
    "r18": (24025600, 187),
    "r34": (34139328, 331),
    "r50": (43590848, 475),
    "r100": (65156160, 925),
    "r200": (118833920, 1807),
    "mbf": (2059520, 333),
    "mbf_large": (6314880, 606),
}


def check():
    for name, wanted in PUBLISHED.items():
        net = build(name)
        got = (sum(p.numel() for p in net.parameters()), len(net.state_dict()))
        assert got == wanted, f"{name}: {got}, published {wanted}"
        print(f"{name:10} {got[0]:>11,} parameters {got[1]:>5} entries")


if __name__ == "__main__":
    check()
