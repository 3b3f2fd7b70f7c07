"""The `vitcnn` command. Whatever is heavy is loaded by the sub-command that needs it."""

import argparse
import errno
import io
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vitcnn_utils.errors import VitcnnError, near


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one sub-command; gives the exit status: 0, 1 for an error of the user's, 130 when interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal may know ASCII only
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that what is open is closed
    options = _parser().parse_args(arguments)
    try:
        options.command(options)
        sys.stdout.flush()
    except VitcnnError as error:
        return _fail(str(error))
    except ModuleNotFoundError as error:
        return _fail(f"this needs {error.name}: in a clone of the repository, pip install -e '.[notebooks,book]'")
    except BrokenPipeError:  # the reader has closed the pipe, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno not in _OF_THE_DISK:
            raise
        return _fail(f"{error.filename or 'disk'}: {error.strerror}: mend this, and the same command goes on")
    except KeyboardInterrupt:
        print("\nvitcnn: interrupted: what is complete is kept, and the same command goes on", file=sys.stderr)
        return 130
    return 0


_OF_THE_DISK = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)
"""Errors of the system: this user may not write there, or the disk is full."""


def _fail(message: str) -> int:
    for line in message.splitlines():  # one, but where several things are wrong
        print(f"vitcnn: {line}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vitcnn", description="Do vision transformers see like CNNs? The book's tools."
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="execute the notebooks of editions; only those of which anything has changed")
    run.add_argument(
        "editions", nargs="+", metavar="EDITION", help="the name of a file in notebooks/editions, such as zoo"
    )
    run.add_argument(
        "--notebook", action="append", default=[], metavar="NOTEBOOK", help="only this one (2, or 2_local_and_global)"
    )
    _add_parameter(run, "replace a value of the edition; VALUE is YAML, such as 512 or zoo/vit-gap")
    run.add_argument(
        "--quick", action="store_true",
        help="try all chapters on few images, in _build/quick, and tell how long the whole would take",
    )  # fmt: skip
    run.add_argument(
        "--scheduler", metavar="ADDRESS",
        help="of a Dask scheduler, such as tcp://HOST:8786, whose workers run the notebooks (default: this machine)",
    )  # fmt: skip
    run.set_defaults(command=_run)

    check = commands.add_parser("check", help="tell whether an edition can be run, and what has to be fetched")
    check.add_argument("edition", metavar="EDITION", help="the name of a file in notebooks/editions, such as zoo")
    _add_parameter(check, "as for run")
    check.set_defaults(command=_check)

    claims = commands.add_parser("claims", help="list the claims of an edition that has been run, with their verdicts")
    claims.add_argument("edition", metavar="EDITION", help="as for run")
    form = claims.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="all of each claim, for machines")
    form.add_argument(
        "--stability", action="store_true",
        help="run the edition again with other images and its second ViT, and note which verdicts change",
    )  # fmt: skip
    _add_parameter(claims, "with --stability, for a trial")
    claims.set_defaults(command=_claims)

    book = commands.add_parser("book", help="build the static book from the executed notebooks")
    book.set_defaults(command=_book)

    train = commands.add_parser("train", help="train models of the zoo; goes on where it was interrupted")
    which = train.add_mutually_exclusive_group(required=True)
    which.add_argument("name", nargs="?", metavar="NAME", help="such as zoo/vit-cls; `vitcnn zoo` lists them")
    which.add_argument(
        "--all", action="store_true", help="all that have no weights by their recipe yet, at the lowest priority"
    )
    train.add_argument("--jobs", type=int, default=1, metavar="N", help="with --all: so many at a time (default: 1)")
    train.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: the weights of the package)")
    _add_training(train, "where trainings that have not ended are kept")
    train.set_defaults(command=_train)

    tune = commands.add_parser("tune", help="try a recipe: train without 5,000 training images, and test on these")
    tune.add_argument("name", metavar="NAME", help="such as zoo/vit-cls; `vitcnn zoo` lists them")
    _add_parameter(tune, "replace a value of the recipe, such as learning_rate 2e-3")
    _add_training(tune, "where to add what was measured, to tuning.jsonl")
    tune.set_defaults(command=_tune)

    handout = commands.add_parser("handout", help="write one zip for a class without network: book, exercises, models")
    handout.add_argument("--out", type=Path, metavar="FILE", help="where to write (default: _build/handout.zip)")
    handout.add_argument("--check", action="store_true", help="tell whether this machine is ready for the exercises")
    handout.set_defaults(command=_handout)

    zoo = commands.add_parser("zoo", help="list the models that ship with the package")
    zoo.set_defaults(command=_zoo)
    return parser


def _add_training(command: argparse.ArgumentParser, runs: str) -> None:
    data = "CIFAR-10 as parquet files (default: $VITCNN_DATA, ./data/cifar10, or from the hub)"
    command.add_argument("--data", type=Path, metavar="DIR", help=data)
    command.add_argument("--device", default="auto", help="cpu, cuda, mps or auto (default)")
    runs += " (default: runs/zoo)"
    command.add_argument("--runs", type=Path, default=Path("runs/zoo"), metavar="DIR", help=runs)


def _add_parameter(command: argparse.ArgumentParser, what: str) -> None:
    pair: dict[str, Any] = {"nargs": 2, "action": "append", "default": [], "metavar": ("NAME", "VALUE")}
    command.add_argument("-p", "--parameter", help=what, **pair)


def _parameters(options: argparse.Namespace) -> dict[str, Any]:
    from vitcnn_utils.editions.parameters import read_yaml

    return {name: read_yaml(value, "a value after -p") for name, value in options.parameter}


def _run(options: argparse.Namespace) -> None:
    from vitcnn_utils.editions.chapters import run_editions

    run_editions(options.editions, options.notebook, _parameters(options), options.scheduler, options.quick)


def _check(options: argparse.Namespace) -> None:
    from vitcnn_utils.editions.check import check_edition

    check_edition(options.edition, _parameters(options))


def _claims(options: argparse.Namespace) -> None:
    import json

    from vitcnn_utils.editions import stability
    from vitcnn_utils.editions.ledger import edition_claims

    if options.stability:
        print(stability.run_again(options.edition, _parameters(options)))
        return
    if options.parameter:
        raise VitcnnError("claims: -p goes with --stability; the claims are those of what has been run")
    found = edition_claims(options.edition)
    if options.json:
        print(json.dumps(found, indent=1, ensure_ascii=False))
    else:
        for row in found["claims"]:
            of = f" ({row['of']})" if row["of"] else ""
            print(f"{row['verdict']:22} Fig. {row['figure']:6} {row['paper']}{of}")


def _book(options: argparse.Namespace) -> None:
    from vitcnn_utils.editions.book import build_book

    print(build_book())


def _train(options: argparse.Namespace) -> None:
    from vitcnn_utils.models.load import find_device
    from vitcnn_utils.zoo import FOLDER
    from vitcnn_utils.zoo.queue import train_all
    from vitcnn_utils.zoo.recipes import find_recipe
    from vitcnn_utils.zoo.trainer import find_cifar10, train

    recipe = None if options.all else find_recipe(options.name)
    device = str(find_device(options.device))
    data = options.data or find_cifar10()
    out = options.out or FOLDER
    if recipe is None:
        train_all(data, out, options.runs, device, options.jobs)
    else:
        print(train(options.name, recipe, data, out, options.runs, device))


def _tune(options: argparse.Namespace) -> None:
    from dataclasses import fields, replace

    from vitcnn_utils.models.load import find_device
    from vitcnn_utils.zoo.recipes import find_recipe
    from vitcnn_utils.zoo.trainer import find_cifar10, tune

    recipe = find_recipe(options.name)
    types = {field.name: type(getattr(recipe, field.name)) for field in fields(recipe)}
    changes = _parameters(options)
    for name, value in changes.items():
        if name not in types:
            raise VitcnnError(f"a recipe has no {name!r}{near(name, list(types))}")
        try:
            # YAML reads 1e-3 as text and 1 as a whole number.
            changes[name] = value if types[name] is type(None) else types[name](value)
        except (TypeError, ValueError):
            raise VitcnnError(f"{name} must be of the kind {types[name].__name__}, not {value!r}") from None
    data = options.data or find_cifar10()
    record = options.runs / "tuning.jsonl"
    result = tune(options.name, replace(recipe, **changes), data, record, str(find_device(options.device)))
    print(f"{result:.1%} of the 5,000 held-out training images right; added to {record}")


def _handout(options: argparse.Namespace) -> None:
    from vitcnn_utils.course import handout

    if options.check:
        if not handout.check():
            raise VitcnnError("this machine is not ready for the exercises: see above")
        return
    from vitcnn_utils.editions.chapters import find_root  # needs packages of which `check` tells that they are missing

    root = find_root()
    print(handout.make(root, options.out or root / "_build" / "handout.zip"))


def _zoo(options: argparse.Namespace) -> None:
    from vitcnn_utils.zoo import card, names

    for name in names():
        facts = card(name)
        print(f"{name:28} {facts['parameters']:>9,} parameters  {facts['test_accuracy']:.1%} of the test images right")


if __name__ == "__main__":
    sys.exit(main())
