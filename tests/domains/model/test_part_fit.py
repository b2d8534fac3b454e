"""Whether the parts of a model fit each other: configs can come from anywhere."""

from types import SimpleNamespace
from typing import Any

import pytest

from domains.errors import FailedPrecondition
from domains.model.families import FAMILIES
from domains.model.part_fit import check_fit

FIELDS = (
    *("hidden_size", "projection_dim", "d_model", "latent_channels", "addition_time_embed_dim", "cap_feat_dim"),
    *("in_channels", "out_channels", "cross_attention_dim", "pooled_projection_dim", "joint_attention_dim"),
    "projection_class_embeddings_input_dim",
)
WRONG: dict[str, Any] = {
    "object": {},
    "list": [],
    "text": "4",
    "huge": 10**5000,
    "negative": -1,
    "fraction": 4.5,
    "null": None,
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_value_that_is_no_width_says_nothing(family: str, wrong: Any) -> None:
    parts = [part.id for part in FAMILIES[family].parts]
    for field in FIELDS:
        values = dict.fromkeys(FIELDS, 4) | {field: wrong}
        # One part after the other has the wrong value.
        for odd in parts:
            said = {one: SimpleNamespace(**(values if one == odd else {})) for one in parts}
            check_fit(family, said)


def test_two_widths_that_differ_are_named() -> None:
    said = {"text_encoder": SimpleNamespace(hidden_size=768), "unet": SimpleNamespace(cross_attention_dim=1024)}
    with pytest.raises(FailedPrecondition, match=r"hidden_size=768, and unet/config\.json cross_attention_dim=1024"):
        check_fit("sd1", said)


@pytest.mark.parametrize(("width", "says"), [(0, True), (1, True), (2**31 - 1, True), (2**31, False)])
def test_a_width_is_a_number_below_two_to_the_31(width: int, says: bool) -> None:
    parts = {"text_encoder": SimpleNamespace(hidden_size=width), "unet": SimpleNamespace(cross_attention_dim=1024)}
    if not says:
        check_fit("sd1", parts)
        return
    with pytest.raises(FailedPrecondition, match=f"hidden_size={width}, "):
        check_fit("sd1", parts)
