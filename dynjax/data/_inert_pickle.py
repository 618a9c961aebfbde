"""A pickle reader that executes nothing: it follows the opcodes on inert values and knows no others than it needs."""

import codecs
import io
import pathlib
import pickletools
from dataclasses import dataclass
from typing import Any

from ._trust import refuse

ADVICE = "Load it where you trust it and save it by `numpy.savez(file, x=x, y=y)`"
_MAX_OPCODES = 1_000_000
_MAX_KEY = 100


@dataclass(eq=False)
class Name:
    """A global name that the file mentions. It is never looked up."""

    name: str


@dataclass(eq=False)
class Call:
    """A call that the file asks for. It is never made."""

    function: Any
    args: Any
    state: Any = None


_NAMES = {
    "numpy.core.multiarray _reconstruct": "_reconstruct",
    "numpy._core.multiarray _reconstruct": "_reconstruct",
    "numpy ndarray": "ndarray",
    "numpy dtype": "dtype",
    "_codecs encode": "encode",
}
_MARK = object()
_NUMBERS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"}
_TEXTS = {"STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
_VALUES = _NUMBERS | _TEXTS | {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8"}
_CONTAINERS = {"TUPLE", "EMPTY_LIST", "LIST", "APPEND", "APPENDS", "EMPTY_DICT", "DICT", "SETITEM", "SETITEMS"}
_MEMO = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET", "BINGET", "LONG_BINGET"}
_STEPS = _CONTAINERS | _MEMO | {"PROTO", "FRAME", "MARK", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class InertPickle:
    """Follows the opcodes of a pickle: nothing is imported or called, nothing built but lists, dicts and tuples."""

    def __init__(self, path: pathlib.Path):
        self.path = path
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def read(self, content: bytes) -> Any:
        """What the pickle describes, with names and calls as inert records."""
        opcodes = pickletools.genops(io.BytesIO(content))
        count = 0
        while True:
            try:
                opcode, argument, _ = next(opcodes)
            except StopIteration:
                return refuse(self.path, "hold one whole pickle", "ends before it is complete")
            except ValueError as error:
                reason = str(error).splitlines()[0][:100]
                return refuse(self.path, "hold a pickle of protocol 0 to 4", f"cannot be read: {reason}. {ADVICE}")
            count += 1
            if count > _MAX_OPCODES:
                return refuse(self.path, f"hold a pickle of at most {_MAX_OPCODES} opcodes", "has more")
            if opcode.name == "STOP":
                return self.stack.pop()
            self._follow(opcode.name, argument)

    def _follow(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _TUPLES:
            stack.append(tuple(stack.pop() for _ in range(_TUPLES[name]))[::-1])
        elif name in _STEPS:
            getattr(self, "_" + name.lower())(argument)
        else:
            refuse(self.path, "be a CIFAR batch of protocol 0 to 4", f"uses the pickle opcode {name}. {ADVICE}")

    def _proto(self, protocol: int) -> None:
        if protocol > 4:
            refuse(self.path, "be a pickle of protocol 0 to 4", f"has protocol {protocol}. {ADVICE}")

    def _frame(self, length: int) -> None:
        """Frames only group bytes."""

    def _mark(self, _: None) -> None:
        self.stack.append(_MARK)

    def _since_mark(self) -> list[Any]:
        items = []
        while (item := self.stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def _tuple(self, _: None) -> None:
        self.stack.append(tuple(self._since_mark()))

    def _empty_list(self, _: None) -> None:
        self.stack.append([])

    def _list(self, _: None) -> None:
        self.stack.append(self._since_mark())

    def _append(self, _: None) -> None:
        item = self.stack.pop()
        self._top(list).append(item)

    def _appends(self, _: None) -> None:
        items = self._since_mark()
        self._top(list).extend(items)

    def _empty_dict(self, _: None) -> None:
        self.stack.append({})

    def _dict(self, _: None) -> None:
        items = self._since_mark()
        self.stack.append({})
        self._put_items(items)

    def _setitem(self, _: None) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._put_items([key, value])

    def _setitems(self, _: None) -> None:
        self._put_items(self._since_mark())

    def _put_items(self, items: list[Any]) -> None:
        target = self._top(dict)
        if len(items) % 2:
            refuse(self.path, "hold a sound pickle", "has a dictionary key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if is_call(key, "encode"):
                key = as_bytes(self.path, key, _MAX_KEY)
            if not isinstance(key, str | bytes) or len(key) > _MAX_KEY:
                refuse(self.path, f"have text of up to {_MAX_KEY} characters as keys", "has other keys")
            target[key] = value

    def _top(self, kind: type) -> Any:
        if not isinstance(self.stack[-1], kind):
            refuse(
                self.path,
                "hold a sound pickle",
                f"fills a {type(self.stack[-1]).__name__} as if it were a {kind.__name__}",
            )
        return self.stack[-1]

    def _put(self, index: int) -> None:
        self.memo[int(index)] = self.stack[-1]

    _binput = _long_binput = _put

    def _memoize(self, _: None) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _get(self, index: int) -> None:
        self.stack.append(self.memo[int(index)])

    _binget = _long_binget = _get

    def _global(self, name: str) -> None:
        if name not in _NAMES:
            refuse(
                self.path,
                "mention nothing but NumPy arrays",
                f"asks for {name[:80]!r}; nothing was executed. {ADVICE}",
            )
        self.stack.append(Name(_NAMES[name]))

    def _stack_global(self, _: None) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self._global(f"{module!s:.100} {name!s:.100}" if isinstance(name, str) and isinstance(module, str) else "?")

    def _reduce(self, _: None) -> None:
        args, function = self.stack.pop(), self.stack.pop()
        self.stack.append(Call(function, args))

    def _build(self, _: None) -> None:
        state = self.stack.pop()
        self._top(Call).state = state


def is_call(value: Any, function: str) -> bool:
    """Whether `value` records a call of the global `function`."""
    return isinstance(value, Call) and isinstance(value.function, Name) and value.function.name == function


def as_bytes(path: pathlib.Path, value: Any, max_bytes: int = 1 << 30) -> bytes:
    """Bytes, however a pickle of Python 2 (a string) or of Python 3 below protocol 3 (encoded text) spells them."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("latin-1")
    if is_call(value, "encode") and isinstance(value.args, tuple) and len(value.args) == 2:
        text, encoding = value.args
        if isinstance(text, str) and encoding in ("latin1", "latin-1") and len(text) <= max_bytes:
            return codecs.latin_1_encode(text)[0]
    return refuse(path, "hold its bytes as bytes", f"has a {type(value).__name__} in their place. {ADVICE}")
