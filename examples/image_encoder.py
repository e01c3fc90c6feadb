"""An own network in place of the built-in one: convolutions, on images.

Takes 15 seconds on scikit-learn's digits (8 x 8 pixels); with --data a minute and a half on 10,000 rows of
Fashion-MNIST (fashion_mnist_70k.npz, 28 x 28). Writes map.png and the folder model.
"""

from __future__ import annotations

import math

import common
import torch
from sklearn.model_selection import train_test_split
from torch import nn

import fastpdr

options = common.parser(__doc__, rows=10_000).parse_args()
folder = common.output_folder(options, "image_encoder")

X, y = common.digits_or(options, "fashion_mnist_70k.npz")
train, test, y_train, y_test = train_test_split(X, y, random_state=0)


def encoder(pixels: int, brightest: float) -> nn.Module:
    """A network from raw float32 rows [b, pixels] to places [b, 2]; its first layers make images of the rows."""
    side = math.isqrt(pixels)

    def block(channels: int, wider: int) -> nn.Module:
        # GroupNorm and not BatchNorm: a row's place shall not depend on the other rows of its batch.
        return nn.Sequential(nn.Conv2d(channels, wider, 3, 2, 1), nn.GroupNorm(8, wider), nn.GELU())

    return nn.Sequential(
        Brightness(brightest),
        nn.Unflatten(1, (1, side, side)),
        block(1, 32),
        block(32, 64),
        nn.Flatten(),
        nn.Linear(64 * math.ceil(side / 4) ** 2, 128),
        nn.LayerNorm(128),
        nn.GELU(),
        nn.Linear(128, 2),
    )


class Brightness(nn.Module):
    """Scales pixels to 0 .. 1: an own network gets raw rows. A buffer is saved with the weights."""

    def __init__(self, brightest: float) -> None:
        super().__init__()
        self.register_buffer("brightest", torch.tensor(brightest))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Return rows [b, pixels] scaled."""
        return rows / self.brightest


# The neighbours are those of the pixels, whatever the network: search once, train both on the same graph.
graph = fastpdr.KNNGraph.build(train, 14)
own = encoder(X.shape[1], float(train.max()))
for name, network in (("built-in network", None), ("convolutions", own)):
    model = fastpdr.ParametricUMAP(
        encoder=network, precomputed_knn=graph, n_epochs=options.epochs, random_state=0, verbose=True
    ).fit(train)
    Z = model.transform(test)
    weights = sum(parameter.numel() for parameter in model.encoder_.parameters())
    accuracy = fastpdr.metrics.knn_accuracy(model.embedding_, y_train, Z, y_test)
    trust = fastpdr.metrics.trustworthiness(test, Z)
    print(f"{name}: {weights} weights, trustworthiness {trust:.3f}, accuracy {accuracy:.3f} on {len(test)} unseen rows")

axes = fastpdr.plotting.map(Z, y_test, title=f"{len(test)} images never seen, placed by convolutions")
fastpdr.plotting.save(axes, folder / "map.png")

# Weights are saved, code is not: whoever loads the model brings a network of the same shape.
model.save(folder / "model", overwrite=True)
again = fastpdr.load(folder / "model", encoder=encoder(X.shape[1], 1.0))
print(f"loaded: same places {(again.transform(test) == Z).all()}")
print(f"written: {folder}")
