"""The API's messages as a page for users, written by `make docs`; a test compares it to the .proto files."""

import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from generate import includes, sources
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)
from grpc_tools import protoc

_HEAD = """\
# Protos

The package `vedette.v1`, for callers in any language. The files are in `protos/vedette/v1/`. The server offers
reflection, so `grpcurl` and the like need no files. A field that is marked optional tells unset from zero.

`make docs` writes this page from the files and their comments.
"""
_SCALARS = {number: name.removeprefix("TYPE_").lower() for name, number in FieldDescriptorProto.Type.items()}
_FILE_MESSAGE, _FILE_ENUM, _FILE_SERVICE = 4, 5, 6  # field numbers of FileDescriptorProto, of which paths are made
_FIELD, _VALUE, _METHOD = 2, 2, 2  # likewise, of a message, an enum and a service

Place: TypeAlias = tuple[int, ...]


class _File:
    """One file, with the comments by the paths of what they are about."""

    def __init__(self, file: FileDescriptorProto) -> None:
        self._file = file
        self._comments = {tuple(one.path): one.leading_comments for one in file.source_code_info.location}

    def sections(self) -> Iterator[str]:
        """Return services first, then messages, then enums."""
        for index, service in enumerate(self._file.service):
            yield self._service(service, (_FILE_SERVICE, index))
        for index, message in enumerate(self._file.message_type):
            yield self._message(message, (_FILE_MESSAGE, index))
        for index, enum in enumerate(self._file.enum_type):
            yield self._enum(enum, (_FILE_ENUM, index))

    def _section(self, name: str, path: Place, head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
        told = "\n\n".join(" ".join(part.split()) for part in self._comments[path].strip().split("\n\n"))
        table = "".join(f"| {' | '.join(row)} |\n" for row in (head, ("---",) * len(head), *rows)) if rows else ""
        return f"\n## {name}\n\n{told}\n" + (f"\n{table}" if table else "")

    def _told(self, path: Place) -> str:
        return " ".join(self._comments[path].split()).replace("|", "\\|")

    def _service(self, service: ServiceDescriptorProto, path: Place) -> str:
        rows = []
        for index, method in enumerate(service.method):
            sent, answered = _link(method.input_type), _link(method.output_type)
            sent = f"stream of {sent}" if method.client_streaming else sent
            answered = f"stream of {answered}" if method.server_streaming else answered
            rows.append((f"`{method.name}`", sent, answered, self._told((*path, _METHOD, index))))
        return self._section(service.name, path, ("method", "request", "response", "meaning"), rows)

    def _message(self, message: DescriptorProto, path: Place) -> str:
        entries = {entry.name: entry for entry in message.nested_type if entry.options.map_entry}
        rows = []
        for index, field in enumerate(message.field):
            kind = _kind(field, entries)
            if field.HasField("oneof_index") and not field.proto3_optional:
                kind += f", one of `{message.oneof_decl[field.oneof_index].name}`"
            rows.append((str(field.number), f"`{field.name}`", kind, self._told((*path, _FIELD, index))))
        return self._section(message.name, path, ("number", "field", "type", "meaning"), rows)

    def _enum(self, enum: EnumDescriptorProto, path: Place) -> str:
        rows = [
            (str(value.number), f"`{value.name}`", self._told((*path, _VALUE, index)))
            for index, value in enumerate(enum.value)
        ]
        return self._section(enum.name, path, ("number", "value", "meaning"), rows)


def _kind(field: FieldDescriptorProto, entries: Mapping[str, DescriptorProto]) -> str:
    """Return a field's type, with a link if it is one of ours."""
    if entry := entries.get(field.type_name.rpartition(".")[2]):
        key, value = (_kind(one, {}) for one in entry.field)
        return f"map from {key} to {value}"
    kind = _link(field.type_name) if field.type_name else _SCALARS[field.type]
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return f"repeated {kind}"
    return f"optional {kind}" if field.proto3_optional else kind


def _link(type_name: str) -> str:
    name = type_name.removeprefix(".vedette.v1.")
    return f"[{name}](#{name.lower()})" if name != type_name else f"`{type_name.removeprefix('.')}`"


def page() -> str:
    """Return the page as Markdown. Exits if protoc refuses the files."""
    with tempfile.TemporaryDirectory() as scratch:
        compiled = Path(scratch) / "set.binpb"
        flags = ["--include_source_info", f"--descriptor_set_out={compiled}"]
        if status := protoc.main(["protoc", *includes(), *flags, *sources()]):
            sys.exit(status)
        files = {file.name: _File(file) for file in FileDescriptorSet.FromString(compiled.read_bytes()).file}
    first = sorted(files, key=lambda name: ("service" not in name, name))
    return _HEAD + "".join(section for name in first for section in files[name].sections())


if __name__ == "__main__":
    print(page(), end="")
