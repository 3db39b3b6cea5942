"""The command `zhixing`: list what there is, copy it, check and update what was copied."""

import argparse
import sys
from pathlib import Path

from zhixing_copy import project
from zhixing_copy.catalogue import Refusal, entries, find, installed, read


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 0; 1 if a file is not as it was copied, or could not be merged; 2 for a bad request."""
    parser = argparse.ArgumentParser(prog="zhixing", description="Copy verified code into a project.")
    commands = parser.add_subparsers(dest="command", required=True)
    show = commands.add_parser("list", help="what there is, by area")
    show.add_argument("words", nargs="*", help="only what has all of these in its name or summary")
    copy = commands.add_parser("copy", help="write a file that stands alone")
    copy.add_argument(
        "name", help="a function, class or module, as gelu, activations/gelu or activations/gelu.gelu_tanh"
    )
    copy.add_argument("--to", type=Path, default=Path(), metavar="PATH", help="a folder or a file (this folder)")
    copy.add_argument("--force", action="store_true", help="overwrite what is in the way")
    check = commands.add_parser("check", help="whether copied files were changed, or have a newer version")
    check.add_argument("paths", nargs="+", type=Path, help="copied files, or folders with such")
    update = commands.add_parser("update", help="merge the newest version into a copied file")
    update.add_argument("path", type=Path)
    options = parser.parse_args(arguments)
    try:
        return COMMANDS[options.command](options)
    except project.Conflict as conflict:
        print(conflict, file=sys.stderr)
        return 1
    except Refusal as refusal:
        print(f"zhixing: {refusal}", file=sys.stderr)
    except BrokenPipeError:  # whoever reads the list has seen enough
        sys.stdout = None
        return 0
    except OSError as error:
        print(f"zhixing: {error.filename}: {error.strerror}", file=sys.stderr)
    return 2


def _list(options: argparse.Namespace) -> int:
    area = ""
    for entry in entries(installed()):
        summary = installed()[entry.module].summary(entry.definition)
        if not all(word.lower() in f"{entry.name} {summary}".lower() for word in options.words):
            continue
        if area != (area := entry.module.partition("/")[0]):
            print(f"{area}:")
        print(f"  {entry.name.partition('/')[2]:32} {summary}")
    if not area:
        raise Refusal(f"nothing has {' and '.join(options.words)} in its name or summary")
    return 0


def _copy(options: argparse.Namespace) -> int:
    entry = find(options.name, installed())
    path = project.copy(entry, options.to, options.force)
    header, _ = read(path.read_text(encoding="utf-8"))
    print(f"{path}: {entry.name} of {header['source']}, explained on {header['page']}; needs {header['needs']}")
    return 0


def _check(options: argparse.Namespace) -> int:
    said = {path: project.check(path) for given in options.paths for path in project.copied(given)}
    for path, what in said.items():
        print(f"{path}: {what or 'unchanged'}")
    return 1 if any(said.values()) else 0


def _update(options: argparse.Namespace) -> int:
    print(f"{options.path}: {project.update(options.path)}")
    return 0


COMMANDS = {"list": _list, "copy": _copy, "check": _check, "update": _update}
