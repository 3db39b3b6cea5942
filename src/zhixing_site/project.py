"""The project's settings: its languages, where the site and its source are hosted, the commit and day of a build."""

import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from zhixing_copy.catalogue import addresses
from zhixing_copy.standalone import digest

LANGUAGES = ("en", "zh")
CONFIGS = {"en": "mkdocs.yml", "zh": "mkdocs.zh.yml"}


def site_url() -> str:
    """The address of the built site, with a slash at its end: SITE_URL, or else what pyproject.toml says."""
    site = os.environ.get("SITE_URL")
    return site.rstrip("/") + "/" if site else addresses()["Site"]


def source_url() -> str:
    """The address of the repository, with a slash at its end."""
    return addresses()["Source"]


def file_digest(path: Path) -> str:
    """The digest of the file's bytes; 'absent' where there is no file, which is worth recording too."""
    try:
        return digest(path.read_bytes())
    except OSError:
        return "absent"


def folder_digest(folder: Path) -> str:
    """The digest of the names and bytes of all files below the folder, without compiled modules."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return digest("".join(f"{path.relative_to(folder)} {file_digest(path)}\n" for path in files))


def read_commit(root: Path) -> str:
    """The commit, with `-dirty` if files differ from it; empty if there is none."""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def today() -> str:
    """The date in UTC: that of SOURCE_DATE_EPOCH, as in MkDocs and other programs, or else today's."""
    seconds = os.environ.get("SOURCE_DATE_EPOCH")
    return (datetime.fromtimestamp(int(seconds), UTC) if seconds else datetime.now(UTC)).date().isoformat()
