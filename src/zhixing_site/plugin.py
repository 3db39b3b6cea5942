"""The MkDocs adapter, loaded by `hooks:` in mkdocs.yml. Nothing else imports MkDocs.

One language's build at a time: the snippets' results come in at the start, pages are expanded as MkDocs reads them,
and all their faults stop the build together.
"""

from pathlib import Path

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File
from mkdocs.utils.meta import get_data

from zhixing_site.expand import SCHEMES, expand, figure_path
from zhixing_site.fault import Fault, Faults
from zhixing_site.page import Page
from zhixing_site.run import run_all
from zhixing_site.snippet import snippet_paths
from zhixing_site.watch import Limits

notebooks: dict[str, dict] = {}
faults: list[Fault] = []


def on_files(files, config):
    faults.clear()  # the last build of this process, where it serves
    root, language = Path(config.config_file_path).parent.resolve(), Path(config.docs_dir).name
    try:
        runs = run_all(snippet_paths(root), root, Limits(), lambda path, result: None)
    except Faults as error:
        raise PluginError(str(error)) from None
    notebooks.update({name: run.notebook for name, run in runs.items()})
    for snippet, notebook in notebooks.items():
        for cell in notebook["cells"]:
            for scheme in SCHEMES if cell["metadata"]["drawings"] else ():
                drawing = cell["metadata"]["drawings"][f"{language}-{scheme}"]
                files.append(File.generated(config, figure_path(snippet, cell["id"], scheme), content=drawing))


def on_page_markdown(markdown, page, config, files):
    root, path = Path(config.config_file_path).parent.resolve(), Path(page.file.abs_src_path)
    try:
        whole = Page(path.relative_to(root).as_posix(), path.read_text())  # with its front matter, so that lines count
        return get_data(expand(whole, notebooks, root))[0]
    except Fault as fault:
        faults.append(fault)


def on_env(env, config, files):
    if faults:
        raise PluginError(str(Faults(faults)))
