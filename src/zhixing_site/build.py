"""Build both sites beside each other, and put them into place only when everything is right."""

import fcntl
import tempfile
from collections.abc import Callable, Container
from dataclasses import replace
from pathlib import Path

from zhixing_copy.catalogue import read_modules
from zhixing_site.content.articles import navigation, read_areas
from zhixing_site.content.expand import drawings, expand
from zhixing_site.content.page import Page, read_pages
from zhixing_site.content.translations import compare_all, unreviewed
from zhixing_site.errors import BuildError, BuildErrors
from zhixing_site.execution.processes import Limits
from zhixing_site.execution.runner import Report, Run, all_cached, run_all
from zhixing_site.execution.snippet import snippet_paths
from zhixing_site.project import LANGUAGES, read_commit, site_url, today
from zhixing_site.site.components import Components
from zhixing_site.site.copies import all_copies, offered, write_copies
from zhixing_site.site.links import check_links, check_published
from zhixing_site.site.metadata import Site, with_head, write_metadata, write_sitemaps
from zhixing_site.site.mkdocs import Renderer
from zhixing_site.site.notebooks import lab_files
from zhixing_site.site.postprocess import stamp
from zhixing_site.site.reuse import is_outdated
from zhixing_site.site.search import write_index


def build(root: Path, limits: Limits, report: Report) -> None:
    """Run what has changed, build, check, and replace `site/`; raises BuildErrors and leaves `site/` as it was."""
    (root / ".cache").mkdir(exist_ok=True)
    # Next to site/, to be renamed; removed when the processes of MkDocs, which write there, have ended.
    temporary = tempfile.TemporaryDirectory(dir=root / ".cache", prefix="site-")
    with temporary as folder, Renderer(root) as renderer:
        site = Path(folder, "site")
        make_site(root, Path(folder, "pages"), site, renderer, limits, report, _stop)
        _put_in_place(site, root)


def make_site(
    root: Path,
    expanded: Path,
    site: Path,
    renderer: Renderer,
    limits: Limits,
    report: Report,
    check: Callable[[list[BuildError]], object],
    preview: bool = False,
) -> None:
    """Write the whole site into `site`, by way of the pages in `expanded`; `check` is called with the errors of a step.

    A preview has no files for machines, and does not ask whether translations were reviewed.
    """
    english, chinese = (read_pages(root, language) for language in LANGUAGES)
    pages, whole = [*english.values(), *chinese.values()], Site(english, chinese, site_url())
    paths = snippet_paths(root)
    cached = all_cached(paths, root)
    for language in LANGUAGES:  # MkDocs is loaded meanwhile
        if not cached or is_outdated(language, root):
            renderer.start(language)
    runs, errors = run_all(paths, root, limits, report)
    failed = {error.path.removeprefix("snippets/") for error in errors}
    check(with_pages(errors, pages))
    areas, errors = read_areas(english, chinese)
    check(errors + compare_all(english, chinese) + check_shown(pages, runs))
    if not preview:
        check(unreviewed(english, chinese, root))
    modules = read_modules(root / "src/zhixing")
    files, errors = all_copies(modules)
    check(errors)
    commit = read_commit(root)
    parts = Components(areas, runs, modules, root, has_commit=bool(commit))
    errors = []
    for language in LANGUAGES:  # while the first is rendered, the next is expanded
        errors += write_pages([*whole.pages(language).values()], parts, whole, expanded, failed)
        renderer.ask(language, expanded, site, navigation(areas, whole.pages(language)), modules)
    check(errors)
    beside = site.with_name("beside")  # MkDocs may be writing into `site`
    write_copies(files, beside)
    if not preview:
        renderer.wait()
        check(write_metadata(whole, parts.notebooks, root, beside))
    check(renderer.answers(site))
    _move(beside, site)
    if not preview:
        write_sitemaps(whole, renderer.rendered, site)
        check(check_published(site, renderer.rendered, whole.url))
    write_index(site, renderer.rendered)
    check(check_links(site, renderer.rendered, whole.url))
    for path in site.rglob("*.html"):
        path.write_text(stamp(path.read_text(), "…" if preview else commit, today()))


def _stop(errors: list[BuildError]) -> None:
    if errors:
        raise BuildErrors(errors)


def check_shown(pages: list[Page], runs: dict[str, Run]) -> list[BuildError]:
    """Figures whose cell a page shows and that it does not caption; cells that no page shows and are not hidden."""
    cells = [(name, cell) for name, run in runs.items() for cell in run.notebook["cells"]]
    drawing = {(name, cell["id"]) for name, cell in cells if cell["metadata"]["drawings"]}
    errors = []
    for page in pages:
        captioned = {(use.path, use.name) for use in page.uses if use.figure}
        for use in page.uses:
            if (use.path, use.name) in drawing - captioned:
                cause = f"a figure without a caption: ![caption]({use.path}:{use.name})"
                errors.append(BuildError(cause, page.path, use.line, use.name))
    shown = {(use.path, use.name) for page in pages for use in page.uses}
    for name, run in runs.items():
        for cell in run.snippet.cells:
            if not cell.hidden and (name, cell.name) not in shown:
                cause = 'no page shows this cell, and it is not tags=["hidden"]'
                errors.append(BuildError(cause, run.snippet.path, cell.line, cell.name))
    return errors


def with_pages(errors: list[BuildError], pages: list[Page]) -> list[BuildError]:
    """The errors of snippets with the places that show the cell, or, where none does, those that use the snippet."""
    placed = []
    for error in errors:
        uses = [(page, use) for page in pages for use in page.uses if f"snippets/{use.path}" == error.path]
        uses = [pair for pair in uses if pair[1].name == error.cell] or uses
        placed.append(replace(error, pages=tuple(f"{page.path}:{use.line}" for page, use in uses)))
    return placed


def write_pages(
    pages: list[Page], parts: Components, site: Site, folder: Path, failed: Container[str] = ()
) -> list[BuildError]:
    """Write all that MkDocs reads: below folder/<language>, expanded pages, drawings, other files of docs/<language>.

    The languages are those of the pages. Files that are the same already are not touched, nor are pages that use a
    snippet which `failed`, or that have errors, which are returned: they stay as they were written last.
    """
    root, notebooks, offers, errors = parts.root, parts.notebooks, offered(parts.modules), []
    for language in {page.language for page in pages}:
        for path in (root / "docs" / language).rglob("*"):
            if path.is_file() and path.suffix != ".md":
                _write(folder / path.relative_to(root / "docs"), path.read_bytes())
        for path, drawing in drawings(notebooks, language).items():
            _write(folder / language / path, drawing.encode())
    for page in pages:
        if any(name in failed for name in (page.snippet, *(use.path for use in page.uses))):
            continue
        run = parts.runs.get(page.snippet)
        try:
            text = parts.around(page, expand(page, parts.notebooks_for(page), root, offers, parts.of(page)))
            _write(folder / page.language / f"{page.name}.md", with_head(text, page, site).encode())
            if run and page.language == "en":
                for path, text in lab_files(page, run, root).items():
                    _write(folder / "en" / path, text.encode())
        except BuildError as error:
            errors.append(error)
    return errors


def _write(path: Path, content: bytes) -> None:
    if not path.exists() or path.read_bytes() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _move(folder: Path, target: Path) -> None:
    """Move all files below one folder to the same places below another."""
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        (target / path.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
        path.rename(target / path.relative_to(folder))


def _put_in_place(new: Path, root: Path) -> None:
    """Rename the old site away and the new one into its place; two builds at once take turns."""
    with open(root / ".cache" / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (root / "site").exists():
            (root / "site").rename(new.with_name("old"))
        new.rename(root / "site")
