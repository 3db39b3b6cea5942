"""Build both sites beside each other, and put them into place only when everything is right."""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from zhixing_site.fault import Fault, Faults
from zhixing_site.links import check_links
from zhixing_site.page import LANGUAGES, Page, read_pages
from zhixing_site.run import Report, Run, run_all
from zhixing_site.snippet import snippet_paths
from zhixing_site.twins import compare_all
from zhixing_site.watch import Limits

CONFIGS = {"en": "mkdocs.yml", "zh": "mkdocs.zh.yml"}


def build(root: Path, limits: Limits, report: Report) -> None:
    """Run what has changed, build, check, and replace `site/`; raises Faults and leaves `site/` as it was."""
    english, chinese = (read_pages(root, language) for language in LANGUAGES)
    pages = [*english.values(), *chinese.values()]
    try:
        runs = run_all(snippet_paths(root), root, limits, report)
    except Faults as faults:
        raise Faults([_with_pages(fault, pages) for fault in faults.faults]) from None
    if faults := compare_all(english, chinese, root) + check_shown(pages, runs):
        raise Faults(faults)
    (root / ".cache").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root / ".cache", prefix="site-") as folder:  # a rename away from site/
        site = Path(folder, "site")
        with ThreadPoolExecutor() as pool:
            errors = pool.map(lambda language: _mkdocs(root, language, site / language), LANGUAGES)
        if faults := [Fault(error) for error in errors if error]:
            raise Faults(faults)
        shutil.copy(root / "docs" / "index.html", site)
        if faults := check_links(site):
            raise Faults(faults)
        _put_in_place(site, root)


def check_shown(pages: list[Page], runs: dict[str, Run]) -> list[Fault]:
    """Figures whose cell a page shows and that it does not caption; cells that no page shows and are not hidden."""
    cells = [(name, cell) for name, run in runs.items() for cell in run.notebook["cells"]]
    drawing = {(name, cell["id"]) for name, cell in cells if cell["metadata"]["drawings"]}
    faults = []
    for page in pages:
        captioned = {(use.path, use.name) for use in page.uses if use.figure}
        for use in page.uses:
            if (use.path, use.name) in drawing - captioned:
                cause = f"a figure without a caption: ![caption]({use.path}:{use.name})"
                faults.append(Fault(cause, page.path, use.line, use.name))
    shown = {(use.path, use.name) for page in pages for use in page.uses}
    for name, run in runs.items():
        for cell in run.snippet.cells:
            if not cell.hidden and (name, cell.name) not in shown:
                cause = 'no page shows this cell, and it is not tags=["hidden"]'
                faults.append(Fault(cause, run.snippet.path, cell.line, cell.name))
    return faults


def _with_pages(fault: Fault, pages: list[Page]) -> Fault:
    """The fault of a snippet with the places that show its cell, or, where none does, those that use the snippet."""
    uses = [(page, use) for page in pages for use in page.uses if f"snippets/{use.path}" == fault.path]
    uses = [pair for pair in uses if pair[1].name == fault.cell] or uses
    return replace(fault, pages=tuple(f"{page.path}:{use.line}" for page, use in uses))


def _mkdocs(root: Path, language: str, site: Path) -> str:
    """What MkDocs says where it fails, else nothing."""
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict"]
    command += ["--config-file", CONFIGS[language], "--site-dir", str(site)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    result = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    return result.stderr + result.stdout if result.returncode else ""


def _put_in_place(new: Path, root: Path) -> None:
    """Rename the old site away and the new one into its place; two builds at once take turns."""
    with open(root / ".cache" / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (root / "site").exists():
            (root / "site").rename(new.with_name("old"))
        new.rename(root / "site")
