"""What jobs need of models, and which jobs use a loaded one: answered here alone, from the assets of their work."""

from collections.abc import Iterable

from domains.model.catalogue import Catalogue
from domains.model.loaded import LoadedModel, loaded_id
from domains.processing.jobs.job import Job
from domains.processing.jobs.state import ON_A_LANE


def needed_bytes(job: Job, catalogue: Catalogue) -> int:
    """The weight files of all models that a job needs; 0: it needs none. Raises MODEL_NOT_FOUND."""
    return sum(catalogue.get(asset.model_id).size_bytes for asset in job.work.assets)


def loaded_ids(job: Job, device_id: str) -> list[str]:
    """Of the models that a job needs, as they are called once a device holds them."""
    return [loaded_id(asset.model_id, device_id) for asset in job.work.assets]


def users_of(loaded: LoadedModel, jobs: Iterable[Job]) -> list[Job]:
    """The jobs that run with it: until they have left the device, also those that are to stop."""
    return [
        job
        for job in jobs
        if job.state in ON_A_LANE
        and job.device_id == loaded.device_id
        and loaded.id in loaded_ids(job, loaded.device_id)
    ]
