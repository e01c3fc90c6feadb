"""Pictures with matplotlib: maps, maps side by side, losses, R_NX curves.

Figures are made without pyplot: nothing needs a display, no global state changes, and nothing stays in memory after
the caller drops it. matplotlib is imported when something is drawn.
"""

from __future__ import annotations

from fastpdr.plotting.colors import (
    CLASS_COLORS,
    FRAME_COLOR,
    MISSING_COLOR,
    TEN_COLORS,
    as_classes,
    as_labels,
    class_colors,
    is_continuous,
)
from fastpdr.plotting.curves import loss, rnx
from fastpdr.plotting.figures import require_matplotlib, save
from fastpdr.plotting.maps import INK_SHARE, LEGEND_CLASSES, MANY_POINTS, as_points, compare, map, square_around
from fastpdr.plotting.names import WRITTEN_CLASSES

__all__ = [
    "CLASS_COLORS",
    "FRAME_COLOR",
    "INK_SHARE",
    "LEGEND_CLASSES",
    "MANY_POINTS",
    "MISSING_COLOR",
    "TEN_COLORS",
    "WRITTEN_CLASSES",
    "as_classes",
    "as_labels",
    "as_points",
    "class_colors",
    "compare",
    "is_continuous",
    "loss",
    "map",
    "require_matplotlib",
    "rnx",
    "save",
    "square_around",
]
