"""The MkDocs adapter, loaded by `hooks:` in mkdocs.yml. Nothing else imports MkDocs.

One language's build at a time: the snippets' results come in at the start, pages are expanded as MkDocs reads them,
and all their faults stop the build together.
"""

from pathlib import Path

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

from zhixing_site.expand import SCHEMES, Expander, drawings, figure_path
from zhixing_site.fault import Fault, Faults
from zhixing_site.page import Page
from zhixing_site.run import run_all
from zhixing_site.snippet import snippet_paths
from zhixing_site.watch import Limits

state: dict = {}


def on_config(config):
    root = Path(config.config_file_path).parent.resolve()
    try:
        runs = run_all(snippet_paths(root), root, Limits(), lambda path, result: None)
    except Faults as faults:
        raise PluginError(str(faults)) from None
    notebooks = {name: run.notebook for name, run in runs.items()}
    state.update(expander=Expander(notebooks, root), faults=[])


def on_files(files, config):
    language = Path(config.docs_dir).name
    for snippet, notebook in state["expander"].notebooks.items():
        for cell, drawn in drawings(notebook).items():
            for scheme in SCHEMES:
                path = figure_path(snippet, cell, scheme)
                files.append(File.generated(config, path, content=drawn[f"{language}-{scheme}"]))


def on_page_markdown(markdown, page, config, files):
    path = Path(config.docs_dir, page.file.src_uri).relative_to(state["expander"].root)
    try:
        return state["expander"].expand(Page(path.as_posix(), markdown))
    except Fault as fault:
        state["faults"].append(fault)
        return markdown


def on_env(env, config, files):
    if state["faults"]:
        raise PluginError(str(Faults(state["faults"])))
