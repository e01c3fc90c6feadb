"""Builds fastpdr._C with CMake; metadata is in pyproject.toml, flags and sources in CMakeLists.txt.

FASTPDR_PYTHON_ONLY=1 installs without a compiler (the plain PyTorch reference serves);
FASTPDR_CUDA=AUTO|ON|OFF and FASTPDR_STRICT=ON|OFF are handed to CMake.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()


class CMakeBuild(build_ext):
    """Configures and builds the target _C into the place where setuptools expects the extension."""

    def build_extension(self, ext):
        if importlib.util.find_spec("torch") is None:
            sys.exit(
                "fastpdr compiles against the installed torch. Install torch first, then run\n"
                "    pip install setuptools pybind11 cmake ninja && pip install --no-build-isolation .\n"
                "or install without a compiler: FASTPDR_PYTHON_ONLY=1 pip install ."
            )
        import pybind11

        module = Path(self.get_ext_fullpath(ext.name)).resolve()
        # Not setuptools' own folder, which is a new one every time: only what changed is compiled again.
        build = ROOT / "build" / f"cmake-{sys.implementation.cache_tag}"
        build.mkdir(parents=True, exist_ok=True)
        configure = [
            "cmake", "-S", str(ROOT), "-B", str(build), "-G", "Ninja",
            f"-DCMAKE_MAKE_PROGRAM={shutil.which('ninja')}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={module.parent}",
            f"-DFASTPDR_CUDA={os.environ.get('FASTPDR_CUDA', 'AUTO')}",
            f"-DFASTPDR_STRICT={os.environ.get('FASTPDR_STRICT', 'OFF')}",
        ]  # fmt: skip
        subprocess.run(configure, check=True)
        subprocess.run(["cmake", "--build", str(build), "--target", "_C"], check=True)


python_only = os.environ.get("FASTPDR_PYTHON_ONLY", "0") == "1"
setup(
    ext_modules=[] if python_only else [Extension("fastpdr._C", sources=[])],
    cmdclass={"build_ext": CMakeBuild},
)
