"""The kinds of models and of their parts."""

from enum import StrEnum


class ModelKind(StrEnum):
    """What a model, or a part of one, is for."""

    UNKNOWN = ""
    CHECKPOINT = "checkpoint"
    """Denoiser with VAE and text encoders."""
    REFINER = "refiner"
    """A checkpoint for the last steps of another one."""
    DENOISER = "denoiser"
    """A U-Net or a transformer alone."""
    VAE = "vae"
    TEXT_ENCODER = "text_encoder"
    TOKENIZER = "tokenizer"
    SCHEDULER = "scheduler"
    CONTROLNET = "controlnet"
    T2I_ADAPTER = "t2i_adapter"
    LORA = "lora"
    TEXTUAL_INVERSION = "textual_inversion"
    IMAGE_PROMPT_ADAPTER = "image_prompt_adapter"
    """IP-Adapter."""
    IMAGE_ENCODER = "image_encoder"
    UPSCALER = "upscaler"
    FACE_RESTORER = "face_restorer"
    SEGMENTER = "segmenter"
    STYLE_TRANSFER = "style_transfer"
    DETECTOR = "detector"
    CONTROL_PREPROCESSOR = "control_preprocessor"
    """Makes control maps: depth, pose, edges."""
    SAFETY_CLASSIFIER = "safety_classifier"
