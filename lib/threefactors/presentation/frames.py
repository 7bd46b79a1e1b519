"""A row of pictures that a reader moves through: no script and no kernel, only radio buttons and a style sheet.

The browser's own keys work: arrows go from frame to frame once a button has the focus. Where styles are stripped from
the page, all the frames stand one below the other, each under its own label.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping
from hashlib import sha256
from html import escape
from io import BytesIO
from itertools import count

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from PIL import Image

_shown = count(1)


class Frames:
    """Figures under labels, of which one is seen at a time; the middle one to begin with.

    frames: label → figure, in order, all of one size (they are closed here); title: what the labels are values of;
    alt: label → what a reader who does not see the frame is told; caption: one for all frames, in plain text.
    Errors: ValueError for fewer than two frames, or one without alternative text.
    """

    def __init__(
        self,
        frames: Mapping[str, Figure],
        *,
        title: str,
        alt: Mapping[str, str] | Callable[[str], str],
        caption: str = "",
    ) -> None:
        if len(frames) < 2:
            raise ValueError(
                f"{len(frames)} frame leaves nothing to move through; use at least 2, or the figure itself"
            )
        self.title, self.caption = title, caption
        self.alt = {label: alt(label) if callable(alt) else alt.get(label, "") for label in frames}
        if silent := [label for label, text in self.alt.items() if not text.strip()]:
            raise ValueError(f"frames {silent} have no alternative text; say in words what each shows")
        self.images = {label: _png(figure) for label, figure in frames.items()}

    def __repr__(self) -> str:
        lines = [f"{self.title} = {label}: {text}" for label, text in self.alt.items()]
        return "\n".join([f"{len(lines)} frames", *lines])

    def _repr_html_(self) -> str:
        name = "frames-" + sha256("".join(self.images.values()).encode()).hexdigest()[:8] + f"-{next(_shown)}"
        middle = len(self.images) // 2
        buttons, pictures = [], []
        for i, (label, image) in enumerate(self.images.items()):
            checked = " checked" if i == middle else ""
            buttons.append(
                f'<input type="radio" name="{name}" id="{name}-{i}"{checked}>'
                f'<label for="{name}-{i}">{escape(label)}</label>'
            )
            said = escape(f"{self.title} = {label}: {self.alt[label]}")
            pictures.append(f'<img class="dark-light" src="data:image/png;base64,{image}" alt="{said}">')
        caption = f'<p class="caption">{escape(self.caption)}</p>' if self.caption else ""
        return (
            f'<div class="tf-frames" id="{name}" role="radiogroup" aria-labelledby="{name}-title">'
            f"<style>{_style(name, len(pictures))}</style>"
            f"{''.join(buttons)}"
            f'<p class="tf-scale" id="{name}-title">{escape(self.title)}</p>'
            f'<div class="tf-stage">{"".join(pictures)}</div>{caption}</div>'
        )


def _style(name: str, n: int) -> str:
    """The rules of one widget; its name keeps them away from everything else on the page."""
    of = f"#{name}"
    shown = ",".join(f"{of}-{i}:checked~.tf-stage>:nth-child({i + 1})" for i in range(n))
    places = "".join(f"{of}-{i},{of}-{i}+label{{grid-column:{i + 1}}}" for i in range(n))
    return (
        f"{of}{{display:grid;grid-template-columns:repeat({n},minmax(0,1fr));align-items:center;justify-items:center;"
        "row-gap:.15rem;max-width:46rem}"
        f"{of}>input{{grid-row:2;margin:.3rem 0 0;width:1.1rem;height:1.1rem;accent-color:#3b8bd0;cursor:pointer}}"
        f"{of}>label{{grid-row:3;padding:0 .1rem;font-size:.8em;cursor:pointer;font-variant-numeric:tabular-nums}}"
        f"{of}>input:checked+label{{font-weight:700;text-decoration:underline}}"
        f"{of}>.tf-scale{{grid-row:4;grid-column:1/-1;margin:0;font-size:.9em}}"
        f"{of}>.tf-stage{{grid-row:1;grid-column:1/-1;width:100%}}"
        f"{of}>.caption{{grid-row:5;grid-column:1/-1;margin:.6rem 0 0;font-size:.95em}}"
        f"{of}>.tf-stage>img{{display:none;width:100%;height:auto;padding:0;background:none}}"
        f"{places}{shown}{{display:block}}"
    )


def _png(figure: Figure) -> str:
    """The figure at twice the screen's resolution in 64 colors, some with transparency: a third of its plain size."""
    plain, small = BytesIO(), BytesIO()
    figure.savefig(plain, format="png", dpi=150, transparent=True, bbox_inches=None)  # one size for all frames
    plt.close(figure)
    with Image.open(plain) as image:
        image.quantize(64, method=Image.Quantize.FASTOCTREE).save(small, "png", optimize=True)
    return b64encode(small.getvalue()).decode()
