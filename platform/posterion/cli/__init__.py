"""The command line: ``posterion``.

Commands come from the entry-point group ``posterion.commands`` and the platform's servers
from ``posterion.services``, so this room knows no package that adds to it. What those
packages need to fit in is in :mod:`posterion.cli.render` (output),
:mod:`posterion.cli.services` (what a server must offer) and
:mod:`posterion.cli.processes` (how to run one).
"""

from posterion.cli._main import main

__all__ = ["main"]
