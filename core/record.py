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

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = {
            name: cls.__dict__.get(name, _MISSING)
            for name, annotation in cls.__annotations__.items()
            if not str(annotation).startswith(("ClassVar", "typing.ClassVar"))
        }
        cls.fields = {**cls.fields, **own}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        fields = type(self).fields
        values = dict(zip(fields, args, strict=False))
        if len(args) > len(fields) or not values.keys().isdisjoint(kwargs):
            raise TypeError(f"{type(self).__name__}: too many or repeated arguments")
        values.update(kwargs)
        if not values.keys() <= fields.keys():
            unknown = ", ".join(sorted(values.keys() - fields.keys()))
            raise TypeError(f"{type(self).__name__}: unknown field {unknown}")
        for name, default in fields.items():
            if name not in values:
                if default is _MISSING:
                    raise TypeError(f"{type(self).__name__}: missing field {name}")
                values[name] = default
        self.__dict__.update(values)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__}.{name} is read-only")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__}.{name} is read-only")

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.__dict__ == self.__dict__

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
        return type(self)(**{**self.__dict__, **changes})


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return value.asdict()
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value
