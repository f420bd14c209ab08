"""Immutable typed records: the contract of a frozen dataclass without its start-up cost.

`dataclasses.dataclass` compiles source for every class: 0.35 ms each, 14 ms for forty of them,
where all of `gocker run` has about 40 ms (docs/adr/0002-records.md). `Record` collects the
annotations and shares one `__init__`, `__eq__` and `__repr__`; type checkers see a dataclass
(PEP 681).
"""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn, Self, dataclass_transform

_MISSING: Any = object()


@dataclass_transform(frozen_default=True)
class Record:
    """Base of the model's values and of the plan's steps.

    Fields are the annotations of the class and its bases, in order; a class attribute is the
    default. Modules that define records need `from __future__ import annotations`.
    """

    fields: ClassVar[dict[str, Any]] = {}
    _defaults: ClassVar[dict[str, Any]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        fields: dict[str, Any] = {}
        for base in reversed(cls.__mro__[1:]):
            if issubclass(base, Record):
                fields.update(base.fields)
        for name, annotation in cls.__annotations__.items():
            if not str(annotation).startswith(("ClassVar", "typing.ClassVar")):
                fields[name] = cls.__dict__.get(name, _MISSING)
        cls.fields = fields
        cls._defaults = {name: value for name, value in fields.items() if value is not _MISSING}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # The short way through is for speed: a start makes hundreds of records.
        cls = type(self)
        values = self.__dict__
        values.update(cls._defaults)
        if args:
            given = [*cls.fields][: len(args)]
            if len(args) > len(given) or (kwargs and not kwargs.keys().isdisjoint(given)):
                raise TypeError(f"{cls.__name__}: too many or repeated arguments")
            values.update(zip(given, args, strict=True))
        if kwargs:
            values.update(kwargs)
        if len(values) != len(cls.fields) or values.keys() != cls.fields.keys():
            if unknown := ", ".join(sorted(values.keys() - cls.fields.keys())):
                raise TypeError(f"{cls.__name__}: unknown field {unknown}")
            missing = ", ".join(name for name in cls.fields if name not in values)
            raise TypeError(f"{cls.__name__}: missing field {missing}")

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__}.{name} is read-only")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__}.{name} is read-only")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        if self.__dict__ == other.__dict__:
            return True
        # By field: functools.cached_property keeps its value in __dict__ too.
        return all(self.__dict__[name] == other.__dict__[name] for name in type(self).fields)

    def __hash__(self) -> int:
        return hash((type(self), *(self.__dict__[name] for name in type(self).fields)))

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={self.__dict__[name]!r}" for name in type(self).fields)
        return f"{type(self).__name__}({inside})"

    def asdict(self) -> dict[str, Any]:
        """The fields by name, in order, records inside records included."""
        return {name: _plain(self.__dict__[name]) for name in type(self).fields}

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return type(self)(**{name: self.__dict__[name] for name in type(self).fields} | changes)


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return value.asdict()
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value
