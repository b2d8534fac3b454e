"""ControlNets of SD3, FLUX.1 and Z-Image in our engine against diffusers' pipelines, on random weights: same maps, noise and
latents."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from PIL import Image
from safetensors.torch import load, load_file, save_file
from torch import Tensor

from domains.errors import ErrorReason, FailedPrecondition, InvalidRequest
from domains.inference.control_types import CONTROL_MODES, forwards_of
from domains.inference.controls import ControlBalance, Preprocessing, ResolvedControl, UsedPicture
from domains.inference.generation import ResolvedGeneration
from domains.inference.given import Given, GivenControl
from domains.inference.image_fit import ImageFit
from domains.inference.kept_readings import kept_readings
from domains.inference.on_device.conditioning import condition
from domains.inference.on_device.controls import Controls, ControlsOfJob
from domains.inference.on_device.families.table import family_of
from domains.inference.on_device.guides import Guides
from domains.inference.on_device.hardware import RealHardware
from domains.inference.on_device.network_pool import NetworkPool
from domains.inference.on_device.prompt_cache import PromptCache
from domains.inference.on_device.tensor_bytes import bytes_of
from domains.inference.on_device.trajectory import Trajectory, begin, walk_together
from domains.inference.outcome import LatentsReady, RunFinished
from domains.model.execution import BY_COMPONENT, BY_LAYER, Execution
from domains.model.families import FAMILIES
from domains.model.fingerprint import Fingerprints, hash_of
from domains.model.header_facts import header_facts
from domains.model.model import Model, ModelState
from domains.model.weights_model import read_file
from tests.domains.inference.on_device.control_files import control, given, stripes
from tests.domains.inference.on_device.recorder import Recorder
from tests.domains.inference.on_device.reference import final_latents
from tests.domains.inference.on_device.test_every_family import TOLERANCE, Loaded, asked, gap
from tests.domains.inference.on_device.tiny_families import TINY, vae, write_parts, write_tiny_family, z_image
from tests.domains.inference.on_device.transformer_controls import KINDS, their_controlled, write_net

MAP, OTHER = stripes(48, 32), stripes(48, 32, 77)


def bring(job: ControlsOfJob, family: Loaded) -> None:
    """Load its networks without a break."""
    while not job.bring(family.ours):
        pass


class Guided(Loaded):
    """A tiny model with ControlNets of every kind of its family."""

    def __init__(self, model: Model, folder: Path) -> None:
        super().__init__(model)
        kinds = [kind for kind in KINDS if kind.partition("-")[0] == model.family]
        self.nets = {kind: write_net(folder / kind, kind, self.ours, seed) for seed, kind in enumerate(kinds)}
        self.pool = NetworkPool(RealHardware(self.ours.device))

    def of(self, wanted: ResolvedGeneration, maps: Sequence[GivenControl], job_id: str = "job") -> Controls:
        """The controls of a job."""
        job, view = ControlsOfJob(job_id, wanted, maps, self.pool), family_of(self.ours)
        bring(job, self)
        reading = condition(self.ours, view, wanted, PromptCache()).renew
        return job.made(reading, self.ours, view.encode_reference)

    def begun(self, wanted: ResolvedGeneration, maps: Sequence[GivenControl], job_id: str = "job") -> Trajectory:
        """A job before its first step."""
        view, controls = family_of(self.ours), self.of(wanted, maps, job_id)
        found = condition(self.ours, view, wanted, PromptCache())
        config, device = self.ours.scheduler_config, self.ours.device
        guides = Guides(controls=controls)
        return begin(view, wanted, config, found.conditions, device, renew=found.renew, guides=guides)

    def latents(self, wanted: ResolvedGeneration, maps: Sequence[GivenControl]) -> Tensor:
        """The final latents of a job that walks alone."""
        with torch.inference_mode():
            trajectory = self.begun(wanted, maps)
            while not trajectory.done:
                walk_together([trajectory])
            return trajectory.latents


@pytest.fixture(scope="module", params=["sd3", "flux1", "z_image"])
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Guided:
    folder = tmp_path_factory.mktemp("guided")
    return Guided(write_tiny_family(request.param, folder / request.param), folder)


def typed(kind: str, control_type: str = "tile") -> dict[str, Any]:
    """The type that a network of a kind is told."""
    return {"control_type": control_type} if kind.endswith("union") else {}


CASES: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "one": ([{}], {}),
    "without_guidance": ([{"weight": 0.7}], {"guidance_scale": 1.0}),
    "a_range_and_two_pictures": (
        [{"weight": 1.3, "start_ratio": 0.25, "end_ratio": 0.75}],
        {"steps": 4, "seeds": (3, 9)},
    ),
}


@pytest.mark.parametrize("case", list(CASES))
def test_the_latents_with_each_kind_are_those_of_diffusers(family: Guided, tmp_path: Path, case: str) -> None:
    changes, request = CASES[case]
    plain = final_latents(family.ours, asked(family, **request))
    for kind, net in family.nets.items():
        told = typed(kind)
        wanted = asked(family, controls=(control(net, **changes[0], **told),), **request)
        found = family.latents(wanted, [given(net, MAP, tmp_path)])
        modes = [CONTROL_MODES["flux1"][told["control_type"]] if told else None]
        assert gap(found, their_controlled(family, wanted, [net], [MAP], modes)) < TOLERANCE, kind
        # The control shows: it is no rounding that is compared.
        assert gap(found, plain) > 0.01, kind


def test_tokens_that_fill_up_a_picture_are_those_of_diffusers(tmp_path: Path) -> None:
    """Z-Image computes 32 tokens at once; here are 144."""
    family, square = Guided(write_tiny_family("z_image", tmp_path / "z_image"), tmp_path), stripes(48, 48)
    for kind, net in family.nets.items():
        wanted = asked(family, controls=(control(net, weight=0.6),), height_px=48, prompt="an owl", seeds=(3, 9))
        found = family.latents(wanted, [given(net, square, tmp_path)])
        assert gap(found, their_controlled(family, wanted, [net], [square], [None])) < TOLERANCE, kind


def test_two_nets_with_weights_and_ranges_are_those_of_diffusers(family: Guided, tmp_path: Path) -> None:
    """Of one depth: diffusers adds only as many residuals as the shallower net has."""
    kind = next(iter(family.nets))
    first, second = family.nets[kind], write_net(tmp_path / "second", kind, family.ours, 7)
    wanted = asked(family, controls=(control(first, weight=0.4, end_ratio=0.5), control(second, weight=1.3)), steps=4)
    maps = [given(first, MAP, tmp_path), given(second, OTHER, tmp_path)]
    theirs = their_controlled(family, wanted, [first, second], [MAP, OTHER], [None, None])
    assert gap(family.latents(wanted, maps), theirs) < TOLERANCE


def test_what_a_net_keeps_of_an_earlier_prompt_is_forecast_from_its_file(family: Guided, tmp_path: Path) -> None:
    kind = next(iter(family.nets))
    net = family.nets[kind]
    wanted = asked(family, controls=(control(net, **typed(kind)),), steps=4, guidance_end_ratio=0.5)
    with torch.inference_mode():
        controls = family.of(wanted, [given(net, MAP, tmp_path)], "kept")
        held: list[int] = []
        for step in range(wanted.steps):
            present = [tensor for one in controls.at(step) for tensor in one.tensors()]
            held.append(bytes_of(controls.tensors()) - bytes_of(present))
    ((found,),) = kept_readings(wanted)
    told_by = family.model if FAMILIES[family.model.family].embeds_for_controls else net
    assert found.model_id == told_by.id
    (sizes,) = (one.reading for one in (header_facts(told_by) or {}).values() if one.reading.of_token)
    forecast = 4 * (sizes.of_token * found.tokens * found.prompts + sizes.of_prompt * found.pooled)
    # Beside them only numbers: the guidance that FLUX.1 is told, the type of a map, the lengths of prompts.
    assert 0 <= max(held) - forecast <= 16 * found.prompts
    assert found.prompts == 1 + FAMILIES[family.model.family].reads_negative(wanted.guidance_scale)


def test_nets_of_all_kinds_guide_jobs_that_share_forwards(family: Guided, tmp_path: Path) -> None:
    nets = list(family.nets.items())
    half = torch.zeros(32, 48, 1, dtype=torch.uint8)
    half[:, :24] = 255
    mixed: list[tuple[list[GivenControl], ResolvedGeneration]] = [([], asked(family))]
    for kind, net in nets:
        mixed += [
            (
                [given(net, MAP, tmp_path)],
                asked(family, controls=(control(net, end_ratio=0.5, **typed(kind)),), steps=4),
            ),
            (
                [given(net, MAP, tmp_path)],
                asked(family, controls=(control(net, **typed(kind, "canny")),), guidance_scale=1.0),
            ),
            (
                [given(net, MAP, tmp_path)],
                asked(family, controls=(control(net, **typed(kind)),), guidance_start_ratio=0.5),
            ),
        ]
    every = tuple(control(net, weight=0.5, **typed(kind)) for kind, net in nets)
    mixed.append(([given(net, OTHER, tmp_path, half) for _, net in nets], asked(family, controls=every, seeds=(1, 2))))
    balanced = tuple(control(net, balance=ControlBalance.CONTROL, **typed(kind)) for kind, net in nets)
    mixed.append(([given(net, MAP, tmp_path) for _, net in nets], asked(family, controls=balanced)))
    alone = [family.latents(wanted, maps) for maps, wanted in mixed]
    with torch.inference_mode():
        group = [family.begun(wanted, maps, f"job {place}") for place, (maps, wanted) in enumerate(mixed)]
        while left := [one for one in group if not one.done]:
            walk_together(left)
    for trajectory, latents in zip(group, alone, strict=True):
        assert gap(trajectory.latents, latents) < TOLERANCE


def test_a_region_bounds_what_a_net_adds(family: Guided, tmp_path: Path) -> None:
    kind, net = next(iter(family.nets.items()))
    wanted = asked(family, controls=(control(net, **typed(kind)),))
    plain, whole = final_latents(family.ours, asked(family)), family.latents(wanted, [given(net, MAP, tmp_path)])
    for level, same in ((0, plain), (255, whole)):
        region = torch.full((32, 48, 1), level, dtype=torch.uint8)
        assert gap(family.latents(wanted, [given(net, MAP, tmp_path, region)]), same) < 1e-6


def test_the_type_of_a_map_counts_and_one_beyond_the_nets_is_refused(tmp_path: Path) -> None:
    family = Guided(write_tiny_family("flux1", tmp_path / "flux1"), tmp_path)
    net, maps = family.nets["flux1-union"], [given(family.nets["flux1-union"], MAP, tmp_path)]
    canny, depth = (
        family.latents(asked(family, controls=(control(net, control_type=one),)), maps) for one in ("canny", "depth")
    )
    # One token among 512 counts little.
    assert gap(canny, depth) > 3 * TOLERANCE
    with pytest.raises(FailedPrecondition, match="knows 5 types of maps, and grey is number 5"):
        family.of(asked(family, controls=(control(net, control_type="grey"),)), maps)


def test_a_net_that_inpaints_sees_which_part_is_missing(tmp_path: Path) -> None:
    family = Guided(write_tiny_family("sd3", tmp_path / "sd3"), tmp_path)
    net = write_net(tmp_path / "inpaint", "sd3", family.ours, 3, extra_conditioning_channels=1)
    hidden = torch.zeros(32, 48, dtype=torch.uint8)
    hidden[8:24, 16:40] = 255
    wanted, view = asked(family, controls=(control(net),)), family_of(family.ours)
    (one,) = family.of(wanted, [given(net, MAP, tmp_path, hidden=hidden)]).at(0)
    black = MAP.masked_fill(hidden[..., None] > 127, 0)
    assert torch.equal(one.hint[:, :16], view.encode_reference(black))
    edge = 32 // one.hint.shape[2]
    assert torch.equal(one.hint[0, 16] == 0, hidden[::edge, ::edge] > 127)
    with pytest.raises(InvalidRequest, match="reads which part is missing"):
        family.of(wanted, [given(net, MAP, tmp_path)])
    plain = family.nets["sd3"]
    with pytest.raises(InvalidRequest, match="does not read"):
        family.of(asked(family, controls=(control(plain),)), [given(plain, MAP, tmp_path, hidden=hidden)])


def handed_out(
    family: Guided, wanted: ResolvedGeneration, maps: Sequence[GivenControl], execution: Execution | None = None
) -> Tensor:
    """The final latents of a job of the step loop. `execution` None: the usual one."""
    recorder = Recorder(family.model)
    if execution is not None:
        recorder.loop.unload(family.model.id)
        recorder.loop.load("again", family.model, execution)
        recorder.run()
        assert recorder.loop.loaded(family.model.id).execution.offload == execution.offload
    wanted = msgspec.structs.replace(wanted, return_latents=True)
    recorder.loop.submit("a", Given(family.model, wanted, controls=tuple(maps)))
    recorder.run()
    assert isinstance(recorder.last("a"), RunFinished), recorder.last("a")
    (found,) = [one.data for one in recorder.of("a", LatentsReady) if isinstance(one, LatentsReady)]
    recorder.loop.close()
    return torch.cat([*load(found).values()])


@pytest.mark.parametrize("name", ["sd3", "z_image"])
def test_the_latents_with_a_net_that_inpaints_are_those_of_diffusers(tmp_path: Path, name: str) -> None:
    family = Guided(write_tiny_family(name, tmp_path / name), tmp_path)
    hidden = torch.zeros(32, 48, dtype=torch.uint8)
    hidden[8:24, 16:40] = 255
    white, picture = Image.fromarray(hidden.numpy()), Image.fromarray(OTHER.numpy())
    marked: dict[str, Any] = {"preprocessing": Preprocessing(kind="inpaint"), "weight": 0.8}
    if name == "sd3":
        net = write_net(tmp_path / "inpaint", name, family.ours, 3, extra_conditioning_channels=1)
        controls, maps = [control(net, **marked)], [given(net, OTHER, tmp_path, hidden=hidden)]
        seen, more = [OTHER], {"control_mask": white}
    else:
        # As diffusers' pipeline: a map and the picture, in one forward.
        net = family.nets["z_image-2.1"]
        controls = [control(net, **marked), control(net, weight=0.8)]
        maps = [given(net, OTHER, tmp_path, hidden=hidden), given(net, MAP, tmp_path)]
        seen, more = [MAP], {"image": picture, "mask_image": white}
    wanted = asked(family, controls=tuple(controls))
    found = family.latents(wanted, maps)
    assert gap(found, their_controlled(family, wanted, [net], seen, [None], **more)) < TOLERANCE
    assert torch.equal(found, handed_out(family, wanted, maps))
    # What is missing shows, and what is there.
    for other in (hidden * 0 + 255, hidden.flip(0).roll(3, 1)):
        others = [given(net, OTHER, tmp_path, hidden=other), *maps[1:]]
        assert gap(family.latents(wanted, others), found) > 0.001


@pytest.mark.usefixtures("aligned")
@pytest.mark.parametrize("offload", [BY_COMPONENT, BY_LAYER])
def test_a_net_that_computes_with_layers_of_its_model_finds_those_that_are_not_there(
    tmp_path: Path, offload: str
) -> None:
    family = Guided(write_tiny_family("z_image", tmp_path / "z_image"), tmp_path)
    nets = family.nets["z_image"], family.nets["z_image-2.1"]
    wanted = asked(family, controls=tuple(control(net, weight=0.7) for net in nets), steps=2)
    maps = [given(net, one, tmp_path) for net, one in zip(nets, (MAP, OTHER), strict=True)]
    whole = family.latents(wanted, maps)
    assert torch.equal(handed_out(family, wanted, maps, Execution(offload=offload)), whole)


def test_a_map_of_z_image_goes_with_one_picture_that_counts_alike() -> None:
    used = UsedPicture(blob_id="b-2", sha256="0" * 64)

    def asked_for(name: str, weight: float, kind: str = "canny", end: float = 1.0) -> ResolvedControl:
        how = Preprocessing(kind=kind)
        return ResolvedControl(
            model_id=name,
            model_sha256=name,
            image=used,
            fit=ImageFit.COVER,
            preprocessing=how,
            weight=weight,
            end_ratio=end,
        )

    seen, gone = asked_for("one", 0.8), asked_for("one", 0.8, "inpaint")
    others = [asked_for("one", 0.5), asked_for("other", 0.8), asked_for("one", 0.8, end=0.5)]
    controls = [seen, gone, seen, *others, gone, seen]
    assert forwards_of(controls, "z_image") == [[0, 1], [2, 6], [3], [4], [5], [7]]
    assert forwards_of(controls, "flux1") == [[place] for place in range(len(controls))]
    half = msgspec.structs.replace(gone, region=used)
    assert forwards_of([seen, half], "z_image") == [[0], [1]]


def test_a_net_of_z_image_without_channels_for_it_reads_no_missing_part(tmp_path: Path) -> None:
    family = Guided(write_tiny_family("z_image", tmp_path / "z_image"), tmp_path)
    net, hidden = family.nets["z_image"], torch.full((32, 48), 255, dtype=torch.uint8)
    with pytest.raises(InvalidRequest, match="does not read"):
        family.of(asked(family, controls=(control(net),)), [given(net, MAP, tmp_path, hidden=hidden)])


def alone(path: Path, tensors: dict[str, Tensor]) -> Model:
    """A file of tensors without a config beside it, as the catalogue gives it when a job names it."""
    save_file(tensors, path)
    model, stamps = read_file(path, path.stem, path.stem), Fingerprints().stamps(path.parent, {path.name: path})
    return msgspec.structs.replace(model, folder=str(path.parent), files=stamps, sha256=hash_of(stamps))


def test_a_file_alone_tells_which_published_net_of_z_image_it_is(tmp_path: Path) -> None:
    pipeline, parts = TINY["z_image"]
    deep = ("ZImageTransformer2DModel", z_image(n_layers=30, n_refiner_layers=2))
    family = Guided(write_parts(pipeline, {**parts, "transformer": deep}, tmp_path / "z_image"), tmp_path)
    places = {"control_layers_places": [*range(0, 30, 5)]}, {"control_layers_places": [*range(0, 30, 2)]}
    twice = {**places[1], "control_refiner_layers_places": [0, 1]}
    kinds = {"z_image": places[0], "z_image-2.0": twice, "z_image-2.1": twice}
    nets = {kind: write_net(tmp_path / f"{kind}-deep", kind, family.ours, 5, **more) for kind, more in kinds.items()}
    stored = {kind: load_file(f"{net.folder}/diffusion_pytorch_model.safetensors") for kind, net in nets.items()}
    # The published 2.0 has a refiner that was not trained.
    of_next = {
        name: one * 0 for name, one in stored["z_image-2.1"].items() if name.startswith("control_noise_refiner.")
    }
    files = {**stored, "z_image-2.0": {**of_next, **stored["z_image-2.0"]}, "z_image-2.0-bare": stored["z_image-2.0"]}
    for name, tensors in files.items():
        file, net = alone(tmp_path / f"{name}.safetensors", tensors), nets[name.removesuffix("-bare")]
        assert (file.state, file.family, file.problem) == (ModelState.AVAILABLE, "z_image", "")
        wanted = [asked(family, controls=(control(one, weight=0.7),), steps=1) for one in (file, net)]
        found = [
            family.latents(one, [given(model, MAP, tmp_path)]) for one, model in zip(wanted, (file, net), strict=True)
        ]
        assert torch.equal(*found), name


def test_a_file_alone_with_other_layers_than_published_asks_for_its_config(tmp_path: Path) -> None:
    family = Guided(write_tiny_family("z_image", tmp_path / "z_image"), tmp_path)
    tensors = load_file(f"{family.nets['z_image'].folder}/diffusion_pytorch_model.safetensors")
    file = alone(tmp_path / "alone.safetensors", tensors)
    assert (file.state, file.reason) == (ModelState.INCOMPATIBLE, ErrorReason.MODEL_INCOMPATIBLE)
    assert "config.json" in file.problem
    with pytest.raises(FailedPrecondition, match=r"no config\.json beside its weights") as refused:
        family.of(asked(family, controls=(control(file),)), [given(file, MAP, tmp_path)])
    assert refused.value.reason is ErrorReason.COMPONENT_MISSING


def test_a_net_that_sees_the_pixels_of_its_map_is_that_of_diffusers(tmp_path: Path) -> None:
    pipeline, parts = TINY["flux1"]
    eight = vae(
        16,
        block_out_channels=(16,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        scaling_factor=0.36,
        shift_factor=0.12,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    parts = {**parts, "vae": ("AutoencoderKL", eight)}
    family = Guided(write_parts(pipeline, parts, tmp_path / "flux1"), tmp_path)
    net = write_net(tmp_path / "seeing", "flux1", family.ours, conditioning_embedding_channels=16, patch_size=2)
    wanted = asked(family, controls=(control(net, weight=0.8),))
    found = family.latents(wanted, [given(net, MAP, tmp_path)])
    assert gap(found, their_controlled(family, wanted, [net], [MAP], [None])) < TOLERANCE
    assert gap(found, final_latents(family.ours, asked(family))) > 0.01


MISFITS: dict[str, list[tuple[dict[str, Any], str]]] = {
    "sd3": [({"num_attention_heads": 8, "caption_projection_dim": 64}, "width 64"), ({"num_layers": 4}, "blocks 4")],
    "flux1": [({"num_attention_heads": 4}, "width 64"), ({"joint_attention_dim": 48}, "joint_attention_dim 48")],
    "z_image": [
        ({"dim": 64}, "dim 64 where the model has 32"),
        ({"control_in_dim": 20}, "control_in_dim 20"),
        ({"control_layers_places": [0, 2]}, r"control_layers_places \[0, 2\] where the model has \[0\]"),
        ({"control_layers_places": [1, 0]}, "first of control_layers_places 1"),
        (
            {"add_control_noise_refiner": "control_layers", "control_refiner_layers_places": [1]},
            r"control_refiner_layers_places \[1\]",
        ),
    ],
}


def test_a_net_of_another_shape_is_refused_before_its_weights_are_read(family: Guided, tmp_path: Path) -> None:
    for place, (changes, told) in enumerate(MISFITS[family.model.family]):
        other = write_net(tmp_path / f"{place}", family.model.family, family.ours, **changes)
        wanted = asked(family, controls=(control(other),))
        job = ControlsOfJob("job", wanted, [given(other, MAP, tmp_path)], NetworkPool(RealHardware(family.ours.device)))
        with pytest.raises(FailedPrecondition, match=told) as refused:
            bring(job, family)
        assert refused.value.reason is ErrorReason.MODEL_INCOMPATIBLE


def test_the_pool_holds_the_bytes_of_a_net_until_its_last_job_leaves(family: Guided, tmp_path: Path) -> None:
    kind, net = next(iter(family.nets.items()))
    pool = NetworkPool(RealHardware(family.ours.device))
    wanted = asked(family, controls=(control(net, **typed(kind)),))
    job = ControlsOfJob("job", wanted, [given(net, MAP, tmp_path)], pool)
    bring(job, family)
    size = sum(file.stat().st_size for file in Path(net.folder).glob("*.safetensors"))
    assert pool.sizes() == {net.id: pytest.approx(size, rel=0.3)}
    job.networks.leave()
    assert pool.sizes() == {}
