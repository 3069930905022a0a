"""An architecture says all of itself, and refuses what it does not have."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdvsim import cli
from pdvsim.architectures import ARCHITECTURES, Architecture, Config, architecture, shared
from pdvsim.architectures.lane import Lanes
from pdvsim.architectures.three_lane import verify_limit
from pdvsim.cell import AUTO, Value
from pdvsim.core import EAGER, GRAPH, Executor, Request
from pdvsim.errors import InputError


@pytest.mark.parametrize(
    ("name", "parameters", "says"),
    [
        ("plain", {"verify_batch": 1}, "plain has no parameter verify_batch; it has prefill_batch"),
        ("pd", {"workers": 2}, "pd has no parameter workers"),
        ("three_lane", {"verify_lead": -1}, "verify_lead is -1; it must be a whole number between"),
        ("pdv", {"admission_factor": float("nan")}, "admission_factor is nan"),
        ("pdv", {"prefill_batch": 1.5}, "prefill_batch is 1.5; it must be a whole number"),
        ("baseline", {"workers": True}, "workers is True"),
        ("baseline", {"workers": "two"}, "workers is two"),
    ],
)
def test_parameters_that_cannot_be_are_refused(
    name: str, parameters: dict[str, object], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        Config(name, EAGER, parameters=parameters)


@pytest.mark.parametrize("one", ARCHITECTURES.values(), ids=lambda one: one.name)
def test_every_parameter_has_bounds_and_a_meaning(one: Architecture) -> None:
    for field in one.fields().values():
        automatic = field.default == AUTO
        assert automatic or field.metadata["low"] <= field.default <= field.metadata["high"]
        assert field.metadata["meaning"]
        assert automatic == (f"{AUTO}:" in field.metadata["meaning"])


@given(text=st.sampled_from(["PDV", "Three_Lane", "plain"]))
def test_names_ignore_case(text: str) -> None:
    assert architecture(text).name == text.lower()


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match="unknown architecture 'pvd'; known are plain, baseline"):
        architecture("pvd")


def test_unknown_mechanisms_cannot_be_switched_off() -> None:
    with pytest.raises(InputError, match="pd has no mechanism 'luck' to switch off"):
        Config("pd", EAGER, switched_off=frozenset({"luck"}))


def test_a_configuration_travels_and_holds_every_parameter() -> None:
    config = Config("pdv", EAGER, parameters={"prefill_batch": 4})
    again = pickle.loads(pickle.dumps(config))
    assert again == config
    assert hash(again) == hash(config)
    assert config.parameters == {"admission_factor": 1.0, "prefill_batch": 4, "poll_s": 1e-5}
    assert config == Config("pdv", EAGER, parameters={"prefill_batch": 4, "poll_s": 1e-5})


def test_shared_parameters_go_to_those_that_have_them() -> None:
    chosen = [ARCHITECTURES[name] for name in ("plain", "pdv")]
    given = {"admission_factor": 1.5, "prefill_batch": None}
    assert shared(chosen, given) == [{}, {"admission_factor": 1.5}]
    with pytest.raises(InputError, match="none of plain has the parameter admission_factor"):
        shared(chosen[:1], given)


def test_a_drawing_shows_queues_threads_and_streams() -> None:
    assert architecture("pd").drawing().splitlines() == [
        "prefill -> [prefill: prefill on stream prefill] -> decode or done",
        "decode -> [decode: draft on stream main, verify on stream main] -> decode or done",
    ]


def test_the_command_says_all_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["architectures", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["architectures"]
    assert [one["name"] for one in told] == list(ARCHITECTURES)
    assert told[list(ARCHITECTURES).index("pdv")]["parameters"]["admission_factor"]["high"] == 100.0
    assert cli.run(["architectures", "pd", str(Path(__file__).with_name("joining.py"))]) == 0
    shown = capsys.readouterr().out
    assert "decode -> [decode: draft on stream main, verify on stream main]" in shown
    assert "joining: One thread" in shown
    assert "prefill_batch = 8 (1 to 1024): prompts prefilled in one stage" in shown
    assert cli.run(["architectures", "pvd"]) == 2
    assert "unknown architecture 'pvd'" in capsys.readouterr().err


def waiting(lanes: Lanes, *prompts: int) -> None:
    lanes.prefill.push(Request(i, tokens, 8) for i, tokens in enumerate(prompts))


@pytest.mark.parametrize(
    ("executor", "given", "prompts", "taken"),
    [
        (GRAPH, AUTO, [1000, 1000, 48, 1, 9], [1000, 1000, 48]),
        (GRAPH, AUTO, [5000, 1], [5000]),
        (GRAPH, AUTO, [48, 5000], [48]),
        (GRAPH, 2, [5000, 5000, 1], [5000, 5000]),
        (EAGER, AUTO, [10, 10], [10]),
        (EAGER, 2, [10, 10, 10], [10, 10]),
    ],
)
@pytest.mark.parametrize("name", ["plain", "pd", "pdv", "three_lane"])
def test_a_prefill_takes_what_its_rule_says(
    name: str, executor: Executor, given: Value, prompts: list[int], taken: list[int]
) -> None:
    lanes = architecture(name).lanes(Config(name, executor, parameters={"prefill_batch": given}))
    waiting(lanes, *prompts)
    found = lanes.pop_admissible(lanes.prompts())
    assert [request.prompt_tokens for request in found] == taken
    assert len(lanes.prefill) == len(prompts) - len(taken)


@given(
    prompts=st.lists(st.integers(1, 3000), max_size=30),
    given=st.just(AUTO) | st.integers(1, 40),
    executor=st.sampled_from([EAGER, GRAPH]),
)
def test_what_is_in_service_is_prefilled_as_if_it_were_taken_from_the_queue(
    prompts: list[int], given: Value, executor: Executor
) -> None:
    config = Config("baseline", executor, parameters={"prefill_batch": given})
    lanes = architecture("baseline").lanes(config)
    waiting(lanes, *prompts)
    taken = []
    while lanes.prefill:
        taken.append(lanes.pop_admissible(lanes.prompts()))
    everyone = [request for part in taken for request in part]
    assert list(lanes.prefills(everyone)) == taken


@pytest.mark.parametrize("one", ARCHITECTURES.values(), ids=lambda one: one.name)
def test_the_published_parameters_are_its_own(one: Architecture) -> None:
    one.checked(one.published)


def test_three_lanes_verify_all_that_waits_where_one_pass_takes_it() -> None:
    def limits(executor: Executor, **given: Value) -> list[int]:
        lanes = architecture("three_lane").lanes(
            Config("three_lane", executor, batch_cap=64, parameters=given)
        )
        usual = verify_limit(lanes)
        lanes.verify.push(Request(i, 8, 8) for i in range(9))
        return [usual, verify_limit(lanes)]

    assert limits(GRAPH) == [64, 96]
    assert limits(EAGER) == limits(GRAPH, verify_batch=8) == [8, 12]
    assert limits(GRAPH, verify_batch_backlogged=3) == [64, 3]
