"""A case: a command of the line, what it meets, and what must be true when it has ended."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Case:
    """A command. `store`, `scored` and `indexed` are what it writes, where every one of `rows` must be found again.

    `works`: it must do what it is told, however strange a name is. `stop` is a text on stderr after which a server is
    told to end. `stdout` is a file that takes what is printed, instead of one of ours; "closed" is none, "broken" a
    pipe that nobody reads. No file may become longer than `longest` bytes, as on a disk that is full.
    """

    argv: list[str]
    env: dict[str, str] = field(default_factory=dict)
    stdin: bytes = b""
    stdout: str = ""
    rows: int | None = None
    store: str = ""
    scored: str = ""
    indexed: str = ""
    works: bool = False
    stop: str = ""
    longest: int = 256 << 20
