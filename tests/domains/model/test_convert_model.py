"""The process that converts a model knows no secrets and no device."""

import sys

import pytest

from domains.errors import DeviceOpsError, InternalError
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


_SAYS = """
import sys, msgspec
from domains.model.conversion import Ended, Told, Written
sys.stdin.readline()
tell = lambda said: print(msgspec.json.encode(said).decode(), flush=True)
tell(Told(written=1, total=4))
tell(Told(written=4, total=4))
{end}
"""


@pytest.mark.parametrize(
    ("end", "says"),
    [
        ("tell(Ended(written=Written(converted=3, copied=1)))", ""),
        ("sys.exit(7)", "ended with status 7"),
        ("print('{', flush=True); sys.exit(7)", "ended with status 7"),
        ("tell(Ended()); sys.exit(7)", "ended with status 7"),
    ],
)
async def test_progress_is_told_and_an_end_without_a_word_is_an_error(end: str, says: str) -> None:
    told = list[tuple[int, int]]()
    order = ConversionOrder(model=embedded_model(), part="nowhere", layout=ModelLayout.DIFFUSERS)
    command = [sys.executable, "-c", _SAYS.replace("{end}", end)]
    if says:
        with pytest.raises(InternalError, match=says):
            await convert_model(order, lambda written, total: told.append((written, total)), command)
    else:
        found = await convert_model(order, lambda written, total: told.append((written, total)), command)
        assert (found.converted, found.copied) == (3, 1)
    assert told == [(1, 4), (4, 4)]
