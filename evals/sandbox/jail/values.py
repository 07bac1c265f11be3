"""Plain values over a pipe, and the frames that carry them.

A value crosses by what it is, not by what it says it is: the reader rebuilds it from JSON out of
built-in types only, so an object with an obliging `__eq__` arrives as an opaque thing that equals
nothing. pickle and marshal would not do: both let the writer reach code of the reader.
"""

import collections
import decimal
import fractions
import json
import operator
import os
import types
from typing import Any

MAX_FRAME_BYTES = 64 << 20
# Larger ones cross in hexadecimal: Python reads no decimal number of more than 4,300 digits.
_SMALL = 1 << 53


class BadFrameError(Exception):
    """What arrived is no frame or no value."""


class Opaque:
    """Stands for something that is not plain data; equal to nothing but itself."""

    __slots__ = ("kind",)

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __repr__(self) -> str:
        return f"<{self.kind}>"


def write_frame(fd: int, message: Any) -> None:
    """Send one JSON message. Raises OSError when the reader is gone."""
    body = json.dumps(message).encode("ascii")
    view = memoryview(len(body).to_bytes(8, "big") + body)
    while view:
        view = view[os.write(fd, view) :]


def read_frame(fd: int) -> Any:
    """Receive one JSON message. Raises EOFError when the writer is gone, BadFrameError on anything
    else than a frame.
    """
    body = _read_more(fd, b"", 8)
    size = int.from_bytes(body[:8], "big")
    if size > MAX_FRAME_BYTES:
        raise BadFrameError(f"a message of {size} bytes")
    body = _read_more(fd, body[8:], size)
    # One side speaks at a time, so nothing follows a frame.
    if len(body) > size:
        raise BadFrameError("more than one message")
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadFrameError(str(error)) from None


def _read_more(fd: int, read: bytes, size: int) -> bytes:
    """At least so many bytes, with those already read."""
    parts = bytearray(read)
    while len(parts) < size:
        part = os.read(fd, 1 << (16 if parts else 12))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)


def encode(value: Any) -> Any:
    """The JSON form of a value; subclasses of built-in types cross as the built-in type, everything
    else as opaque.
    """
    if value is None or value is True or value is False:
        return value
    kind = type(value)
    if kind is str:
        return value
    if kind is int:
        return value if -_SMALL < value < _SMALL else ["i", hex(value)]
    if kind is float:
        return value
    for base, tag in _SEQUENCES:
        if isinstance(value, base):
            # The base's own method: a subclass's may show something else than it holds.
            return [tag, *map(encode, base.__iter__(value))]
    if isinstance(value, dict):
        return ["d", *([encode(key), encode(item)] for key, item in dict.items(value))]
    return _encode_rare(value)


_SEQUENCES: tuple[tuple[Any, str], ...] = (
    (list, "l"),
    (tuple, "t"),
    (set, "s"),
    (frozenset, "z"),
    (collections.deque, "q"),
)
_EMPTY: tuple[Any, ...] = ([], (), "", {}, set(), range(0))
_ITERATORS: tuple[Any, ...] = (
    *(types.GeneratorType, map, filter, zip, enumerate, reversed),
    # No module names these types.
    *map(type, map(iter, _EMPTY)),
)
_KEYS, _VALUES, _ITEMS = (
    type(view)
    for view in (dict[Any, Any]().keys(), dict[Any, Any]().values(), dict[Any, Any]().items())
)


def _encode_rare(value: Any) -> Any:
    if isinstance(value, int):
        return encode(int.__add__(value, 0))
    if isinstance(value, float):
        return float.__add__(value, 0.0) if value else float.__pos__(value)  # -0.0 + 0.0 is 0.0
    if isinstance(value, str):
        return str.__str__(value) if type(value) is str else "".join(str.__iter__(value))
    if isinstance(value, complex):
        return ["c", value.real, value.imag]
    if isinstance(value, bytes | bytearray):
        return ["y" if isinstance(value, bytearray) else "b", bytes(value).hex()]
    if isinstance(value, fractions.Fraction):
        return ["F", encode(value.numerator), encode(value.denominator)]
    if isinstance(value, decimal.Decimal):
        return ["D", str(value)]
    if isinstance(value, range):
        return ["r", *map(encode, (value.start, value.stop, value.step))]
    if isinstance(value, _KEYS | _VALUES):
        return ["K" if isinstance(value, _KEYS) else "V", *map(encode, value)]
    if isinstance(value, _ITEMS):
        return ["I", *([encode(key), encode(item)] for key, item in value)]
    if isinstance(value, _ITERATORS):
        return ["n", *map(encode, value)]
    if (
        type(value).__module__ == "numpy"
        and hasattr(value, "dtype")
        and getattr(value, "ndim", None) == 0
    ):
        return encode(value.item()) if hasattr(value, "item") else ["o", type(value).__name__]
    try:
        return encode(operator.index(value))
    except TypeError:
        return ["o", type(value).__name__]


def decode(form: Any) -> Any:
    """The value of a JSON form. Raises BadFrameError on a form that `encode` does not make."""
    if not isinstance(form, list):
        if isinstance(form, dict):
            raise BadFrameError("an object where a value should be")
        return form
    try:
        tag, *rest = form
        return _BUILD[tag](rest)
    except (
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as error:
        raise BadFrameError(f"{type(error).__name__}: {error}") from None


def _pairs(rest: list[Any]) -> dict[Any, Any]:
    return {decode(key): decode(item) for key, item in rest}


def _fraction(rest: list[Any]) -> fractions.Fraction:
    numerator, denominator = map(decode, rest)
    if type(numerator) is int and type(denominator) is int:
        return fractions.Fraction(numerator, denominator)
    raise TypeError("a fraction of anything but whole numbers")  # "1e999999999" would be computed


_BUILD: dict[str, Any] = {
    "i": lambda rest: int(rest[0], 16),
    "l": lambda rest: [decode(item) for item in rest],
    "t": lambda rest: tuple(decode(item) for item in rest),
    "s": lambda rest: {decode(item) for item in rest},
    "z": lambda rest: frozenset(decode(item) for item in rest),
    "q": lambda rest: collections.deque(decode(item) for item in rest),
    "d": _pairs,
    "c": lambda rest: complex(float(rest[0]), float(rest[1])),
    "b": lambda rest: bytes.fromhex(rest[0]),
    "y": lambda rest: bytearray.fromhex(rest[0]),
    "F": _fraction,
    "D": lambda rest: decimal.Decimal(rest[0]),
    "r": lambda rest: range(*map(decode, rest)),
    "K": lambda rest: dict.fromkeys(decode(item) for item in rest).keys(),
    "V": lambda rest: dict(enumerate(decode(item) for item in rest)).values(),
    "I": lambda rest: _pairs(rest).items(),
    "n": lambda rest: iter([decode(item) for item in rest]),
    "o": lambda rest: Opaque(str(rest[0])),
}
