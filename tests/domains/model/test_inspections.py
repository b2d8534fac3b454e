"""What the server says of published models and adapters by their headers alone: kind, family, why it cannot be used.

`python -m tests.domains.model.test_inspections` writes `inspections.txt` anew, so that a changed answer is seen in a review.
"""

import math
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path

from domains.model.detected_model import Weights, blank_model, model_of
from domains.model.families.sign import Tensors
from domains.model.inspect import findings_of
from domains.model.model import FileStamp, Model, ModelLayout
from domains.model.safetensors_header import TensorEntry
from domains.model.weights_model import read_file
from tests.domains.model import published
from tests.domains.model.detect import adapters
from tests.domains.model.headers import write_published

FILE = Path(__file__).with_name("inspections.txt")
NAME = "model.safetensors"


CLAIMS = {
    "sdxl": {"modelspec.architecture": "stable-diffusion-xl-v1-base/lora", "modelspec.title": "Fast Lightning"},
    "sd1": {"ss_base_model_version": "sd_v1", "version": "3"},
    "sd2 v": {"modelspec.architecture": "stable-diffusion-v2-768-v", "modelspec.version": "1.1"},
    "epsilon": {"modelspec.prediction_type": "epsilon"},
    "v": {"ss_v_parameterization": "True"},
    "something": {"modelspec.architecture": "something-new"},
}
"""What metadata claim, which proves nothing."""


def others() -> Iterator[tuple[str, Tensors, Mapping[str, str]]]:
    """Files that are not published so: parts of them, adapters, and claims of their metadata."""
    for header in ("sd1_single", "sdxl_single", "sd3_single", "sdxl_refiner_single"):
        whole = published.header(header)
        for lost in ("first_stage_model.", "conditioner.", "cond_stage_model.", "text_encoders."):
            left = {name: shape for name, shape in whole.items() if not name.startswith(lost)}
            if len(left) < len(whole):
                yield f"{header} without {lost}", left, {}
    for header in ("sd1_unet", "flux1_dev_transformer", "sd_vae", "sdxl_controlnet", "clip_l_text_encoder"):
        whole = published.header(header)
        yield f"a half of {header}", dict(islice(whole.items(), len(whole) // 2)), {}
        yield f"{header} in a wrapper", {f"model.{name}": shape for name, shape in whole.items()}, {}
    forms = {
        "kohya": adapters.kohya,
        "diffusers": adapters.diffusers,
        "comfyui": adapters.comfyui,
        "loha": adapters.loha,
    }
    for header in ("sd1_unet", "sdxl_unet", "sd3_transformer", "flux1_dev_transformer"):
        for name, form in forms.items():
            yield f"LoRA {name} of {header}", _lora(header, form), {}
    for claim, metadata in CLAIMS.items():
        for header in ("sd_vae", "sd1_unet", "sd2_unet", "sdxl_single", "sd1_controlnet"):
            yield f"{header} that claims {claim}", published.header(header), metadata
        yield f"LoRA that claims {claim}", _lora("sdxl_unet", adapters.kohya), metadata
        yield f"noise that claims {claim}", {"a": (1, 2)}, metadata
    yield "words", {"emb_params": (8, 768)}, {}
    yield "words of two", {"clip_l": (8, 768), "clip_g": (8, 1280)}, {}
    yield "nothing", {}, {}


def _lora(header: str, form: adapters.Pair) -> Tensors:
    made = (form(name, shape, 8) for name, shape in adapters.layers(header))
    return {name: shape for tensors in made for name, shape in tensors.items()}


def inspected(header: str, layout: ModelLayout) -> Model:
    """A published file."""
    return _model(header, published.header(header), {}, layout)


def _model(title: str, shapes: Tensors, metadata: Mapping[str, str], layout: ModelLayout) -> Model:
    """The model of these tensors in half precision."""
    at, tensors = 0, list[TensorEntry]()
    for name, shape in shapes.items():
        end = at + 2 * math.prod(shape)
        tensors.append(TensorEntry(name=name, dtype="F16", shape=tuple(shape), begin=at, end=end))
        at = end
    stamp = FileStamp(path=NAME, real=f"/m/{NAME}")
    weights = Weights(tensors=tuple(tensors), metadata=metadata, files=(stamp,))
    return model_of(blank_model(Path("/m"), title, title, layout), weights)


def inspections() -> str:
    """A few lines for each header; where a folder of one component says otherwise, more."""
    lines = [line for name in published.names() for line in _lines(name)]
    for name, shapes, metadata in others():
        lines += (f"{name}: {line}" for line in _told(_model(name, shapes, metadata, ModelLayout.FILE)))
    with tempfile.TemporaryDirectory() as folder:
        for name in published.names():
            if name.endswith(("_single", "_single_ema")):
                lines += (f"{name} completed {line}" for line in _completed(Path(folder), name))
    return "".join(f"{line}\n" for line in lines)


def _completed(folder: Path, name: str) -> Iterator[str]:
    """What a checkpoint in one file gets from the package, and what its scheduler says."""
    model = read_file(write_published(folder / f"{name}.safetensors", name), name, name)
    yield f"{model.state} {model.prediction_type or '-'} {model.default_sampler or '-'} {model.train_steps} {model.problem}"
    yield from (f"remark {remark}" for remark in model.remarks)
    for part in model.components:
        files = ", ".join(part.files)
        yield f"part {part.id} {part.kind} {part.layout} {part.size_bytes} {files} {part.settings}"


def _lines(name: str) -> Iterator[str]:
    alone = [*_told(inspected(name, ModelLayout.FILE))]
    yield from (f"{name} {line}" for line in alone)
    yield from (
        f"{name} in a folder {line}" for line in _told(inspected(name, ModelLayout.COMPONENT)) if line not in alone
    )


def _told(model: Model) -> Iterable[str]:
    sizes = f"{model.native_width_px}x{model.native_height_px}"
    confidence = "none" if model.confidence is None else f"{model.confidence:.3f}"
    said = (model.kind, model.family, model.variant, model.state, model.reason, sizes, confidence)
    yield " ".join(str(one or "-") for one in said)
    families = ", ".join(model.compatible_families)
    yield f"for {families or '-'}; predicts {model.prediction_type or '-'}; {model.version or '-'}"
    for part in model.components:
        mix = ", ".join(f"{precision} {count}" for precision, count in part.mix)
        yield f"part {part.id} {part.kind} {part.architecture} {part.size_bytes} {part.parameter_count} {mix}"
    for one in findings_of(model):
        yield f"{one.severity} {one.reason or '-'} {one.field or '-'} {one.message}"
    for one in model.evidence[:3]:
        said = ("evidence", one.family, one.kind, one.component, one.source, f"{one.matched_count}/{one.expected}")
        yield " ".join(str(each or "-") for each in said)


def test_a_published_file_is_told_as_it_was_before() -> None:
    meant = "meant? then run python -m tests.domains.model.test_inspections"
    assert inspections() == FILE.read_text("utf-8"), meant


if __name__ == "__main__":
    FILE.write_text(inspections(), encoding="utf-8")
