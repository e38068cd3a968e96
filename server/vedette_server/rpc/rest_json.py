"""JSON of requests, read strictly, and protobuf messages as JSON."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from vedette_server.contract.image import Buffer
from vedette_server.contract.refusal import Reason, Refused

M = TypeVar("M", bound=Message)
CHOICES = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}  # of a parameter


class _FaultError(ValueError):
    """A fault that Python's reader lets pass. Its message completes "the body"."""


def read(text: Buffer) -> Any:  # noqa: ANN401  any JSON
    """Return the value of a JSON text, in which null is as good as absent. Raises `Refused`: BODY_INVALID."""
    try:
        return json.loads(str(text, "utf-8"), object_pairs_hook=_once, parse_constant=_constant)
    except json.JSONDecodeError as error:
        seen = f"it is no JSON from character {error.pos} on"
    except UnicodeDecodeError as error:
        seen = f"it is not UTF-8 from byte {error.start} on"
    except _FaultError as error:
        seen = str(error)
    except ValueError:  # Python's limit of the digits of a whole number
        seen = "it has a number of thousands of digits"
    except RecursionError:
        seen = "its lists and objects are nested too deeply"
    raise unfit(seen=seen)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object whose names are all different."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _FaultError("it has an object with a name twice")
    return {name: value for name, value in pairs if value is not None}


def _constant(name: str) -> None:
    msg = f"it has {name}, which JSON does not know"
    raise _FaultError(msg)


def unfit(*, seen: str, expected: str = "JSON in UTF-8, as the Open Inference Protocol has it") -> Refused:
    """Return the refusal of a body."""
    return Refused(Reason.BODY_INVALID, seen=seen, expected=expected)


def written(value: object) -> bytes:
    """Return a value as JSON; NaN and infinite numbers, which JSON does not know, become null."""
    return msgspec.json.encode(value)


def message(kind: type[M], text: Buffer, named: Mapping[str, str]) -> M:
    """Return the message that a JSON object's fields and those named otherwise make. Raises `Refused`: BODY_INVALID."""
    given = read(text) if text else {}
    if not isinstance(given, dict):
        raise unfit(seen="its JSON is no object", expected="an object")
    fields: Mapping[str, Any] = kind.DESCRIPTOR.fields_by_name
    try:
        known = {name: value for name, value in {**given, **named}.items() if name in fields}
        return kind(**{name: _chosen(fields[name], value) for name, value in known.items()})
    except (TypeError, ValueError, AttributeError, KeyError):  # of protobuf, for a value of another type
        raise unfit(seen="a field has a value of another type", expected=f"{kind.DESCRIPTOR.name} as JSON") from None


def _chosen(field: Any, value: Any) -> Any:  # noqa: ANN401  a descriptor, of which there are two classes, and any JSON
    """Return the value of a field: of parameters, each with the choice of its type. Raises as protobuf does."""
    if field.name != "parameters" or not isinstance(value, dict):
        return value
    kind: Any = GetMessageClass(field.message_type.fields_by_name["value"].message_type)
    return {name: kind(**{CHOICES[type(one)]: one}) for name, one in value.items()}


def plain(message: Message) -> dict[str, Any]:
    """Return a message as JSON has it: names as in the proto, numbers as numbers, all but unset messages."""
    return dict(_fields(message))


def _fields(message: Message) -> Iterator[tuple[str, Any]]:
    fields: Sequence[Any] = message.DESCRIPTOR.fields
    for field in fields:
        value = getattr(message, field.name)
        if field.is_repeated and _is_map(field):
            inner = field.message_type.fields_by_name["value"]
            yield field.name, {str(key): _value(inner, one) for key, one in value.items()}
        elif field.is_repeated:
            yield field.name, [_value(field, one) for one in value]
        elif not field.has_presence or message.HasField(field.name):
            yield field.name, _value(field, value)


def _is_map(field: Any) -> bool:  # noqa: ANN401  a descriptor, of which there are two classes
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def _value(field: Any, value: Any) -> Any:  # noqa: ANN401  the same, and the field's value
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    return plain(value) if field.message_type is not None else value
