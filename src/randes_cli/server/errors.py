"""What a request may be refused with, in the words of OpenAI's interface."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from randes_cli.errors import printable


class Refused(Exception):
    """A request that is not answered: its status, and the field that is why.

    Attributes:
        status: of HTTP.
        param: the field of the body, or None.
        code: a word that programs look at, or None.
        headers: beside the answer, as ``Retry-After``.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(printable(message))
        self.status, self.param, self.code = status, param, code
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """The JSON that clients of OpenAI's interface take apart."""
        return error_body(self.status, str(self), self.param, self.code)


def trace(error: BaseException) -> str:
    """An error for the log: its class and where it arose. Its words may be a prompt's."""
    frames = traceback.extract_tb(error.__traceback__)[-8:]
    places = [f"{PurePath(one.filename).name}:{one.lineno} {one.name}" for one in frames]
    return f"{type(error).__name__} in {' > '.join(places)}"


def error_body(status: int, message: str, param: str | None, code: str | None) -> dict[str, Any]:
    """An error in OpenAI's shape."""
    return {"error": {"message": message, "type": kind_of(status), "param": param, "code": code}}


def kind_of(status: int) -> str:
    """OpenAI's word for a kind of error."""
    named = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
    return named.get(status, "server_error" if status >= 500 else "invalid_request_error")
