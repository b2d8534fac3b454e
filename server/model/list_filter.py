"""Filters the models of ListModels."""

from collections.abc import Callable, Set

from deviceops.model.v1 import model_pb2, model_service_pb2
from domains.labels import has_all
from server import convert


def accepting(wanted: model_service_pb2.ModelFilter, devices: Set[str]) -> Callable[[model_pb2.Model], bool]:
    """A test of one model: whether it meets every condition of the filter that is set. Reads the lists of the filter
    once, since a filter and a catalogue can each have thousands of entries. `devices`: ids of those that it names."""
    text, sha256 = wanted.text.casefold(), wanted.sha256.lower()
    kinds, families, states, tasks = map(set, (wanted.kinds, wanted.families, wanted.states, wanted.tasks))
    labels = convert.wanted_labels(wanted.labels)

    def accepts(model: model_pb2.Model) -> bool:
        return (
            (not text or text in model.id.casefold() or text in model.display_name.casefold())
            and (not kinds or model.kind in kinds)
            and (not families or model.family in families)
            and (not states or model.state in states)
            and (not labels or has_all(labels, convert.labels_of(model.labels)))
            and not (tasks and tasks.isdisjoint(model.tasks))
            and (not wanted.compatible_family or wanted.compatible_family in model.compatible_families)
            and (not wanted.HasField("loaded") or wanted.loaded == bool(model.loaded_model_ids))
            and not (devices and devices.isdisjoint(one.rpartition("@")[2] for one in model.loaded_model_ids))
            and (not wanted.HasField("min_size_bytes") or model.size_bytes >= wanted.min_size_bytes)
            and (not wanted.HasField("max_size_bytes") or model.size_bytes <= wanted.max_size_bytes)
            and (not sha256 or model.sha256 == sha256)
        )

    return accepts
