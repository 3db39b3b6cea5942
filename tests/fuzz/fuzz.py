"""Throw damaged projects at the builder, and damaged copies at `zhixing`: `python tests/fuzz.py --minutes 5 --seed 7`.

Each mutant is a small project with a few changes, all drawn from one number, its seed. `judge` builds it and says what
is wrong with the answer: a traceback, a hang, a message that names no file, a site that was touched or that lacks text.
`--seed 7 --mutants 1` makes the same mutant again.
"""

import argparse
import ast
import collections
import contextlib
import difflib
import io
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import lxml.html
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "site"))
from conftest import FILES, REPOSITORY, Project, forked_workers
from mkdocs.config import load_config

import zhixing_copy.cli
from zhixing_copy.catalogue import read_modules
from zhixing_site import build
from zhixing_site.content.page import HEADING_ID, Page
from zhixing_site.execution.processes import Limits
from zhixing_site.serve import Preview
from zhixing_site.site.mkdocs import Renderer

LIMIT = 120  # seconds for a build, of which none here takes more than a few
LANGUAGES = ("en", "zh")
MATTER = {
    "en": "---\nmenu: {0}\nsummary: About {0}.\ndate: 2026-01-0{1}\n{2}---\n\n",
    "zh": "---\nmenu: {0}\nsummary: 关于{0}。\n---\n\n",
}
REST = """
## More { #more }

!!! note "Remember"
    A box, with `code`, a [link](squares.md#table) and $a_1$.

| left | right |
|------|-------|
| $x$  | `y`   |

- an item
    - another inside

::: zhixing.area.ruler
"""
MKDOCS = f"""\
INHERIT: mkdocs.base.yml
docs_dir: !ENV [ZHIXING_PAGES, docs/en]
theme: {{name: null, custom_dir: theme, static_templates: [404.html]}}
hooks: [{REPOSITORY}/src/zhixing_site/site/mkdocs_process.py]
"""
JUPYTER = 'plugins: {mkdocs-jupyter: {include: [README.ipynb], ignore: ["*.md"], execute: false, cache: false}}\n'


def good_files() -> dict[str, bytes]:
    """The small project of the builder's tests, with an area, a glossary, and a module that readers can copy."""
    files = dict(FILES)
    for number, (name, keys) in enumerate(
        {"roots": "", "squares": "cover: curve\nrequires: [area/roots]\n"}.items(), 1
    ):
        for language in LANGUAGES:
            path = f"docs/{language}/area/{name}.md"
            files[path] = MATTER[language].format(name, number, keys) + files[path] + REST * (name == "roots")
    for language, title in ("en", "Things"), ("zh", "事物"):
        order = "---\norder: 1\n---\n\n" * (language == "en")
        files[f"docs/{language}/area/index.md"] = f'{order}# {title} {{ #area }}\n\n--8<-- "articles"\n'
        files[f"docs/{language}/glossary.md"] = f'# {title} {{ #glossary }}\n\n--8<-- "glossary"\n'
    files["docs/glossary.csv"] = (
        'term,术语,definition,定义,page\nroot,根,"What $x^2$ has, like 3.",平方的根。,area/roots#roots\n'
    )
    files["src/zhixing/__init__.py"] = files["src/zhixing/area/__init__.py"] = ""
    files["src/zhixing/area/ruler.py"] = (
        '"""Lengths."""\n\nimport math\n\n\ndef measure(x: float) -> float:\n    """How long.\n\n    Example:\n'
        '        >>> measure(-1.0)\n        1.0\n    """\n    return math.fabs(x)\n'
    )
    files["tests/area/test_ruler.py"] = (
        "from zhixing.area.ruler import measure\n\n\ndef test_length():\n    assert measure(-1) == 1\n"
    )
    files["mkdocs.base.yml"] = (REPOSITORY / "mkdocs.base.yml").read_text()
    files["mkdocs.yml"] = MKDOCS + JUPYTER + "extra: {twin: zh}\nnot_in_nav: /lab/\n"
    files["mkdocs.zh.yml"] = MKDOCS.replace("docs/en", "docs/zh") + "extra: {twin: en}\n"
    return {path: text.encode() for path, text in files.items()}


def tokens(name: str) -> list[str]:
    """What is put into files of this kind; in the list, ¶ is the end of a line, and ⇥ a tab."""
    text = (Path(__file__).parent / "tokens" / f"{name}.txt").read_text()
    return text.replace("⇥", "\t").rstrip("\n").split("\n")


CHARACTERS = [
    *"\r\0\f\v\x1b\x85\xa0\u00ad\u200b\u200f\u202e\u2028\u2029\ufeff\ue000\uffff\udcff𝕏﷽",
    "e\u0301",
    "👩\u200d👧",
]
DEEP = [
    *"*[(`${_#|~\\",
    "> ",
    "- ",
    "1. ",
    "<b>",
    "{{",
    "[a](",
    "**a",
    "![",
    "<!--",
    "$\\frac{",
    "a ",
    "\n",
    "| a ",
    "--8<--",
]
LONG = [
    "x" * 20_000,
    "x " * 20_000,
    "$" + "x+" * 5_000 + "x$",
    "${" + "{" * 200 + "}" * 200 + "}$",
    "a\n" * 500,
    "（" * 500,
]
COMMON = CHARACTERS + [each * 60 for each in DEEP] + LONG
TOKENS = {name: tokens(name) for name in ("page", "matter", "python", "table", "labels", "names")}
WHOLE: dict[
    str, Callable[[str], object]
] = {  # what becomes of a whole file: bytes, the target of a link, None a folder
    "UTF-16": lambda text: text.encode("utf-16"),
    "GB18030": lambda text: text.encode("gb18030", "replace"),
    "Latin-1": lambda text: text.encode("latin-1", "replace") + b"\xe9",
    "byte-order mark": lambda text: text.encode("utf-8-sig", "replace"),
    "Windows line ends": lambda text: text.replace("\n", "\r\n").encode(),
    "Mac line ends": lambda text: text.replace("\n", "\r").encode(),
    "no final line end": lambda text: text.rstrip("\n").encode(),
    "empty": lambda text: b"",
    "blank": lambda text: b"\n \n\t\n",
    "half": lambda text: text.encode()[: len(text) // 2],
    "zeros": lambda text: bytes(len(text)),
    "random": lambda text: random.Random(text).randbytes(300),
    "lone surrogate": lambda text: text.encode() + b"\xed\xa0\x80",
    "folder": lambda text: None,
    "link to nothing": lambda text: Path("me@host.1:1"),
    "link to a folder": lambda text: Path("."),
    "link to a page": lambda text: Path("roots.md"),
    "absent": lambda text: ...,
}
Files = dict[str, object]


def change(text: str, action: str, line: float, column: float, token: str) -> str:
    """The text with a change at a line and column, given as fractions of all lines and of the line."""
    lines = text.split("\n")
    number = int(line * len(lines))
    here, token = lines[number], token.replace("¶", "\n")
    cut = int(column * len(here))
    changed = {
        "insert": [here[:cut] + token + here[cut:]],
        "insert lines": [token, here],
        "insert paragraph": ["", token, "", here],
        "replace": [re.sub(r"\w+", lambda _: token, here[:cut]) + here[cut:]],
        "delete": [],
        "delete characters": [here[:cut] + here[cut + 1 + len(token) % 5 :]],
        "double": [here, here],
        "move": [],
        "indent": ["    " + here],
        "quote": ["> " + here],
        "cut": [here],
    }[action]
    rest = [] if action == "cut" else lines[number + 1 :]
    return "\n".join([*lines[:number], *changed, *rest[:1], *[here] * (action == "move"), *rest[1:]])


ACTIONS = ["insert"] * 5 + ["insert lines"] * 4 + ["insert paragraph"] * 6
ACTIONS += ["replace", "delete", "delete characters", "double", "move", "indent", "quote", "cut"]


@dataclass(frozen=True)
class Edit:
    """A change that is alike in each of these files."""

    paths: tuple[str, ...]
    action: str
    token: str = ""
    line: float = 0
    column: float = 0

    def apply(self, files: Files) -> Files:
        changed = {path: self._content(files.get(path, b"")) for path in self.paths}
        return {path: content for path, content in (files | changed).items() if content is not ...}

    def _content(self, content: object) -> object:
        if not isinstance(content, bytes):
            return content
        if self.action in WHOLE:
            return WHOLE[self.action](content.decode(errors="replace"))
        text = content.decode("utf-8", "surrogateescape")
        return change(text, self.action, self.line, self.column, self.token).encode("utf-8", "surrogateescape")


@dataclass(frozen=True)
class Mutant:
    """Changes; whether a person accepts the translations, whether MkDocs renders the pages, and what else is tried."""

    edits: tuple[Edit, ...]
    accepted: bool = True
    rendered: bool = True
    also: str = ""

    def files(self, files: Files) -> Files:
        for edit in self.edits:
            files = edit.apply(files)
        return files


def draw(seed: int, good: Files) -> Mutant:
    """The mutant of this number."""
    rng = random.Random(seed)
    pages = [path for path in good if re.match(r"docs/en/.*\.md$", path)]
    code = [path for path in good if re.match(r"(snippets|src)/.*\.py$", path) and good[path]]
    tables = {"table": "docs/glossary.csv", "labels": "snippets/area/squares.toml"}
    kind = rng.choices(["page", "matter", "python", *tables, "whole", "names"], [50, 8, 12, 6, 3, 10, 6])[0]
    path, edits = rng.choice(code if kind == "python" else pages), []
    if kind == "whole":
        edits.append(Edit(twins(rng.choice([*pages, *code, *tables.values()]), rng), rng.choice([*WHOLE])))
    elif kind == "names":
        path = Path(rng.choice([*pages, *code]))
        paths = twins(f"{path.parent}/{rng.choice(TOKENS[kind]).format(path.name, path.suffix)}", rng)
        text = "# More { #more }" if path.suffix == ".md" else '# %% more tags=["hidden"]'
        odd = ["insert"] * 3 + ["link to nothing", "folder", "random"]
        edits.append(Edit(tuple(each.replace("¶", "\n") for each in paths), rng.choice(odd), text))
    else:
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            token = rng.choice(TOKENS[kind] if rng.random() < 0.85 else COMMON)
            action, line, column = rng.choice(ACTIONS), rng.random(), rng.choice([0, rng.random(), 1])
            if kind == "matter" and good[path].startswith(b"---"):
                line *= min(1, 8 / good[path].count(b"\n"))
            elif kind == "matter":
                action, line, token = "insert lines", 0, f"---¶{token}¶---¶"
            edits.append(Edit(twins(tables.get(kind, path), rng), action, token, line, column))
    rendered, also = rng.choices([(False, ""), (True, ""), (True, "preview"), (True, "fresh")], [70, 24, 3, 3])[0]
    return Mutant(tuple(edits), rng.random() < 0.9, rendered, also)


def twins(path: str, rng: random.Random) -> tuple[str, ...]:
    """A page, its translation, or mostly both; any other file alone."""
    chinese = path.replace("docs/en/", "docs/zh/")
    return (path,) if chinese == path else rng.choice([(path,), (chinese,)] + [(path, chinese)] * 6)


class Hang(BaseException):
    pass


class Expanded(Exception):
    """All pages are expanded and no error was found; most mutants end here, as rendering takes most of the time."""


class NoRenderer(Renderer):
    def start(self, *_: object) -> None:
        pass

    submit = start

    def collect(self, _: Path) -> None:
        raise Expanded


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise Hang(f"takes more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def write(root: Path, files: Files) -> None:
    """Make these the files of the project, besides its site and its cache."""
    for path in root.iterdir():
        if path.name not in ("site", ".cache", "theme"):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content is None:
            path.mkdir(exist_ok=True)
        else:
            path.symlink_to(content)


def judge(project: Project, good: Files, mutant: Mutant, limit: float = LIMIT) -> Iterator[str]:
    """Build the mutant, and yield what is wrong with the answer, beginning with a name for its kind."""
    files = mutant.files(good)
    try:
        write(project.root, files)
    except OSError:  # the system itself refuses such names
        return
    before = project.site()
    try:
        with time_limit(limit), pytest.MonkeyPatch.context() as patch:
            if not mutant.rendered:
                patch.setattr(build, "Renderer", NoRenderer)
            refused = mutant.accepted and project.command("accept")[0]
            code, messages = project.build("--seconds", "5")
            if mutant.also == "preview":
                yield from preview(project)
    except Hang as error:
        yield f"hang: {error}"
        return
    except Expanded:
        if cause := must_refuse(mutant, good, files):
            yield f"accepted: {cause}"
        return
    except (Exception, SystemExit) as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/src/zhixing" in frame.filename]
        place = f"{Path(frames[-1].filename).name}, {frames[-1].name}" if frames else "?"
        yield f"traceback: {type(error).__name__} in {place}: {error}"
        return
    if mutant.also == "fresh":
        yield from fresh(project, code)
    if left := [path.name for path in (project.root / ".cache").glob("site-*")]:
        yield f"left behind: {left}"
    if code == 0:
        if messages:
            yield f"messages of a build that ends well: {messages}"
        if cause := must_refuse(mutant, good, files):
            yield f"accepted: {cause}"
        yield from incomplete(project, good, files)
        return
    if project.site() != before:
        yield "site touched by a build that was refused"
    if code != 1 or refused not in (0, 1):
        yield f"exit code {code} after {refused}: {messages}"
    if "Traceback (most recent call last)" in messages and "/zhixing_site/" in messages:
        yield f"traceback: printed {messages}"
    yield from vague(messages, project.root, good, {path for edit in mutant.edits for path in edit.paths})


def vague(messages: str, root: Path, good: Files, changed: set[str]) -> Iterator[str]:
    """What is missing in messages: the path of a file and a line of it, or any of the changed files."""
    if not any(path in messages or Path(path).with_suffix("").name in messages for path in changed):
        yield f"does not name the changed file: {messages}"
    for message in re.split(r"\n(?! )", messages.rstrip("\n")):
        where = re.match(r"(?P<path>(?:[^:\n]|:(?![ \d]))+)(?::(?P<line>\d+))?(?:, cell \w+)?: ", message)
        if not where or not (where["path"] in good or os.path.lexists(root / where["path"])):
            yield f"names no file: {message}"
        elif where["path"].startswith("mkdocs"):
            yield f"names a file that is right: {message}"
        elif not where["line"] and not re.search("no counterpart|UTF-8", message):
            yield f"names no line: {message}"
        elif int(where["line"] or 0) > length(root / where["path"]):
            yield f"names a line that is not there: {message}"


def length(path: Path) -> int:
    """The number of lines of a file; one that is not there may have any."""
    return len(re.split(rb"\r\n|\r|\n", path.read_bytes())) if path.is_file() else sys.maxsize


def must_refuse(mutant: Mutant, good: Files, files: Files) -> str:
    """Why the mutant is wrong, whatever the builder says; empty if it may be right."""
    for path in {path for edit in mutant.edits for path in edit.paths}:
        content = files.get(path)
        if path not in good or not isinstance(content, bytes) or path.startswith("src/"):
            continue
        try:
            text = content.decode("utf-8-sig")
            if path.startswith("snippets/") and path.endswith(".py"):
                ast.parse(content)
            if path.endswith(".toml"):
                tomllib.loads(text)
        except (ValueError, SyntaxError) as error:
            return f"{path}: {type(error).__name__}: {error}"
        old, new = ("".join(each.replace("\ufeff", "").split()) for each in (good[path].decode(), text))
        if path.endswith(".md") and old != new and not mutant.accepted and "insert" in mutant.edits[0].action:
            return f"{path} was not reviewed"
    return ""


def incomplete(project: Project, good: Files, files: Files) -> Iterator[str]:
    """What the site lacks, and what it shows raw."""
    for path, content in files.items():
        if not re.match(r"docs/\w\w/.*\.md$", path) or not isinstance(content, bytes):
            continue
        page = Page(path, content.decode())
        built = project.root / "site" / re.sub(r"(^|(?<=/))index/$", "", f"{page.language}/{page.name}/") / "index.html"
        if not built.is_file():
            yield f"absent from the site: {path}"
            continue
        html = lxml.html.fromstring(built.read_bytes())
        article = html.find(".//article")
        if article is None:
            yield f"no article: {path}"
            continue
        for hidden in article.xpath(".//script | .//style | .//textarea | .//template | .//title | .//annotation"):
            hidden.drop_tree()
        visible = article.text_content()
        if "never_run" in visible:
            yield f"shown, not run: {path}"
        old = prose(Page(path, good[path].decode())) if path in good else set()
        if lost := [word for word in sorted(old & prose(page)) if word not in visible]:
            yield f"lost text: {path}: {lost[:5]}"
        for code in article.xpath(".//pre | .//code"):
            code.drop_tree()
        text = article.text_content()
        for raw in "$", "{{", "--8<--", ":::", "{#", "```":
            if text.count(raw) > page.text.count("\\" + raw) + page.text.count("&#36;") * (raw == "$"):
                at = text.index(raw)
                yield f"raw {raw}: {path}: {text[max(0, at - 30) : at + 30]!r}"


WORD = re.compile(r"[a-zA-Z]{3,}|[\u4e00-\u9fff]+")


def prose(page: Page) -> set[str]:
    """The words of a page outside of its marks, and of its headings."""
    text = page.sub(lambda mark: HEADING_ID.sub("", mark["heading"]) if mark["heading"] else " ")
    return set(WORD.findall(re.sub(r"<[^>]*>|\{[^}]*\}|^:::.*|^!!!.*|\[[^]]*\]:.*", " ", text, flags=re.MULTILINE)))


def preview(project: Project) -> Iterator[str]:
    """What a preview of the project prints that is no message."""
    with contextlib.chdir(project.root), build.Renderer(project.root) as renderer:
        shown = Preview(project.root, Limits(5), lambda *_: None, renderer)
        shown.update()
    if "Traceback (most recent call last)" in shown.errors:
        yield f"traceback: in the preview {shown.errors}"


def fresh(project: Project, code: int) -> Iterator[str]:
    """How the answer differs from that of a new process that has rendered nothing yet."""
    site = project.site()
    shutil.rmtree(project.root / ".cache/rendered", ignore_errors=True)
    arguments = [sys.executable, "-m", "zhixing_site", "build", "--seconds", "5"]
    done = subprocess.run(arguments, cwd=project.root, capture_output=True, text=True, timeout=LIMIT, check=False)
    if done.returncode != code or "zhixing_site/cli.py" in done.stderr:
        yield f"another answer from a new process: exit code {done.returncode}, not {code}: {done.stderr}"
    elif project.site() != site:
        names = sorted(name for name, content in project.site().items() if site.get(name) != content)
        yield f"another site from a new process: {names}"


def judge_copies(seed: int, good: Files, folder: Path) -> Iterator[str]:
    """Copy a function, damage the file or its original, change the module, and yield what `zhixing` does wrong."""
    rng = random.Random(seed)
    package, where = folder / "package", folder / "copies"
    write(package, {"area/ruler.py": good["src/zhixing/area/ruler.py"]})
    write(where, {})

    def zhixing(*arguments: str) -> tuple[int, str]:
        printed = io.StringIO()
        with contextlib.chdir(where), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            code = zhixing_copy.cli.main(list(arguments))
        return code, printed.getvalue()

    def contents() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in where.rglob("*") if path.is_file()}

    with pytest.MonkeyPatch.context() as patch:
        for module in zhixing_copy.cli, zhixing_copy.project:
            patch.setattr(module, "installed", lambda: read_modules(package))
        zhixing("copy", "measure")
        zhixing("copy", "ruler")
        files = {path.relative_to(where).as_posix(): path.read_bytes() for path in where.rglob("*.py")}
        edits, line = [], rng.uniform(0.6, 1)  # the last lines are those of the function in all three
        for path in rng.choices(["measure.py", ".zhixing/measure.py", "module"], [6, 2, 4], k=rng.choice([1, 2, 2])):
            action = rng.choice(ACTIONS + [*WHOLE] * (path != "module"))
            token = rng.choice(TOKENS["python"] + COMMON)
            edits.append(Edit((path,), action, token, rng.choice([line, rng.random()]), rng.choice([0, 1])))
            files = edits[-1].apply(files | {"module": good["src/zhixing/area/ruler.py"]})
        module = files.pop("module")
        with contextlib.suppress(ValueError, SyntaxError):  # a module that is published runs
            ast.parse(module)
            write(package, {"area/ruler.py": module})
        write(where, files)
        for arguments in rng.choices([["check", "."], ["check", "measure.py"], ["update", "measure.py"]], k=3):
            before, told = contents(), f"{' '.join(arguments)}, after {edits}:"
            try:
                code, printed = zhixing(*arguments)
            except Exception as error:
                frames = traceback.extract_tb(error.__traceback__)
                yield f"command: traceback: {type(error).__name__} in {frames[-1].name}: {error}: {told}"
                return
            if code not in (0, 1, 2) or not printed.strip():
                yield f"command: exit code {code}, and {printed!r}: {told}"
            if (code == 2 or arguments[0] == "check") and contents() != before:
                yield f"command: files touched with exit code {code}: {told}"
            after = next((content for name, content in contents().items() if name.endswith("copies/measure.py")), b"")
            if arguments[0] == "update" and code == 0 and b"<<<<<<<" in after:
                yield f"command: an update that ends well leaves conflicts: {told}"
            if code < 2 and b"SPDX" in after and "measure.py" not in printed:
                yield f"command: the copied file is left out: {told} {printed}"


def minimal(project: Project, good: Files, mutant: Mutant, kind: str) -> Mutant:
    """The mutant without the changes that the finding does not need."""
    for edit in mutant.edits:
        smaller = replace(mutant, edits=tuple(each for each in mutant.edits if each is not edit))
        if smaller.edits and any(finding.startswith(kind) for finding in judge(project, good, smaller)):
            mutant = smaller
    return mutant


def describe(good: Files, mutant: Mutant) -> str:
    """How the mutant differs from the good project."""
    lines, files = [], mutant.files(good)
    for path in sorted(path for path in good.keys() | files.keys() if good.get(path) != files.get(path, ...)):
        old, new = good.get(path, b""), files.get(path, "absent")
        if isinstance(new, bytes):
            texts = [each.decode(errors="backslashreplace").split("\n") for each in (old, new)]
            lines += difflib.unified_diff(*texts, path, path, n=0, lineterm="")
        else:
            lines.append(f"{path}: {new or 'a folder'}")
    short = [line if len(line) < 200 else f"{line[:200]}… ({len(line)} characters)" for line in lines]
    return "\n".join(repr(line)[1:-1] for line in short[:30]) + "\nnot accepted" * (not mutant.accepted)


@contextlib.contextmanager
def prepared(root: Path) -> Iterator[tuple[Project, Files]]:
    """The good project, built, in a folder of its own; the processes of MkDocs stay for all builds, as in a preview."""
    project, good = Project(root, forks=False), good_files()
    write(root, good)
    assert project.command("accept")[0] == project.build()[0] == 0
    with contextlib.chdir(root):
        load_config()  # imports the extensions before processes are forked
    reviewed = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.glob("docs/reviewed/**/*.txt")}

    @contextlib.contextmanager
    def kept(_: Path) -> Iterator[Renderer]:
        try:
            yield renderer
        finally:
            for language in renderer.requests:  # a refused build does not wait for them
                renderer.workers.pop(language).end()
            renderer.requests.clear()

    with forked_workers(), Renderer(root) as renderer, pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "Renderer", kept)
        yield project, good | reviewed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the first mutant; then counted up")
    parser.add_argument("--mutants", type=int, default=10**9)
    options = parser.parse_args()
    seen: collections.Counter = collections.Counter()
    started, seed = time.monotonic(), options.seed
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fuzz-"))).resolve()
        for name in "project", "package", "copies":
            (folder / name).mkdir()
        project, good = stack.enter_context(prepared(folder / "project"))
        while seed < options.seed + options.mutants and time.monotonic() < started + 60 * options.minutes:
            mutant = draw(seed, good)
            findings = [*judge(project, good, mutant), *judge_copies(seed, good, folder)]
            for finding in findings:
                kind = re.sub(r"\S*/\S*|\d+|['`\"\[].*", "", finding.partition("\n")[0])[:90]
                seen[kind] += 1
                if seen[kind] == 1:
                    print(f"\n== seed {seed}: {finding[:3000]}", flush=True)
                    if not finding.startswith("command"):
                        print(describe(good, minimal(project, good, mutant, finding.partition(":")[0])), flush=True)
            seed += 1
    minutes = (time.monotonic() - started) / 60
    print(f"\n{seed - options.seed} mutants, {(seed - options.seed) / minutes:.0f} a minute, first seed {options.seed}")
    print(*(f"{count:5} {kind}" for kind, count in seen.most_common()), sep="\n")
    return 1 if seen else 0


if __name__ == "__main__":
    sys.exit(main())
