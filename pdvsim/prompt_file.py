"""Files of prompts: what `--prompts` names.

Text has a prompt a line; empty lines are left out. JSON Lines, told by the suffix .jsonl or
.ndjson, or by a first line that is an object, has an object a line, with one of the keys `prompt`
(text), `text` (text) and `messages` (a conversation as OpenAI's interface takes it, for the chat
template of the verifier's tokenizer); other keys are left aside. A file with the suffix .json is a
document of `pdvsim bench`, which counted the tokens of such a file's prompts: their lengths can be
replayed without the prompts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pdvsim.cell_values import PromptFile
from pdvsim.errors import InputError
from pdvsim.json_file import parse_json, read_text

MOST_PROMPTS = 100_000
WHAT = "a file of prompts, text with one a line or JSON Lines,"
_JSON_LINES = (".jsonl", ".ndjson")
_KEYS = ("prompt", "text", "messages")


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt as it stands in a file.

    Attributes:
        line: of the file, from 1.
        said: text, or the messages of a conversation.
    """

    line: int
    said: str | list[dict[str, Any]]


def prompts_of(path: Path) -> PromptFile:
    """What `--prompts PATH` means.

    Raises:
        InputError: it cannot be read, or is a document that holds no such lengths.
    """
    if path.suffix.lower() != ".json":
        return PromptFile.of(path)
    from pdvsim.documents import read
    from pdvsim.documents.cells import CellsDocument

    PromptFile.of(path)  # refuses what is no file
    document = read(path)
    rows = document.cells if isinstance(document, CellsDocument) else ()
    found = {row.cell.prompts for row in rows if row.cell is not None} - {None}
    if len(found) != 1:
        raise InputError(
            f"{path}: a .json file of --prompts is a document of pdvsim bench that ran one file of "
            f"prompts; this one ran {len(found)}"
        )
    (prompts,) = found
    assert prompts is not None
    return prompts


def read_prompts(file: PromptFile) -> list[Prompt]:
    """The prompts of a file, in its order.

    Raises:
        InputError: it has changed, is no such file, or holds no prompt.
    """
    file.check()
    path = Path(file.path)
    text = read_text(path, WHAT)
    if "\0" in text:
        raise InputError(f"{path}: not text, but binary; {WHAT} is needed")
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise InputError(f"{path}: holds no prompt; {WHAT} is needed")
    if len(lines) > MOST_PROMPTS:
        raise InputError(f"{path}: {len(lines):,} prompts; at most {MOST_PROMPTS:,} can be")
    if path.suffix.lower() in _JSON_LINES or _is_object(lines[0][1]):
        return list(_objects(path, lines))
    return [Prompt(number, line.removesuffix("\r")) for number, line in lines]


def _is_object(line: str) -> bool:
    if not line.lstrip().startswith("{"):
        return False
    try:
        return isinstance(parse_json(line, "a line", "an object"), dict)
    except InputError:
        return False


def _objects(path: Path, lines: list[tuple[int, str]]) -> Iterator[Prompt]:
    for number, line in lines:
        where = f"{path}, line {number}"
        found = parse_json(line, where, "an object with a prompt")
        if not isinstance(found, dict):
            raise InputError(f"{where}: not an object with one of the keys {', '.join(_KEYS)}")
        given = [key for key in _KEYS if key in found]
        if len(given) != 1:
            has = ", ".join(map(repr, list(found)[:10])) or "nothing"
            raise InputError(
                f"{where}: needs exactly one of the keys {', '.join(_KEYS)}; it has {has}"
            )
        said = found[given[0]]
        if given[0] == "messages":
            _check_messages(where, said)
        elif not isinstance(said, str):
            raise InputError(f"{where}: {given[0]!r} is no text")
        yield Prompt(number, said)


def _check_messages(where: str, said: Any) -> None:
    ok = isinstance(said, list) and all(
        isinstance(one, dict) and all(isinstance(one.get(key), str) for key in ("role", "content"))
        for one in said
    )
    if not ok or not said:
        raise InputError(
            f"{where}: 'messages' is not a list of objects with the texts 'role' and 'content'"
        )
