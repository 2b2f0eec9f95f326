"""The text of tokens as they come: whole characters alone, and nothing that may become a stop."""

from __future__ import annotations

from collections.abc import Callable, Sequence

#: What a tokenizer makes of bytes that are not (yet) a character.
_BROKEN = "\ufffd"
#: Tokens of the prompt that are decoded along, so that a first word keeps its space.
_BEFORE = 6


class TextReader:
    """Turns tokens into text, piece by piece, whose sum is what decoding all of them gives.

    Attributes:
        stopped: whether one of the stops came; the text ends before it.
    """

    def __init__(
        self, decode: Callable[[Sequence[int]], str], prompt: Sequence[int], stops: Sequence[str]
    ) -> None:
        self._decode, self._stops = decode, [stop for stop in stops if stop]
        self._ids = list(prompt[-_BEFORE:])
        self._start, self._read = 0, len(self._ids)
        self._before = decode(self._ids) if self._ids else ""
        self._held, self.stopped = "", False

    def push(self, token: int) -> str:
        """Take a token; the text that is now certain."""
        self._ids.append(token)
        whole = self._decode(self._ids[self._start :])
        if whole.endswith(_BROKEN):
            return ""
        self._take(whole)
        return self._certain()

    def finish(self) -> str:
        if not self.stopped and self._read < len(self._ids):
            self._take(self._decode(self._ids[self._start :]))
        made = self._certain()
        made, self._held = made + self._held, ""
        return made

    def _take(self, whole: str) -> None:
        self._held += whole[len(self._before) :]
        self._start, self._read = self._read, len(self._ids)
        self._before = self._decode(self._ids[self._start : self._read])

    def _certain(self) -> str:
        """What is held up to a stop, or but for the end that may become one."""
        if self.stopped:
            return ""
        found = [at for at in map(self._held.find, self._stops) if at >= 0]
        if found:
            self.stopped = True
            made, self._held = self._held[: min(found)], ""
            return made
        keep = max((_begun(self._held, stop) for stop in self._stops), default=0)
        cut = len(self._held) - keep
        made, self._held = self._held[:cut], self._held[cut:]
        return made


def _begun(text: str, stop: str) -> int:
    """How many characters at the end of `text` are the beginning of `stop`."""
    for size in range(min(len(stop) - 1, len(text)), 0, -1):
        if stop.startswith(text[-size:]):
            return size
    return 0
