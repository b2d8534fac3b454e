"""Networks that work on pictures: upscalers, face restorers, segmenters, detectors, preprocessors, safety, style."""

from domains.model.detect.network import Network, layout
from domains.model.families.sign import Layout, must, usual
from domains.model.kind import ModelKind


def _one(kind: ModelKind, architecture: str, *layouts: Layout) -> Network:
    return Network(kind=kind, architecture=architecture, layouts=layouts)


UPSCALERS = (
    _one(
        ModelKind.UPSCALER,
        "RRDBNet",
        layout(
            must("conv_first.weight", None, None, 3, 3),
            must("body.0.rdb1.conv1.weight", None, None, 3, 3),
            must("conv_body.weight", None, None, 3, 3),
            must("conv_last.weight", None, None, 3, 3),
            without=("stylegan_decoder.",),
        ),
        layout(
            must("model.0.weight", None, None, 3, 3),
            must("model.1.sub.0.RDB1.conv1.0.weight", None, None, 3, 3),
            name="original",
        ),
    ),
    _one(
        ModelKind.UPSCALER,
        "SRVGGNetCompact",
        layout(
            must("body.0.weight", None, 3, 3, 3),
            must("body.1.weight", None),
            must("body.2.weight", None, None, 3, 3),
            must("body.3.weight", None),
            usual("body.34.weight", None, 64, 3, 3),
            without=("conv_first.", "conv_body.", "body.0.rdb1."),
        ),
    ),
    _one(
        ModelKind.UPSCALER,
        "Swin2SRForImageSuperResolution",
        layout(
            must("swin2sr.first_convolution.weight", None, 3, 3, 3),
            must("swin2sr.conv_after_body.weight", None, None, 3, 3),
            must("swin2sr.layernorm.weight", None),
        ),
    ),
    _one(
        ModelKind.UPSCALER,
        "SwinIR",
        layout(
            must("layers.0.residual_group.blocks.0.attn.relative_position_bias_table", None, None),
            must("conv_first.weight", None, None, 3, 3),
            must("conv_after_body.weight", None, None, 3, 3),
        ),
    ),
)

FACE_RESTORERS = (
    _one(
        ModelKind.FACE_RESTORER,
        "GFPGAN",
        layout(
            must("stylegan_decoder.style_conv1.modulated_conv.weight"),
            must("conv_body_first.weight", None, 3, None, None),
            must("final_linear.weight", None, None),
        ),
    ),
    _one(
        ModelKind.FACE_RESTORER,
        "CodeFormer",
        layout(
            must("ft_layers.0.self_attn.in_proj_weight", None, None),
            must("position_emb", None, None),
            must("quantize.embedding.weight", None, None),
            must("idx_pred_layer.1.weight", None, None),
        ),
    ),
)

SEGMENTERS = (
    _one(
        ModelKind.SEGMENTER,
        "SamModel",
        layout(
            must("mask_decoder.iou_token.weight", None, None),
            must("vision_encoder.neck.conv1.weight", None, None, 1, 1),
            must("prompt_encoder.shared_embedding.positional_embedding", 2, None),
        ),
        layout(
            must("mask_decoder.iou_token.weight", None, None),
            must("image_encoder.neck.0.weight", None, None, 1, 1),
            must("prompt_encoder.pe_layer.positional_encoding_gaussian_matrix", 2, None),
            name="original",
        ),
    ),
    _one(
        ModelKind.SEGMENTER,
        "SegformerForSemanticSegmentation",
        layout(
            must("decode_head.classifier.weight", None, None, 1, 1),
            must("decode_head.linear_fuse.weight", None, None, 1, 1),
            must("decode_head.batch_norm.weight", None),
        ),
    ),
    _one(
        ModelKind.SEGMENTER,
        "U2Net",
        layout(
            must("stage1.rebnconvin.conv_s1.weight", None, None, 3, 3),
            must("side1.weight", 1, None, 3, 3),
            must("stage1d.rebnconvin.conv_s1.weight", None, None, 3, 3),
        ),
    ),
    _one(
        ModelKind.SEGMENTER,
        "SelfieSegmentation",
        layout(
            must("stem.weight", None, 3, 3, 3),
            must("head_gate.weight", None, None, 1, 1),
            must("up.0.fuse.weight", None, None, 1, 1),
            must("last.weight", None, 1, 2, 2),
        ),
    ),
)

DETECTORS = (
    _one(
        ModelKind.DETECTOR,
        "FaceDetector",
        layout(
            must("score.weight", 1, None, 1, 1),
            must("box.weight", 16, None, 1, 1),
            must("stem.weight", None, 3, 3, 3),
            must("merges.0.blocks.0.depthwise1.weight", None, 1, 3, 3),
        ),
    ),
)

PREPROCESSORS = (
    _one(
        ModelKind.CONTROL_PREPROCESSOR,
        "DPTForDepthEstimation",
        layout(
            must("head.head.4.weight", 1, None, 1, 1),
            must("neck.fusion_stage.layers.0.projection.weight", None, None, 1, 1),
            must("neck.reassemble_stage.layers.0.projection.weight", None, None, 1, 1),
        ),
    ),
    _one(
        ModelKind.CONTROL_PREPROCESSOR,
        "DepthAnythingForDepthEstimation",
        layout(
            must("head.conv3.weight", 1, None, 1, 1),
            must("neck.fusion_stage.layers.0.projection.weight", None, None, 1, 1),
            must("backbone.embeddings.patch_embeddings.projection.weight", None, 3, None, None),
        ),
    ),
    _one(
        ModelKind.CONTROL_PREPROCESSOR,
        "VitPoseForPoseEstimation",
        layout(
            must("head.conv.weight", None, None, 3, 3),
            must("backbone.embeddings.patch_embeddings.projection.weight", None, 3, None, None),
            must("backbone.layernorm.weight", None),
            without=("neck.",),
        ),
    ),
    _one(
        ModelKind.CONTROL_PREPROCESSOR,
        "OpenPose",
        layout(
            must("Mconv7_stage6_L1.weight", 38, None, 1, 1),
            must("Mconv7_stage6_L2.weight", 19, None, 1, 1),
        ),
    ),
    _one(
        ModelKind.CONTROL_PREPROCESSOR,
        "HED",
        layout(
            must("block1.convs.0.weight", None, None, 3, 3),
            must("block1.projection.weight", 1, None, 1, 1),
            must("block5.projection.weight", 1, None, 1, 1),
        ),
    ),
    _one(
        ModelKind.CONTROL_PREPROCESSOR,
        "BlazePose",
        layout(
            must("landmarks.heatmap.weight", None, None, 1, 1),
            must("landmarks.presence.weight", 1, None, None, None),
            must("detector.backbone.stem.weight", None, 3, 3, 3),
        ),
    ),
)

OTHERS = (
    _one(
        ModelKind.SAFETY_CLASSIFIER,
        "StableDiffusionSafetyChecker",
        layout(
            must("concept_embeds", None, None),
            must("special_care_embeds", None, None),
            must("concept_embeds_weights", None),
            must("special_care_embeds_weights", None),
        ),
    ),
    _one(
        ModelKind.STYLE_TRANSFER,
        "TransformerNet",
        layout(
            must("conv1.conv2d.weight", None, 3, None, None),
            must("res1.conv1.conv2d.weight", None, None, 3, 3),
            must("deconv3.conv2d.weight", 3, None, None, None),
        ),
    ),
)

PICTURE_NETWORKS = (*UPSCALERS, *FACE_RESTORERS, *SEGMENTERS, *DETECTORS, *PREPROCESSORS, *OTHERS)
