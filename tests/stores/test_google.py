"""Banks in Google's store, as an emulator of it answers: the bytes of local work."""

from __future__ import annotations

import json
import logging
import runpy
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from gcp_storage_emulator.server import RequestHandler
from gcp_storage_emulator.storage import Storage

from randes_cli import BankLocked, HubError, TaskInput, UsageError, add, pack, verify
from tests.checkpoints import perturbed, random_state, save

ROUND = Path(__file__).parents[2] / "benchmarks" / "stores.py"


@dataclass
class Google:
    """The emulator's state; `meanwhile` is called before a put that names what must be there."""

    storage: Storage
    meanwhile: Callable[[], None] = lambda: None
    status: int = 0
    wanted: list[str] = field(default_factory=list)

    def put(self, name: str, data: bytes) -> None:
        """Make an object, as another writer does."""
        about = {"bucket": "bucket", "name": name, "generation": "7", "size": str(len(data))}
        self.storage.create_file("bucket", name, data, about)

    def get(self, name: str) -> bytes:
        """The content of an object."""
        return bytes(self.storage.get_file("bucket", name))

    def allows(self, name: str, generation: str) -> bool:
        """Whether an object is of this generation; 0: there is none."""
        self.wanted.append(generation)
        self.meanwhile()
        found = self.storage.objects.get("bucket", {}).get(name)
        return generation == ("0" if found is None else found["generation"])


class Conditional(RequestHandler):  # type: ignore[misc]
    """The emulator, which knows no conditions, with that of generations, and with refusals."""

    def __init__(self, google: Google, *rest: object) -> None:
        self.google = google
        super().__init__(google.storage, *rest)

    def do_POST(self) -> None:  # noqa: N802
        """Uploads begin with one."""
        connection = vars(self)["rfile"]
        body = connection.read(int(self.headers.get("Content-Length") or 0))
        query = parse_qs(urlsplit(self.path).query)
        if self.google.status:
            self._answer(self.google.status)
        elif "ifGenerationMatch" in query and not self._allowed(query, body):
            self._answer(412)
        else:
            self.rfile = BytesIO(body)
            super().do_POST()
            self.rfile = connection

    def _allowed(self, query: dict[str, list[str]], body: bytes) -> bool:
        if "upload_id" in query:  # a part; the first call was asked
            return True
        told = next(line for line in body.splitlines() if line.startswith(b'{"name"'))
        return self.google.allows(json.loads(told)["name"], query["ifGenerationMatch"][0])

    def _answer(self, status: int) -> None:
        said = json.dumps({"error": {"code": status, "message": "as wanted"}}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)


@pytest.fixture
def google(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Google]:
    """A bucket of a server on a free port. (The emulator's own answers one call at a time.)"""
    logging.getLogger("gcp_storage_emulator").setLevel(logging.CRITICAL)
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
    monkeypatch.setattr(ThreadingHTTPServer, "handle_error", lambda *_: None)
    made = Google(Storage(use_memory_fs=True))
    made.storage.create_bucket("bucket", {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Conditional, made))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    monkeypatch.chdir(tmp_path)
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


def test_every_command_gives_the_bytes_of_work_here(google: Google) -> None:
    told: list[str] = []
    runpy.run_path(str(ROUND))["go_round"]("gs://bucket/trial", (1_000_000,), told.append)
    assert [" files as here" in line for line in told] == [True]
    assert google.wanted


@pytest.fixture
def inputs(google: Google) -> list[TaskInput]:
    """A base here and two fine-tunes of it."""
    base = random_state({"a.weight": [600, 512], "norm": [128]})
    save(base, Path("base.safetensors"))
    for seed, name in enumerate(("a", "b")):
        save(perturbed(base, seed=seed), Path(f"{name}.safetensors"))
    return [TaskInput(name, f"{name}.safetensors") for name in ("a", "b")]


def test_an_edit_replaces_what_it_has_read_in_parts(
    google: Google, inputs: list[TaskInput], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("randes_cli.files.puts._PART", 2**18)
    for out in ("gs://bucket/x.randes", "x.randes"):
        pack("base.safetensors", inputs[:1], out)
        add(out, inputs[1:])
    assert google.get("x.randes") == Path("x.randes").read_bytes()
    assert google.wanted[0] == "0" and int(google.wanted[1]) > 0


@pytest.mark.parametrize("edits", [True, False])
def test_a_writer_who_comes_at_the_last_moment_is_not_overwritten(
    google: Google, inputs: list[TaskInput], edits: bool
) -> None:
    bank = "gs://bucket/x.randes"
    if edits:
        pack("base.safetensors", inputs[:1], bank)
    google.meanwhile = lambda: google.put("x.randes", b"another's")
    with pytest.raises(BankLocked if edits else UsageError, match=r"^gs://bucket/x.randes: "):
        if edits:
            add(bank, inputs[1:])
        else:
            pack("base.safetensors", inputs[:1], bank)
    assert google.get("x.randes") == b"another's"


def test_a_put_whose_answer_was_lost_is_known_again(
    google: Google, inputs: list[TaskInput]
) -> None:
    pack("base.safetensors", inputs[:1], "x.randes")
    google.meanwhile = lambda: google.put("x.randes", Path("x.randes").read_bytes())
    pack("base.safetensors", inputs[:1], "gs://bucket/x.randes")
    assert verify("gs://bucket/x.randes").sound


@pytest.mark.parametrize("status", [401, 403])
def test_a_store_that_refuses_is_told_from_one_that_fails(
    google: Google, inputs: list[TaskInput], status: int
) -> None:
    google.status = status
    with pytest.raises(HubError, match=r"refused it \(.*as wanted|401.*gcloud auth") as error:
        pack("base.safetensors", inputs[:1], "gs://bucket/x.randes")
    assert "upload" not in str(error.value)
