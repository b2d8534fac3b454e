"""Limits, intervals and counts of files, headers and scans: each was chosen, and another one is another choice.

Callers and operators notice them, and few are worth a test that waits for them. Limits that refuse something have tests of
their own, at and beyond the limit.
"""

from types import ModuleType

import pytest

from domains.model import (
    blob_files,
    catalogue,
    composition,
    content_hash,
    convert_model,
    convert_pickle,
    detected_model,
    diffusers_folder,
    edit,
    file_check,
    fingerprint,
    footprints,
    header_json,
    held_file,
    host_models,
    image_encoders,
    json_file,
    layers,
    loaded,
    naming,
    part_fit,
    reconcile,
    remembered,
    roots_watch,
    safetensors_header,
    scan,
    scheduler_config,
    shipped_files,
    single_file,
    suggest,
    validate,
    validation,
    walk,
    ways,
    weight_file,
)
from domains.model import inspect as inspect_module
from domains.model.detect import denoisers, detect, embeddings, evidence, lora_names

CHOSEN: list[tuple[ModuleType, dict[str, object]]] = [
    (blob_files, {"MAX_FILES": 1000, "_MAX_PATH": 255}),
    (catalogue, {"_ASSEMBLED": 256}),
    (composition, {"MAX_PARTS": 16}),
    (content_hash, {"_SHORT_BEGIN": 0x100000, "_SHORT_END": 0x110000, "_SHORT_DIGITS": 8, "_CHUNK": 4 << 20}),
    (convert_model, {"_LINE_BYTES": 4 << 20}),
    (convert_pickle, {"_LOOK_S": 0.1}),
    (denoisers, {"_MAX_NEAR": 3}),
    (detect, {"_MAX_NEAR": 3}),
    (embeddings, {"_MAX_VECTORS": 75}),
    (evidence, {"MAX_KEYS": 64}),
    (lora_names, {"_MAX_SUFFIX": 48}),
    (detected_model, {"MAX_METADATA": 64, "_MAX_VALUE_BYTES": 1024}),
    (diffusers_folder, {"_MAX_PROMPTS": 4000, "_MAX_EDGE_PX": 65536}),
    (edit, {"MAX_DISPLAY_NAME": 255}),
    (fingerprint, {"CLOCK_GRAIN_S": 2.0}),
    (footprints, {"_REMEMBERED": 16}),
    (header_json, {"MAX_ENTRY_BYTES": 16 << 10, "MAX_METADATA_BYTES": 2 << 20, "_USUAL_BYTES": 512}),
    (held_file, {"PIECE": 16 << 20, "_SCRATCH": 4 << 20}),
    (host_models, {"_SHARE": 4}),
    (image_encoders, {"_EDGE_PX": 224, "_MOST_EDGE_PX": 4096}),
    (inspect_module, {"_MAX_NAMED": 8}),
    (json_file, {"MAX_BYTES": 1 << 20}),
    (layers, {"MOST_LAYERS": 256}),
    (loaded, {"LONGEST_STAY_S": 30 * 24 * 3600.0}),
    (naming, {"_MAX_ID": 100}),
    (part_fit, {"_MOST": 2**31}),
    (reconcile, {"MAX_ENTRIES": 4000}),
    (remembered, {"MOST": 1024}),
    (roots_watch, {"_BUSY": 0.05}),
    (
        safetensors_header,
        {
            "MAX_HEADER_BYTES": 16 << 20,
            "MAX_TENSORS": 32_768,
            "_MAX_NAME": 512,
            "_USUAL_BYTES": 256,
            "_MAX_RANK": 16,
            "_MAX_EDGE": 2**48,
        },
    ),
    (scan, {"MAX_PROBLEMS": 1000}),
    (scheduler_config, {"_MAX_TRAIN_STEPS": 100_000, "_TRAIN_STEPS": 1000, "_MOST_SHIFT": 100}),
    (shipped_files, {"CLIP_WORDS": 49_408}),
    (single_file, {"_MAX_FILES": 64}),
    (suggest, {"_MAX_CHARACTERS": 200, "_CUTOFF": 0.6}),
    (validate, {"_TELL_EVERY_S": 0.1}),
    (validation, {"MAX_FINDINGS": 200}),
    (walk, {"MAX_DEPTH": 6, "_MAX_FOLDERS": 100_000}),
    (ways, {"DEFAULT_TILE_PX": 512, "TILE_PX": (256, 4096), "TILE_MULTIPLE_PX": 64}),
    (weight_file, {"_CHUNK": 4 << 20}),
    (file_check, {"_PIECE": 4 << 20}),
]


@pytest.mark.parametrize(("module", "figures"), CHOSEN, ids=[module.__name__ for module, _ in CHOSEN])
def test_a_figure_is_the_one_that_was_chosen(module: ModuleType, figures: dict[str, object]) -> None:
    assert {name: getattr(module, name) for name in figures} == figures
