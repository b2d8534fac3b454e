"""The process that converts a model knows no secrets and no device."""

import sys

import pytest

from domains.errors import DeviceOpsError
from domains.model.conversion import ConversionOrder
from domains.model.convert_model import convert_model
from domains.model.model import ModelLayout
from tests.domains.inference.on_device.requests import embedded_model

_TELLS_ITS_ENVIRONMENT = """
import os, sys, msgspec
from domains.errors import ErrorReason
from domains.failure import Failure
from domains.model.conversion import Ended
sys.stdin.readline()
told = Ended(failure=Failure(reason=ErrorReason.ILLEGAL_STATE, message=str(dict(os.environ))))
print(msgspec.json.encode(told).decode(), flush=True)
"""


async def test_it_gets_what_python_needs_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "DEVICEOPS_TEST_SECRET"):
        monkeypatch.setenv(name, "a-secret")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    order = ConversionOrder(model=embedded_model(), part="nowhere", layout=ModelLayout.DIFFUSERS)
    with pytest.raises(DeviceOpsError) as told:
        await convert_model(order, lambda written, total: None, [sys.executable, "-c", _TELLS_ITS_ENVIRONMENT])
    assert "a-secret" not in told.value.message
    assert "'PATH'" in told.value.message
    assert "'CUDA_VISIBLE_DEVICES': ''" in told.value.message
