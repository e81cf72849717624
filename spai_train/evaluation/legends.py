"""Legends that stay inside their figure, whatever they name."""

from collections.abc import Sequence

from matplotlib.artist import Artist
from matplotlib.figure import Figure

from spai_runtime.files.sources import printable

LETTERS = 28  # of a name


def short(name: str) -> str:
    """A name that leaves room for the axes; a dollar sign would begin a formula."""
    name = printable(name)
    return (name if len(name) <= LETTERS else name[: LETTERS - 1] + "…").replace("$", r"\$")


def legend_above(figure: Figure, handles: Sequence[Artist], labels: Sequence[str]) -> None:
    """Names the handles above the axes, in as many columns as the figure is wide enough for.

    :param figure: a figure of the layout `constrained`, which makes room for the legend
    """
    for columns in range(len(labels), 0, -1):
        legend = figure.legend(handles, labels, loc="outside upper center", ncols=columns, frameon=False)
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return
        legend.remove()


def legend_beside(figure: Figure, handles: Sequence[Artist], labels: Sequence[str], columns: int, axes: float) -> None:
    """Names the handles at the right of the axes, and widens the figure where that would leave less for them.

    :param axes: inches of the figure's width
    """
    legend = figure.legend(handles, labels, loc="outside right upper", ncols=columns, frameon=False, fontsize="small")
    figure.set_figwidth(max(figure.get_figwidth(), axes + legend.get_window_extent().width / figure.dpi))
