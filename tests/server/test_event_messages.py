"""Which events a reader of the log hears of."""

from deviceops.common.v1 import error_pb2
from deviceops.processing.v1 import processing_service_pb2
from domains.events import EventDomain, Severity, SystemEvent
from server.processing.event_messages import accepts


def test_a_severity_lets_through_itself_and_worse() -> None:
    events = [SystemEvent(domain=EventDomain.DEVICE, kind="device.error", severity=severity) for severity in Severity]
    heard = {
        name: [
            event.severity
            for event in events
            if accepts(processing_service_pb2.SystemEventFilter(min_severity=number), event)
        ]
        for name, number in error_pb2.Severity.items()
    }
    assert heard == {
        "SEVERITY_UNSPECIFIED": [Severity.INFO, Severity.WARNING, Severity.ERROR, Severity.CRITICAL],
        "SEVERITY_INFO": [Severity.INFO, Severity.WARNING, Severity.ERROR, Severity.CRITICAL],
        "SEVERITY_WARNING": [Severity.WARNING, Severity.ERROR, Severity.CRITICAL],
        "SEVERITY_ERROR": [Severity.ERROR, Severity.CRITICAL],
        "SEVERITY_CRITICAL": [Severity.CRITICAL],
    }
