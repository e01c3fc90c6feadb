"""``python -m fastpdr``: the command line, as torchrun starts it."""

from fastpdr.cli import main

main(prog_name="fastpdr")
