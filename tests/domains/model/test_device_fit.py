"""What a device lacks of what a load names, in words that name the option."""

import pytest
from msgspec.structs import replace

from domains.device.device import PrecisionSupport
from domains.model.device_fit import kernels_of, lacked, told_fit
from domains.model.execution import (
    AS_USUAL,
    BY_COMPONENT,
    BY_LAYER,
    Execution,
    in_turns,
    lower_precision,
    usual_precision,
)
from domains.model.ways import Ways
from tests.domains.device.test_devices import a_device
from tests.domains.model.test_footprints import device

PLAIN = device()
ABLE = replace(
    PLAIN,
    precision_support=tuple(
        PrecisionSupport(precision=name, supported=name != "float16") for name in ("float32", "bfloat16", "float16")
    ),
    quantizations=("int8",),
    features=("flash_attention", "pinned_memory"),
)


def test_a_kernel_needs_its_feature_and_one_needs_none() -> None:
    assert kernels_of(PLAIN) == ("math",)
    assert kernels_of(ABLE) == ("flash", "math")


@pytest.mark.parametrize(
    ("execution", "lacks"),
    [
        (AS_USUAL, ()),
        (Execution(precision="bfloat16", quantization="int8", ways=Ways(attention_kernel="flash")), ()),
        (Execution(precision="float16"), ("precision float16",)),
        (Execution(precision="bfloat16", vae_precision="float16"), ("precision float16",)),
        (Execution(quantization="fp8_e4m3"), ("quantization fp8_e4m3",)),
        (Execution(quantization="none"), ()),
        (Execution(ways=Ways(attention_kernel="cudnn")), ("attention_kernel cudnn",)),
        (
            Execution(precision="float16", quantization="fp8_e4m3", ways=Ways(attention_kernel="cudnn")),
            ("precision float16", "quantization fp8_e4m3", "attention_kernel cudnn"),
        ),
    ],
)
def test_what_a_device_lacks_is_named_and_nothing_else(execution: Execution, lacks: tuple[str, ...]) -> None:
    assert lacked(execution, ABLE) == lacks


@pytest.mark.parametrize(
    ("execution", "has"),
    [
        (Execution(precision="float16"), "precision float32, bfloat16"),
        (Execution(quantization="fp8_e4m3"), "quantization int8"),
        (Execution(ways=Ways(attention_kernel="cudnn")), "attention_kernel flash, math"),
        (
            Execution(precision="float16", quantization="fp8_e4m3"),
            "precision float32, bfloat16; quantization int8",
        ),
    ],
)
def test_a_refusal_tells_what_the_device_has_of_the_named_options(execution: Execution, has: str) -> None:
    told = told_fit(execution, ABLE)
    assert told == f"gpu lacks {' and '.join(lacked(execution, ABLE))}, and has {has}"
    assert told_fit(Execution(quantization="int8"), PLAIN) == "gpu lacks quantization int8, and has none"


def test_an_offloading_is_told_with_what_passes_through_the_device() -> None:
    assert AS_USUAL.told_offload("sim-0") == Execution(offload="none").told_offload("sim-0") == ""
    turns = "the components of the model take turns on sim-0, which takes longer"
    assert Execution(offload=BY_COMPONENT).told_offload("sim-0") == turns
    layers = f"{turns}; layers of them pass through it while they compute"
    assert Execution(offload=BY_LAYER).told_offload("sim-0") == layers
    assert in_turns(Execution(precision="float16")) == Execution(precision="float16", offload=BY_COMPONENT)


def test_headers_are_read_for_layers_and_for_a_quantization() -> None:
    for execution, reads in (
        (AS_USUAL, False),
        (Execution(offload=BY_COMPONENT), False),
        (Execution(quantization="none"), False),
        (Execution(offload=BY_LAYER), True),
        (Execution(quantization="int8"), True),
    ):
        assert execution.reads_headers is reads
    assert Execution(quantization="int8").quantizations == ("int8",)
    assert Execution(quantization="none").quantizations == AS_USUAL.quantizations == ()


@pytest.mark.parametrize(
    ("precision", "usual", "lower"),
    [
        ("", "float32", "bfloat16"),
        ("float32", "float16", "bfloat16"),
        ("float16", "float32", ""),
        ("", "bfloat16", ""),
        ("bfloat16", "float32", ""),
    ],
)
def test_full_precision_alone_has_a_lower_one(precision: str, usual: str, lower: str) -> None:
    assert lower_precision(Execution(precision=precision), usual) == lower


def test_devices_emulate_bfloat16_before_ampere() -> None:
    usual = [usual_precision(one) for one in (None, (7, 5), (7, 9), (8, 0), (9, 0))]
    assert usual == ["float32", "float16", "float16", "bfloat16", "bfloat16"]


def test_a_device_without_a_compiler_lacks_compile_and_is_told_what_to_install() -> None:
    compiled = Execution(ways=Ways(compile=True))
    without, with_one = (replace(a_device("cpu"), features=features) for features in ((), ("pinned_memory", "compile")))
    assert lacked(compiled, without) == ("compile",)
    assert "C++ compiler" in told_fit(compiled, without)
    assert lacked(compiled, with_one) == ()
    assert lacked(Execution(ways=Ways(compile=False)), without) == ()
