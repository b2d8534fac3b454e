"""How a model computes, beside its precisions and its offloading: its attention, its VAE, and compiled or not."""

from collections.abc import Mapping

import msgspec

DEFAULT_TILE_PX = 512
"""Edge of the tiles if a load asks for tiles and names none: the size for which most VAEs were trained."""
TILE_PX = (256, 4096)
TILE_MULTIPLE_PX = 64
ATTENTION_KERNELS: Mapping[str, str] = {
    "flash": "flash_attention",
    "memory_efficient": "memory_efficient_attention",
    "cudnn": "cudnn_attention",
    "math": "",
}
"""Kernels by their names in the contract, with the feature of a device that has them. Empty: every device has it."""
OF_HALF_PRECISION = ("flash", "cudnn")
"""Kernels that compute in half precision alone on CUDA."""


class Ways(msgspec.Struct, frozen=True, kw_only=True):
    """What a load asks for. None, an empty text and 0 are the server's choice."""

    attention_kernel: str = ""
    """One of `ATTENTION_KERNELS`. Empty: torch chooses for each call."""
    attention_slicing: bool | None = None
    """Whether attention is computed in slices of its queries. None: no; a CPU has slices of long ones all the same, so that
    a job can be cancelled within."""
    vae_slicing: bool | None = None
    """Whether the pictures of a job are decoded one after the other, else all at once. None: one after the other."""
    vae_tiling: bool | None = None
    """Whether pictures are decoded in tiles. False: never. None: only where memory is short."""
    vae_tile_px: int = 0
    """Edge of the tiles in pixels, with `vae_tiling`. 0: `DEFAULT_TILE_PX`."""
    compile: bool | None = None
    """Whether the denoiser's blocks are compiled. None: no."""

    @property
    def taken(self) -> "Ways":
        """The same with what the engine does where nothing is asked for. `vae_tiling` None: tiles where memory is short."""
        return Ways(
            attention_kernel=self.attention_kernel,
            attention_slicing=bool(self.attention_slicing),
            vae_slicing=self.vae_slicing is not False,
            vae_tiling=self.vae_tiling,
            vae_tile_px=(self.vae_tile_px or DEFAULT_TILE_PX) if self.vae_tiling else 0,
            compile=bool(self.compile),
        )

    def other_than(self, there: "Ways") -> tuple[str, object] | None:
        """Name of the first option that is asked for here and in which `there` computes otherwise, with the way of `there`.
        None: there is no such option."""
        has = there.taken
        for name in self.__struct_fields__:
            asked, way = getattr(self, name), getattr(has, name)
            if asked is not None and asked != "" and (asked or isinstance(asked, bool)) and asked != way:
                return name, way
        return None


AS_THE_SERVER_CHOOSES = Ways()
