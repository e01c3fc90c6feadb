"""Word vectors: their angles say what words mean, so neighbours are those of the cosine distance.

Takes 15 seconds on 2,400 vectors drawn around 40 topics; with --data a minute and a half on 20,000 vectors of GloVe
(glove_341k.npz; --rows 341479 takes them all). Writes map.png.
"""

from __future__ import annotations

import common
import numpy as np
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import normalize

import fastpdr

options = common.parser(__doc__, rows=20_000).parse_args()
folder = common.output_folder(options, "word_vectors")


def drawn_vectors(n: int, width: int = 50, fields: int = 8, topics: int = 40) -> np.ndarray:
    """Stand-in data: directions around those of topics in a few fields, at lengths that say nothing about either."""
    rng = np.random.default_rng(0)
    directions = normalize(rng.normal(size=(fields, width)))[np.arange(topics) % fields]
    directions = normalize(directions + rng.normal(scale=0.7 / np.sqrt(width), size=(topics, width)))
    words = directions[rng.integers(topics, size=n)] + rng.normal(scale=0.7 / np.sqrt(width), size=(n, width))
    return (normalize(words) * rng.lognormal(1.5, 0.6, size=(n, 1))).astype(np.float32)


real = common.load(options, "glove_341k.npz")
X = real["X"].astype(np.float32) if real else drawn_vectors(min(2_400, options.rows))
train, test = train_test_split(X, test_size=min(0.25, 5_000 / len(X)), random_state=0)

# Measures compare by Euclidean distance: of vectors of length 1 it ranks as the cosine distance does.
judged = normalize(test)
for metric in ("euclidean", "cosine"):
    model = fastpdr.ParametricUMAP(metric=metric, n_epochs=options.epochs, random_state=0, verbose=True).fit(train)
    Z = model.transform(test)
    sample = min(2_000, len(test))
    kept = fastpdr.metrics.neighborhood_preservation(judged, Z, n_neighbors=15, sample=sample)
    trust = fastpdr.metrics.trustworthiness(judged, Z, n_neighbors=15, sample=sample)
    print(f"metric={metric}: {len(test)} unseen words, neighbours kept {kept:.3f}, trustworthiness {trust:.3f}")

# The network reads vectors of any length. Where length means nothing at all, normalise the rows before the fit.
lengths = np.log10(np.linalg.norm(train, axis=1))
lengths = lengths.clip(*np.percentile(lengths, [1, 99]))
axes = fastpdr.plotting.map(model.embedding_, lengths, title="training words by log10 of their vectors' lengths")
fastpdr.plotting.save(axes, folder / "map.png")
print(f"written: {folder}")
