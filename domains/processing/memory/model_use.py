"""Which models jobs need, and which jobs need or use a model: derived from their work, here only."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Set

from domains.model.catalogue import Catalogue
from domains.model.execution import AS_USUAL, Execution
from domains.model.loaded import LoadedModel, loaded_id, outdated
from domains.model.loaded_models import LoadedModels
from domains.processing.jobs.job import Job
from domains.processing.jobs.kinds import GenerateWork, LoadWork, ModelBenchmarkWork, Work
from domains.processing.jobs.state import ON_A_LANE


def needed_bytes(job: Job, catalogue: Catalogue) -> int:
    """Size of the weight files of all models that a job needs; 0: it needs none. Raises MODEL_NOT_FOUND."""
    return sum(catalogue.get(asset.model_id).size_bytes for asset in job.work.assets)


def jobs_that_need(model_id: str, jobs: Iterable[Job]) -> list[Job]:
    """Jobs that read the model, on a device or elsewhere."""
    return [job for job in jobs if model_id in job.work.model_ids]


def loaded_models(work: Work) -> list[str]:
    """Ids of the models that a device loads for the work, the base first. LoRAs are not loaded but applied."""
    return [asset.model_id for asset in work.assets if asset.loaded]


def execution_of(job: Job, device_id: str, loaded: LoadedModels) -> Execution:
    """How a model that the job loads onto a device will compute."""
    match job.work:
        case ModelBenchmarkWork():
            return job.work.asked.execution
        case LoadWork() if job.work.execution != AS_USUAL:
            return job.work.execution
        case LoadWork() | GenerateWork():
            return loaded.comes_back_as(loaded_models(job.work)[0], device_id)
        case _:
            return AS_USUAL


def loaded_ids(job: Job, device_id: str) -> list[str]:
    """Ids that the job's models have on the device."""
    return [loaded_id(model_id, device_id) for model_id in loaded_models(job.work)]


def users_of(loaded: LoadedModel, jobs: Iterable[Job]) -> list[Job]:
    """Jobs that use the model. A job that was asked to stop counts until it has left the device."""
    return [
        job
        for job in jobs
        if job.state in ON_A_LANE
        and job.device_id == loaded.device_id
        and loaded.id in loaded_ids(job, loaded.device_id)
    ]


def held_by_devices(loaded: Iterable[LoadedModel], catalogue: Catalogue) -> Mapping[str, Set[str]]:
    """By device: ids of the models that it holds with the weights that their last scan saw. Others must be loaded again."""
    held: defaultdict[str, set[str]] = defaultdict(set)
    for one in loaded:
        if not one.device_id:
            continue  # in the RAM tier: no device holds it
        model = catalogue.find(one.model_id)
        if model is None or not outdated(one, model.sha256):
            held[one.device_id].add(one.model_id)
    return held
