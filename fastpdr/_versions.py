"""The versions that a result depends on."""

from __future__ import annotations

import platform


def versions() -> dict[str, str]:
    """Return the versions a result depends on."""
    import numpy
    import sklearn
    import torch

    import fastpdr

    return {
        "fastpdr": fastpdr.__version__,
        "torch": str(torch.__version__),
        "numpy": numpy.__version__,
        "scikit-learn": sklearn.__version__,
        "python": platform.python_version(),
    }
