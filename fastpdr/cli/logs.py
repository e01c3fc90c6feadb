"""The option -v of every command: what the library logs, on stderr, between bars of progress and not through them."""

from __future__ import annotations

import logging
import sys
from functools import partial
from typing import Any

import click

LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)
COUNT = "fastpdr.cli.logs"


class Command(click.Command):
    """A command that has -v as well, since people write it at the end."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        verbosity(self)


def verbosity(command: Any) -> Any:
    """Give a command the option -v, which counts."""
    click.option(
        "-v",
        "--verbose",
        count=True,
        expose_value=False,
        callback=_listen,
        help="Log what is done and how long it took; -vv for all.",
    )(command)
    return command


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        tqdm.write(self.format(record), file=sys.stderr)


def _listen(context: click.Context, _: click.Parameter, count: int) -> None:
    """Show more the more often the option is given, before the command and after it, until the program ends."""
    earlier = context.meta.setdefault(COUNT, 0)
    context.meta[COUNT] = earlier + count
    logger, root = logging.getLogger("fastpdr"), context.find_root()
    if context is root:
        handler = _Handler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
        logger.addHandler(handler)
        root.call_on_close(partial(logger.setLevel, logger.level))
        root.call_on_close(partial(logger.removeHandler, handler))
    logger.setLevel(LEVELS[min(context.meta[COUNT], len(LEVELS) - 1)])
