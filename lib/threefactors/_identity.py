"""What makes one experiment the same as another: frozen dataclasses as canonical JSON."""

from __future__ import annotations

import dataclasses
import enum
import json
from typing import Any

LATER = {"omit_default": True}  # for a dataclass field whose default is what was done before the field existed


def _as_before(field: dataclasses.Field[Any], value: Any) -> bool:
    return bool(field.metadata.get("omit_default")) and value == field.default


def describe(value: Any) -> Any:
    """JSON-able description of a value built from frozen dataclasses, tuples and plain numbers and strings.

    A dataclass becomes its class name and fields; anything without a name of its own is refused, because two
    runs that differ in it could not be told apart. A field declared with ``metadata=LATER`` is left out where it has
    its default, so that a setting can be added without giving what was made before it another name.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        named = [f for f in dataclasses.fields(value) if f.compare and not _as_before(f, getattr(value, f.name))]
        fields = {f.name: describe(getattr(value, f.name)) for f in named}
        kind = type(value)
        own = kind.__module__.startswith("threefactors.")
        return {"is": kind.__qualname__ if own else f"{kind.__module__}.{kind.__qualname__}", **fields}
    if isinstance(value, enum.Enum):
        return value.value
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (tuple, list, range)):
        return [describe(item) for item in value]
    raise TypeError(
        f"{value!r} has no identity: a run that contains it could not be found again in the store; "
        "use a frozen dataclass (its class name and fields are the identity), a number, a string or a tuple"
    )


def canonical(value: Any) -> str:
    """The description as JSON with sorted keys and no spaces: equal values, equal text.

    >>> canonical({"b": 1, "a": (1.5, None)})
    '{"a":[1.5,null],"b":1}'
    """
    described = {key: describe(item) for key, item in value.items()} if isinstance(value, dict) else describe(value)
    return json.dumps(described, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
