"""Whether the built parts of a model fit each other, by their configs."""

from collections.abc import Mapping

from torch import nn

from domains.model.part_fit import check_fit


def check_widths(family: str, modules: Mapping[str, nn.Module]) -> None:
    """Raise MODEL_INCOMPATIBLE if one part's output does not fit the next part: every job would fail."""
    check_fit(family, {name: module.config for name, module in modules.items()})
