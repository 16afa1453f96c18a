"""Reads the form of `POST /v1/files` (RFC 7578), and writes the file in it to disk as it arrives."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from hubgate.domain.errors import InvalidRequest
from hubgate.features.bulk.batches.files import Upload
from hubgate.web.http.asgi import Receive

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FORM_BYTES = 64 * 1024
"""Of an upload, besides the file."""
_WRITE_BYTES = 1 << 20
_MAX_FIELDS, _MAX_FIELD_BYTES = 16, 4096
_MAX_HEADERS, _MAX_HEADER_BYTES = 8, 4096
"""Of one part: the number of its headers, and the size of one."""
_REMEDY = "Send multipart/form-data with [file] and [purpose]."


class UploadForm:
    """A form with one file. After `read`, `fields` has the other fields, and `filename` the name of the file."""

    def __init__(self, upload: Upload) -> None:
        self._upload = upload
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self._header = self._value = b""
        self._name = ""
        self._parts = 0
        self._is_file = False
        self._text = bytearray()
        self._pending = bytearray()
        self._complete = False

    async def read(self, receive: Receive, content_type: str) -> None:
        """Read the whole body.

        Raises:
            InvalidRequest: it is not a form with one file.
            HubgateError: the body or the file is too large, or cannot be written.
        """
        parser = self._parser(content_type)
        more = True
        while more:
            message = await receive()
            more = message.get("more_body", False)
            try:
                parser.write(message.get("body", b""))
            except FormParserError:
                raise InvalidRequest("The form cannot be read.", remedy=_REMEDY) from None
            if len(self._pending) >= _WRITE_BYTES or not more:
                data, self._pending = bytes(self._pending), bytearray()
                await self._upload.write(data)
        if not self._complete:
            raise InvalidRequest("The form ends too early.", remedy=_REMEDY)
        if self.filename is None:
            raise InvalidRequest("[file] is required.", remedy=_REMEDY)

    def _parser(self, content_type: str) -> MultipartParser:
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise InvalidRequest("The body is not a form.", remedy=_REMEDY)
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._begin_part,
            "on_header_field": self._add_to_header,
            "on_header_value": self._add_to_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._begin_data,
            "on_part_data": self._add_data,
            "on_part_end": self._end_part,
            "on_end": self._end,
        }
        try:
            return MultipartParser(
                options[b"boundary"],
                callbacks,
                max_header_count=_MAX_HEADERS,
                max_header_size=_MAX_HEADER_BYTES,
            )
        except FormParserError:
            raise InvalidRequest("The boundary of the form is too long.", remedy=_REMEDY) from None

    def _begin_part(self) -> None:
        self._name, self._is_file, self._text = "", False, bytearray()
        self._parts += 1
        if self._parts > _MAX_FIELDS + 1:  # with the file
            raise InvalidRequest("The form has too many fields.", remedy=_REMEDY)

    def _add_to_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _add_to_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, options = parse_options_header(self._value)
            self._name = _text(options.get(b"name", b""))
            filename = options.get(b"filename")
            if self._name == "file":
                if self.filename is not None:
                    raise InvalidRequest("The form has more than one [file].", remedy=_REMEDY)
                self._is_file = True
                self.filename = _text(filename or b"")[-255:] or "file"
            elif filename is not None:
                raise InvalidRequest("The file must be the field [file].", remedy=_REMEDY)
        self._header = self._value = b""

    def _begin_data(self) -> None:
        if not self._name:
            raise InvalidRequest("A part of the form has no name.", remedy=_REMEDY)

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        target = self._pending if self._is_file else self._text
        target += data[start:end]
        if len(self._text) > _MAX_FIELD_BYTES:
            raise InvalidRequest(f"[{self._name[:50]}] is too long.", remedy=_REMEDY)

    def _end_part(self) -> None:
        if not self._is_file:
            self.fields[self._name] = _text(bytes(self._text))

    def _end(self) -> None:
        self._complete = True


def _text(data: bytes) -> str:
    return codecs.decode(data, "utf-8", "replace")
