"""Which service an agent manages, and the words about its end."""

from consumer.ports import Stop
from consumer.services import SystemdService
from consumer.services.managed import managed_service
from consumer.settings import ServiceConfig
from tests.support.fakes.clock import TurnedClock
from tests.support.makers import config


def test_unit_of_systemd_has_no_task_and_is_not_asked_for_every_status() -> None:
    managed = managed_service(config(service=ServiceConfig("systemd", unit="web.service")), TurnedClock())
    assert isinstance(managed.service, SystemdService)
    assert (managed.tasks, managed.cheap_state, managed.shut_down()) == ((), None, None)


def test_service_that_ended_on_term_needs_no_words() -> None:
    assert Stop(killed=False).in_words() == ""
