"""Answers whose bytes or envelope are odd: what can be read is read, and what is cut short is still told from it."""

import httpx
import pytest

from pipelines.settings import load_settings
from pipelines.simulator import CREDENTIALS, NO_LIMITS, Portal, PortalOptions, SimulatedPortal
from pipelines.simulator import faults as fault
from pipelines.stringeex.client import RetryPolicy, StringeeXClient
from pipelines.stringeex.request_budget import RequestBudget
from transforms.errors import ApiError, RetryableError, TransportError

LOGIN = {"STRINGEEX_EMAIL": CREDENTIALS.email, "STRINGEEX_PASSWORD": CREDENTIALS.password}
ONCE = RetryPolicy(attempts=1, attempts_unreached=1)
WINDOW = {"time": "1767546000000-1767632399999", "version": "2"}
CALL_ID = "call-vn-1-AAAAAAAAAA-1767546000001"


def client_of(base_url="http://127.0.0.1:9", **options):
    settings = load_settings(None, overrides={"STRINGEEX_BASE_URL": base_url, **LOGIN})
    return StringeeXClient(settings, budget=RequestBudget([]), retry=ONCE, **options)


def answered(body, operation="history"):
    """What the client makes of ``body``."""

    def answer(request):
        is_login = request.url.path.endswith("/account")
        return httpx.Response(200, content=b'{"r":0,"portals":[{"auth_token":"a"}]}' if is_login else body)

    with client_of(transport=httpx.MockTransport(answer)) as client:
        return client.request(operation, params=WINDOW)


@pytest.mark.parametrize("form", ["float", "text", "text_float", "false", "true", "null", "missing"])
def test_a_success_whose_code_is_no_integer_counted_as_an_error(form):
    portal = Portal(options=PortalOptions(rate_limits=NO_LIMITS), faults=[fault.CodeAs(form=form)])
    portal.add_call({"id": CALL_ID, "start_time": 1767546000001})
    with SimulatedPortal(portal) as server, client_of(server.base_url) as client:
        assert client.request("history", params=WINDOW)["totalCount"] == 1
    assert portal.counts["history"] == 1


@pytest.mark.parametrize("form", ["float", "text", "text_float"])
def test_a_zero_of_any_type_is_success_without_data_too(form):
    with (
        SimulatedPortal(Portal(faults=[fault.CodeAs(operation="account", form=form)])) as server,
        client_of(server.base_url) as client,
    ):
        assert client.request("history", params=WINDOW)["totalCount"] == 0


@pytest.mark.parametrize("r", [b"5.0", b'"5"', b'" 5.0 "', b"5"])
def test_a_code_that_is_no_zero_is_an_error_in_any_type(r):
    with pytest.raises(ApiError, match="r=5, no match") as caught:
        answered(b'{"r":%s,"msg":"no match","data":{"totalCount":1,"rows":[{"id":"a"}]}}' % r)
    assert caught.value.r == 5


@pytest.mark.parametrize("r", [b"null", b"false", b"true", b'""', b'"ok"', b"0.5", b"[]"])
@pytest.mark.parametrize("data", [b"", b',"data":null', b',"data":{"totalCount":0,"rows":[]}', b',"data":[1]'])
def test_without_a_code_an_answer_that_says_nothing_is_none(r, data):
    with pytest.raises(TransportError, match="without the envelope"):
        answered(b'{"r":%s,"msg":"Success"%s}' % (r, data))


@pytest.mark.parametrize("r", [b"false", b"null", b"true"])
def test_a_change_of_the_world_without_a_code_is_not_called_done(r):
    with pytest.raises(RetryableError, match="without the envelope"):
        answered(b'{"r":%s,"msg":"failed"}' % r, "stop")
