"""The facts of the families against the libraries that compute them."""

import re
from pathlib import Path

import diffusers
import pytest
import transformers

from domains.inference.on_device.families.table import FAMILIES as ENGINE
from domains.model.families import COMPUTED, FAMILIES, REFINERS
from domains.model.kind import ModelKind
from domains.model.on_device.components import BUILDERS


def test_the_families_that_are_said_to_be_computed_are_those_of_the_engine_and_the_loader() -> None:
    assert {*COMPUTED, *REFINERS} == set(ENGINE) == set(BUILDERS)


def test_the_loader_builds_the_parts_with_weights_in_the_order_of_the_family() -> None:
    for name in COMPUTED:
        assert tuple(BUILDERS[name]) == tuple(part.id for part in FAMILIES[name].parts if part.has_weights)


PARTS = [(family.id, part) for family in FAMILIES.values() for part in family.parts]


@pytest.mark.parametrize(("family", "part"), PARTS, ids=[f"{family}-{part.id}" for family, part in PARTS])
def test_a_part_names_classes_that_the_libraries_have(family: str, part: object) -> None:
    from domains.model.families import Part

    assert isinstance(part, Part)
    library = diffusers if part.kind in (ModelKind.DENOISER, ModelKind.VAE) else transformers
    own = {"ChatGLMModel", "ChatGLMTokenizer"}  # of the pipeline's own module
    assert not [name for name in part.classes if name not in own and not hasattr(library, name)], family


def test_the_readme_names_the_families_that_are_computed() -> None:
    text = (Path(__file__).parents[4] / "README.md").read_text("utf-8")
    (table,) = re.findall(r"^\| families \| models \|\n(?:\|.*\n)+", text, re.MULTILINE)
    rows = re.findall(r"^\| (`.*`) \| (.*) \|$", table, re.MULTILINE)
    assert sorted(name for names, _ in rows for name in re.findall(r"`(\w+)`", names)) == sorted(COMPUTED)
    for names, models in rows:
        for name in re.findall(r"`(\w+)`", names):
            assert FAMILIES[name].display_name in models
