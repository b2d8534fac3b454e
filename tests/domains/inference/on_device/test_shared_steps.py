"""Continuous batching: jobs share forwards as they come and go, and nothing but their rounding shows it."""

from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from structlog.testing import capture_logs
from torch import Tensor

from domains.errors import ErrorReason
from domains.inference.generation import Determinism, ResolvedGeneration
from domains.inference.given import Given
from domains.inference.kept_file import KeptFile
from domains.inference.on_device import prepared_run
from domains.inference.on_device.families.family import KeepOn, StepRows
from domains.inference.on_device.families.sd1 import Sd1
from domains.inference.on_device.pace import Sizes
from domains.inference.on_device.solver_state import SolverState
from domains.inference.on_device.trajectory import Trajectory, begin
from domains.inference.outcome import CheckpointReady, Report, RunFailed, RunFinished, RunStopped
from domains.model.model import Model
from domains.model.on_device import OnDeviceModel
from domains.progress import Progressed, Stage
from domains.stop import Stop, StopKind
from tests.domains.inference.on_device.recorder import Recorder
from tests.domains.inference.on_device.reference import final_latents
from tests.domains.inference.on_device.requests import request

CANCEL = Stop(kind=StopKind.CANCEL, cause="not wanted any more")
PAUSE = Stop(kind=StopKind.PAUSE, cause="the device is needed")
TOLERANCE = 1e-4
"""Of the largest latent, for a few steps; the contract promises 1e-3."""
SMALL: dict[str, Any] = {"width_px": 16, "height_px": 16}


class Walks:
    """The trajectories that a loop begins, by request, and the size of each forward in jobs."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.of: dict[ResolvedGeneration, Trajectory] = {}
        self.forwards: list[int] = []
        patch.setattr(prepared_run, "begin", self._begin)
        patch.setattr(Sizes, "most_rows", property(lambda sizes: self.most_rows))
        denoise = Sd1.denoise

        def counted(family: Sd1, group: Sequence[StepRows], keep_on: KeepOn) -> list[Tensor]:
            self.forwards.append(len(group))
            return denoise(family, group, keep_on)

        patch.setattr(Sd1, "denoise", counted)
        self.most_rows = 64

    def _begin(self, family: Any, resolved: ResolvedGeneration, *others: Any) -> Trajectory:
        self.of[resolved] = begin(family, resolved, *others)
        return self.of[resolved]


@pytest.fixture(scope="module")
def shared(tiny: Model) -> Iterator[Recorder]:
    recorder = Recorder(tiny)
    yield recorder
    recorder.loop.close()


@pytest.fixture
def loop(shared: Recorder) -> Iterator[Recorder]:
    shared.reports.clear()
    shared.order.clear()
    yield shared
    shared.run()
    shared.on_report = lambda job_id, report: None
    shared.stop_of = lambda job_id: None


@pytest.fixture
def walks(monkeypatch: pytest.MonkeyPatch) -> Walks:
    return Walks(monkeypatch)


def gap(ours: Tensor, alone: Tensor) -> float:
    """Largest difference in the scale of the latents."""
    return float((ours - alone).abs().max() / alone.abs().max().clamp(min=1))


MIXED: list[dict[str, Any]] = [
    {"steps": 5, "sampler": "euler_a"},
    {"steps": 3, "sampler": "dpmpp_2m", "guidance_scale": 1.0, "prompt": "a cat"},
    {"steps": 4, "sampler": "heun", "seeds": (5, 6)},
    {"steps": 6, "sampler": "pndm", "guidance_scale": 0.0, "seeds": (1, 2)},
    {"steps": 4, "sampler": "unipc", "guidance_scale": 9.0, "negative_prompt": "blue"},
]
"""Jobs that share forwards, whatever their steps, samplers, guidance and number of pictures."""


def submit(loop: Recorder, **asked: ResolvedGeneration) -> None:
    for name, resolved in asked.items():
        loop.loop.submit(name, Given(loop.loaded.model, resolved))


def test_mixed_jobs_share_their_steps_and_each_has_the_latents_of_itself_alone(
    loop: Recorder, tiny: Model, walks: Walks
) -> None:
    asked = [request(tiny, **SMALL, **one) for one in MIXED]
    submit(loop, **{str(place): one for place, one in enumerate(asked)})
    loop.run()
    # Heun evaluates twice a step: 7 lines are the most, and all jobs began together.
    assert walks.forwards[:3] == [5, 5, 5]
    assert len(walks.forwards) == max(len(walks.of[one]._lines) for one in asked)  # pyright: ignore[reportPrivateUsage]
    for one in asked:
        assert gap(walks.of[one].latents, final_latents(loop.loaded, one)) <= TOLERANCE


def test_an_exact_job_shares_no_forward_and_is_bitwise_what_it_is_alone(
    loop: Recorder, tiny: Model, walks: Walks
) -> None:
    exact = request(tiny, **SMALL, steps=4, determinism=Determinism.EXACT)
    others = {f"other {n}": request(tiny, **SMALL, steps=4, seeds=(n,)) for n in range(3)}
    submit(loop, exact=exact, **others)
    loop.run()
    assert sorted(set(walks.forwards)) == [1, 3]
    assert torch.equal(walks.of[exact].latents, final_latents(loop.loaded, exact))
    submit(loop, alone=exact)
    loop.run()
    assert loop.files("alone") == loop.files("exact")


def test_jobs_that_differ_in_size_or_model_share_nothing_and_take_turns(
    loop: Recorder, tiny: Model, walks: Walks
) -> None:
    told: list[str] = []
    loop.on_report = lambda name, report: told.append(name) if step_of(report) else None
    small = {f"small {n}": request(tiny, **SMALL, steps=4, seeds=(n,)) for n in range(3)}
    submit(loop, **small, large=request(tiny, width_px=32, height_px=32, steps=4))
    loop.run()
    assert walks.forwards == [3, 1] * 4
    assert [name == "large" for name in told] == [False, False, False, True] * 4


def step_of(report: Report) -> int:
    """The step that a report tells of; 0: none."""
    return report.completed if isinstance(report, Progressed) and report.stage is Stage.DENOISING else 0


def test_a_job_that_comes_to_a_full_batch_has_its_first_step_within_two(
    loop: Recorder, tiny: Model, walks: Walks
) -> None:
    walks.most_rows = 8
    submit(loop, **{str(n): request(tiny, **SMALL, steps=12, seeds=(n,)) for n in range(4)})
    while len(walks.forwards) < 3:
        loop.loop.tick()
    submit(loop, late=request(tiny, **SMALL, steps=2, seeds=(9,)))
    before = len(walks.forwards)
    while not any(step_of(report) for report in loop.reports["late"]):
        loop.loop.tick()
    assert len(walks.forwards) - before <= 2
    loop.run()
    assert max(walks.forwards) == 4
    steps = [walks.forwards[place] for place in range(before, before + 4)]
    assert steps == [4] * 4  # those that found no room took turns; no forward was smaller for it


def test_jobs_that_find_no_room_in_a_forward_take_turns(loop: Recorder, tiny: Model, walks: Walks) -> None:
    walks.most_rows = 4
    done: dict[str, int] = {}
    spread: list[int] = []

    def note(name: str, report: Report) -> None:
        if step := step_of(report):
            done[name] = step
            spread.append(max(done.values()) - min(done.values()))

    loop.on_report = note
    submit(loop, **{str(n): request(tiny, **SMALL, steps=6, seeds=(n,)) for n in range(5)})
    loop.run()
    assert set(done.values()) == {6}
    assert max(spread[5:]) <= 2


def test_cancelling_one_job_of_a_group_takes_effect_at_the_next_step_and_leaves_the_others(
    loop: Recorder, tiny: Model, walks: Walks
) -> None:
    asked = {name: request(tiny, **SMALL, steps=5, seeds=(n,)) for n, name in enumerate("abc")}

    def cancel(name: str, report: Report) -> None:
        if name == "b" and step_of(report) == 2:
            loop.loop.stop(name, CANCEL)

    loop.on_report = cancel
    submit(loop, **asked)
    loop.run()
    assert walks.forwards == [3, 3, 2, 2, 2]
    end = loop.last("b")
    assert isinstance(end, RunStopped)
    assert end.receipt.steps_executed == 2
    for name in "ac":
        assert gap(walks.of[asked[name]].latents, final_latents(loop.loaded, asked[name])) <= TOLERANCE


@pytest.mark.parametrize(("unwanted", "steps"), [("ab", 0), ("a", 3)])
def test_a_shared_step_is_abandoned_only_if_nobody_wants_it(
    loop: Recorder, tiny: Model, walks: Walks, unwanted: str, steps: int
) -> None:
    asked = {name: request(tiny, **SMALL, steps=3, seeds=(n,)) for n, name in enumerate("ab")}
    loop.stop_of = lambda name: CANCEL if name in unwanted and walks.forwards else None
    submit(loop, **asked)
    loop.run()
    ends = {name: loop.last(name) for name in "ab"}
    assert isinstance(ends["b"], RunFinished if steps else RunStopped)
    assert getattr(ends["b"], "receipt").steps_executed == steps  # noqa: B009 (all ends have it)


def test_latents_of_one_job_that_are_no_numbers_end_that_job_alone(loop: Recorder, tiny: Model, walks: Walks) -> None:
    asked = {name: request(tiny, **SMALL, steps=4, seeds=(n,)) for n, name in enumerate("abc")}

    def spoil(name: str, report: Report) -> None:
        if name == "b" and step_of(report) == 2:
            walks.of[asked["b"]].latents.fill_(torch.nan)

    loop.on_report = spoil
    submit(loop, **asked)
    loop.run()
    end = loop.last("b")
    assert isinstance(end, RunFailed)
    assert (end.reason, end.facts["step"]) == (str(ErrorReason.NUMERIC_FAILURE), "3")
    for name in "ac":
        assert gap(walks.of[asked[name]].latents, final_latents(loop.loaded, asked[name])) <= TOLERANCE


def failing(patch: pytest.MonkeyPatch, fails: Callable[[Sequence[StepRows]], bool], error: Exception) -> None:
    """Let forwards fail."""
    denoise = Sd1.denoise

    def broken(family: Sd1, group: Sequence[StepRows], keep_on: KeepOn) -> list[Tensor]:
        if fails(group):
            raise error
        return denoise(family, group, keep_on)

    patch.setattr(Sd1, "denoise", broken)


def test_an_error_in_a_shared_forward_ends_the_job_that_has_it_alone(
    loop: Recorder, tiny: Model, walks: Walks, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {name: request(tiny, **SMALL, steps=3, seeds=(n,)) for n, name in enumerate("abc")}

    def has_bad(group: Sequence[StepRows]) -> bool:
        bad = walks.of.get(asked["b"])
        return bad is not None and any(rows.conditions is bad.conditions for rows in group)

    failing(monkeypatch, has_bad, RuntimeError("no such kernel"))
    submit(loop, **asked)
    with capture_logs():
        loop.run()
    end = loop.last("b")
    assert isinstance(end, RunFailed)
    assert end.receipt.steps_executed == 0
    for name in "ac":
        last = loop.last(name)
        assert isinstance(last, RunFinished)
        assert last.receipt.steps_executed == 3


def test_an_error_in_a_shared_line_ends_the_job_that_has_it_alone_and_the_others_draw_no_second_noise(
    loop: Recorder, tiny: Model, walks: Walks, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {name: request(tiny, **SMALL, steps=3, seeds=(n,), sampler="euler_a") for n, name in enumerate("abc")}
    read = SolverState.read

    def broken(state: SolverState, output: Tensor, noise: Tensor | None) -> list[Tensor]:
        if state.place == 1 and state is walks.of[asked["b"]].state:
            raise RuntimeError("no such kernel")
        return read(state, output, noise)

    monkeypatch.setattr(SolverState, "read", broken)
    submit(loop, **asked)
    with capture_logs():
        loop.run()
    assert isinstance(loop.last("b"), RunFailed)
    for name in "ac":
        assert isinstance(loop.last(name), RunFinished)
        assert gap(walks.of[asked[name]].latents, final_latents(loop.loaded, asked[name])) <= TOLERANCE


def test_a_forward_too_large_for_the_memory_is_done_job_by_job_and_remembered(
    loop: Recorder, tiny: Model, walks: Walks, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[int] = []

    def note(sizes: Sizes, rows: int) -> None:
        refused.append(rows)

    monkeypatch.setattr(Sizes, "did_not_fit", note)
    failing(monkeypatch, lambda group: len(group) == 3, torch.OutOfMemoryError("CUDA out of memory"))
    submit(loop, **{name: request(tiny, **SMALL, steps=2, seeds=(n,)) for n, name in enumerate("abc")})
    with capture_logs():
        loop.run()
    assert all(isinstance(loop.last(name), RunFinished) for name in "abc")
    assert refused == [6, 6]


def test_what_a_group_holds_together_is_given_back_when_one_leaves(loop: Recorder, tiny: Model, walks: Walks) -> None:
    before = loop.loop.resources.shared_bytes()
    asked = {name: request(tiny, **SMALL, steps=9, seeds=(n,)) for n, name in enumerate("ab")}
    submit(loop, **asked)
    while len(walks.forwards) < 2:
        loop.loop.tick()
    own = loop.loop.job_bytes()
    assert loop.loop.resources.shared_bytes() > sum(t.nbytes for t in walks.of[asked["a"]].conditions.tensors())
    # What a job holds does not depend on its neighbours.
    alone = sum(t.nbytes for t in walks.of[asked["a"]].tensors())
    assert own["a"] == own["b"] == pytest.approx(alone, rel=0.01)
    walks.of.clear()
    loop.loop.stop("a", CANCEL)
    loop.loop.stop("b", CANCEL)
    loop.run()
    assert loop.loop.resources.shared_bytes() <= before


class AnyCompany(RuleBasedStateMachine):
    """Jobs of many kinds come, are cancelled, paused and spoiled in any order, and share what they can."""

    recorder: ClassVar[Recorder]
    walks: ClassVar[Walks]
    folder: ClassVar[Path]
    alone: ClassVar[dict[ResolvedGeneration, Tensor]] = {}
    loaded: ClassVar[OnDeviceModel]
    compared: ClassVar[list[ResolvedGeneration]] = []

    def __init__(self) -> None:
        super().__init__()
        self.asked: dict[str, ResolvedGeneration] = {}
        self.ends: dict[str, str] = {}
        self.recorder.reports.clear()
        self.walks.of.clear()

    @rule(kind=st.integers(0, 4), exact=st.booleans(), wide=st.booleans(), most=st.sampled_from([4, 64]))
    def submit(self, kind: int, exact: bool, wide: bool, most: int) -> None:
        self.walks.most_rows = most
        name = f"job {len(self.asked)}"
        first, pictures = 10 * len(self.asked), len(MIXED[kind].get("seeds", (0,)))
        changes: dict[str, Any] = {
            **MIXED[kind],
            **SMALL,
            "width_px": 32 if wide else 16,
            "seeds": tuple(range(first, first + pictures)),
            "determinism": Determinism.EXACT if exact else Determinism.FAST,
        }
        self.asked[name] = request(self.loaded.model, **changes)
        submit(self.recorder, **{name: self.asked[name]})

    @rule(pick=st.integers(0, 99), stop=st.sampled_from([CANCEL, PAUSE]))
    def stop(self, pick: int, stop: Stop) -> None:
        if self.asked:
            name = list(self.asked)[pick % len(self.asked)]
            if name not in self.ends and self.recorder.loop.stop(name, stop):
                self.ends[name] = stop.kind

    @rule(pick=st.integers(0, 99))
    def spoil(self, pick: int) -> None:
        moving = [name for name, asked in self.asked.items() if self._walks(name, asked)]
        if moving:
            name = moving[pick % len(moving)]
            self.walks.of[self.asked[name]].latents.fill_(torch.nan)
            self.ends[name] = "failed"

    def _walks(self, name: str, asked: ResolvedGeneration) -> bool:
        return name not in self.ends and asked in self.walks.of and not self.walks.of[asked].done

    @rule(ticks=st.integers(1, 6))
    def tick(self, ticks: int) -> None:
        for _ in range(ticks):
            self.recorder.loop.tick()

    def teardown(self) -> None:
        self.recorder.run()
        for name, asked in self.asked.items():
            end = self.recorder.last(name)
            match self.ends.get(name):
                case "failed":
                    assert isinstance(end, RunFailed)
                    assert end.reason == str(ErrorReason.NUMERIC_FAILURE)
                case StopKind.PAUSE if isinstance(end, RunStopped):
                    self._resume(name, asked)
                case StopKind.CANCEL:
                    assert isinstance(end, RunStopped)
                case _:
                    assert isinstance(end, RunFinished)
        self.recorder.run()
        for name, asked in self.asked.items():
            last = f"{name} again" if f"{name} again" in self.recorder.reports else name
            if isinstance(self.recorder.last(last), RunFinished):
                self._compare(asked)

    def _resume(self, name: str, asked: ResolvedGeneration) -> None:
        kept = next((one for one in self.recorder.of(name, CheckpointReady) if isinstance(one, CheckpointReady)), None)
        path = self.folder / name
        path.write_bytes(kept.data if kept else b"")
        file = KeptFile(path=str(path), sha256=sha256(kept.data).hexdigest()) if kept else None
        self.recorder.loop.submit(f"{name} again", Given(self.loaded.model, asked, kept=file))

    def _compare(self, asked: ResolvedGeneration) -> None:
        self.compared.append(asked)
        if asked not in self.alone:
            self.alone[asked] = final_latents(self.loaded, asked)
        ours = self.walks.of[asked].latents
        if asked.determinism is Determinism.EXACT:
            assert torch.equal(ours, self.alone[asked])
        assert gap(ours, self.alone[asked]) <= TOLERANCE


def test_in_any_company_a_job_ends_as_it_would_alone(shared: Recorder, walks: Walks, tmp_path: Path) -> None:
    names = {"recorder": shared, "walks": walks, "folder": tmp_path, "loaded": shared.loaded}
    case = type("AnyCompanyOfTiny", (AnyCompany,), names).TestCase
    case.settings = settings(
        max_examples=8,
        stateful_step_count=25,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow],
    )
    case().runTest()
    assert max(walks.forwards) >= 3
    assert len(AnyCompany.compared) > 10
