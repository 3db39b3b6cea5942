"""The errors that stop a build, each with its place."""

from dataclasses import dataclass


@dataclass(eq=False)
class BuildError(Exception):
    """One error. `path` is relative to the project's root; `line` counts from 1, 0 is the whole file."""

    cause: str
    path: str = ""
    line: int = 0
    cell: str = ""
    pages: tuple[str, ...] = ()

    def __str__(self) -> str:
        where = self.path + (f":{self.line}" if self.line else "") + (f", cell {self.cell}" if self.cell else "")
        text = (f"{where}: " if where else "") + self.cause.strip().replace("\n", "\n  ")
        return text + "".join(f"\n  shown on {page}" for page in self.pages)


class BuildErrors(BuildError):
    """All errors of one step, so that an author can correct them together."""

    def __init__(self, errors: list[BuildError]):
        super().__init__("\n".join(dict.fromkeys(map(str, errors))))
        self.errors = errors

    def __str__(self) -> str:
        return self.cause
