"""The text of a recipe: YAML (and so JSON) as nodes that know their line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from randes_cli.errors import UsageError

#: Levels of nesting; a recipe has four.
_DEEPEST = 8


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
        if isinstance(self.value, (dict, list)) or not self.written:
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
        loader = yaml.SafeLoader(data.decode("utf-8"))
        root = loader.get_single_node()
        if root is None:
            raise UsageError(f"{path}: empty; a recipe has base, tasks and options")
        return _Reader(path, loader).node(root)
    except UnicodeDecodeError:
        raise UsageError(f"{path}: no text, so no recipe (inspect --recipe prints one)") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise UsageError(f"{path}{line}: {error.problem or error.context}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UsageError(f"{path}: no YAML: {error}") from None


class _Reader:
    """Turns what yaml composed into nodes."""

    def __init__(self, path: str, loader: Any) -> None:
        self._path, self._loader = path, loader
        self._seen: set[int] = set()

    def node(self, found: Any, depth: int = 0, line: int = 0) -> Node:
        """A node of ours from one of yaml's; `line` is that of its name."""
        line = line or found.start_mark.line + 1
        if id(found) in self._seen or depth > _DEEPEST:
            raise UsageError(f"{self._path}:{line}: aliases and deep nesting have no place here")
        self._seen.add(id(found))
        written = found.value if isinstance(found.value, str) else ""
        return Node(self._value(found, depth), written, self._path, line)

    def _value(self, found: Any, depth: int) -> Any:
        if found.id == "sequence":
            return [self.node(one, depth + 1) for one in found.value]
        if found.id == "scalar":
            return self._loader.construct_object(found)
        made: dict[str, Node] = {}
        for key, value in found.value:
            name = key.value if isinstance(key.value, str) else ""
            if not name or name in made:
                line = key.start_mark.line + 1
                wrong = f"{name!r} stands here twice" if name else "a name is wanted here"
                raise UsageError(f"{self._path}:{line}: {wrong}")
            made[name] = self.node(value, depth + 1, key.start_mark.line + 1)
        return made
