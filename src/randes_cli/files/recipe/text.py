"""The text of a recipe: YAML (and so JSON) as nodes that know their line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from randes_cli.errors import UsageError
from randes_cli.limits import LONGEST_NAME

#: Levels of nesting; a recipe has four.
_DEEPEST = 8
#: Characters of a value that may stand for a number.
_LONGEST = 400


@dataclass(frozen=True, slots=True)
class Node:
    """A value, with the place where it stands.

    Attributes:
        value: nodes by name, a list of nodes, or a plain value.
        written: the text of a plain value.
    """

    value: Any
    written: str
    path: str
    line: int

    def error(self, text: str, at: Node | None = None) -> UsageError:
        """What is wrong at this line, or at another node's."""
        line = self.line if at is None else at.line
        known = text.startswith(f"{self.path}:")
        return UsageError(text if known else f"{self.path}:{line}: {text}")

    def pairs(self, what: str) -> dict[str, Node]:
        """Nodes by name. Raises UsageError where there are none."""
        if not isinstance(self.value, dict):
            raise self.error(f"pairs NAME: VALUE are wanted here, one for each {what}")
        return self.value

    def get(self, name: str) -> Node | None:
        """A field of this node; None where it is not there, or empty."""
        found = self.pairs("section").get(name)
        return None if found is None or found.value is None else found

    def text(self, what: str) -> str:
        """A plain value as it was written. Raises UsageError for another."""
        short = 0 < len(self.written) <= LONGEST_NAME
        if isinstance(self.value, (dict, list)) or not short:
            named = ", or the tasks as NAME: PATH" if what == "a task" else ""
            raise self.error(f"{what}: a path or a Hub id is wanted here{named}")
        return self.written

    def shown(self) -> str:
        """What stands there, for an error."""
        return repr(self.written[:40]) if self.written else "what stands here"

    def plain(self) -> Any:
        """The value without its lines."""
        if isinstance(self.value, dict):
            return {name: node.plain() for name, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value


def parse(data: bytes, path: str) -> Node:
    """The root of a document. Raises UsageError naming the line."""
    import yaml

    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(data.decode("utf-8"))
        root = _Reader(path, loader).root()
    except UnicodeDecodeError:
        raise UsageError(f"{path}: no text, so no recipe (inspect --recipe prints one)") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise UsageError(f"{path}{line}: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise UsageError(f"{path}: no YAML: {error}") from None
    if root is None:
        raise UsageError(f"{path}: empty; a recipe has base, tasks and options")
    return root


class _Reader:
    """Turns yaml's events into nodes as they come, so that what is wrong ends it at once."""

    def __init__(self, path: str, loader: Any) -> None:
        self._path, self._loader = path, loader

    def root(self) -> Node | None:
        """The one document's root; None where there is none."""
        import yaml

        self._loader.get_event()  # the stream's beginning
        if self._loader.check_event(yaml.StreamEndEvent):
            return None
        self._loader.get_event()  # the document's
        made = self._node(self._loader.get_event())
        self._loader.get_event()  # its end
        if not self._loader.check_event(yaml.StreamEndEvent):
            raise self._error(self._loader.get_event(), "a second document has no place here")
        return made

    def _error(self, event: Any, text: str) -> UsageError:
        return UsageError(f"{self._path}:{event.start_mark.line + 1}: {text}")

    def _node(self, event: Any, depth: int = 0, line: int = 0) -> Node:
        """The node that an event begins; `line` is that of its name."""
        import yaml

        line = line or event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent) or depth > _DEEPEST:
            raise self._error(event, "aliases and deep nesting have no place here")
        if isinstance(event, yaml.ScalarEvent):
            return Node(self._plain(event), event.value, self._path, line)
        made: Any = {} if isinstance(event, yaml.MappingStartEvent) else []
        while not self._loader.check_event(yaml.SequenceEndEvent, yaml.MappingEndEvent):
            one = self._loader.get_event()
            if isinstance(made, list):
                made.append(self._node(one, depth + 1))
                continue
            name = one.value if isinstance(one, yaml.ScalarEvent) else ""
            if not name or name in made:
                wrong = f"{name!r} stands here twice" if name else "a name is wanted here"
                raise self._error(one, wrong)
            value = self._loader.get_event()
            made[name] = self._node(value, depth + 1, one.start_mark.line + 1)
        self._loader.get_event()  # its end
        return Node(made, "", self._path, line)

    def _plain(self, event: Any) -> Any:
        """The value of a scalar: numbers, words, dates. One too long for a number is text."""
        import yaml

        tag, text = event.tag, event.value
        if len(text) > _LONGEST:
            return text
        if tag is None or tag == "!":
            tag = self._loader.resolve(yaml.ScalarNode, text, event.implicit)
        node = yaml.ScalarNode(tag, text, event.start_mark, event.end_mark, event.style)
        try:
            return self._loader.construct_object(node)
        except (LookupError, AttributeError):  # so yaml fails at !!bool, !!timestamp of other words
            raise self._error(event, f"{text!r} is no {tag.rpartition(':')[2]}") from None
