"""The steps of a build and the checks between them; the old site is replaced only if there is no error."""

import fcntl
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from zhixing_copy.catalogue import read_modules
from zhixing_copy.source import Module
from zhixing_site.content.articles import navigation, read_areas
from zhixing_site.content.docstrings import check_docstrings
from zhixing_site.content.expand import Expander, drawings, figure_path
from zhixing_site.content.page import Page, read_pages
from zhixing_site.content.translations import compare_all, unreviewed
from zhixing_site.errors import BuildError, BuildErrors
from zhixing_site.execution.processes import Limits
from zhixing_site.execution.runner import Report, Run, run_all
from zhixing_site.execution.snippet import snippet_paths
from zhixing_site.files import LEFTOVER, find_files, parse, read_bytes, read_text
from zhixing_site.project import LANGUAGES, read_commit, site_url, today
from zhixing_site.site.code_blocks import check_code
from zhixing_site.site.components import Components
from zhixing_site.site.copies import copy_files
from zhixing_site.site.links import check_links, check_published, in_docstrings, located
from zhixing_site.site.metadata import Site, metadata_files, sitemaps, with_head
from zhixing_site.site.metadata import folder as folder_of
from zhixing_site.site.mkdocs import Renderer
from zhixing_site.site.notebooks import notebook_files
from zhixing_site.site.postprocess import stamp
from zhixing_site.site.reuse import expects_rendering
from zhixing_site.site.search import search_indexes
from zhixing_site.store import Files, write_files

Check = Callable[[list[BuildError]], object]  # called with the errors of each step


def build(root: Path, limits: Limits, report: Report) -> None:
    """Run what has changed, build, check, and replace `site/`; raises BuildErrors and leaves `site/` as it was."""
    (root / ".cache").mkdir(exist_ok=True)
    # Next to site/, to be renamed; removed when the processes of MkDocs, which write there, have ended.
    temporary = tempfile.TemporaryDirectory(dir=root / ".cache", prefix="site-")
    with temporary as folder, Renderer(root) as renderer:
        Builder(root, limits, report, renderer).make_site(Path(folder), _stop)
        _put_in_place(Path(folder, "site"), root)


def _stop(errors: list[BuildError]) -> None:
    if errors:
        raise BuildErrors(errors)


def _put_in_place(new: Path, root: Path) -> None:
    """Rename the old site away and the new one into its place; two builds at the same time take turns."""
    with open(root / ".cache" / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (root / "site").exists():
            (root / "site").rename(new.with_name("old"))
        new.rename(root / "site")


@dataclass
class Builder:
    """Makes the site of a project.

    A preview has no files for machines, and requires no review of translations. `sources` are what each page, by its
    path, was expanded to when it was last without errors; `copies` are the modules' texts, and the copies made of them.
    """

    root: Path
    limits: Limits
    report: Report
    renderer: Renderer
    preview: bool = False
    sources: dict[str, Files] = field(default_factory=dict)
    copies: tuple[dict[str, str] | None, tuple[Files, list[BuildError]]] = (None, ({}, []))

    def make_site(self, folder: Path, check: Check) -> None:
        """Write the sources of MkDocs into folder/pages and the whole site into folder/site.

        If `check` does not raise, what has errors is left out, or as it was.
        """
        site, target = read_site(self.root), folder / "site"
        modules, commit = readable_modules(self.root), read_commit(self.root)
        runs, failed = self._run(site, check)
        areas, errors = read_areas(*site.pages.values())
        check(errors + compare_all(*site.pages.values()) + check_cells_and_figures(site.all_pages, runs))
        check([] if self.preview else unreviewed(*site.pages.values(), self.root))
        check(check_docstrings(site.all_pages, self.root))
        files, errors = self._copy(modules)
        check(errors)
        components = Components(areas, runs, modules, self.root, has_commit=bool(commit))
        check([error for language in LANGUAGES for error in self._render(language, site, components, failed, folder)])
        if not self.preview:
            found, errors = metadata_files(site, components.notebooks, self.root)
            files |= found
            check(errors)
        check(located(self.renderer.collect(folder), {page.path: page for page in site.all_pages}, self.root))
        rendered = self.renderer.rendered
        check(check_code(site.all_pages, self.sources, rendered))
        html = {f"{folder_of(page.name, page.language)}index.html": page for page in site.all_pages}
        keywords = {name: page.meta.get("keywords", []) for name, page in html.items()}
        files |= search_indexes({name: page.sections for name, page in rendered.items()}, keywords)
        if not self.preview:
            files |= sitemaps(site, rendered)
            files["404.html"] = (target / "en/404.html").read_text()  # for a host that knows only one
        write_files(files, target)
        check(in_docstrings(check_links(target, rendered, site.url), html, self.root))
        check([] if self.preview else check_published(target, rendered, site.url))
        for path in target.rglob("*.html"):
            path.write_text(stamp(path.read_text(), "…" if self.preview else commit, today()))

    def _run(self, site: Site, check: Check) -> tuple[dict[str, Run], set[str]]:
        """The runs of snippets by name, and the names of those that failed; loads MkDocs meanwhile if it is needed."""
        for language in filter(partial(expects_rendering, self.root), LANGUAGES):
            self.renderer.start(language)
        runs, errors = run_all(snippet_paths(self.root), self.root, self.limits, self.report)
        check([with_pages(error, site.all_pages) for error in errors])
        return runs, {error.path.removeprefix("snippets/") for error in errors}

    def _copy(self, modules: dict[str, Module]) -> tuple[Files, list[BuildError]]:
        """The files to copy; made again, which takes seconds, only if a module has changed since the last update."""
        texts = {name: module.source for name, module in modules.items()}
        if texts != self.copies[0]:
            self.copies = texts, copy_files(modules)
        files, errors = self.copies[1]
        return {**files}, errors

    def _render(
        self, language: str, site: Site, components: Components, failed: set[str], folder: Path
    ) -> list[BuildError]:
        """Expand the pages of a language, and begin to render them; returns the errors of pages."""
        pages, errors = site.pages[language], []
        for page in pages.values():
            self.sources.setdefault(page.path, {f"{page.name}.md": f"# {page.name}\n"})
            if failed.isdisjoint([page.snippet, *(use.path for use in page.uses)]):
                try:
                    self.sources[page.path] = page_sources(page, site, components)
                except BuildError as error:
                    errors.append(error)
        files = other_sources(language, components)
        for page in pages.values():
            files |= self.sources[page.path]
        write_files(files, folder / "pages" / language)
        menu = navigation(components.areas, pages)
        self.renderer.submit(language, folder, menu, components.modules)
        return errors


def read_site(root: Path) -> Site:
    return Site({language: read_pages(root, language) for language in LANGUAGES}, site_url())


def readable_modules(root: Path) -> dict[str, Module]:
    """The modules of the library; raises BuildErrors for files below `src` that cannot be read."""
    errors = []
    for path in sorted((root / "src").rglob("*.py")):
        if not any(map(LEFTOVER.fullmatch, path.relative_to(root).parts)) and not path.is_dir():
            try:
                parse(path, root)
            except BuildError as error:
                errors.append(error)
    _stop(errors)
    return read_modules(root / "src/zhixing")


def page_sources(page: Page, site: Site, components: Components) -> Files:
    """{path: text} of what MkDocs renders of a page, and of what can be downloaded; raises BuildError."""
    root, run = components.root, components.runs.get(page.snippet)
    text = Expander(page, components.notebooks_for(page), root, components.offers, components.parts_of(page)).expand()
    files = {f"{page.name}.md": with_head(components.with_facts_and_evidence(page, text), page, site)}
    return files | (notebook_files(page, run, root) if run and page.language == "en" else {})


def other_sources(language: str, components: Components) -> Files:
    """{path: content} of what MkDocs copies: figures, and the files of docs/<language> that are no pages."""
    folder = components.root / "docs" / language
    files = {}
    for path in find_files(folder, components.root):
        if path.suffix != ".md":
            read = read_text if path.suffix == ".html" else read_bytes
            files[path.relative_to(folder).as_posix()] = read(path, components.root)
    return files | drawings(components.notebooks, language)


def check_cells_and_figures(pages: list[Page], runs: dict[str, Run]) -> list[BuildError]:
    """Figures whose cell a page shows and that it does not caption; cells that no page shows and are not hidden."""
    drawn, errors = drawings({name: run.notebook for name, run in runs.items()}, "en"), []
    for page in pages:
        captioned = {(use.path, use.name) for use in page.uses if use.figure}
        for use in page.uses:
            if figure_path(use.path, use.name, "light") in drawn and (use.path, use.name) not in captioned:
                cause = f"the cell draws a figure, which the page must caption: ![caption]({use.path}:{use.name})"
                errors.append(BuildError(cause, page.path, use.line, use.name))
    shown = {(use.path, use.name) for page in pages for use in page.uses}
    for name, run in runs.items():
        for cell in run.snippet.cells:
            if not cell.hidden and (name, cell.name) not in shown:
                errors.append(cell.error('no page shows this cell, and it is not tags=["hidden"]'))
    return errors


def with_pages(error: BuildError, pages: list[Page]) -> BuildError:
    """The error of a snippet with the places that show the cell, or if there are none, that use the snippet."""
    uses = [(page, use) for page in pages for use in page.uses if f"snippets/{use.path}" == error.path]
    uses = [pair for pair in uses if pair[1].name == error.cell] or uses
    return replace(error, pages=tuple(f"{page.path}:{use.line}" for page, use in uses))
