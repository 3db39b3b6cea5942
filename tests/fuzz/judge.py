"""Build a mutant, and say what is wrong with the answer."""

import ast
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
import traceback
from collections.abc import Iterator
from pathlib import Path

import lxml.html
import pytest
from mutants import Mutant
from small import Files, Project, write

from zhixing_site import build
from zhixing_site.content.page import HEADING_ID, Page
from zhixing_site.execution.processes import Limits
from zhixing_site.serve import Preview
from zhixing_site.site.mkdocs import Renderer

LIMIT = 120  # seconds for a build, of which none here takes more than a few


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


WITHOUT_LINE = "no counterpart|UTF-8|the name of a page|cannot be copied"  # of a whole file, or of what it lacks


def vague(messages: str, root: Path, good: Files, changed: set[str]) -> Iterator[str]:
    """What is missing in messages: the path of a file and a line of it, or any of the changed files."""
    changed |= {ascii(path)[1:-1] for path in changed}  # as messages write names that cannot be printed
    own = any(path.startswith("src/") for path in changed)  # an error may be where the module is used
    if not own and not any(path in messages or Path(path).with_suffix("").name in messages for path in changed):
        yield f"does not name the changed file: {messages}"
    for message in re.split(r"\n(?! )", messages.rstrip("\n")):
        where = re.match(r"(?P<path>(?:[^:\n]|:(?![ \d]))+)(?::(?P<line>\d+))?(?:, cell \w+)?: ", message)
        if not where or not (
            where["path"] in good or where["path"] in changed or os.path.lexists(root / where["path"])
        ):
            yield f"names no file: {message}"
        elif where["path"].startswith("mkdocs"):
            yield f"names a file that is right: {message}"
        elif not where["line"] and (root / where["path"]).is_file() and not re.search(WITHOUT_LINE, message):
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
                tomllib.loads(re.sub("\r\n?", "\n", text))
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
