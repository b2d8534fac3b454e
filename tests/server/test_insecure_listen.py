"""A port that others can reach is opened only on purpose, and says so."""

import json

from tests.server.harness import RunningServer, running_server


def test_every_start_warns_and_the_status_tells() -> None:
    with running_server("--host", "0.0.0.0", "--insecure-listen", "--device", "sim") as open_to_all:
        for start in (1, 2):
            lines = [json.loads(line) for line in open_to_all.log.read_text().splitlines() if line.startswith("{")]
            warnings = [line for line in lines if line["level"] == "warning" and "without encryption" in line["event"]]
            assert len(warnings) == start
            assert open_to_all.status().insecure_listen
            if start == 1:
                assert open_to_all.stop() == 0
                open_to_all.start()


def test_a_server_on_loopback_says_that_it_is_none(server: RunningServer) -> None:
    assert not server.status().insecure_listen
    assert "without encryption" not in server.log.read_text()
