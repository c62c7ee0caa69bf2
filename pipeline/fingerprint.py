"""ANYWHERE. What code does, as a digest: changed code is another training, the same code is the same one.

Covered is all that a function or class of the user's does by itself: bytecode, defaults, what it closes over, the
globals that it names, and the user's functions and classes among them, in turn. Code of installed packages counts
by its name. The digest depends on no hash seed and no memory address, so every process finds the same one.
"""

from __future__ import annotations

import contextlib
import dis
import enum
import functools
import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Iterable, Iterator
from pathlib import PurePath
from types import CodeType, EllipsisType, FunctionType, MethodType, ModuleType, NoneType
from typing import Any

import numpy as np

from pipeline.storage import sha256_of

_PLAIN = (NoneType, EllipsisType, bool, int, float, complex, str, bytes, range, slice)
_SHOWN = {"datetime", "decimal", "fractions", "pathlib", "uuid", "numpy.dtypes", "torch"}
"""Modules of types whose repr says all there is to know: of torch's own, dtype and device."""
_LENGTH = 12


def fingerprint(code: Any, *, with_state: bool = True) -> str:
    """The name of a function, class or callable object, and a digest of what it does.

    Args:
        code: of the user.
        with_state: whether lists, dicts, sets and objects that it refers to count by their contents; else by their
            type, for code that gathers something in them.
    """
    name = f"{getattr(code, '__module__', '')}.{getattr(code, '__qualname__', type(code).__qualname__)}"
    return f"{name} {sha256_of(_Description(with_state).of(code))[:_LENGTH]}"


def source_fingerprint(dotted: str) -> str:
    """``package.module:function``, and the digest of the source of that module, which is not imported for it."""
    digest = source_digest(dotted)
    return dotted if digest is None else f"{dotted} {digest[:_LENGTH]}"


def source_digest(dotted: str) -> str | None:
    """The sha256 of the source of the module of ``package.module:function``; None where there is no source."""
    module = dotted.partition(":")[0]
    try:
        spec = importlib.util.find_spec(module)
        source = spec.loader.get_source(module)  # type: ignore[union-attr]
    except Exception:  # of a package around it too; whoever imports the function says what is wrong
        return None
    return None if source is None else hashlib.sha256(source.encode()).hexdigest()


class _Description:
    """Code as nested lists of strings. Functions and classes have numbers in the order in which they are met, so
    that those which name each other come to an end.
    """

    def __init__(self, with_state: bool) -> None:
        self._with_state = with_state
        self._met: list[Any] = []
        self._numbers: dict[int, int] = {}
        self._open: set[int] = set()

    def of(self, code: Any) -> list[Any]:
        """All that is reached from it."""
        found = [self._value(code)]
        for met in self._met:  # grows meanwhile
            found.append(self._class(met) if isinstance(met, type) else self._function(met))
        return found

    def _value(self, value: Any) -> Any:
        if isinstance(value, enum.Enum):
            return [self._value(type(value)), value.name]
        if isinstance(value, _PLAIN):
            return [type(value).__name__, repr(value)]
        if isinstance(value, tuple):
            return ["tuple", *map(self._value, value)]
        if isinstance(value, CodeType):
            return self._code(value)
        if isinstance(value, type | FunctionType):
            return self._reference(value)
        if isinstance(value, ModuleType):
            return value.__name__
        if isinstance(value, staticmethod | classmethod):
            return [type(value).__name__, self._value(value.__func__)]
        if isinstance(value, property):
            return ["property", *map(self._value, (value.fget, value.fset, value.fdel))]
        if isinstance(value, MethodType):
            return [self._value(value.__func__), self._value(value.__self__)]
        if isinstance(value, functools.partial):
            return ["partial", *map(self._value, (value.func, value.args, value.keywords))]
        return self._of_data(value)

    def _of_data(self, value: Any) -> Any:
        if (array := _array(value)) is not None:
            return [type(value).__name__, str(value.dtype), list(value.shape), hashlib.sha256(array).hexdigest()]
        if (wrapped := inspect.getattr_static(value, "__wrapped__", None)) is not None:  # such as functools.cache's
            return self._value(wrapped)
        if inspect.isroutine(value) or isinstance(value, np.ufunc):
            return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', value.__name__)}"
        if type(value).__module__ in _SHOWN:
            return [type(value).__name__, repr(value)]
        known = self._with_state and id(value) not in self._open
        if known and isinstance(value, list):
            return self._of_items("list", value, value)
        if known and isinstance(value, set | frozenset):
            return self._of_items("set", value, _sorted(value))
        if known and isinstance(value, dict):
            return self._of_items("dict", value, ((key, value[key]) for key in _sorted(value)))
        if known and (_is_users(type(value)) or _is_torch(value, "nn.Module")):
            fields = getattr(value, "__dict__", {})
            return [self._value(type(value)), self._of_items("fields", value, sorted(fields.items()))]
        return self._value(type(value))

    def _of_items(self, kind: str, holder: Any, items: Iterable[Any]) -> list[Any]:
        self._open.add(id(holder))
        found = [kind, *map(self._value, items)]
        self._open.discard(id(holder))
        return found

    def _reference(self, code: Any) -> Any:
        """Its number if it is the user's, or made by a function of a package from what the user gave; or its name."""
        if not _is_users(code) and not (isinstance(code, FunctionType) and code.__closure__):
            return f"{code.__module__}.{code.__qualname__}"
        if id(code) not in self._numbers:
            self._numbers[id(code)] = len(self._met)
            self._met.append(code)
        return ["code", self._numbers[id(code)]]

    def _function(self, function: Any) -> list[Any]:
        code = function.__code__
        wanted, known = sorted(set(_global_names(code))), function.__globals__
        names = {name: self._global(known[name], code) for name in wanted if name in known}
        closed = [self._value(_contents(cell)) for cell in function.__closure__ or ()]
        given = [self._value(function.__defaults__), self._value(function.__kwdefaults__ or {})]
        return [function.__qualname__, self._code(code), *given, closed, names, self._value(vars(function))]

    def _global(self, value: Any, code: CodeType) -> Any:
        """Of a module of the user's also what the function may take from it."""
        if not isinstance(value, ModuleType) or not _is_users_module(value.__name__) or id(value) in self._open:
            return self._value(value)
        taken = sorted({name for each in _nested(code) for name in each.co_names if hasattr(value, name)})
        self._open.add(id(value))
        found = [value.__name__, *([name, self._global(getattr(value, name), code)] for name in taken)]
        self._open.discard(id(value))
        return found

    def _code(self, code: CodeType) -> list[Any]:
        arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        jumps = getattr(code, "co_exceptiontable", b"").hex()
        constants = [self._value(constant) for constant in code.co_consts]
        return [code.co_code.hex(), jumps, list(code.co_names), list(arguments), constants]

    def _class(self, kind: type) -> list[Any]:
        bases = [self._value(base) for base in kind.__bases__]
        members = [[name, self._value(member)] for name, member in sorted(vars(kind).items()) if _counts(name, member)]
        return [kind.__qualname__, bases, members]


def _is_users(code: Any) -> bool:
    return _is_users_module(str(code.__module__ or ""))


@functools.cache
def _is_users_module(name: str) -> bool:
    """Whether a module is neither ours, nor Python's, nor installed; one that cannot be found came from a notebook."""
    if name == "__main__":  # whose file, in a notebook, is that of an installed program
        return True
    root = name.partition(".")[0]
    if root in {"pipeline", *sys.stdlib_module_names}:
        return False
    file = getattr(sys.modules.get(name), "__file__", None) or ""
    return not {"site-packages", "dist-packages"} & set(PurePath(file).parts)


def _counts(name: str, member: Any) -> bool:
    """Whether a member of a class is part of what it does, and not of how Python keeps it."""
    ours = isinstance(member, FunctionType | staticmethod | classmethod | property)
    return ours or not (name.startswith("__") or name == "_abc_impl")


def _nested(code: CodeType) -> Iterator[CodeType]:
    """A function's code, and that of the functions inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)


def _global_names(code: CodeType) -> Iterator[str]:
    for each in _nested(code):
        yield from (step.argval for step in dis.get_instructions(each) if step.opname == "LOAD_GLOBAL")


def _contents(cell: Any) -> Any:
    with contextlib.suppress(ValueError):
        return cell.cell_contents
    return "empty"


def _sorted(values: Iterable[Any]) -> list[Any]:
    """By names that do not hang on hashes or addresses."""
    return sorted(
        values, key=lambda v: [type(v).__name__, repr(v) if isinstance(v, _PLAIN) else getattr(v, "__qualname__", "")]
    )


def _is_torch(value: Any, name: str) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, functools.reduce(getattr, name.split("."), torch))  # type: ignore[arg-type]


def _array(value: Any) -> bytes | None:
    """The bytes of an array or tensor, if it is one whose bytes are its numbers."""
    if isinstance(value, np.ndarray | np.generic):
        return None if value.dtype.hasobject else value.tobytes()
    if not _is_torch(value, "Tensor"):
        return None
    with contextlib.suppress(RuntimeError, TypeError, NotImplementedError):
        flat = value.detach().cpu().contiguous().reshape(-1)
        return bytes(flat.view(sys.modules["torch"].uint8).numpy().tobytes())
    return None
