"""nginx's configuration as a tree of directives, each with its line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_TOKEN = re.compile(
    r"\s+|#[^\n]*|(?P<mark>[{};])|(?P<word>(?:\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|\$\{\w+\}|[^\s{};\"'])+)",
    re.DOTALL,
)


@dataclass(slots=True, eq=False)
class Block:
    """A block and its directives; the root has no name."""

    name: str
    arguments: list[str]
    line: int  # from 0
    parent: Block | None = None
    directives: list[tuple[str, list[str], int]] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)

    def get(self, name: str, inherit: bool = True) -> tuple[list[str], int] | None:
        """Return the last directive of a name, here or in an enclosing block."""
        for found, arguments, line in reversed(self.directives):
            if found == name:
                return arguments, line
        return self.parent.get(name) if inherit and self.parent is not None else None

    def walk(self) -> Iterator[Block]:
        yield self
        for block in self.blocks:
            yield from block.walk()


def parse(text: str) -> Block | None:
    """Parse nginx's configuration; None if the text is something else."""
    root = here = Block("", [], 0)
    words: list[str] = []
    line = start = position = 0
    while position < len(text):
        found = _TOKEN.match(text, position)
        if found is None:
            return None
        mark, word = found["mark"], found["word"]
        if word:
            if not words:
                start = line
            words.append(word.strip("\"'"))
        elif mark == ";":
            if words:
                here.directives.append((words[0], words[1:], start))
            words = []
        elif mark == "{":
            if not words:
                return None
            block = Block(words[0], words[1:], start, here)
            here.blocks.append(block)
            here, words = block, []
        elif mark == "}":
            if here.parent is None:
                return None
            here, words = here.parent, []
        line += text.count("\n", position, found.end())
        position = found.end()
    return root if here is root and not words else None
