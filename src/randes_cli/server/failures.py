"""What goes wrong in the application, in OpenAI's shape."""

from __future__ import annotations

import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from randes_cli.errors import printable
from randes_cli.server.errors import Refused, error_body, trace

log = logging.getLogger("randes.serve")


def install(app: FastAPI) -> None:
    """Have an application answer all its failures in that shape."""
    app.exception_handler(Refused)(_refused)
    app.exception_handler(RequestValidationError)(_invalid)
    app.exception_handler(HTTPException)(_http)
    app.exception_handler(Exception)(_fault)


async def _refused(request: Request, refused: Refused) -> Response:
    return JSONResponse(refused.body(), refused.status, refused.headers)


async def _invalid(request: Request, error: RequestValidationError) -> Response:
    """The first field that is off. What it held is not said again: it may be a prompt."""
    first = error.errors()[0]
    place = [str(part) for part in first["loc"] if part != "body"]
    name = first.get("ctx", {}).get("field") or (_field(place) or None)
    what = "is not a field of this request" if first["type"] == "extra_forbidden" else first["msg"]
    message = printable(f"{name or 'the body'}: {what}"[:500])
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
    return JSONResponse(error_body(status, str(error.detail), None, None), status, error.headers)


async def _fault(request: Request, error: Exception) -> Response:
    log.error("a request failed: %s", trace(error))
    message = f"the server failed ({type(error).__name__})"
    return JSONResponse(error_body(500, message, None, None), 500)
