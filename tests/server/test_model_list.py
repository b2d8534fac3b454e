"""ListModels finds models by each condition alone and by several together, on pages that survive changes. No server."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from deviceops.common.v1 import label_pb2
from deviceops.model.v1 import model_pb2, model_service_pb2
from domains.model.model import Model
from domains.processing.memory.usage import UNUSED
from server.model import listed
from server.model.list_filter import accepting
from server.model.list_page import page_of
from tests.domains.inference.on_device.requests import embedded_model

M = model_pb2
LABELS = {"style": "anime", "owner": "me"}


def model(model_id: str, **facts: Any) -> model_pb2.Model:
    return model_pb2.Model(id=model_id, **facts)


def labels(pairs: Mapping[str, str]) -> list[label_pb2.Label]:
    return [label_pb2.Label(key=key, value=value) for key, value in pairs.items()]


MODELS = [
    model(
        "anime-xl",
        display_name="Great Anime",
        kind=M.MODEL_KIND_CHECKPOINT,
        family="sdxl",
        state=M.MODEL_STATE_AVAILABLE,
        tasks=["text_to_image", "image_to_image"],
        size_bytes=6000,
        sha256="a" * 64,
        labels=labels(LABELS),
        loaded_model_ids=["anime-xl@cuda:0"],
    ),
    model(
        "fill",
        display_name="Fill",
        kind=M.MODEL_KIND_CHECKPOINT,
        family="sd1",
        state=M.MODEL_STATE_CORRUPT,
        tasks=["inpainting"],
        size_bytes=2000,
        sha256="b" * 64,
        labels=labels({"style": "photo"}),
    ),
    model(
        "lines",
        display_name="Line Art",
        kind=M.MODEL_KIND_LORA,
        state=M.MODEL_STATE_AVAILABLE,
        compatible_families=["sd1", "sdxl"],
        size_bytes=10,
        loaded_model_ids=["lines@cpu", "lines@cuda:1"],
    ),
]
CASES: list[tuple[dict[str, Any], str]] = [
    ({}, "anime-xl fill lines"),
    ({"text": "ANIME"}, "anime-xl"),
    ({"text": "line a"}, "lines"),
    ({"text": "nothing"}, ""),
    ({"kinds": [M.MODEL_KIND_LORA]}, "lines"),
    ({"kinds": [M.MODEL_KIND_LORA, M.MODEL_KIND_CHECKPOINT]}, "anime-xl fill lines"),
    ({"families": ["sdxl", "flux1"]}, "anime-xl"),
    ({"states": [M.MODEL_STATE_CORRUPT]}, "fill"),
    ({"tasks": ["inpainting"]}, "fill"),
    ({"tasks": ["inpainting", "image_to_image"]}, "anime-xl fill"),
    ({"compatible_family": "sd1"}, "lines"),
    ({"loaded": True}, "anime-xl lines"),
    ({"loaded": False}, "fill"),
    ({"min_size_bytes": 2000}, "anime-xl fill"),
    ({"max_size_bytes": 2000}, "fill lines"),
    ({"min_size_bytes": 11, "max_size_bytes": 5999}, "fill"),
    ({"min_size_bytes": 0, "max_size_bytes": 0}, ""),
    ({"sha256": "B" * 64}, "fill"),
    ({"labels": labels({"style": "anime"})}, "anime-xl"),
    ({"labels": labels({"style": ""})}, "anime-xl fill"),
    ({"labels": labels({"style": "", "owner": ""})}, "anime-xl"),
    ({"families": ["sdxl", "sd1"], "tasks": ["inpainting"], "states": [M.MODEL_STATE_AVAILABLE]}, ""),
]


def ids(models: Iterable[model_pb2.Model]) -> str:
    return " ".join(one.id for one in models)


@pytest.mark.parametrize(("conditions", "found"), CASES)
def test_models_are_found_by_each_condition(conditions: dict[str, Any], found: str) -> None:
    accepts = accepting(model_service_pb2.ModelFilter(**conditions), set())
    assert ids(filter(accepts, MODELS)) == found


def test_models_are_found_by_the_device_on_which_they_are_loaded() -> None:
    for devices, found in (({"cuda:0"}, "anime-xl"), ({"cpu", "cuda:0"}, "anime-xl lines"), ({"xpu:0"}, "")):
        assert ids(filter(accepting(model_service_pb2.ModelFilter(), devices), MODELS)) == found


_ORDERS = [
    model_service_pb2.MODEL_ORDER_UNSPECIFIED,
    model_service_pb2.MODEL_ORDER_DISPLAY_NAME,
    model_service_pb2.MODEL_ORDER_SIZE,
    model_service_pb2.MODEL_ORDER_UPDATE_TIME,
    model_service_pb2.MODEL_ORDER_LAST_USE_TIME,
]
_IDS = st.sets(st.integers(0, 40), max_size=20)


@settings(max_examples=100, deadline=None)
@given(stay=_IDS, go=_IDS, come=st.lists(_IDS, max_size=6), size=st.integers(1, 5), order=st.sampled_from(_ORDERS))
def test_pages_neither_repeat_nor_hide_what_stays_while_others_come_and_go(
    stay: set[int], go: set[int], come: list[set[int]], size: int, order: Any
) -> None:
    def made(numbers: Iterable[int]) -> list[model_pb2.Model]:
        # Equal sizes and names, so that the id decides too.
        return [
            model(
                f"m{one:02}",
                display_name=f"n{one % 3}",
                size_bytes=one % 4,
                usage=model_pb2.ModelUsage(last_use_time=Timestamp(seconds=one % 5)),
            )
            for one in numbers
        ]

    seen: list[str] = []
    changes = iter(come)
    there, token = stay | go, ""
    while True:
        request = model_service_pb2.ListModelsRequest(page_size=size, page_token=token, order=order)
        page, token = page_of(made(there), request)
        seen += [one.id for one in page]
        if not token:
            break
        there = stay | next(changes, set())
    assert len(seen) == len(set(seen))
    assert {f"m{one:02}" for one in stay} <= set(seen)


async def test_others_run_while_the_messages_of_many_models_are_made_and_each_is_made_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listed, "_AT_ONCE", 2)
    models = [msgspec.structs.replace(embedded_model(), id=f"m{number}") for number in range(7)]
    kept = listed.ListedModels()

    async def told(models: Sequence[Model]) -> tuple[list[model_pb2.Model], int]:
        making, turns = asyncio.ensure_future(kept.of(models, lambda model_id: [], lambda model_id: UNUSED)), 0
        while not making.done():
            await asyncio.sleep(0)
            turns += 1
        return making.result(), turns

    first, turns = await told(models)
    assert [one.id for one in first] == [model.id for model in models]
    assert turns > 3
    changed = msgspec.structs.replace(models[1], display_name="another")
    again, fewer = await told([models[0], changed, *models[3:]])
    assert (again[0], again[1].display_name, len(again), fewer < turns) == (first[0], "another", 6, True)
    assert again[0] is first[0]
