"""The specification of a cell: what it takes, what it refuses, and its way through JSON."""

from __future__ import annotations

import json
import pickle
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdvsim.cell import FIELDS, Cell, TraceFile, flag, spoken
from pdvsim.errors import InputError
from pdvsim.protocols import protocols

CELL = Cell("tinyllama-1.1b:llama-2-7b", "graph", "pd", 8)


def numbers(name: str) -> st.SearchStrategy[Any]:
    """Values of a field within its bounds."""
    low, high = FIELDS[name].metadata["low"], FIELDS[name].metadata["high"]
    return st.integers(low, high) if isinstance(low, int) else st.floats(low, high)


@st.composite
def cells(draw: st.DrawFn) -> Cell:
    """Any cell."""
    protocol = draw(st.sampled_from(list(protocols())))
    drafts = draw(st.integers(1, 16))
    kept = st.lists(st.floats(0, 1), min_size=drafts, max_size=drafts).map(tuple)
    real = st.just("real") if protocol == "closed-loop" else kept
    names = ("concurrency", "cycles", "prompt_tokens", "output_tokens", "spread", "seed")
    changes: dict[str, Any] = {name: draw(numbers(name)) for name in names}
    changes |= {name: draw(st.none() | numbers(name)) for name in ("batch_cap", "slo_tpot_ms")}
    wide = st.floats(0, 3).map("lognormal:{:g}".format)
    if protocol != "trace":
        file = st.builds(TraceFile, st.text(), st.just("0" * 64))
        changes["lengths_from"] = draw(st.none() | file)
        changes["output_spread"] = draw(st.none() | numbers("spread") | wide)
    differing = draw(st.just(0.0) | st.floats(0.001, 0.48))
    if protocol == "poisson":
        changes["rate_per_s"] = draw(numbers("rate_per_s"))
    if protocol == "trace":
        changes |= {"trace": TraceFile(draw(st.text()), "0" * 64), "time_scale": 2.0}
    return replace(
        CELL,
        protocol=protocol,
        parameters=draw(
            st.dictionaries(st.text(), st.booleans() | st.integers() | st.floats(0, 9))
        ),
        acceptance=draw(kept | real) if not differing else (0.6,) * drafts,
        acceptance_spread=differing,
        acceptance_lasts=draw(st.none() | numbers("acceptance_lasts")) if differing else None,
        draft_tokens=drafts,
        **changes,
    )


@given(cells())
def test_a_cell_comes_back_from_json_and_from_another_process(cell: Cell) -> None:
    assert Cell.read(json.loads(json.dumps(cell.to_dict()))) == cell
    again = pickle.loads(pickle.dumps(cell))
    assert again == cell and hash(again) == hash(cell)


def test_json_holds_every_field() -> None:
    assert set(CELL.to_dict()) == {one.name for one in fields(Cell)}


@pytest.mark.parametrize("name", [one.name for one in fields(Cell)])
def test_a_renamed_key_is_refused_by_name(name: str) -> None:
    content = CELL.to_dict()
    content["other"] = content.pop(name)
    with pytest.raises(InputError, match="other|" + name):
        Cell.read(content)


BOUNDED = [name for name in FIELDS if FIELDS[name].metadata.get("low") is not None]


@pytest.mark.parametrize("name", BOUNDED)
def test_every_bound_is_a_sentence_with_the_option_and_its_range(name: str) -> None:
    low, high = FIELDS[name].metadata["low"], FIELDS[name].metadata["high"]
    for value in (low - 1, high * 2, float("nan"), float("inf")):
        given = (value,) * 4 if name == "acceptance" else value
        with pytest.raises(InputError) as refused:
            replace(CELL, **{name: given})
        assert str(refused.value) == (
            f"{flag(name)} is {value}; it must be between {spoken(low)} and {spoken(high)}"
        )


@pytest.mark.parametrize("value", [2.5, True, "8", [8], np.float64(2.5)])
def test_what_is_no_whole_number_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match=r"--concurrency is .*; it must be (a whole number )?betw"):
        replace(CELL, concurrency=value)


def test_numbers_of_numpy_are_numbers() -> None:
    cell = replace(CELL, concurrency=np.int64(3), spread=np.float64(0.5))
    assert Cell.read(json.loads(json.dumps(cell.to_dict()))) == cell


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"protocol": "poisson"}, "--rate is needed by the protocol poisson"),
        ({"rate_per_s": 2.0}, "--rate is only for the protocol poisson"),
        ({"protocol": "trace"}, "--trace is needed by the protocol trace"),
        ({"time_scale": 2.0}, "--trace-speed is only for the protocol trace"),
        (
            {"protocol": "pdverify", "requests": 3},
            "for the protocols closed-loop, poisson and",
        ),
        ({"protocol": "burst"}, "--protocol is 'burst'; known are closed-loop"),
        ({"executor": "fast"}, "--executor is 'fast'; known are"),
        ({"spread": "gamma:1"}, "--spread is 'gamma:1'; write a share of the mean, as in 0.5, or"),
        ({"spread": "lognormal:4"}, "--spread is lognormal:4; it must be between lognormal:0 and"),
        ({"output_spread": 1.5}, "--output-spread is 1.5; it must be between 0 and 0.99"),
        ({"draft_tokens": 3}, "--acceptance has 4 positions, but --draft-tokens is 3"),
        ({"temperature": 1.0}, "--temperature is only for --acceptance real"),
        ({"acceptance": "real", "protocol": "pdverify"}, "real is only for a closed loop"),
    ],
)
def test_what_does_not_go_together_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        replace(CELL, **changes)


@pytest.mark.parametrize(
    "changes",
    [{"pair": 3}, {"concurrency": None}, {"acceptance": "some"}, {"parameters": {"a": "b"}}],
)
def test_json_of_the_wrong_kind_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Cell.read(CELL.to_dict() | changes)


def test_a_changed_trace_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("a")
    trace = TraceFile.of(path)
    trace.check()
    path.write_text("b")
    with pytest.raises(InputError, match="has changed"):
        trace.check()


def test_a_cell_says_what_runs() -> None:
    cell = replace(CELL, parameters={"prefill_batch": 4}, slo_e2el_ms=5.0, batch_cap=3)
    config = cell.config()
    assert (config.architecture, config.batch_cap, config.executor.name) == ("pd", 3, "graph")
    assert cell.slo is not None and cell.slo.e2el_ms == 5.0
    assert cell.plan(np.random.SeedSequence(1)).in_flight == 8


def test_unknown_parameters_and_architectures_are_refused() -> None:
    with pytest.raises(InputError, match="pd has no parameter speed; it has prefill_batch"):
        replace(CELL, parameters={"speed": 4}).config()
    with pytest.raises(InputError, match="unknown architecture 'pdx'"):
        replace(CELL, architecture="pdx").config()


@given(cells(), cells())
def test_files_are_called_alike_for_the_same_cell_only(one: Cell, other: Cell) -> None:
    assert (one.file_name == other.file_name) == (one == other)


def test_another_content_of_a_trace_is_another_cell(tmp_path: Path) -> None:
    path, found = tmp_path / "trace.csv", []
    for content in ("a", "b"):
        path.write_text(content)
        found.append(replace(CELL, protocol="trace", trace=TraceFile.of(path)))
    assert found[0] != found[1] and found[0].file_name != found[1].file_name
