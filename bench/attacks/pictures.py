"""20,000 mutated PNG, JPEG and WebP files through the process that decodes pictures; the event loop's lag meanwhile."""

import asyncio
import time
from collections import Counter

from bench.attacks.harness import tell
from domains.errors import InvalidRequest
from domains.imaging.decoder_process import PictureDecoder
from tests.domains.imaging.mutations import mutations, seeds

FILES = 20_000
MAX_PIXELS = 1 << 24
_SEED = 17
_BEAT_S = 0.005


class Lag:
    """The longest time by which a sleeping task was late."""

    def __init__(self) -> None:
        self.worst_s = 0.0

    async def watch(self) -> None:
        """Measure until cancelled."""
        while True:
            begin = time.monotonic()
            await asyncio.sleep(_BEAT_S)
            self.worst_s = max(self.worst_s, time.monotonic() - begin - _BEAT_S)


async def attack(files: int) -> dict[str, object]:
    """The answers to the files, by format and kind."""
    decoder, lag, told = PictureDecoder(), Lag(), Counter[str]()
    damaged = list(mutations(files, _SEED))
    await decoder.decode(seeds()["PNG"][0], max_pixels=MAX_PIXELS)
    watching = asyncio.create_task(lag.watch())
    slowest_s, begin = 0.0, time.monotonic()
    for name, data in damaged:
        asked = time.monotonic()
        try:
            await decoder.decode(data, max_pixels=MAX_PIXELS)
            told[f"{name} decoded"] += 1
        except InvalidRequest as error:
            told[f"{name} {error.reason}"] += 1
        slowest_s = max(slowest_s, time.monotonic() - asked)
    took_s = time.monotonic() - begin
    watching.cancel()
    whole = await decoder.decode(seeds()["PNG"][0], max_pixels=MAX_PIXELS)
    await decoder.close()
    figures = {"took_s": round(took_s, 1), "slowest_s": round(slowest_s, 3), "loop_lag_s": round(lag.worst_s, 3)}
    return {**told, **figures, "deaths": decoder.deaths, "a_whole_file_after": whole.shape}


def main() -> int:
    """Print the figures."""
    return tell("pictures", files=FILES, **asyncio.run(attack(FILES)))


if __name__ == "__main__":
    raise SystemExit(main())
