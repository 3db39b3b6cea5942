"""The command line: run snippets, build or preview the sites, accept reviewed translations, start a new article."""

import argparse
import sys
from pathlib import Path

from zhixing_site.build import build
from zhixing_site.content.page import read_pages
from zhixing_site.content.translations import accept
from zhixing_site.errors import BuildError, BuildErrors
from zhixing_site.execution.processes import Limits
from zhixing_site.execution.runner import Run, run_all
from zhixing_site.execution.snippet import snippet_paths
from zhixing_site.scaffold import new
from zhixing_site.serve import serve


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 0, 1 with the errors on standard error, or 130 if it was interrupted."""
    options, root = _parser().parse_args(arguments), Path.cwd().resolve()
    limits = Limits(options.seconds, int(options.gigabytes * 2**30))
    try:
        match options.command:
            case "run":
                if errors := run_all(_snippets(options.paths, root), root, limits, _report)[1]:
                    raise BuildErrors(errors)
            case "build":
                build(root, limits, _report)
            case "serve":
                serve(root, limits, _report, options.port)
            case "accept":
                accepted = accept(read_pages(root, "en"), read_pages(root, "zh"), options.pages, root)
                print("\n".join(f"accepted {section}" for section in accepted) or "no section has changed")
            case "new":
                print(*new(options.article, root), sep="\n")
    except (BuildError, OSError) as error:  # such as a full disk
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m zhixing_site", description="Build the site from running code.")
    parser.set_defaults(seconds=Limits.seconds, gigabytes=Limits.bytes >> 30)
    limits = argparse.ArgumentParser(add_help=False)
    limits.add_argument(
        "--seconds", type=float, default=Limits.seconds, help="a snippet's processor time (%(default)s)"
    )
    limits.add_argument("--gigabytes", type=float, default=Limits.bytes >> 30, help="its memory (%(default)s)")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("run", parents=[limits], help="run snippets alone")
    command.add_argument("paths", nargs="*", type=Path, help="snippets or folders of them (all)")
    commands.add_parser("build", parents=[limits], help="build both sites")
    command = commands.add_parser("serve", parents=[limits], help="show both while writing")
    command.add_argument("--port", type=int, default=8000, help="on this machine (%(default)s)")
    command = commands.add_parser("accept", help="record that pages say the same as their translations")
    command.add_argument("pages", nargs="*", help="as activations/gelu (all)")
    command = commands.add_parser("new", help="lay out the files of a new article")
    command.add_argument("article", help="as optimization/adamw")
    return parser


def _snippets(paths: list[Path], root: Path) -> list[Path]:
    """The snippets at these paths and below these folders, or all."""
    everything, found = snippet_paths(root), []
    for path in map(Path.resolve, paths):
        is_below = path.is_relative_to(root / "snippets")
        below = [each for each in everything if each.resolve() == path or (is_below and each.is_relative_to(path))]
        if not below:
            raise BuildError(f"{path} is not a snippet or a folder below snippets/")
        found += below
    return found if paths else everything


def _report(path: str, result: Run | BuildError) -> None:
    """Print a line for a snippet that is done."""
    if isinstance(result, BuildError):
        summary = "failed"
    elif result.ending:
        summary = f"ran  {result.ending.seconds:6.2f} s {result.ending.peak >> 20:5} MB"
    else:
        summary = "cached"
    print(f"{summary:21} {path}", flush=True)
