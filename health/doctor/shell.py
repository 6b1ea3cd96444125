"""What a shell does with a script: enough to say who gets SIGTERM, what a probe's exit status means, and how long a
hook waits. It is no interpreter: what it cannot tell, it says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from .units import seconds

SHELLS = frozenset({"sh", "bash", "dash", "ash", "zsh", "ksh"})

#: Operators that only a shell understands.
OPERATORS = frozenset({"&&", "||", "|", ";", ">", ">>", "<", "2>&1", "&"})

_NEVER_FAILS = frozenset(
    {"true", ":", "echo", "printf", "cat", "tee", "date", "sleep", "sort", "wc", "tail", "head", "ls"}
)
_KEYWORDS = frozenset({"if", "while", "until", "for", "case", "{", "(", "function"})


def program(word: str) -> str:
    """Return a program's name without its folder."""
    return word.rpartition("/")[2]


@dataclass(frozen=True)
class Invocation:
    """A command line that is a shell with a script: ``sh -c SCRIPT``."""

    shell: str  # sh, bash, …
    script: str
    index: int  # of the script among the words
    rest: tuple[str, ...]  # the words after the script: $0, $1, …


def invocation(words: list[str]) -> Invocation | None:
    """Parse ``[/bin/sh, -c, SCRIPT]``; None for any other command."""
    if len(words) >= 3 and program(words[0]) in SHELLS:
        for number, word in enumerate(words[1:], 1):
            if not word.startswith("-"):
                return None
            if re.fullmatch(r"-[a-z]*c", word) and number + 1 < len(words):
                return Invocation(program(words[0]), words[number + 1], number + 1, tuple(words[number + 2 :]))
    return None


@dataclass(frozen=True)
class Command:
    """One simple command of a script."""

    words: tuple[str, ...]
    before: str  # the operator before it: "", "&&", "||", ";", "|" or "&"
    after: str  # the operator after it

    @property
    def program(self) -> str:
        """Return what it runs, without assignments and `exec`."""
        rest = self.proper
        return program(rest[0]) if rest else ""

    @property
    def proper(self) -> tuple[str, ...]:
        rest = list(self.words)
        while rest and (re.fullmatch(r"[A-Za-z_]\w*=.*", rest[0], re.DOTALL) or rest[0] in ("exec", "command", "time")):
            rest.pop(0)
        return tuple(rest)

    @property
    def exec(self) -> bool:
        """Return True if it replaces the shell; an `exec` that only redirects does not."""
        if "exec" not in self.words[:3]:
            return False
        rest = self.words[self.words.index("exec") + 1 :]
        return bool(rest) and not re.match(r"\d*[<>]", rest[0])


class Script:
    """A script as simple commands. ``clear`` is False with control structures, functions and the like."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def commands(self) -> tuple[Command, ...]:
        return tuple(self._split())

    @property
    def clear(self) -> bool:
        return (
            bool(self.commands)
            and "<<" not in self.text
            and not any(
                command.words[0] in _KEYWORDS or command.words[0].startswith(("(", "{")) for command in self.commands
            )
        )

    @property
    def traps(self) -> bool:
        return any(command.program == "trap" for command in self.commands)

    def _split(self) -> list[Command]:
        found: list[Command] = []
        words: list[str] = []
        before = ""
        for token in tokens(self.text):
            if token.operator:
                if words:
                    found.append(Command(tuple(words), before, token.text))
                    words, before = [], token.text
            else:
                words.append(token.text)
        if words:
            found.append(Command(tuple(words), before, ""))
        return found

    @property
    def last(self) -> Command:
        return self.commands[-1]

    @property
    def pause(self) -> float:
        """Return how long it sleeps in all, in seconds."""
        return sum(_sleep(command.proper) or 0 for command in self.commands if command.program == "sleep")

    @property
    def cannot_fail(self) -> str:
        """Say why its exit status is always 0; "" if it can be another."""
        if not self.clear:
            return ""
        last = self.last
        if last.before == "||" and (last.program in ("true", ":", "echo") or last.proper == ("exit", "0")):
            return f"`|| {' '.join(last.proper)}` turns every failure into success"
        if last.before in (";", "&") and (last.program in ("true", ":", "echo") or last.proper == ("exit", "0")):
            return f"it ends in `{' '.join(last.proper)}`, whatever happened before"
        if (
            last.before == "|"
            and last.program in _NEVER_FAILS | {"sed", "awk", "cut", "tr", "xargs"}
            and "pipefail" not in self.text
        ):
            return f"a pipe's exit status is its last command's, and `{last.program}` succeeds on anything"
        if last.after == "&":
            return "its last command runs in the background, so the shell does not wait for its result"
        if all(
            (command.program in ("sleep", "true", ":", "echo", "date") or command.proper == ("exit", "0"))
            and not any(re.search(r"[<>]", word) for word in command.words)
            for command in self.commands
        ):
            return f"`{self.text.strip()}` succeeds whatever state the server is in"
        return ""


class Token(NamedTuple):
    text: str
    operator: bool


_TOKEN = re.compile(
    r"(?P<space>[ \t\r]+|\\\n)"
    r"|(?P<comment>#[^\n]*)"
    r"|(?P<operator>&&|\|\||;;|[;|\n]|&(?!>))"
    r"|(?P<word>(?:'[^']*'|\"(?:\\.|[^\"\\])*\"|\$\((?:[^()]|\([^()]*\))*\)|`[^`]*`|\\.|\d*[<>]&?-?|&>|[^\s;|&'\"`\\])+)"
    r"|(?P<stray>.)",
    re.DOTALL,
)


def tokens(script: str) -> Iterator[Token]:
    """Return words without quotes, and operators; a new line is `;`, except after an operator."""
    operator = ";"
    for found in _TOKEN.finditer(script):
        if found["operator"]:
            text = ";" if found["operator"] == "\n" else found["operator"]
            if not (found["operator"] == "\n" and operator):
                operator = text
                yield Token(text, True)
        elif found["word"] or found["stray"]:
            operator = ""
            yield Token(_unquoted(found[0]), False)


def _unquoted(word: str) -> str:
    return re.sub(
        r"'([^']*)'|\"((?:\\.|[^\"\\])*)\"|\\(.)",
        lambda found: found[1] if found[1] is not None else found[2] if found[2] is not None else found[3],
        word,
    )


def _sleep(words: tuple[str, ...]) -> float | None:
    return seconds(words[1]) if len(words) == 2 else None


def pause(words: list[str]) -> float:
    """Return how long a command line sleeps, or means to, in seconds: ``[sleep, 10]``, ``[sh, -c, "sleep 10; …"]``."""
    shell = invocation(words)
    if shell is not None:
        script = Script(shell.script.strip().strip("'\"") if _quoted_whole(shell.script) else shell.script)
        return script.pause
    return (_sleep(tuple(words)) or 0) if words and program(words[0]) == "sleep" else 0


def _quoted_whole(script: str) -> bool:
    """Return True for a script that is one quoted word with spaces: the shell looks for a program of that name."""
    stripped = script.strip()
    return bool(re.fullmatch(r"'[^']*\s[^']*'|\"[^\"$`]*\s[^\"$`]*\"", stripped))


def why_it_cannot_work(words: list[str]) -> str:
    """Say why a command line fails in any image; "" if no reason is known."""
    if not words:
        return ""
    shell = invocation(words)
    if shell is not None:
        if _quoted_whole(shell.script):
            return (
                f"quotes within quotes: the shell looks for a program whose name is `{shell.script.strip()[1:-1]}`"
                " (exit 127)"
            )
        if shell.rest and re.fullmatch(r"[\w./-]+", shell.script) and shell.script not in ("true", "exit"):
            return (
                f"the script is only `{shell.script}`; {' '.join(shell.rest)!r} is not part of it but becomes $0"
                f" (quote the whole: `{shell.script} {' '.join(shell.rest)}`)"
            )
        return ""
    if len(words) == 1 and " " in words[0].strip():
        return f"no shell splits it: the program would have to be called `{words[0]}`"
    if program(words[0]) not in SHELLS and (operators := [word for word in words[1:] if word in OPERATORS]):
        return f"no shell reads it, so `{operators[0]}` is an argument of `{words[0]}`"
    return ""
