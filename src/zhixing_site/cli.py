"""The command line: run snippets, build the sites, accept reviewed twins."""

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
from zhixing_site.portable import portable, run_afresh
from zhixing_site.scaffold import new
from zhixing_site.serve import serve


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 0, 1 with the errors on standard error, or 130 where it was interrupted."""
    parser = argparse.ArgumentParser(prog="python -m zhixing_site", description="Build the site from running code.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in {
        "run": "run snippets alone",
        "build": "build both sites",
        "serve": "show both while writing",
        "portable": "run snippets as on other processors",
    }.items():
        command = commands.add_parser(name, help=text)
        command.add_argument(
            "--seconds", type=float, default=Limits.seconds, help="a snippet's processor time (%(default)s)"
        )
        command.add_argument("--gigabytes", type=float, default=Limits.bytes >> 30, help="its memory (%(default)s)")
    commands.choices["run"].add_argument("paths", nargs="*", type=Path, help="snippets or folders of them (all)")
    commands.choices["run"].add_argument("--afresh", type=Path, metavar="FILE", help=argparse.SUPPRESS)
    commands.choices["portable"].add_argument("articles", nargs="*", help="as activations/gelu, or an area (all)")
    commands.choices["serve"].add_argument("--port", type=int, default=8000, help="on this machine (%(default)s)")
    review = commands.add_parser("accept", help="record that pages say the same as their twins")
    review.add_argument("pages", nargs="*", help="as activations/gelu (all)")
    layout = commands.add_parser("new", help="lay out the files of a new article")
    layout.add_argument("article", help="as optimization/adamw")
    options = parser.parse_args(arguments)
    root = Path.cwd().resolve()
    try:
        if options.command == "accept":
            accepted = accept(read_pages(root, "en"), read_pages(root, "zh"), options.pages, root)
            print("\n".join(f"accepted {section}" for section in accepted) or "nothing was new")
            return 0
        if options.command == "new":
            print(*new(options.article, root), sep="\n")
            return 0
        limits = Limits(options.seconds, int(options.gigabytes * 2**30))
        if options.command == "build":
            build(root, limits, _report)
        elif options.command == "serve":
            serve(root, limits, _report, options.port)
        elif options.command == "portable":
            paths = [_snippets_of(article, root) for article in options.articles]
            return 0 if portable(_chosen(paths, root), root, limits) else 1
        elif options.afresh:
            run_afresh(_chosen(options.paths, root), root, limits, options.afresh)
        elif errors := run_all(_chosen(options.paths, root), root, limits, _report)[1]:
            raise BuildErrors(errors)
    except (BuildError, BuildErrors) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _snippets_of(name: str, root: Path) -> Path:
    """The snippet of an article, or the folder of an area."""
    area = root / "snippets" / name
    return area if area.is_dir() else area.with_suffix(".py")


def _chosen(paths: list[Path], root: Path) -> list[Path]:
    if not paths:
        return snippet_paths(root)
    chosen = []
    for path in map(Path.resolve, paths):
        a_snippet = path.is_file() and path.suffix == ".py"
        if not (a_snippet or path.is_dir()) or not path.is_relative_to(root / "snippets"):
            raise BuildError(f"{path} is no snippet or folder below snippets/")
        chosen += sorted(path.rglob("*.py")) if path.is_dir() else [path]
    return chosen


def _report(path: str, result: Run | BuildError) -> None:
    """A line for a snippet that is done."""
    if isinstance(result, BuildError):
        summary = "failed"
    elif result.ending:
        summary = f"ran  {result.ending.seconds:6.2f} s {result.ending.peak >> 20:5} MB"
    else:
        summary = "cached"
    print(f"{summary:21} {path}", flush=True)
