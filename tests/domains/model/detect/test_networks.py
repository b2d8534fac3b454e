"""Kinds of published networks, told from their headers alone."""

import pytest

from domains.model.detect.detect import detect
from domains.model.detect.evidence import Detection, Evidence, Source, Subject, confidence_of
from domains.model.detect.network import Network, layout, near, proven
from domains.model.families import FAMILIES
from domains.model.families.sign import Tensors, match, must
from domains.model.kind import ModelKind
from tests.domains.model import facts, published
from tests.domains.model.test_families import RIGHT

_DENOISERS = {
    name: FAMILIES[family].kind if name.endswith(("_single", "_single_ema")) else ModelKind.DENOISER
    for name, (family, _) in RIGHT.items()
}
KINDS = {
    **_DENOISERS,
    "sd2_upscaler_unet": ModelKind.DENOISER,
    **dict.fromkeys(
        ("clip_l_text_encoder", "open_clip_h_text_encoder", "open_clip_g_text_encoder", "t5_xxl_text_encoder"),
        ModelKind.TEXT_ENCODER,
    ),
    **{name: ModelKind.VAE for name in published.names() if name.endswith("_vae")},
    **{name: ModelKind.CONTROLNET for name in published.names() if name.endswith("_controlnet")},
    **{name: ModelKind.T2I_ADAPTER for name in published.names() if name.endswith("_t2i_adapter")},
    **dict.fromkeys(("depth_anything", "dpt_depth", "vit_pose"), ModelKind.CONTROL_PREPROCESSOR),
    **dict.fromkeys(("sam_segmenter", "segformer"), ModelKind.SEGMENTER),
    "clip_vision_h": ModelKind.IMAGE_ENCODER,
    "swin2sr_upscaler": ModelKind.UPSCALER,
    # Without its labels a classifier may be one of anything.
    "mobilenet_nsfw": ModelKind.UNKNOWN,
}
COMPATIBLE = {
    "sd1_controlnet": ("sd1",),
    "sd2_controlnet": ("sd2",),
    "sdxl_controlnet": ("sdxl",),
    "sdxl_union_controlnet": ("sdxl",),
    "sd3_controlnet": ("sd3",),
    "sd35_large_controlnet": ("sd3",),
    "flux1_controlnet": ("flux1",),
    "flux1_union_controlnet": ("flux1",),
    "qwen_image_controlnet": ("qwen_image",),
    "z_image_controlnet": ("z_image",),
    "z_image_21_controlnet": ("z_image",),
    "sana_controlnet": ("sana",),
    "sd1_t2i_adapter": ("sd1", "sd2"),
    "sdxl_t2i_adapter": ("sdxl",),
    "open_clip_h_text_encoder": ("sd2",),
    "qwen_image_vae": ("qwen_image",),
    "flux2_vae": ("flux2",),
}


def told(tensors: Tensors, metadata: dict[str, str] | None = None) -> Detection:
    return detect(Subject(tensors=tensors, metadata=metadata or {}))


def of(header: str) -> Detection:
    return told(published.header(header))


def test_every_published_header_has_a_right_answer() -> None:
    assert set(KINDS) == set(published.names())


@pytest.mark.parametrize("header", published.names())
def test_a_published_network_is_told_by_its_kind_with_evidence(header: str) -> None:
    found = of(header)
    assert found.kind is KINDS[header]
    other = any(name in header for name in ("light", "union"))
    assert (found.family, found.variant) == RIGHT[header] if header in RIGHT else other == bool(found.variant)
    assert (found.confidence == 1.0) is (found.kind is not ModelKind.UNKNOWN)
    decisive = [one for one in found.evidence if one.decisive]
    assert all(one.matched and not one.unexpected for one in decisive)
    assert found.evidence[: len(decisive)] == tuple(decisive)


@pytest.mark.parametrize(("header", "families"), COMPATIBLE.items())
def test_what_is_added_to_a_model_names_its_families(header: str, families: tuple[str, ...]) -> None:
    assert of(header).compatible == families


def test_vaes_with_equal_tensors_are_compatible_and_of_no_family() -> None:
    four, sixteen = of("sd_vae"), of("flux1_vae")
    assert {"sd1", "sdxl"} <= set(four.compatible)
    assert {"sd3", "flux1"} <= set(sixteen.compatible)
    assert not set(four.compatible) & set(sixteen.compatible)
    assert (four.family, sixteen.family) == ("", "")


def test_metadata_completes_what_tensors_leave_open() -> None:
    found = told(published.header("sd_vae"), {"modelspec.architecture": "stable-diffusion-xl-v1-base/vae"})
    assert (found.family, found.compatible) == ("sdxl", ("sdxl",))
    assert (found.evidence[-1].source, found.evidence[-1].share) == (Source.METADATA, 1.0)
    assert found.evidence[-1].decisive


def test_metadata_against_the_tensors_is_a_warning_and_does_not_count() -> None:
    found = told(published.header("sd1_single"), {"modelspec.architecture": "stable-diffusion-xl-v1-base"})
    assert found.family == "sd1"
    assert "stable-diffusion-xl" in found.warnings[0]


@pytest.mark.parametrize("word", ["Turbo", "lightning", "LCM"])
def test_a_distilled_model_is_told_where_its_metadata_says_so(word: str) -> None:
    plain = {"modelspec.title": "turbocharged lcmx"}
    assert told(published.header("sdxl_single"), {"modelspec.title": f"My {word} mix"}).variant == word.lower()
    assert told(published.header("sdxl_single"), plain).variant == ""


@pytest.mark.parametrize(
    ("metadata", "predicts"),
    [
        ({}, ""),
        ({"modelspec.prediction_type": "v"}, "v_prediction"),
        ({"modelspec.prediction_type": "epsilon"}, "epsilon"),
        ({"ss_v_parameterization": "True"}, "v_prediction"),
        ({"modelspec.prediction_type": "nonsense"}, ""),
    ],
)
def test_the_prediction_of_a_single_file_is_what_it_says_or_not_known(metadata: dict[str, str], predicts: str) -> None:
    assert told(published.header("sd2_single"), metadata).prediction_type == predicts


def test_a_marker_tensor_proves_the_prediction() -> None:
    tensors = {**published.header("sdxl_single"), "v_pred": (0,)}
    assert told(tensors).prediction_type == "v_prediction"
    assert any("v_pred" in one.matched for one in told(tensors).evidence)


def test_a_denoiser_of_no_family_is_a_denoiser_and_names_the_nearest() -> None:
    found = of("sd2_upscaler_unet")
    assert (found.kind, found.family, found.compatible) == (ModelKind.DENOISER, "", ())
    assert {one.family for one in found.evidence} & {"sd1", "sd2"}


def test_only_a_network_that_shares_a_tensor_and_is_not_proven_is_near() -> None:
    eyes, ears = (
        Network(
            kind=ModelKind.DETECTOR, architecture=name, layouts=(layout(must(f"{name}.weight", 4), must("lid", 2)),)
        )
        for name in ("eyes", "ears")
    )
    told = [(one.architecture, len(found.missing)) for one, found in near((eyes, ears), {"eyes.weight": (4,)})]
    assert told == [("eyes", 1)]
    whole = {"eyes.weight": (4,), "lid": (2,)}
    assert [one.architecture for one, _ in proven((eyes, ears), whole)] == ["eyes"]
    assert [one.architecture for one, _ in near((eyes, ears), whole)] == ["ears"]


def test_the_layout_with_the_largest_share_of_its_signs_is_the_nearest() -> None:
    few, many = layout(must("a"), must("b"), name="few"), layout(*map(must, "acde"), name="many")
    found = {one.name: match(one, {"a": (), "c": (), "d": ()}) for one in (few, many)}
    assert {name: one.share for name, one in found.items()} == {"few": 0.5, "many": 0.75}
    assert match(layout(), {"a": ()}).share == 0
    network = Network(kind=ModelKind.DETECTOR, architecture="eyes", layouts=(few, many))
    assert [one.layout for _, one in near([network], {"a": (), "c": (), "d": ()})] == ["many"]
    assert [one.layout for _, one in near([network], {"a": ()})] == ["few"]


@pytest.mark.parametrize(
    ("expected", "missing", "share"), [(0, (), None), (4, (), 1.0), (4, ("a",), 0.75), (4, ("a", "b", "c", "d"), 0.0)]
)
def test_the_share_of_evidence_is_that_of_the_keys_that_are_there(
    expected: int, missing: tuple[str, ...], share: float | None
) -> None:
    evidence = Evidence(source=Source.TENSOR_SHAPES, expected=expected, missing=missing, decisive=True)
    assert (evidence.share, confidence_of([evidence])) == (share, share)


def test_what_nobody_knows_is_unknown_with_what_was_looked_for() -> None:
    found = told({"conv_in.weight": (320, 4, 3, 3), "other.weight": (3,)})
    assert (found.kind, found.confidence) == (ModelKind.UNKNOWN, None)
    assert len(found.evidence) > 1
    assert not any(one.decisive for one in found.evidence)
    shares = [one.share or 0 for one in found.evidence]
    assert shares == sorted(shares, reverse=True) != [shares[0]] * len(shares)
    assert told({}).kind is ModelKind.UNKNOWN


@pytest.mark.parametrize(
    ("header", "prefix"),
    [
        ("sd_ldm_vae", "first_stage_model."),
        ("sd_vae", "vae."),
        ("t5_xxl_text_encoder", "text_encoders.t5xxl.transformer."),
    ],
)
def test_a_component_under_its_prefix_alone_is_that_component(header: str, prefix: str) -> None:
    tensors = {prefix + name: shape for name, shape in published.header(header).items()}
    assert told(tensors).kind is KINDS[header]


def test_a_checkpoint_lacks_what_is_not_in_it() -> None:
    full = published.header("sd1_single")
    less = {name: shape for name, shape in full.items() if not name.startswith("cond_stage_model.")}
    assert told(less).kind is ModelKind.CHECKPOINT
    assert told(less).missing == ("text_encoder",)
    assert told(full).missing == ()
    alone = {name: shape for name, shape in less.items() if not name.startswith("first_stage_model.")}
    assert (told(alone).kind, told(alone).missing) == (ModelKind.DENOISER, ())


def test_averaged_weights_beside_the_others_change_nothing_and_are_told() -> None:
    plain, both = of("sd1_single"), of("sd1_single_ema")
    assert (both.kind, both.family, both.missing) == (plain.kind, plain.family, plain.missing)
    assert [len(part.tensors or ()) for part in both.parts] == [len(part.tensors or ()) for part in plain.parts]
    assert "averaged" in both.notes[0]
    assert detect(Subject(tensors={**published.header("sd1_unet"), "model_ema.decay": ()})).family == "sd1"


def test_the_facts_are_those_that_were_reviewed() -> None:
    reviewed = facts.FILE.read_text("utf-8")
    assert reviewed.endswith(facts.of_detection()), "meant? then run python -m tests.domains.model.facts"


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        (["Drawing", "Hentai", "Neutral", "Porn", "Sexy"], ModelKind.SAFETY_CLASSIFIER),
        (["rose", "tulip", "daisy", "lily", "orchid"], ModelKind.UNKNOWN),
        (["nsfw", "normal"], ModelKind.UNKNOWN),  # the head has five outputs
    ],
)
def test_a_classifier_is_one_of_safety_where_its_labels_say_so(labels: list[str], kind: ModelKind) -> None:
    config = {"id2label": {str(number): label for number, label in enumerate(labels)}}
    found = detect(Subject(tensors=published.header("mobilenet_nsfw"), config=config))
    assert found.kind is kind
    if kind is ModelKind.SAFETY_CLASSIFIER:
        of_labels = next(one for one in found.evidence if one.source is Source.CONFIG)
        assert of_labels.matched == ("id2label: Hentai", "id2label: Porn", "id2label: Sexy")
        assert (of_labels.share, of_labels.decisive, found.confidence) == (1.0, True, 1.0)
        assert (found.parts[0].id, found.parts[0].architecture) == ("safety_checker", "")


@pytest.mark.parametrize(
    ("named", "architecture"), [(["ViT", "B"], "ViT"), ([], ""), ([7], ""), ("ViT", ""), ({"a": "b"}, "")]
)
def test_a_classifier_has_the_class_that_its_config_names(named: object, architecture: str) -> None:
    labels = ("Drawing", "Hentai", "Neutral", "Porn", "Sexy")
    config = {"id2label": dict(enumerate(labels)), "architectures": named}
    found = detect(Subject(tensors=published.header("mobilenet_nsfw"), config=config))
    assert [part.architecture for part in found.parts] == [architecture]


_KNOWN_NETWORKS: dict[str, tuple[ModelKind, Tensors]] = {
    "esrgan": (
        ModelKind.UPSCALER,
        {
            **{f"conv_{name}.weight": (64, 64, 3, 3) for name in ("body", "up1", "up2", "hr")},
            "conv_first.weight": (64, 3, 3, 3),
            "conv_last.weight": (3, 64, 3, 3),
            "body.0.rdb1.conv1.weight": (32, 64, 3, 3),
        },
    ),
    "old esrgan": (
        ModelKind.UPSCALER,
        {"model.0.weight": (64, 3, 3, 3), "model.1.sub.0.RDB1.conv1.0.weight": (32, 64, 3, 3)},
    ),
    "gfpgan": (
        ModelKind.FACE_RESTORER,
        {
            "conv_body_first.weight": (32, 3, 1, 1),
            "final_linear.weight": (8192, 4096),
            "stylegan_decoder.style_conv1.modulated_conv.weight": (1, 512, 512, 3, 3),
        },
    ),
    "codeformer": (
        ModelKind.FACE_RESTORER,
        {
            "position_emb": (256, 512),
            "quantize.embedding.weight": (1024, 256),
            "idx_pred_layer.1.weight": (1024, 512),
            "ft_layers.0.self_attn.in_proj_weight": (1536, 512),
        },
    ),
    "safety checker": (
        ModelKind.SAFETY_CLASSIFIER,
        {
            "concept_embeds": (17, 768),
            "concept_embeds_weights": (17,),
            "special_care_embeds": (3, 768),
            "special_care_embeds_weights": (3,),
            "vision_model.vision_model.embeddings.class_embedding": (1024,),
        },
    ),
    "style": (
        ModelKind.STYLE_TRANSFER,
        {
            "conv1.conv2d.weight": (32, 3, 9, 9),
            "res1.conv1.conv2d.weight": (128, 128, 3, 3),
            "deconv3.conv2d.weight": (3, 32, 9, 9),
        },
    ),
}


@pytest.mark.parametrize("name", _KNOWN_NETWORKS)
def test_a_network_known_by_its_authors_names_is_told(name: str) -> None:
    kind, tensors = _KNOWN_NETWORKS[name]
    assert told(tensors).kind is kind
    for key in tensors:
        if key in {one for found in told(tensors).evidence for one in found.matched}:
            assert told({other: shape for other, shape in tensors.items() if other != key}).kind is not kind
