"""A row of pictures that a reader moves through: no kernel and no script, only radio buttons and a style sheet.

The browser's own keys work: arrows go from frame to frame once a button has the focus, which is told what its picture
shows. The site lays a slider over the buttons (``_static/frames.js``); it is a comfort, and nothing waits for it. Where
styles are stripped from the page, all the frames stand one below the other, each under its own value.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping
from hashlib import sha256
from html import escape
from io import BytesIO
from itertools import count
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from PIL import Image

from threefactors.presentation.drawn import FIGURE_MIME, axis_labels, payload, together

MOST = 14  # buttons side by side on a phone that a finger still tells apart: 24 pixels each
# on a phone a row of panels is as tall as in other figures, and scrolls in its own frame
_PHONE = (
    "@media(max-width:576px){{{of}>.tf-stage{{overflow-x:auto}}{of} img{{width:auto;max-width:none;height:17rem}}}}"
)

_shown = count(1)


class Frames:
    """Figures under labels, of which one is seen at a time.

    frames: label → figure, in order, all of one size (they are closed here); title: what the labels are values of;
    alt: label → what a reader who does not see the frame is told; start: the first to be seen, and the one that is
    printed (None: the middle one). Name and caption come from the cell's metadata, as for every figure.
    Errors: ValueError for fewer than 2 or more than 14 frames, figures of different sizes, one without alternative
    text, or a start that is none of them.
    """

    def __init__(
        self,
        frames: Mapping[str, Figure],
        *,
        title: str,
        alt: Mapping[str, str] | Callable[[str], str],
        start: str | None = None,
    ) -> None:
        if not 2 <= len(frames) <= MOST:
            raise ValueError(f"{len(frames)} frames to move through; use 2 to {MOST}, or the figure itself")
        if start is not None and start not in frames:
            raise ValueError(f"start={start!r} is none of the frames {list(frames)}; use one of them")
        self.title, self.start = title, start or list(frames)[len(frames) // 2]
        self.alt = {label: alt(label) if callable(alt) else alt.get(label, "") for label in frames}
        if silent := [label for label, text in self.alt.items() if not text.strip()]:
            raise ValueError(f"frames {silent} have no alternative text; say in words what each shows")
        if len(sizes := {tuple(figure.get_size_inches()) for figure in frames.values()}) > 1:
            raise ValueError(f"frames of {len(sizes)} sizes {sorted(sizes)} would make the page jump; use one figsize")
        first = next(iter(frames.values()))
        self.width, self.height = (round(float(length) * 110) for length in first.get_size_inches())
        self.table, self.labels = together(frames), axis_labels(first)
        self.images = {label: _png(figure) for label, figure in frames.items()}

    def __repr__(self) -> str:
        lines = [f"{self.title} = {label}: {text}" for label, text in self.alt.items()]
        return "\n".join([f"{len(lines)} frames", *lines])

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        """The data of all frames, beside the page and the words that IPython asks for itself."""
        return {FIGURE_MIME: payload(self.table, self.labels)} if len(self.table) else {}

    def _repr_html_(self) -> str:
        name = "frames-" + sha256("".join(self.images.values()).encode()).hexdigest()[:8] + f"-{next(_shown)}"
        buttons, pictures = [], []
        for i, (label, image) in enumerate(self.images.items()):
            checked = " checked" if label == self.start else ""
            buttons.append(
                f'<input type="radio" name="{name}" id="{name}-{i}" aria-describedby="{name}-{i}-seen"{checked}>'
                f'<label for="{name}-{i}">{escape(label)}</label>'
            )
            pictures.append(
                f'<div><p class="tf-value">{escape(self.title)} = <b>{escape(label)}</b></p>'
                f'<img class="dark-light" id="{name}-{i}-seen" width="{self.width}" height="{self.height}" '
                f'src="data:image/png;base64,{image}" alt="{escape(self.alt[label])}"></div>'
            )
        return (
            f'<div class="tf-frames" id="{name}" role="group" aria-labelledby="{name}-title">'
            f"<style>{_style(name, len(pictures), wide=self.width > 1.75 * self.height)}</style>"
            f"{''.join(buttons)}"
            f'<p class="tf-scale" id="{name}-title">{escape(self.title)}</p>'
            f'<div class="tf-stage">{"".join(pictures)}</div></div>'
        )


def _style(name: str, n: int, wide: bool) -> str:
    """The rules of one widget; its name keeps them away from everything else on the page."""
    of = f"#{name}"
    shown = ",".join(f"{of}-{i}:checked~.tf-stage>:nth-child({i + 1})" for i in range(n))
    places = "".join(f"{of}-{i},{of}-{i}+label{{grid-column:{i + 1}}}" for i in range(n))
    return (
        f"{of}{{display:grid;grid-template-columns:repeat({n},minmax(0,1fr));align-items:center;justify-items:center;"
        "row-gap:.1rem;max-width:46rem;margin:0 auto}"
        f"{of}>[type=radio]{{grid-row:2;margin:.2rem 0 0;width:1.5rem;height:1.5rem;"
        "accent-color:#3b8bd0;cursor:pointer}"
        f"{of}>[type=radio]:focus-visible{{outline:.2rem solid #3b8bd0;outline-offset:.1rem}}"
        f"{of}>label{{grid-row:3;justify-self:stretch;margin:0;padding:.1rem 0;min-height:1.5rem;text-align:center;"
        "font-size:.8em;cursor:pointer;font-variant-numeric:tabular-nums}"
        f"{of}>[type=radio]:checked+label{{font-weight:700;text-decoration:underline}}"
        f"{of}>.tf-scale{{grid-row:4;grid-column:1/-1;margin:0;font-size:.9em}}"
        f"{of}>.tf-stage{{grid-row:1;grid-column:1/-1;width:100%}}"
        f"{of}>.tf-stage>div{{display:none}}"
        f"{of} .tf-value{{margin:0;font-size:.9em;text-align:center}}"
        f"{of} img{{width:100%;height:auto;padding:0;background:none}}"
        f"{_PHONE.format(of=of) if wide else ''}"
        f"@media print{{{of}>[type=radio]{{display:none}}}}"
        f"{places}{shown}{{display:block}}"
    )


def _png(figure: Figure) -> str:
    """The figure at twice the screen's resolution in 128 colors, some with transparency: a third of its plain size."""
    plain, small = BytesIO(), BytesIO()
    figure.savefig(plain, format="png", dpi=150, transparent=True, bbox_inches=None)  # one size for all frames
    plt.close(figure)
    with Image.open(plain) as image:
        image.quantize(128, method=Image.Quantize.FASTOCTREE).save(small, "png", optimize=True)
    return b64encode(small.getvalue()).decode()
