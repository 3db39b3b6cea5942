"""Draw the frames of a picture: the figures of one cell, among which a reader chooses by a slider."""

from pathlib import Path

from zhixing_site.execution.figures import draw, in_chinese
from zhixing_site.execution.snippet import Cell


def draw_frames(figures: list, cell: Cell, root: Path) -> dict[str, object]:
    """What the slider sets, the labels and drawings of the frames, and which of them is the poster.

    {"knob": {"en": …, "zh": …}, "labels": {"en": […], "zh": […]}, "drawings": [{"en-light": svg, …}, …], "poster": 0}

    Raises ValueError if they are no frames of one picture.
    """
    labels = [figure.get_label() for figure in figures]
    _check_labels(labels, cell)
    first, *others = map(_layout, figures)
    for label, layout in zip(labels[1:], others, strict=True):
        for part in first | layout:
            if first.get(part) != layout.get(part):
                values = f"{first.get(part)} in the frame {labels[0]} and {layout.get(part)} in {label}"
                raise ValueError(f"the picture would jump: {part} is {values}")
    texts = in_chinese([cell.frames, *labels], cell.path, root)
    return {
        "knob": {"en": cell.frames, "zh": texts[cell.frames]},
        "labels": {"en": labels, "zh": [texts[label] for label in labels]},
        "drawings": draw(figures, cell.path, root),
        "poster": labels.index(cell.poster) if cell.poster else 0,
    }


def _check_labels(labels: list[str], cell: Cell) -> None:
    if len(labels) < 2:
        raise ValueError(f"frames=… stands for at least two figures; the cell leaves {len(labels)}")
    if not all(labels):
        raise ValueError(f"a frame has a label, such as plt.subplots(num='0.5'); here they are {labels}")
    if len(set(labels)) < len(labels):
        raise ValueError(f"two frames have the same label: {labels}")
    if cell.poster and cell.poster not in labels:
        raise ValueError(f"no frame is labelled {cell.poster}, the poster; the frames are {labels}")


def _layout(figure) -> dict[str, list[float]]:
    """What the frames of a picture have in common: {what: value}."""
    layout = {"the size": figure.get_size_inches(), "the number of axes": [len(figure.axes)]}
    for number, axes in enumerate(figure.axes, 1):
        layout[f"the x range of axes {number}"] = axes.get_xlim()
        layout[f"the y range of axes {number}"] = axes.get_ylim()
    return {part: [round(float(value), 6) for value in values] for part, values in layout.items()}
