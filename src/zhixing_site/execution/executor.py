"""Run all cells of one snippet in this process, and make the executed notebook: outputs, drawings, values to quote."""

import json
import math
import sys
import types
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import matplotlib.pyplot as plt

from zhixing_copy.standalone import digest
from zhixing_site.execution import figures
from zhixing_site.execution.dependencies import DependencyTracker
from zhixing_site.execution.frames import draw_frames
from zhixing_site.execution.session import INSTEAD, CellOutput, Session, future_features
from zhixing_site.execution.snippet import UNSHOWABLE, Cell, Snippet


def execute(snippet: Snippet, root: Path, begin: Callable[[Cell], object]) -> tuple[dict, dict[str, str], set[str]]:
    """Run all cells, and call `begin` with each one before it runs; raises BuildError at the first error.

    Returns the executed notebook; the files that were read, {path: digest}; the top-level modules that were imported.
    """
    figures.house_style()
    dependencies = DependencyTracker(root)
    dependencies.opened[snippet.path] = digest(snippet.content)
    sys.argv = [snippet.path]
    main = sys.modules["__main__"] = types.ModuleType("__main__")  # where pickle looks for what a cell defines
    main.__file__ = str(root / snippet.path)
    session = Session(vars(main), root, future_features(snippet))
    cells = []
    for number, cell in enumerate(snippet.cells, 1):
        begin(cell)
        output = session.run(cell)
        drawn = _draw(cell, root)
        metadata = {"title": cell.name, "tags": ["hidden"] * cell.hidden, **drawn}
        code = {"id": cell.name, "source": cell.source, "execution_count": number, "metadata": metadata}
        cells.append({"cell_type": "code", **code, "outputs": _outputs(cell, output, drawn["drawings"])})
    metadata = {"language_info": {"name": "python"}, "zhixing": {"values": _quotable(vars(main))}}
    notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": cells}
    modules = {name.partition(".")[0] for name in list(sys.modules)}
    return json.loads(json.dumps(notebook)), dependencies.files(), modules  # without types of the snippet's own


def _draw(cell: Cell, root: Path) -> dict[str, dict]:
    """The `drawings` of the figure that the cell left open, and its `frames`, if it has some; it is closed here."""
    opened = [plt.figure(number) for number in plt.get_fignums()]
    if len(opened) > 1 and not cell.frames:
        cause = f'draws {len(opened)} figures; a cell may draw only one, which the page captions, or frames="…" of one'
        raise cell.error(cause)
    if not opened and not cell.frames:
        return {"drawings": {}}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # a character that no font has
            if not cell.frames:
                return {"drawings": figures.draw(opened, cell.path, root)[0]}
            frames = draw_frames(opened, cell, root)
            return {"drawings": frames["drawings"][frames["poster"]], "frames": frames}
    except Exception as error:
        raise cell.error(f"the figure cannot be drawn: {error}") from error
    finally:
        plt.close("all")


def _outputs(cell: Cell, output: CellOutput, drawings: dict[str, str]) -> list[dict]:
    """What the cell printed, drew or evaluated to, and raised, as outputs of a notebook; raises BuildError."""
    for text in (output.printed, output.value, output.raised):
        if character := UNSHOWABLE.search(text):
            raise cell.error(f"shows the character {character[0]!r}, which no page can contain")
    if output.opaque and not drawings:
        raise cell.error(f"ends with {output.value}, of which a page could show only this text; assign it, {INSTEAD}")
    outputs = []
    if output.printed:
        outputs.append({"output_type": "stream", "name": "stdout", "text": output.printed})
    # The value of a drawing cell's last line is noise: [<matplotlib.lines.Line2D at 0x…>].
    data = {"image/svg+xml": drawings["en-light"]} if drawings else {"text/plain": output.value}
    if any(data.values()):
        outputs.append({"output_type": "display_data", "metadata": {}, "data": data})
    if output.raised:
        error = {"ename": cell.raises, "evalue": output.raised.partition(": ")[2], "traceback": [output.raised]}
        outputs.append({"output_type": "error", **error})
    return outputs


def _quotable(variables: dict[str, object]) -> dict[str, bool | int | float | str]:
    """The variables that a page can quote: finite numbers, truth values and short strings."""
    values = {}
    for name, value in variables.items():
        with suppress(Exception):  # a number in an array or tensor without dimensions
            value = value.item() if value.ndim == 0 else value
        short = isinstance(value, str) and len(value) < 200 and not UNSHOWABLE.search(value)
        finite = isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
        if not name.startswith("_") and (short or finite):
            values[name] = value
    return values
