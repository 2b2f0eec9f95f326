"""One request's jobs: made of its body, submitted, their events taken in, and let go."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress

from starlette.requests import Request

from randes_cli.server.answer import Answer, Done, Event, Failed, Job, Reading, Result
from randes_cli.server.bodies import ChatBody, CompletionBody
from randes_cli.server.edition import Served
from randes_cli.server.engine import Engine
from randes_cli.server.errors import Refused
from randes_cli.server.sampling import Chooser, Sampling
from randes_cli.server.texts import TextReader


class Asking:
    """Jobs of one request. Leave its block, however that is, and nobody waits for them.

    Attributes:
        prompt_tokens: of all prompts, each counted once.
    """

    def __init__(self, engine: Engine, served: Served) -> None:
        self.engine, self.served = engine, served
        self.jobs: list[Job] = []
        self.prompt_tokens = 0
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()

    def tell(self) -> Callable[[Event], None]:
        """What the next job tells events with, from the engine's thread."""
        number = len(self.jobs)

        def told(event: Event) -> None:
            with suppress(RuntimeError):  # the loop has ended, and nobody waits
                self._loop.call_soon_threadsafe(self._events.put_nowait, (number, event))

        return told

    def make_room(self, more: int) -> None:
        """Raise Refused before more jobs are made than may ever wait."""
        if len(self.jobs) + more > self.engine.most:
            raise Refused(422, f"one request asks for more than {self.engine.most} answers")

    def submit(self) -> None:
        """Have the jobs wait for their turn. Raises Refused where there is no room."""
        self.engine.submit(self.served.lane, self.jobs)

    async def events(self) -> AsyncIterator[tuple[int, Event]]:
        """The number of a job and what comes of it, until all have ended."""
        open_ = len(self.jobs)
        while open_:
            number, event = await self._events.get()
            if isinstance(event, (Done, Failed, Result)):
                open_ -= 1
            yield number, event

    def cancel(self) -> None:
        """Give the places back that are still taken."""
        for job in self.jobs:  # with the next step
            job.gone = True


def add_answers(
    asking: Asking, ids: Sequence[int], body: ChatBody | CompletionBody, *, field: str
) -> None:
    """Jobs for the answers to one prompt. Raises Refused for tokens that the model cannot take."""
    served = asking.served
    asking.make_room(body.n or 1)
    check_tokens(served, ids, field)
    if body.logit_bias:
        check_tokens(served, [int(token) for token in body.logit_bias], "logit_bias")
    most = body.most or served.context - len(ids)
    if most < 1 or len(ids) + most > served.context:
        raise Refused(
            422,
            f"{served.name} takes {served.context} tokens in all; the prompt has {len(ids)}"
            + (f", and {most} more were asked for" if body.most else ""),
            param=field,
            code="context_length_exceeded",
        )
    wishes = sampling_of(body)
    seed = secrets.randbits(62) if body.seed is None else body.seed % 2**63
    asking.prompt_tokens += len(ids)
    for number in range(body.n or 1):
        asking.jobs.append(
            Answer(
                served.task,
                list(ids),
                asking.tell(),
                most,
                served.ends,
                chooser=Chooser(wishes, (seed + number) % 2**63),
                reader=TextReader(served.words.decode, ids, body.stops),
            )
        )


def sampling_of(body: ChatBody | CompletionBody) -> Sampling:
    """How tokens are chosen, with OpenAI's defaults."""
    return Sampling(
        temperature=1.0 if body.temperature is None else body.temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
        top_k=body.top_k or 0,
        presence=body.presence_penalty or 0.0,
        frequency=body.frequency_penalty or 0.0,
        bias={int(token): value for token, value in (body.logit_bias or {}).items()},
        logprobs=body.told,
    )


def add_reading(
    asking: Asking,
    ids: list[int],
    segments: Sequence[int] | None,
    *,
    truncate: bool,
    prompted: bool,
) -> None:
    """A job for one text, `prompted` with what its model puts before all.

    Raises Refused for one that is too long, unless it may be cut.
    """
    served = asking.served
    asking.make_room(1)
    check_tokens(served, ids, "input")
    if len(ids) > served.context and not truncate:
        raise Refused(
            422,
            f"{served.name} takes {served.context} tokens; a text has {len(ids)} "
            '("truncate": true cuts it)',
            param="input",
            code="context_length_exceeded",
        )
    asking.prompt_tokens += len(ids)
    asking.jobs.append(
        Reading(
            served.task,
            ids,
            asking.tell(),
            reader=served.reader,
            segments=segments,
            skipped=served.reader.skipped if prompted else 0,
        )
    )


def check_tokens(served: Served, ids: Sequence[int], field: str) -> None:
    """Raise Refused where a prompt is empty, or has a token that the task does not know."""
    if not ids:
        raise Refused(422, "an empty text has no tokens", param=field)
    if max(ids) >= served.vocabulary:
        raise Refused(
            422, f"{served.name} knows {served.vocabulary} tokens, not {max(ids)}", param=field
        )


async def hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
