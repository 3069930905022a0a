"""JSON results as objects: of a file, or of a folder as a sweep leaves it; and who wrote each.

A folder is searched to its depths. What in it is no result (inputs, logs of single requests) is
left out and named; a list that repeats the results beside it, as vLLM's `summary.json` does, is
not counted twice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from pdvsim.audit.fields import NotANumber, Number, number
from pdvsim.audit.table import Distribution
from pdvsim.errors import InputError
from pdvsim.json_file import parse_json, parse_json_lines, read_text
from pdvsim.tables import listed, read_csv

WHAT = "the result of a benchmark"
MOST_FILES = 10_000
KNOWN = "vLLM and SGLang (bench serve), AIPerf, GuideLLM, LLMPerf summaries, pdvsim bench"

Parsed = TypeVar("Parsed", bound=BaseModel)


class Foreign(BaseModel):
    """Base of other programs' objects: they add fields at will, so unknown ones are ignored."""

    model_config = ConfigDict(extra="ignore")


@dataclass(frozen=True, slots=True)
class Item:
    """One JSON object and the file that it stands in."""

    path: Path
    content: Mapping[str, Any]

    def parse(self, model: type[Parsed]) -> Parsed:
        """The object as `model`.

        Raises:
            InputError: naming the first field that is wrong.
        """
        try:
            return model.model_validate(self.content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise InputError(f"{self.path}: {where}: {first['msg']}") from None


def read_items(path: Path) -> tuple[list[Item], list[str]]:
    """(objects, what was left out and why) of a file or a folder.

    Raises:
        InputError: the file is not JSON, or there is nothing in it.
    """
    if not path.is_dir():
        return _objects(path), []
    files = sorted((*path.rglob("*.json"), *path.rglob("*.jsonl")))[: MOST_FILES + 1]
    if not files:
        raise InputError(f"{path}: no .json or .jsonl file in this folder or below it")
    if len(files) > MOST_FILES:
        raise InputError(f"{path}: more than {MOST_FILES:,} files; give one sweep's folder")
    items: list[Item] = []
    left_out: list[str] = []
    for file in files:
        name = str(file.relative_to(path))
        try:
            objects = _objects(file)
        except InputError as error:
            left_out.append(f"{name}: {str(error).removeprefix(f'{file}: ')}")
            continue
        results = [item for item in objects if writer(item.content) is not None]
        if len(results) < len(objects):
            others = len(objects) - len(results)
            left_out.append(
                f"{name}: no result" if not results else f"{name}: {others} objects are no result"
            )
        items += results
    if not items:
        raise InputError(
            f"{path}: no results in its {len(files)} files; known are those of {KNOWN}"
        )
    return _once(items, path, left_out)


def _once(items: list[Item], path: Path, left_out: list[str]) -> tuple[list[Item], list[str]]:
    """Without the lists whose objects all stand in other files."""
    files: dict[Path, list[str]] = {}
    for item in items:
        files.setdefault(item.path, []).append(json.dumps(item.content, sort_keys=True))
    holders: dict[str, set[Path]] = {}
    for file, texts in files.items():
        for text in texts:
            holders.setdefault(text, set()).add(file)
    repeated = {
        file
        for file, texts in files.items()
        if len(texts) > 1 and all(len(holders[text]) > 1 for text in texts)
    }
    kept = [item for item in items if item.path not in repeated]
    if not kept:
        return items, left_out
    names = [f"{file.relative_to(path)}: repeats the results beside it" for file in repeated]
    return kept, left_out + sorted(names)


def _objects(path: Path) -> list[Item]:
    text = read_text(path, WHAT)
    if path.suffix == ".jsonl":
        found = parse_json_lines(text, str(path), WHAT, finite=False)
    else:
        found = _whole_or_lines(text, path)
    if not found:
        raise InputError(f"{path}: empty; {WHAT} is needed")
    if not all(isinstance(item, dict) for item in found):
        raise InputError(f"{path}: a JSON object, or a list of them, is needed")
    return [Item(path, item) for item in found]


def _whole_or_lines(text: str, path: Path) -> list[Any]:
    """One document, or a document a line (`--append-result`) whatever the file is called."""
    try:
        whole = parse_json(text, str(path), WHAT, finite=False)
    except InputError:
        if not re.match(r"\s*\{.*\}\s*\n\s*\{", text):
            raise
        return parse_json_lines(text, str(path), WHAT, finite=False)
    return whole if isinstance(whole, list) else [whole]


def csv_items(path: Path) -> list[Item]:
    """Rows of a CSV as the objects that they were as JSON; empty fields are left out.

    Raises:
        InputError: it is no CSV, or has no rows.
    """
    return [
        Item(path, {name: _value(text) for name, text in row.items() if text})
        for row in read_csv(path).iter_rows(named=True)
    ]


def _value(text: str) -> float | str | None:
    try:
        found = number(text)
    except NotANumber:
        return text
    return found.value if isinstance(found, Number) else found


def writer(content: Mapping[str, Any]) -> str | None:
    """The format of an object, by the fields that only it has; None: none that is known."""
    if isinstance(content.get("benchmarks"), list):
        return "guidellm"
    if isinstance(content.get("request_latency"), dict):
        return "aiperf"
    if "num_concurrent_requests" in content and any(k.startswith("results") for k in content):
        return "llmperf"
    if "duration" in content and "total_output_tokens" in content:
        sglang = {"mean_e2e_latency_ms", "total_output_tokens_retokenized"}
        return "sglang" if sglang.intersection(content) else "vllm"
    kind = content.get("kind", content.get("command"))
    rows = {"cells", "architecture", "system"}.intersection(content)
    return "pdvsim" if kind == "bench" or (kind is None and rows) else None


def refusal(item: Item) -> InputError:
    """Why an object that nobody writes as a result is not read."""
    keys = set(item.content)
    for command, marks in _NO_SERVING.items():
        if marks <= keys:
            return InputError(
                f"{item.path}: written by `vllm bench {command}`, which holds no serving run; give "
                f"what `vllm bench serve --save-result` wrote"
            )
    if keys & {"kind", "command"} and "cells" in keys:
        return InputError(f"{item.path}: holds no measured cells; give what pdvsim bench -o wrote")
    shown = listed(item.content, 6) or "nothing"
    return InputError(f"{item.path}: not a format I know (it has {shown}); known are {KNOWN}")


_NO_SERVING = {
    "latency": {"avg_latency", "latencies", "percentiles"},
    "throughput": {"elapsed_time", "num_requests", "tokens_per_second"},
}


def seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1e3


_STATISTIC = re.compile(r"(mean|median|std|min|max|p[\d.]+)_(\w+)_ms")


def distributions(content: Mapping[str, Any], names: Mapping[str, str]) -> tuple[Distribution, ...]:
    """What fields like `p99_ttft_ms` say, by quantity; `names` maps theirs to ours."""
    found: dict[str, dict[str, float]] = {}
    for key, value in content.items():
        match = _STATISTIC.fullmatch(key)
        if match and match[2] in names and isinstance(value, int | float):
            found.setdefault(names[match[2]], {})[match[1]] = value / 1e3
    return tuple(distribution(of, statistics) for of, statistics in found.items())


def distribution(of: str, statistics: Mapping[str, float]) -> Distribution:
    """From statistics by name: mean, std, min, max, median, p50, p99, ..."""
    percents = {"median": 50.0} | {
        name: float(name[1:]) for name in statistics if re.fullmatch(r"p\d+(\.\d+)?", name)
    }
    known = sorted(
        {percents[name]: v for name, v in statistics.items() if name in percents}.items()
    )
    return Distribution(
        of,
        statistics.get("mean"),
        statistics.get("std"),
        statistics.get("min"),
        statistics.get("max"),
        tuple((percent, value) for percent, value in known if 0 < percent < 100),
    )


_MODEL_KEYS = ("model_id", "model", "model_name", "model_names", "models")


def model_of(content: Any, depth: int = 6) -> str | None:
    """The first model that settings name, at any depth."""
    if not isinstance(content, Mapping) or not depth:
        return None
    for key in _MODEL_KEYS:
        value = content.get(key)
        if isinstance(value, Mapping):
            value = value.get("items")
        first = value[0] if isinstance(value, list) and value else value
        if isinstance(first, Mapping):
            first = first.get("name")
        if isinstance(first, str) and first:
            return first
    inside = (model_of(value, depth - 1) for value in content.values())
    return next((model for model in inside if model), None)


def total(parts: Sequence[float | None]) -> float | None:
    """Their sum; None if one is not known."""
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None
