"""Build both sites beside each other, and put them into place only when everything is right."""

import fcntl
import tempfile
from dataclasses import replace
from pathlib import Path

from zhixing_copy.catalogue import read_modules
from zhixing_site.content.articles import navigation, read_areas
from zhixing_site.content.expand import drawings, expand
from zhixing_site.content.page import Page, read_pages
from zhixing_site.content.translations import compare_all, unreviewed
from zhixing_site.errors import BuildError, BuildErrors
from zhixing_site.execution.processes import Limits
from zhixing_site.execution.runner import Report, Run, run_all
from zhixing_site.execution.snippet import snippet_paths
from zhixing_site.project import LANGUAGES, site_url
from zhixing_site.site.components import Parts, read_commit
from zhixing_site.site.copies import all_copies, offered, write_copies
from zhixing_site.site.links import check_links, check_published
from zhixing_site.site.metadata import Site, with_head, write_found, write_maps
from zhixing_site.site.mkdocs import Renderer
from zhixing_site.site.notebooks import lab_page, notebook_file, script_file
from zhixing_site.site.search import write_index


def build(root: Path, limits: Limits, report: Report) -> None:
    """Run what has changed, build, check, and replace `site/`; raises BuildErrors and leaves `site/` as it was."""
    (root / ".cache").mkdir(exist_ok=True)
    # A rename away from site/; taken away when MkDocs' processes, which write there, have ended.
    cache = tempfile.TemporaryDirectory(dir=root / ".cache", prefix="site-")
    with cache as folder, Renderer(root) as renderer:
        english, chinese = (read_pages(root, language) for language in LANGUAGES)
        pages = [*english.values(), *chinese.values()]
        runs, errors = run_all(snippet_paths(root), root, limits, report)
        _stop(with_pages(errors, pages))
        areas, errors = read_areas(english, chinese)
        _stop(errors + compare_all(english, chinese) + unreviewed(english, chinese, root) + check_shown(pages, runs))
        modules = read_modules(root / "src/zhixing")
        files, errors = all_copies(modules)
        _stop(errors)
        expanded, beside, site = (Path(folder, name) for name in ("pages", "beside", "site"))
        whole = Site(english, chinese, site_url())
        parts = Parts(areas, runs, modules, root, read_commit(root))
        errors = []
        for language in LANGUAGES:  # while the first is rendered, the next is written
            errors += write_pages([*whole.pages(language).values()], parts, whole, expanded)
            if not errors:
                renderer.ask(language, expanded, site, navigation(areas, whole.pages(language)))
        _stop(errors)
        renderer.wait()
        _stop(write_found(whole, parts.notebooks, root, beside))
        write_copies(files, beside)
        _stop(renderer.answers(site))
        _move(beside, site)
        write_maps(whole, renderer.rendered, site)
        write_index(site, renderer.rendered)
        rendered = renderer.rendered, whole.url
        _stop(check_links(site, *rendered) + check_published(site, *rendered))
        _put_in_place(site, root)


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


def write_pages(pages: list[Page], parts: Parts, site: Site, folder: Path) -> list[BuildError]:
    """Write all that MkDocs reads: below folder/<language>, expanded pages, drawings, other files of docs/<language>.

    The languages are those of the pages. Files that are the same already are not touched, nor are pages with errors,
    which are returned.
    """
    root, notebooks, offers, errors = parts.root, parts.notebooks, offered(parts.modules), []
    for language in {page.language for page in pages}:
        for path in (root / "docs" / language).rglob("*"):
            if path.is_file() and path.suffix != ".md":
                _write(folder / path.relative_to(root / "docs"), path.read_bytes())
        for path, drawing in drawings(notebooks, language).items():
            _write(folder / language / path, drawing.encode())
    for page in pages:
        run = parts.runs.get(page.snippet)
        try:
            text = parts.around(page, expand(page, parts.notebooks_for(page), root, offers, parts.of(page)))
            _write(folder / page.language / f"{page.name}.md", with_head(text, page, site).encode())
            if run and page.language == "en":
                lab = expand(lab_page(page, run), notebooks, root, offers)
                for ending, text in ("md", lab), ("ipynb", notebook_file(page, run)), ("py", script_file(page, run)):
                    _write(folder / f"en/lab/{page.name}.{ending}", text.encode())
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
