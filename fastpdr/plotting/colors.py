"""What colours a point: its class, a value on a scale, or neither; no matplotlib here.

Colours stay apart under every common form of colour blindness up to ten classes: Okabe and Ito's eight (yellow and
black softened for white paper) and two more, chosen for the largest smallest distance in Oklab under Machado's
simulation. Those beyond were found one after the other: each is the colour of lightness 0.33 to 0.87 and chroma 0.05 to
0.22 that is farthest from all before, from white and from the greys, with distances under simulated protanopia and
deuteranopia counted threefold. A hundred is all that an eye can hold apart; more classes share a grey.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

TEN_COLORS = (
    *("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#e8d92e", "#222222"),
    *("#7f4f24", "#4b2e83"),
)
MORE_COLORS = (
    "b6006d 9249db 00db6d 005555 6d0000 ff86ff 9e86ff 795586 3de7ff 313dce 86009e c20c00 9e9249 3d79ff f33d79 "
    "92e7aa 6d0055 ce55db ff9e9e 24793d 180c9e 8679b6 9e6d61 6dc29e 92243d aac249 ffb6f3 f3c286 553d00 ff6d61 "
    "0c9eb6 aa499e 86f361 009e0c b69edb ff61c2 003d6d 6155c2 315586 49b655 55313d 6124b6 ce9286 aa4961 008686 "
    "6d8631 793179 5592e7 243d24 00cedb 246100 aa6100 b6aa79 e792c2 006d6d db55aa db3d49 ce86ff 619286 ceb6ff "
    "79aab6 f3863d 616d9e ffc2c2 00e7c2 c2ce9e 7979e7 ce3d79 2461e7 793daa 61aa86 ce6d61 9ecee7 9e61c2 550079 "
    "6d6100 6d3d55 243d92 aa6d9e 3d18aa 86db18 9e2492 796d49 aa86c2 3d5531 869ee7 b64931 861800 b6db61 3d86aa "
)
CLASS_COLORS = TEN_COLORS + tuple(f"#{digits}" for digits in MORE_COLORS.split())
MISSING_COLOR = "#d9d9d9"
FRAME_COLOR = "#bbbbbb"
NEARNESS = 2.0  # what the extent of a map counts as between colours, which are 0.08 to 0.9 apart
LMS_OF_LIGHT = (
    (0.4122214708, 0.5363325363, 0.0514459929),
    (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)
LAB_OF_LMS = (
    (0.2104542553, 0.7936177850, -0.0040720468),
    (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
)


def is_continuous(labels: ArrayLike) -> bool:
    """Tell whether labels are values on a scale (any number with a fraction) and not classes.

    Parameters
    ----------
    labels : array-like [n]
        Labels of any kind.

    Returns
    -------
    bool
    """
    values = np.asarray(labels)
    if values.dtype.kind != "f":
        return False
    known = values[np.isfinite(values)]
    return bool(np.any(known != np.round(known)))


def as_labels(labels: ArrayLike, n: int, function: str, argument: str = "labels") -> NDArray:
    """Return labels as an array [n], or say in the name of a function what is wrong with them."""
    values = np.asarray(labels)
    if values.shape != (n,):
        raise ValueError(f"{function}: {argument} must be [n] = [{n}], got shape {list(values.shape)}")
    return values


def as_classes(values: NDArray) -> tuple[list[str], NDArray[np.int64]]:
    """Return the names of the classes in order and the class of each row, -1 where it has no label."""
    if values.dtype.kind == "O":
        missing = np.array([str(value) in ("None", "nan", "<NA>", "NaT") for value in values], dtype=bool)
    else:
        missing = values != values
    # A list lets NumPy find out what the objects are: numbers sort as numbers.
    classes, known_codes = np.unique(np.array(values[~missing].tolist()), return_inverse=True)
    codes = np.full(len(values), -1)
    codes[~missing] = known_codes
    return [f"{name:.0f}" if classes.dtype.kind == "f" else str(name) for name in classes], codes


def class_colors(n: int) -> list[str]:
    """Return the colours of n classes as #rrggbb; those beyond a hundred have one grey in common."""
    return list(CLASS_COLORS[:n]) + [FRAME_COLOR] * (n - len(CLASS_COLORS))


def colors_apart(places: NDArray) -> list[str]:
    """Return colours for n classes at places [n, 2], as :func:`class_colors`, but unlike where classes are near.

    One class after the other takes the colour that is farthest, in Oklab and on the map together, from all taken.
    """
    colors = class_colors(len(places))
    n = min(len(places), len(CLASS_COLORS))
    lab = _oklab(colors[:n])
    unlike = np.linalg.norm(lab[:, None] - lab, axis=2)
    far = np.linalg.norm(places[:n, None] - places[:n], axis=2)
    far *= NEARNESS / max(float(far.max()), 1e-12)
    chosen = [0]
    for code in range(1, n):
        distance = (unlike[:, chosen] + far[code, :code]).min(axis=1)
        distance[chosen] = -1.0
        chosen.append(int(distance.argmax()))
    return [colors[i] for i in chosen] + colors[n:]


def _oklab(colors: Sequence[str]) -> NDArray[np.float64]:
    """Return Ottosson's Oklab [n, 3] of #rrggbb."""
    rgb = np.array([[int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)] for color in colors])
    light = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return np.cbrt(light @ np.transpose(LMS_OF_LIGHT)) @ np.transpose(LAB_OF_LMS)
