"""The page at ``/``: one answer, with its style and script inside, that loads nothing else."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files

from starlette.responses import HTMLResponse, Response


@cache
def _parts() -> tuple[str, str]:
    """The page, and the policy that lets its own style and script run and nothing else."""
    folder = files("randes_cli.server")
    page, style, script = (
        (folder / f"page.{kind}").read_text("utf-8") for kind in ("html", "css", "js")
    )
    page = page.replace("/*STYLE*/", style).replace("/*SCRIPT*/", script)
    policy = [
        "default-src 'none'",
        f"style-src '{_digest(style)}'",
        f"script-src '{_digest(script)}'",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
    return page, "; ".join(policy)


def _digest(text: str) -> str:
    made = hashlib.sha256(text.encode()).digest()
    return "sha256-" + base64.b64encode(made).decode()


async def page() -> Response:
    """The page. It tells nothing of the bank: it asks for that itself, with the key if need be."""
    text, policy = _parts()
    return HTMLResponse(
        text,
        headers={
            "content-security-policy": policy,
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "cache-control": "no-cache",
        },
    )
