"""Filters the models of ListModels."""

from deviceops.model.v1 import model_pb2, model_service_pb2
from domains.labels import has_all
from server import convert


def accepts(wanted: model_service_pb2.ModelFilter, model: model_pb2.Model, devices: set[str]) -> bool:
    """Whether a model meets every condition of the filter that is set. `devices`: ids of those that it names."""
    text = wanted.text.casefold()
    there = {loaded_id.rpartition("@")[2] for loaded_id in model.loaded_model_ids}
    return (
        (not text or text in model.id.casefold() or text in model.display_name.casefold())
        and (not wanted.kinds or model.kind in wanted.kinds)
        and (not wanted.families or model.family in wanted.families)
        and (not wanted.states or model.state in wanted.states)
        and has_all(convert.labels_of(wanted.labels), convert.labels_of(model.labels))
        and (not wanted.tasks or bool(set(wanted.tasks) & set(model.tasks)))
        and (not wanted.compatible_family or wanted.compatible_family in model.compatible_families)
        and (not wanted.HasField("loaded") or wanted.loaded == bool(model.loaded_model_ids))
        and (not devices or bool(devices & there))
        and (not wanted.HasField("min_size_bytes") or model.size_bytes >= wanted.min_size_bytes)
        and (not wanted.HasField("max_size_bytes") or model.size_bytes <= wanted.max_size_bytes)
        and (not wanted.sha256 or model.sha256 == wanted.sha256.lower())
    )
