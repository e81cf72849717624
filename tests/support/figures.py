"""What of a figure a picture of it does not show."""

from typing import Any
from unittest.mock import patch

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text

SLACK = 1  # pixel, which rounding may cost


def cut_off(figure: Figure) -> list[str]:
    """Texts and legends that are drawn outside the figure, in part or whole."""
    found = []
    for artist in (*_texts(figure), *figure.findobj(Legend)):
        box, page = artist.get_window_extent(), figure.bbox
        if min(box.x0, box.y0) < -SLACK or box.x1 > page.x1 + SLACK or box.y1 > page.y1 + SLACK:
            found.append(artist.get_text() if isinstance(artist, Text) else "the legend")
    return found


def _texts(figure: Figure) -> list[Text]:
    """Those that are drawn; a figure holds labels of ticks beyond its axes too, which are not."""
    canvas, drawn, draw = FigureCanvasAgg(figure), [], Text.draw

    def record(text: Text, renderer: Any) -> None:
        drawn.append(text)
        draw(text, renderer)

    canvas.draw()  # the layout is settled by then
    with patch.object(Text, "draw", record):
        canvas.draw()
    return [text for text in drawn if text.get_text().strip()]
