"""The command line `nestfold`: what is installed, one run, and a comparison of backends.

Exit codes: 0 done; 1 the run met a value that is not finite; 2 what was asked for cannot be done, told in one
line on standard error; 130 interrupted.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from ._cli_compare import compare
from ._cli_info import info
from ._cli_output import CommandError
from ._cli_problem import DTYPES, ESTIMATORS, PROBLEMS, Settings
from ._cli_run import run
from ._version import __version__
from .backends import BackendUnavailableError, ShapeError
from .testing import BACKENDS


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out the command line `argv` (default: the process's own) and return the exit code."""
    try:
        options = _parser().parse_args(argv)
        return options.function(options)
    except (CommandError, BackendUnavailableError, ShapeError) as error:
        print(f"nestfold: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("nestfold: interrupted before there was anything to tell", file=sys.stderr)
        return 130


class _Parser(argparse.ArgumentParser):
    """Bad usage is told in one line."""

    def error(self, message: str) -> NoReturn:
        raise CommandError(f"{message}; see {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="nestfold", description="Nested optimization on manifolds, on any array framework.")
    parser.add_argument("--version", action="version", version=f"nestfold {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_info(commands)
    _add_run(commands)
    _add_compare(commands)
    return parser


def _add_info(commands: argparse._SubParsersAction) -> None:
    text = "versions, and which backends can compute here, on which devices"
    parser = commands.add_parser("info", help=text, description=f"Tell {text}.")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(function=info)


def _add_run(commands: argparse._SubParsersAction) -> None:
    text = "minimize a ready-made bilevel problem on one backend"
    about = f"{text.capitalize()}, and compare the result with its closed form."
    parser = commands.add_parser("run", help=text, description=about)
    _add_problem(parser, steps=100)
    parser.add_argument("--backend", choices=BACKENDS, default="numpy", help="default: numpy")
    parser.add_argument("--device", metavar="NAME", help="such as cpu or cuda:0; 'nestfold info' lists them")
    parser.add_argument("--json", metavar="FILE", help="write everything as JSON; '-' is standard output")
    parser.add_argument("--plot", metavar="FILE", help="draw the run (.png, .pdf or .svg); needs nestfold[cli]")
    parser.add_argument("--quiet", action="store_true", help="print the summary only, show no progress bar")
    parser.set_defaults(function=lambda options: run(options, _settings(options)))


def _add_compare(commands: argparse._SubParsersAction) -> None:
    text = "the same run on several backends, and how far apart they end"
    parser = commands.add_parser("compare", help=text, description=f"Tell {text}.")
    _add_problem(parser, steps=20)
    parser.add_argument("--backends", metavar="NAMES", help="separated by commas; default: all that can compute here")
    parser.add_argument("--json", metavar="FILE", help="write everything as JSON; '-' is standard output")
    parser.add_argument("--quiet", action="store_true", help="print the tables only")
    parser.set_defaults(function=lambda options: compare(options, _settings(options)))


def _add_problem(parser: argparse.ArgumentParser, steps: int) -> None:
    """What both `run` and `compare` take."""
    count, positive = _whole(0), _whole(1)
    parser.add_argument("problem", metavar="PROBLEM", choices=PROBLEMS, help=", ".join(PROBLEMS))
    parser.add_argument("--dtype", choices=DTYPES, default="float64", help="default: float64")
    parser.add_argument("--estimator", choices=tuple(ESTIMATORS), default="cg", help="how the hypergradient is had")
    parser.add_argument(
        "--unrolled-steps",
        type=positive,
        default=50,
        metavar="N",
        help="for --estimator unrolled; default: 50",
    )
    parser.add_argument("--steps", type=count, default=steps, metavar="N", help=f"outer steps; default: {steps}")
    parser.add_argument("--seed", type=count, default=0, metavar="N", help="of the data and the start; default: 0")
    parser.add_argument("--d", type=positive, default=50, metavar="N", help="size of the inner matrix; default: 50")
    parser.add_argument("--r", type=positive, default=20, metavar="N", help="columns of the outer point; default: 20")
    parser.add_argument("--n", type=positive, metavar="N", help="rows of the data, at least d; default: 2 d")
    parser.add_argument("--nu", type=_positive_number, default=0.01, metavar="X", help="shift ν > 0; default: 0.01")


def _settings(options: argparse.Namespace) -> Settings:
    names = ("problem", "dtype", "estimator", "unrolled_steps", "steps", "d", "r", "n", "nu", "seed")
    return Settings(**{name: getattr(options, name) for name in names})


def _whole(least: int) -> Callable[[str], int]:
    def whole_number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
        return value

    return whole_number


def _positive_number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (0 < value < math.inf):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return value
