"""A safetensors file that stays on the Hub: its header and single tensors, read by range."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from randes_cli.core.arrays import Raw
from randes_cli.errors import CheckpointError, HubError
from randes_cli.files.guard import Stamp
from randes_cli.files.header import Header, header_length, parse_header
from randes_cli.files.hub_errors import client_errors, dropped, hub_errors, without_login

#: Bytes of the first read: the header of most files, in one request.
FIRST_READ = 2**16
#: Times that a dropped connection is taken up again without a byte in between.
_ATTEMPTS = 3


@contextmanager
def _stream(url: str, headers: dict[str, str]) -> Iterator[tuple[int, Iterator[bytes]]]:
    """The status and the body of a GET, in pieces; busy answers are retried by the client.

    Pieces are short, or as they arrive, so that a connection that drops loses none.
    """
    from huggingface_hub import constants, utils

    client: Any = utils
    headers = {**client.build_hf_headers(library_name="randes"), **headers}
    options = {
        "headers": headers,
        "timeout": constants.HF_HUB_DOWNLOAD_TIMEOUT,
        "max_retries": 2,
        "retry_on_exceptions": (),
    }
    if hasattr(client, "http_stream_backoff"):
        with client.http_stream_backoff("GET", url, **options) as response:
            client.hf_raise_for_status(response)
            yield response.status_code, response.iter_bytes()
    else:  # before 1.0 the client built on requests
        with client.http_backoff("GET", url, stream=True, **options) as response:
            client.hf_raise_for_status(response)
            yield response.status_code, response.iter_content(4096)


def _pieces(url: str, start: int, count: int) -> Iterator[bytes]:
    """At most `count` bytes of a file from `start`, from one request."""
    headers = {"Range": f"bytes={start}-{start + count - 1}", "Accept-Encoding": "identity"}
    with _stream(url, headers) as (status, body):
        if status != 206 and start:
            raise HubError(
                f"{without_login(url)}: the server does not answer requests for a range of bytes"
            )
        for piece in body:
            yield piece[:count]
            count -= len(piece)
            if count <= 0:
                return


class RemoteFile:
    """One safetensors file of a repository at a commit. It looks like a `TensorFile`.

    Attributes:
        path: what messages call it; no path of this machine.
        bytes_read: bytes that were asked for so far.
    """

    pickle: str | None = None
    stamp: Stamp | None = None

    def __init__(self, repo: str, commit: str, file: str, size: int) -> None:
        from huggingface_hub import hf_hub_url

        self.path = Path(f"{repo}@{commit[:12]}") / file
        self.bytes_read = 0
        self._repo = repo
        self._url = hf_hub_url(repo, file, revision=commit)
        self._head = np.empty(min(size, FIRST_READ), np.uint8)
        self._request(0, self._head)
        self.header = self._read_header(size)

    def _read_header(self, size: int) -> Header:
        try:
            length = header_length(self._head[:64].tobytes(), file_size=size)
            if 8 + length > len(self._head):
                whole = np.empty(8 + length, np.uint8)
                whole[: len(self._head)] = self._head
                self._request(len(self._head), whole[len(self._head) :])
                self._head = whole
            return parse_header(self._head[8 : 8 + length].tobytes(), file_size=size)
        except ValueError as error:
            raise CheckpointError(f"{self.path}: {error}") from None

    def read_at(self, offset: int, out: Raw) -> None:
        """Fill `out` from `offset`. Raises HubError."""
        stop = offset + len(out)
        if stop <= len(self._head):
            out[:] = self._head[offset:stop]
        else:
            self._request(offset, out)

    def _request(self, offset: int, out: Raw) -> None:
        self.bytes_read += len(out)
        with hub_errors(str(self.path), self._repo):
            self._fill(offset, out.data)

    def _fill(self, offset: int, view: memoryview) -> None:
        done, left = 0, _ATTEMPTS
        while done < len(view):
            before = done
            problem: BaseException = ConnectionError("the answer ended early")
            try:
                for piece in _pieces(self._url, offset + done, len(view) - done):
                    view[done : done + len(piece)] = piece
                    done += len(piece)
            except client_errors() as error:
                if not dropped(error):
                    raise
                problem = error
            left = _ATTEMPTS if done > before else left - 1
            if not left:
                raise problem

    def close(self) -> None:
        """Nothing is kept open."""
