"""What a request may be refused with and what goes wrong, in the words of OpenAI's interface."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from randes_cli.errors import printable

log = logging.getLogger("randes.serve")


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


def error_body(
    status: int, message: str, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    named = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
    kind = named.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


#: What pydantic says in words that no client knows.
_SAID = {"extra_forbidden": "is not a field of this request", "json_invalid": "is not JSON"}


def answer_failures(app: FastAPI) -> None:
    """Have an application answer all its failures in this shape."""
    app.exception_handler(Refused)(_refused)
    app.exception_handler(RequestValidationError)(_invalid)
    app.exception_handler(HTTPException)(_http)
    app.exception_handler(Exception)(_fault)


async def _refused(request: Request, refused: Refused) -> Response:
    return JSONResponse(refused.body(), refused.status, refused.headers)


async def _invalid(request: Request, error: RequestValidationError) -> Response:
    """The first field that is off. What it held is not said again: it may be a prompt."""
    first = error.errors()[0]
    place = [str(part) for part in (*first["loc"], first.get("ctx", {}).get("field", "body"))]
    name = _field([part for part in place if part != "body"]) or None
    name = None if first["type"] == "json_invalid" else name  # its place is a letter's
    message = printable(f"{name or 'the body'}: {_SAID.get(first['type'], first['msg'])}"[:500])
    return JSONResponse(error_body(422, message, name, first["type"]), 422)


def _field(place: list[str]) -> str:
    """A field's name, with numbers of lists; what pydantic adds of types is left out."""
    made = ""
    for part in place[:6]:
        if part.isdigit():
            made += f"[{part}]"
        elif part.isidentifier() and part not in ("str", "int", "float", "list", "dict"):
            made += f".{part}" if made else part
    return made[:100]


async def _http(request: Request, error: HTTPException) -> Response:
    status = 422 if error.status_code == 400 else error.status_code  # 400: no JSON in the body
    return JSONResponse(error_body(status, str(error.detail)), status, error.headers)


async def _fault(request: Request, error: Exception) -> Response:
    log.error("a request failed: %s", trace(error))
    message = f"the server failed ({type(error).__name__})"
    return JSONResponse(error_body(500, message), 500)
