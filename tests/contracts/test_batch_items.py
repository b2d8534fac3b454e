"""What `batch.proto` says about items: which fields differ from the template, and how items lie in a blob."""

import io
from collections.abc import Sequence
from typing import Any

import pytest
from google.protobuf import proto
from google.protobuf.field_mask_pb2 import FieldMask

from deviceops.common.v1.image_pb2 import EncodeOptions, ImageInput
from deviceops.inference.v1.generation_pb2 import Generation
from deviceops.inference.v1.sampling_pb2 import Sampling
from deviceops.memory.v1.blob_pb2 import BlobTransfer, ExistingBlobDestination, NewBlobDestination
from deviceops.postprocessing.v1.postprocessing_pb2 import (
    BlurStep,
    MatchColorStep,
    Postprocessing,
    PostprocessingInput,
    PostprocessingStep,
)
from deviceops.processing.v1.batch_pb2 import Batch, BatchItem
from deviceops.processing.v1.work_pb2 import WorkSpec
from tests.contracts.batch_items import ItemError, read_items, work_of

TEMPLATE = Generation(
    prompt="a red apple",
    negative_prompt="text",
    sampling=Sampling(steps=20, guidance_scale=5),
    output=EncodeOptions(media_type="image/jpeg", quality=80),
)


def override(work: WorkSpec | None, *paths: str, template: WorkSpec | None = None) -> WorkSpec:
    batch = Batch(template=template or WorkSpec(generation=TEMPLATE))
    return work_of(batch, BatchItem(work=work, override_mask=FieldMask(paths=paths)))


def drawn(item: Generation | None, *paths: str) -> Generation:
    return override(
        None if item is None else WorkSpec(generation=item), *(f"generation.{path}" for path in paths)
    ).generation


def like_the_template(**changes: Any) -> Generation:
    """The template with other values; None: without the field."""
    expected: Any = Generation()
    expected.CopyFrom(TEMPLATE)
    for name in changes:
        expected.ClearField(name)
    expected.MergeFrom(Generation(**{name: value for name, value in changes.items() if value is not None}))
    return expected


def test_an_item_without_a_mask_is_the_template() -> None:
    assert drawn(None) == TEMPLATE


def test_a_nested_field_changes_alone() -> None:
    item = Generation(prompt="a pear", sampling=Sampling(steps=8))
    expected = like_the_template(prompt="a pear", sampling=Sampling(steps=8, guidance_scale=5))
    assert drawn(item, "prompt", "sampling.steps") == expected


def test_a_named_field_that_is_unset_goes_back_to_its_default() -> None:
    assert drawn(Generation(), "negative_prompt", "output.quality") == like_the_template(
        negative_prompt=None, output=EncodeOptions(media_type="image/jpeg")
    )
    assert drawn(None, "sampling.steps") == like_the_template(sampling=Sampling(guidance_scale=5))
    assert not drawn(Generation(), "sampling").HasField("sampling")


def test_zero_is_not_unset() -> None:
    changed = drawn(Generation(sampling=Sampling(guidance_scale=0)), "sampling.guidance_scale")
    assert changed.sampling.HasField("guidance_scale")
    assert changed.sampling.guidance_scale == 0


def test_a_message_is_replaced_as_a_whole() -> None:
    assert drawn(Generation(sampling=Sampling(steps=8)), "sampling").sampling == Sampling(steps=8)


def test_messages_on_the_way_are_made_for_a_field_that_is_set_and_only_for_one() -> None:
    assert not drawn(Generation(), "hires_pass.scale").HasField("hires_pass")
    item = Generation()
    item.hires_pass.scale = 2
    assert drawn(item, "hires_pass.scale").hires_pass.scale == 2


def with_steps(*steps: PostprocessingStep, inputs: Sequence[PostprocessingInput] = ()) -> WorkSpec:
    return WorkSpec(postprocessing=Postprocessing(steps=steps, inputs=inputs))


def test_a_list_is_replaced_as_a_whole() -> None:
    blur, match = PostprocessingStep(blur=BlurStep(radius_px=1)), PostprocessingStep(match_color=MatchColorStep())
    template = with_steps(blur, inputs=[PostprocessingInput(id="a")])
    changed = override(with_steps(match), "postprocessing.steps", template=template)
    assert changed == with_steps(match, inputs=[PostprocessingInput(id="a")])
    emptied = override(with_steps(), "postprocessing.steps", template=template)
    assert emptied == with_steps(inputs=[PostprocessingInput(id="a")])


NEW, OLD = NewBlobDestination(device_id="cpu"), ExistingBlobDestination(blob_id="b", offset_bytes=4)


def moved(item: BlobTransfer, path: str) -> BlobTransfer:
    template = WorkSpec(blob_transfer=BlobTransfer(existing_blob=OLD))
    return override(WorkSpec(blob_transfer=item), f"blob_transfer.{path}", template=template).blob_transfer


def test_an_arm_that_is_set_takes_the_place_of_the_templates() -> None:
    assert moved(BlobTransfer(new_blob=NEW), "new_blob") == BlobTransfer(new_blob=NEW)
    assert moved(BlobTransfer(new_blob=NEW), "new_blob.device_id") == BlobTransfer(new_blob=NEW)


def test_an_arm_that_is_unset_is_cleared_and_another_one_stays() -> None:
    assert moved(BlobTransfer(), "existing_blob") == BlobTransfer()
    assert moved(BlobTransfer(), "new_blob") == BlobTransfer(existing_blob=OLD)
    assert moved(BlobTransfer(), "new_blob.device_id") == BlobTransfer(existing_blob=OLD)


@pytest.mark.parametrize(
    ("paths", "says"),
    [
        (["generation.promt"], "no field `promt`"),
        (["generation.prompt.text"], "no field `text`"),
        (["generation.loras.weight"], "ends at the list `loras`"),
        (["generation.loras[0]"], "no field `loras[0]`"),
        (["postprocessing.steps"], "is no field of the template's `generation`"),
        (["generation.sampling", "generation.sampling.steps"], "named twice"),
        (["generation.prompt", "generation.prompt"], "named twice"),
        (["generation.init_image.image.data", "generation.init_image.image.blob_id"], "one arm of `source`"),
    ],
)
def test_a_wrong_path_is_refused(paths: list[str], says: str) -> None:
    with pytest.raises(ItemError, match=says.replace("[", r"\[")):
        override(None, *paths)


def test_a_field_that_no_path_names_is_refused_not_dropped() -> None:
    for item in (Generation(prompt="a pear"), Generation(sampling=Sampling(steps=8, seed=3))):
        with pytest.raises(ItemError, match=r"`generation\.(prompt|sampling\.seed)` is set"):
            drawn(item, "sampling.steps")


def test_without_a_template_items_say_everything() -> None:
    work = WorkSpec(generation=Generation(prompt="a pear"))
    assert work_of(Batch(), BatchItem(work=work)) == work
    with pytest.raises(ItemError, match="needs a template"):
        work_of(Batch(), BatchItem(work=work, override_mask=FieldMask(paths=["generation.prompt"])))


def test_items_lie_in_a_blob_each_behind_its_length() -> None:
    items = [BatchItem(id=f"item-{n}", work=WorkSpec(generation=Generation(prompt="x" * n))) for n in (0, 1, 200)]
    stream = io.BytesIO()
    for item in items:
        proto.serialize_length_prefixed(item, stream)
    assert read_items(stream.getvalue()) == items
    # The length of the last item, more than 127, takes two bytes: a varint.
    end = items[2].SerializeToString()
    assert stream.getvalue().endswith(bytes([len(end) & 127 | 128, len(end) >> 7]) + end)


@pytest.mark.parametrize("tail", [b"\x05\x0a\x01", b"\x02\xff\xff", b"\x80"])
def test_a_blob_that_is_no_such_list_is_refused_with_the_offset(tail: bytes) -> None:
    stream = io.BytesIO()
    proto.serialize_length_prefixed(BatchItem(id="a"), stream)
    with pytest.raises(ItemError, match="no BatchItem at byte 4"):
        read_items(stream.getvalue() + tail)


def test_a_picture_by_blob_can_take_the_place_of_one_inline() -> None:
    """The commonest oneof: the template has bytes, the item names a blob."""
    template = WorkSpec(generation=Generation())
    template.generation.init_image.image.data = b"png"
    item = WorkSpec()
    item.generation.init_image.image.blob_id = "b"
    changed = override(item, "generation.init_image.image.blob_id", template=template)
    assert changed.generation.init_image.image == ImageInput(blob_id="b")
