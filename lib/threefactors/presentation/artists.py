"""What single artists of Matplotlib show: their data, read back in the coordinates of their axes.

A label that begins with an underscore stays out of legends, as Matplotlib has it; here it names the series all the
same. `GUIDE` is the label of what only helps the eye, such as a diagonal or level lines behind points: left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection, PolyCollection, QuadMesh
from matplotlib.colors import to_rgb
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.contour import ContourSet
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.quiver import Quiver
from numpy.typing import NDArray

GUIDE = "_guide"
_AUTOMATIC = re.compile(r"None|_nolegend_|_(child|container)\d+")

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Shown:
    """The data of one artist: ``mark`` how it is drawn, columns of equal length; ``label`` is "" where it has none."""

    mark: str
    columns: dict[str, Array]
    label: str
    color: tuple[float, float, float] | None

    def __len__(self) -> int:
        return max(map(len, self.columns.values()))


def shown(ax: Axes) -> Iterator[Shown]:
    """What the artists of one panel show, in the order in which they were drawn; guides are left out."""
    whole = {id(part): one for one in ax.containers if isinstance(one, _WHOLE) for part in one.get_children()}
    beside_bars = {id(one.errorbar) for one in ax.containers if isinstance(one, BarContainer)}
    seen: set[int] = set()
    for child in ax.get_children():
        artist = whole.get(id(child), child)
        if id(artist) in seen | beside_bars or not child.get_visible():
            continue
        seen.add(id(artist))
        label = str(artist.get_label())
        named = "" if _AUTOMATIC.fullmatch(label) else label.removeprefix("_")
        read = next((read for kind, read in _READERS.items() if isinstance(artist, kind)), None)
        if read is None or label == GUIDE:
            continue
        mark, columns = read(artist, ax, bool(named))
        if columns:
            yield Shown(mark, {name: _floats(data) for name, data in columns.items()}, named, _color(artist))


def _line(line: Line2D, ax: Axes, named: bool) -> Any:
    x, y = map(_floats, line.get_data(orig=False))
    in_x, in_y = _in_data(line, ax)
    if in_x and in_y:
        return "line" if line.get_linestyle() not in ("None", " ", "") else "point", {"x": x, "y": y}
    if not named or not (in_x or in_y):  # a guide, or a remark at a place of the axes
        return "line", {}
    return "line", {"x": x[:1]} if in_x else {"y": y[:1]}


def _errorbar(bars: ErrorbarContainer, ax: Axes, named: bool) -> Any:
    if bars[0] is None:  # intervals alone
        return "band", _intervals(bars[2])
    x, y = bars[0].get_data(orig=False)
    return "point", {"x": x, "y": y} | _about({"x": x, "y": y}, bars)


def _bar(bars: BarContainer, ax: Axes, named: bool) -> Any:
    along, across = ("x", "y") if bars.orientation == "horizontal" else ("y", "x")
    boxes = [(b.get_x(), b.get_y(), b.get_width(), b.get_height()) for b in bars.patches]
    x, y, width, height = np.array(boxes, dtype=float).reshape(-1, 4).T
    start, end, middle = (x, x + width, y + height / 2) if along == "x" else (y, y + height, x + width / 2)
    data = {across: middle, along: end}
    if bars.errorbar is not None:
        data |= _about(data, bars.errorbar)
    elif np.any(start):
        data |= {f"{along}_low": np.minimum(start, end), f"{along}_high": np.maximum(start, end)}
    return "bar", data


def _about(center: dict[str, Any], bars: ErrorbarContainer) -> dict[str, Array]:
    """Ends of the bars about the points; NaN where a bar has no length: there is no interval."""
    found: dict[str, Array] = {}
    axes = [name for name, there in (("x", bars.has_xerr), ("y", bars.has_yerr)) if there]
    for axis, collection in zip(axes, bars[2], strict=True):
        ends = np.array([path.vertices[:, "xy".index(axis)] for path in collection.get_paths()], dtype=float)
        if len(ends) == len(center[axis]):  # not so with errorevery
            ends[ends[:, 0] == ends[:, 1]] = np.nan
            found |= {f"{axis}_low": ends.min(axis=1), f"{axis}_high": ends.max(axis=1)}
    return found


def _between(area: PolyCollection, ax: Axes, named: bool) -> Any:
    """fill_between and fill_betweenx; their polygons begin with a corner, go up one curve and back along the other."""
    columns: dict[str, list[float]] = {}
    for path in area.get_paths():
        corners = np.asarray(path.vertices)
        n = len(corners) // 2 - 1
        there, back = corners[1 : n + 1], corners[n + 2 : 2 * n + 2][::-1]
        along = next((k for k in (0, 1) if n > 0 and np.array_equal(there[:, k], back[:, k])), None)
        if along is None:
            return "band", {}
        both = np.column_stack([there[:, 1 - along], back[:, 1 - along]])
        for name, data in zip(
            ("xy"[along], f"{'yx'[along]}_low", f"{'yx'[along]}_high"),
            (there[:, along], both.min(axis=1), both.max(axis=1)),
            strict=True,
        ):
            columns.setdefault(name, []).extend(data)
    return "band", columns


def _segments(lines: LineCollection, ax: Axes, named: bool) -> Any:
    return "band", _intervals([lines])


def _intervals(collections: Sequence[LineCollection]) -> dict[str, Any]:
    """hlines and vlines: an interval each."""
    paths = (_floats(path.vertices) for lines in collections for path in lines.get_paths())
    ends = [path for path in paths if len(path) == 2]
    if not ends:
        return {}
    low, high = np.min(ends, axis=1), np.max(ends, axis=1)
    columns: dict[str, Array] = {}
    for k, axis in enumerate("xy"):
        flat = low[:, k] == high[:, k]
        if flat.any():
            columns[axis] = np.where(flat, low[:, k], np.nan)
        if not flat.all():
            columns |= {f"{axis}_low": np.where(flat, np.nan, low[:, k])}
            columns |= {f"{axis}_high": np.where(flat, np.nan, high[:, k])}
    return columns


def _span(patch: Patch, ax: Axes, named: bool) -> Any:
    """axhspan and axvspan that have a name; other patches are decoration."""
    in_x, in_y = _in_data(patch, ax)
    if not named or in_x == in_y:
        return "band", {}
    axis = "x" if in_x else "y"
    edges = patch.get_patch_transform().transform(np.asarray(patch.get_path().vertices))[:, "xy".index(axis)]
    return "band", {f"{axis}_low": [edges.min()], f"{axis}_high": [edges.max()]}


def _scatter(points: PathCollection, ax: Axes, named: bool) -> Any:
    x, y = np.ma.filled(np.ma.asarray(points.get_offsets(), dtype=float), np.nan).T
    values = points.get_array()
    return "point", {"x": x, "y": y} | ({} if values is None else {"value": values})


def _image(image: AxesImage, ax: Axes, named: bool) -> Any:
    values = image.get_array()
    if values is None or values.ndim != 2:  # a photograph
        return "map", {}
    left, right, bottom, top = image.get_extent()
    first, last = (top, bottom) if image.origin == "upper" else (bottom, top)
    rows, columns = values.shape
    y = first + (np.arange(rows) + 0.5) * (last - first) / rows
    x = left + (np.arange(columns) + 0.5) * (right - left) / columns
    return "map", _cells(x, y, values)


def _mesh(mesh: QuadMesh, ax: Axes, named: bool) -> Any:
    values: Any = np.ma.asarray(mesh.get_array())
    corners = np.ma.filled(mesh.get_coordinates(), np.nan)
    scaled = [ax.xaxis.get_transform(), ax.yaxis.get_transform()]  # the middle of a cell, as the axes have it
    places = [scale.transform(corners[..., k].ravel()).reshape(corners.shape[:2]) for k, scale in enumerate(scaled)]
    if values.size != places[0].size:
        places = [(p[:-1, :-1] + p[1:, :-1] + p[:-1, 1:] + p[1:, 1:]) / 4 for p in places]
    x, y = (scale.inverted().transform(p.ravel()) for scale, p in zip(scaled, places, strict=True))
    return "map", {"x": x, "y": y, "value": values.ravel()}


def _cells(x: Array, y: Array, values: Any) -> dict[str, Any]:
    X, Y = np.meshgrid(x, y)
    return {"x": X.ravel(), "y": Y.ravel(), "value": np.ma.ravel(values)}


def _levels(lines: ContourSet, ax: Axes, named: bool) -> Any:
    """Points of the lines, each with its level. Filled ones say the same; the grid itself Matplotlib does not keep."""
    if lines.filled:
        return "level", {}
    parts = [(np.asarray(p.vertices), level) for p, level in zip(lines.get_paths(), lines.levels, strict=True)]
    points = np.concatenate([corners for corners, _ in parts])
    values = np.concatenate([np.full(len(corners), level) for corners, level in parts])
    return "level", {"x": points[:, 0], "y": points[:, 1], "value": values}


def _arrows(arrows: Quiver, ax: Axes, named: bool) -> Any:
    return "arrow", {"x": arrows.X, "y": arrows.Y, "u": arrows.U, "v": arrows.V}


_WHOLE = (ErrorbarContainer, BarContainer)
_READERS: dict[type, Any] = {  # the more special kinds first
    ErrorbarContainer: _errorbar, BarContainer: _bar, Line2D: _line, ContourSet: _levels, Quiver: _arrows,
    LineCollection: _segments, PathCollection: _scatter, PolyCollection: _between, QuadMesh: _mesh, AxesImage: _image,
    Patch: _span,
}  # fmt: skip


def _in_data(artist: Artist, ax: Axes) -> tuple[bool, bool]:
    """Whether x and y are data, or places on the axes or the page."""
    in_x, in_y = artist.get_transform().contains_branch_seperately(ax.transData)
    return in_x, in_y


def _floats(data: Any) -> Array:
    """What is masked or infinite is not drawn, and not there: an interval with such an end is open."""
    plain: Array = np.ma.filled(np.ma.asarray(data, dtype=float), np.nan)
    return np.where(np.isfinite(plain), plain, np.nan)


def _color(artist: Any) -> tuple[float, float, float] | None:
    if isinstance(artist, ErrorbarContainer):
        artist = artist[0] or artist[2][0]
    elif isinstance(artist, BarContainer):
        artist = artist.patches[0]
    if isinstance(artist, Line2D):
        return to_rgb(artist.get_color())
    for name in ("get_facecolor", "get_edgecolor"):
        found = np.asarray(getattr(artist, name, list)())
        if found.size >= 3:
            return to_rgb(tuple(found.reshape(-1, found.shape[-1])[0]))
    return None
