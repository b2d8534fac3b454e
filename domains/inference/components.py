"""Components that a generation takes from elsewhere than its model: as requested, and with every choice made."""

import msgspec


class ComponentSource(msgspec.Struct, frozen=True, kw_only=True):
    """Where one component comes from, as requested."""

    component_id: str
    """`vae`, `text_encoder_3` …"""
    model_id: str = ""
    """The model that has it. Empty: the generation's own model."""
    omitted: bool = False
    """Whether the model works without it."""


class ResolvedComponent(msgspec.Struct, frozen=True, kw_only=True):
    """A component that is other than the model's own."""

    component_id: str
    model_id: str
    """The model that it is taken from. Empty: it is left out."""
    model_sha256: str = ""
    """Hash of that model's weights: a replay detects another one with the same id."""

    @property
    def omitted(self) -> bool:
        """Whether the model works without it."""
        return not self.model_id
