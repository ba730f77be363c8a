# SPDX-License-Identifier: Apache-2.0
"""What an ONNX file consists of, read without the ONNX library."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterator
from pathlib import Path

from persam_monai.errors import UserError
from persam_monai.files import sha256

# Field numbers of onnx.proto: ModelProto.graph, GraphProto.node and .initializer, NodeProto.attribute,
# AttributeProto.t, TensorProto.external_data, StringStringEntryProto.key and .value. A tensor is an initializer of
# the graph, or the attribute of a node.
_GRAPH, _NODE, _INITIALIZER, _ATTRIBUTE, _TENSOR, _EXTERNAL_DATA, _KEY, _VALUE = 7, 1, 5, 5, 5, 13, 1, 2
_VARINT, _BYTES = 0, 2  # wire types
_FIXED = {1: 8, 5: 4}  # wire types of fixed length, in bytes


def onnx_sha256(path: Path) -> str:
    """SHA-256 of an ONNX file; of a large one also of the files beside it that its weights are in.

    Returns:
        The file's own SHA-256 where it holds its weights itself; else that of the text of all the files' SHA-256, the
        ONNX file first and the others by name.

    Raises:
        UserError: if a file is missing.
    """
    own = sha256(path)
    try:
        names = sorted(external_files(path))
    except (IndexError, UnicodeDecodeError, ValueError):
        return own  # no ONNX; whoever opens it says so
    missing = [name for name in names if not (path.parent / name).is_file()]
    if missing:
        raise UserError(
            f"{path} keeps its weights in {', '.join(missing)}, which is not beside it. Copy both, with the "
            "names of the export."
        )
    if not names:
        return own
    return hashlib.sha256("".join([own, *(sha256(path.parent / name) for name in names)]).encode()).hexdigest()


def external_files(path: Path) -> set[str]:
    """Names of the files that an ONNX file keeps weights in, relative to its folder."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        names = set()
        for graph in _fields(content, (0, len(content)), _GRAPH):
            tensors = list(_fields(content, graph, _INITIALIZER))
            for node in _fields(content, graph, _NODE):
                for attribute in _fields(content, node, _ATTRIBUTE):
                    tensors += _fields(content, attribute, _TENSOR)
            for tensor in tensors:
                for entry in _fields(content, tensor, _EXTERNAL_DATA):
                    if [content[a:b] for a, b in _fields(content, entry, _KEY)] == [b"location"]:
                        names |= {content[a:b].decode() for a, b in _fields(content, entry, _VALUE)}
        return names


def _fields(content: mmap.mmap, span: tuple[int, int], wanted: int) -> Iterator[tuple[int, int]]:
    """Where the fields of one number lie in a protobuf message."""
    place, end = span
    while place < end:
        tag, place = _varint(content, place)
        kind = tag & 7
        if kind == _VARINT:
            _, place = _varint(content, place)
        elif kind in _FIXED:
            place += _FIXED[kind]
        elif kind == _BYTES:
            size, place = _varint(content, place)
            if place + size > end:
                raise ValueError("A field reaches beyond its message.")
            if tag >> 3 == wanted:
                yield place, place + size
            place += size
        else:
            raise ValueError(f"No wire type {kind} is known.")


def _varint(content: mmap.mmap, place: int) -> tuple[int, int]:
    """A number of protobuf's, and the place behind it."""
    number = shift = 0
    while True:
        byte = content[place]
        number |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return number, place
