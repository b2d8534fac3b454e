"""Builds what runs jobs, in order of construction."""

from domains.draining import Draining
from domains.model.catalogue import Catalogue
from domains.model.footprints import Footprints
from domains.model.host_models import HostModels
from domains.model.loaded_models import LoadedModels
from domains.processing.attempts.attempt import AttemptTools
from domains.processing.attempts.checkpoints import CheckpointCare
from domains.processing.attempts.front_task import FrontRunners
from domains.processing.attempts.reproductions import Reproductions
from domains.processing.conditioning_preview import ConditioningPreviews
from domains.processing.control_preview import ControlPreviews
from domains.processing.devices.figures import MeasuredFigures
from domains.processing.devices.step_limit import StepLimit
from domains.processing.devices.step_times import StepTimes
from domains.processing.dispatcher import Dispatcher
from domains.processing.front.convert import ConvertRunner
from domains.processing.front.execute import Execution
from domains.processing.front.load_to_host import HostLoadRunner
from domains.processing.front.reset import ResetRunner
from domains.processing.front.scan import ScanRunner
from domains.processing.front.transfer import TransferRunner
from domains.processing.front.validate import ValidateRunner
from domains.processing.inputs.generation_files import GenerationFiles
from domains.processing.inputs.input_pictures import InputPictures
from domains.processing.inputs.picture_reader import PictureReader
from domains.processing.jobs.jobs import Jobs
from domains.processing.jobs.preview_wishes import PreviewWishes
from domains.processing.lanes.board import Board
from domains.processing.lanes.overview import QueueOverview
from domains.processing.lanes.waits import Waits
from domains.processing.mask_preview import MaskPreviews
from domains.processing.memory.company import Company
from domains.processing.memory.estimates import Estimates
from domains.processing.memory.generation_plan import GenerationPlans
from domains.processing.memory.host_loads import HostLoads
from domains.processing.memory.job_admission import JobAdmission
from domains.processing.memory.prefetch import Prefetching
from domains.processing.memory.run_times import RunTimes
from domains.processing.reproduction import Reproducing
from domains.processing.sessions.sessions import Sessions
from domains.processing.submit import Submissions
from domains.processing.workers.silence import Silences
from server.device.parts import DeviceParts
from server.inference.reproduction_messages import asked_again
from server.memory.parts import MemoryParts
from server.settings import Settings


class ProcessingParts:
    """The dispatcher, the submissions, and the work of the front process."""

    def __init__(
        self,
        settings: Settings,
        jobs: Jobs,
        sessions: Sessions,
        catalogue: Catalogue,
        loaded: LoadedModels,
        host_models: HostModels,
        devices: DeviceParts,
        memory: MemoryParts,
        board: Board,
        draining: Draining,
    ) -> None:
        MeasuredFigures(jobs, devices.devices)
        footprints = Footprints(catalogue, loaded)
        step_times = StepTimes(jobs, board.lanes)
        self.estimates = Estimates(
            footprints, jobs, loaded, devices.devices, board.lanes, memory.pools, memory.reclaiming, step_times
        )
        self.transfers = TransferRunner(jobs, memory.blobs)
        self.conversions = ConvertRunner(catalogue, jobs)
        self.host_loads = HostLoads(host_models, loaded, memory.admission, memory.reclaiming, memory.pools)
        self.prefetching = Prefetching(self.host_loads, loaded, catalogue)
        sessions.listeners.append(self.prefetching.session_changed)
        self._board = board
        sessions.on_terms.append(self._terms_changed)
        reset = ResetRunner(devices.devices, board.lanes, loaded, devices.care)
        CheckpointCare(jobs, memory.blobs)
        self.picture_reader = PictureReader(memory.blobs)
        pictures = InputPictures(jobs, memory.blobs, self.picture_reader)
        inputs = GenerationFiles(pictures)
        self.reproductions = Reproductions(jobs, memory.blobs, self.picture_reader)
        self.wishes = PreviewWishes()
        tools = AttemptTools(
            elsewhere=board.lanes.has_other_than,
            jobs=jobs,
            devices=devices.devices,
            catalogue=catalogue,
            loaded=loaded,
            blobs=memory.blobs,
            inputs=inputs,
            reproductions=self.reproductions,
            memory=JobAdmission(
                memory.admission,
                memory.reclaiming,
                catalogue,
                loaded,
                jobs.inherited,
                lambda model, device_id, execution: footprints.need_bytes(
                    model, devices.devices.get(device_id).device, execution
                ),
                footprints.read_headers,
            ),
            runners=FrontRunners(
                scan=ScanRunner(catalogue).run,
                transfer=self.transfers.run,
                reset=reset.run,
                validate=ValidateRunner(catalogue, self.estimates, Execution(jobs)).run,
                load_to_host=HostLoadRunner(catalogue, self.host_loads).run,
                convert=self.conversions.run,
            ),
            wishes=self.wishes,
            draining=draining,
            silences=Silences(devices.devices, settings.silence_s),
            silent_s=step_times.silent_s,
            stall_limit_s=settings.stall_timeout_s,
            stop_limit_s=settings.stop_timeout_s,
        )
        self.overview = QueueOverview(board, jobs, devices.devices, memory.hold_back, draining)
        company = Company(self.estimates, loaded, memory.pools)
        self.waits = Waits(board, devices.devices, memory.hold_back, draining, jobs.find, company)
        self.dispatcher = Dispatcher(
            board.queue, board.lanes, board.room, board.meter, memory.hold_back, tools, beside=company
        )
        step_limit = StepLimit(step_times, devices.devices, settings.max_step_s)
        self.plans = GenerationPlans(
            self.estimates,
            RunTimes(jobs, board.lanes, step_times),
            catalogue,
            loaded,
            board.lanes,
            board.queue,
        )
        self.submissions = Submissions(
            jobs,
            board.queue,
            catalogue,
            loaded,
            devices.devices,
            memory.blobs,
            memory.reservations,
            draining,
            step_limit,
            inputs,
            sessions,
        )
        self.reproducing = Reproducing(self.submissions, catalogue, self.reproductions, asked_again)
        self.conditioning = ConditioningPreviews(
            self.submissions.generations,
            MaskPreviews(pictures, memory.blobs),
            ControlPreviews(pictures, memory.blobs),
            board.lanes,
            devices.devices,
        )

    def _terms_changed(self, session_id: str) -> None:
        """Look again at the jobs of a session that may start now."""
        self._board.queue.wake(session_id)
        self._board.room.tell_soon()
