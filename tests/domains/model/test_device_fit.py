"""What a device lacks of the options that a load names is told with the remedy."""

import msgspec

from domains.model.device_fit import lacked, told_fit
from domains.model.execution import Execution
from domains.model.ways import Ways
from tests.domains.device.test_devices import a_device


def test_a_device_without_a_compiler_lacks_compile_and_is_told_what_to_install() -> None:
    compiled = Execution(ways=Ways(compile=True))
    without, with_one = (
        msgspec.structs.replace(a_device("cpu"), features=features) for features in ((), ("pinned_memory", "compile"))
    )
    assert lacked(compiled, without) == ("compile",)
    assert "C++ compiler" in told_fit(compiled, without)
    assert lacked(compiled, with_one) == ()
    assert lacked(Execution(ways=Ways(compile=False)), without) == ()
