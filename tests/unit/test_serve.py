"""The HTTP server answers like the predictor, refuses what is wrong by name, and stops without losing a request."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.cli import _parser
from pipeline.config.release import ServingConfig
from pipeline.errors import ConfigError, SecurityError, ServiceError
from pipeline.inference.predictor import Predictor
from pipeline.inference.request import Refusal, parse_rows
from pipeline.inference.serve import Server, refuse_public, run
from tests.conftest import REPOSITORY
from tests.serving import ask, predict, serving
from tests.small_model import FEATURES, raw_rows, small_dataset, small_model

GOOD = {"amount": 3.5, "colour": "red", "when": "2024-05-31T12:00:00Z", "paid": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    dataset = small_dataset(str(tmp_path_factory.mktemp("data")), 400)
    return small_model(str(tmp_path_factory.mktemp("model")), dataset)


@pytest.fixture(scope="module")
def predictor(folder):
    return Predictor.load(folder)


@pytest.fixture
def server(predictor):
    with serving(predictor, max_rows=50, max_body_bytes=20_000, request_seconds=1.0) as server:
        yield server


def test_health_says_ready_and_which_model(server, predictor):
    status, body, headers = ask(server)
    assert status == 200
    assert body["ready"] is True
    assert body["model"]["sha256"] == predictor.digest
    assert headers["X-Model-Version"] == predictor.digest[:12]


def test_predictions_are_bit_equal_to_the_predictors(server, predictor):
    rows = raw_rows(50, 5).drop(columns="id")
    sent = json.loads(rows.to_json(orient="records", date_format="iso", date_unit="us", double_precision=15))
    received = pd.DataFrame(sent, dtype=object)
    status, body, _ = predict(server, sent)
    assert status == 200
    expected = predictor.predict(received)
    assert [answer["prediction"] for answer in body["predictions"]] == expected["prediction"].tolist()
    assert np.array_equal(np.float32([a["probability"] for a in body["predictions"]]), expected["probability"])


def test_null_is_a_missing_value_and_an_unseen_category_is_not(server):
    status, body, _ = predict(server, [{**GOOD, "colour": None}, {**GOOD, "colour": "mauve"}])
    assert status == 200
    assert body["predictions"][0]["probability"] != body["predictions"][1]["probability"]


def test_no_rows_give_no_predictions(server):
    assert predict(server, [])[1]["predictions"] == []


def test_all_wrong_columns_and_values_are_named_with_their_rows(server):
    missing = {name: value for name, value in GOOD.items() if name != "paid"}
    status, body, _ = predict(
        server, [GOOD, {**missing, "Paid": True}, {**GOOD, "amount": "many", "when": "yesterday"}]
    )
    assert status == 422
    assert body["problems"] == [
        {"row": 1, "column": "paid", "problem": "is missing; expected true or false or null"},
        {"row": 1, "column": "Paid", "problem": "is not a column of the model"},
        {"row": 2, "column": "amount", "problem": 'is "many"; expected a finite number or null'},
        {
            "row": 2,
            "column": "when",
            "problem": 'is "yesterday"; expected a timestamp like 2024-05-31T12:00:00Z or null',
        },
    ]


@pytest.mark.parametrize("body", ["[]", json.dumps(GOOD), json.dumps({"rows": [[1, "red", None, True]]})])
def test_a_body_of_another_form_is_told_the_columns_of_a_row(server, body):
    status, answer, _ = ask(server, "POST", "/predict", body, {"Content-Type": "application/json"})
    assert (status, answer["error"].endswith("with the columns amount, colour, when, paid")) == (400, True), answer


def test_of_many_columns_the_first_are_named_and_the_rest_counted():
    with pytest.raises(Refusal, match=r"; expected c0, c1, .*, c29 and 70 more$"):
        parse_rows(b'{"rows": [{}]}', {f"c{number}": "number" for number in range(100)}, 10)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ("", 400, "not JSON"),
        ("[1]", 400, "another form"),
        ('{"rows": [], "debug": 1}', 400, "another form"),
        ('{"rows": [1]}', 400, "not an object"),
        ('{"rows": [{"amount": NaN}]}', 400, "NaN is no JSON"),
        ('{"rows": [{"amount": -Infinity}]}', 400, "Infinity is no JSON"),
        ('{"rows": [], "rows": []}', 400, "given twice"),
        ("[" * 5000, 400, "nested too deeply"),
        (b'{"rows": "\xff"}', 400, "not UTF-8"),
        (json.dumps({"rows": [GOOD] * 51}), 413, "expected at most 50"),
        (json.dumps({"rows": [{**GOOD, "colour": "x" * 30_000}]}), 413, "expected at most 20000"),
        (json.dumps({"rows": [{**GOOD, "amount": 10**400}]}), 422, "wrong"),
        ('{"rows": [{"amount": 1e999, "colour": null, "when": null, "paid": null}]}', 422, "wrong"),
        (json.dumps({"rows": [{**GOOD, "paid": 1}]}), 422, "wrong"),
        (json.dumps({"rows": [{**GOOD, "colour": ["red"]}]}), 422, "wrong"),
    ],
)
def test_what_is_wrong_with_a_body_is_said_without_a_traceback(server, body, status, words):
    actual, answer, _ = ask(server, "POST", "/predict", body, {"Content-Type": "application/json"})
    assert (actual, words in json.dumps(answer)) == (status, True), answer
    assert "Traceback" not in json.dumps(answer)
    assert ask(server)[0] == 200


def test_other_paths_and_methods_are_refused(server):
    assert ask(server, "GET", "/")[0] == 404
    assert ask(server, "GET", "/predict")[0] == 405
    assert ask(server, "POST", "/health", "{}")[2]["Allow"] == "GET"
    assert ask(server, "DELETE", "/predict")[0] == 501
    assert ask(server, "POST", "/predict", "a=1", {"Content-Type": "application/x-www-form-urlencoded"})[0] == 415


def raw(server, data: bytes, wait: float = 5.0) -> bytes:
    with socket.create_connection(server.server_address, timeout=wait) as connection:
        connection.sendall(data)
        received = b""
        with contextlib.suppress(TimeoutError, ConnectionError):
            while part := connection.recv(65536):
                received += part
        return received


def test_a_body_without_length_is_refused(server):
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\n"
    assert b" 411 " in raw(server, head + b"\r\n")
    assert b" 411 " in raw(server, head + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
    assert b" 411 " in raw(server, head + b"Content-Length: -5\r\n\r\n")
    assert b" 413 " in raw(server, head + b"Content-Length: 99999999999999999999999\r\n\r\n")


def test_garbage_instead_of_http_is_survived(server):
    for data in (b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"X" * 70_000 + b"\r\n\r\n"):
        raw(server, data)
    assert ask(server)[0] == 200


def test_a_client_that_trickles_is_cut_off_in_time(server):
    started = time.monotonic()
    with socket.create_connection(server.server_address, timeout=10) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
        with contextlib.suppress(OSError):
            while time.monotonic() - started < 30:
                connection.sendall(b" ")
                time.sleep(0.2)
                connection.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    if b" 408 " in connection.recv(4096):
                        break
                connection.settimeout(10)
    assert time.monotonic() - started < 20
    assert ask(server)[0] == 200


def test_a_client_that_stops_in_the_middle_gets_a_timeout(server):
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"
    assert b" 408 " in raw(server, head)


def slow(predictor, monkeypatch, seconds: float) -> None:
    original = predictor.predict
    monkeypatch.setattr(predictor, "predict", lambda rows: (time.sleep(seconds), original(rows))[1])


def test_beyond_its_concurrency_the_server_says_503_and_when_to_retry_but_stays_healthy(predictor, monkeypatch):
    with serving(predictor, max_concurrency=2) as server:
        slow(predictor, monkeypatch, 1.0)
        answers: list = []
        threads = [threading.Thread(target=lambda: answers.append(predict(server, [GOOD]))) for _ in range(8)]
        for thread in threads:
            thread.start()
        time.sleep(0.4)
        assert ask(server)[0] == 200
        for thread in threads:
            thread.join()
    statuses = sorted(status for status, _, _ in answers)
    assert statuses.count(200) >= 2
    assert set(statuses) == {200, 503}
    assert {headers["Retry-After"] for status, _, headers in answers if status == 503} == {"1"}


def test_an_error_inside_shows_a_number_and_no_more(predictor, monkeypatch):
    def broken(rows):
        raise RuntimeError("secret path /home/me")

    with serving(predictor) as server:
        monkeypatch.setattr(predictor, "predict", broken)
        status, body, _ = predict(server, [GOOD])
    assert status == 500
    assert set(body) == {"error", "id"}
    assert body["error"] == "internal error"


def test_a_port_in_use_is_a_service_error(predictor):
    wanted = pytest.raises(ServiceError, match=r"is not available.*choose another port")
    with socket.create_server(("127.0.0.1", 0)) as other, wanted as caught:
        Server(predictor, ServingConfig(port=other.getsockname()[1]))
    assert caught.value.code == 69


def test_a_host_that_nobody_knows_is_named(predictor, monkeypatch):
    def unknown(_):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(Server, "server_bind", unknown)
    config = ServingConfig(host="nohost.invalid", public=True)
    with pytest.raises(ServiceError, match=r"serving\.host nohost\.invalid is not known: .*; expected an address"):
        Server(predictor, config)


def test_a_port_that_is_none_is_a_wrong_configuration(folder):
    with pytest.raises(ConfigError, match=r"serving\.port is 99999; expected at most 65535"):
        run(folder, port=99999)


def test_the_image_starts_the_server_that_may_be_public():
    lines = (REPOSITORY / "docker" / "Dockerfile.serve").read_text().splitlines()
    words = {line.split()[0]: json.loads(line.partition(" ")[2]) for line in lines if line.startswith(("ENTRY", "CMD"))}
    options = _parser().parse_args(words["CMD"])
    assert words["ENTRYPOINT"] == ["pipeline"]
    assert (options.verb, options.host, options.port) == ("serve", "0.0.0.0", 8080)
    refuse_public(ServingConfig(host=options.host, port=options.port, public=options.public))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.1", "example.org"])
def test_a_public_address_needs_to_be_allowed(predictor, host):
    with pytest.raises(SecurityError, match="which other machines can reach"):
        Server(predictor, ServingConfig(host=host, port=0))


def test_a_model_that_predicts_nonsense_never_starts(predictor, monkeypatch):
    monkeypatch.setattr(predictor, "predict_encoded", lambda inputs: np.full(1, np.nan, np.float32))
    with pytest.raises(Exception, match="predicts nan"):
        Server(predictor, ServingConfig(port=0))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["terminated", "Ctrl-C"])
def test_a_server_that_is_told_to_end_finishes_what_it_was_asked_and_exits_with_0(folder, tmp_path, number):
    code = (
        "import logging, sys, time; logging.basicConfig(level='INFO', stream=sys.stdout, format='%(message)s')\n"
        "from pipeline.inference import serve, predictor\n"
        "ready, original = [], predictor.Predictor.predict\n"
        "def slow(self, rows):\n"
        "    if len(rows) == 2:\n"
        "        sys.stdout.write('asked\\n')\n"
        "        time.sleep(1.0)\n"
        "    return original(self, rows)\n"
        "predictor.Predictor.predict = slow\n"
        f"serve.run({folder!r}, port=0)\n"
    )
    process = subprocess.Popen([sys.executable, "-uc", code], stdout=subprocess.PIPE, text=True, env={**os.environ})
    try:
        address = process.stdout.readline().strip().rsplit("//", 1)[1].split(":")
        asked = type("Address", (), {"server_address": (address[0], int(address[1]))})
        answers: list = []
        threads = [threading.Thread(target=lambda: answers.append(predict(asked, [GOOD, GOOD]))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in threads:
            assert process.stdout.readline() == "asked\n"
        process.send_signal(number)
        for thread in threads:
            thread.join()
        assert [status for status, _, _ in answers] == [200] * 4
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_serving_loads_none_of_the_big_libraries():
    code = "import sys, pipeline.inference.serve; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"pyspark", "horovod", "petastorm", "mlflow", "sklearn"} & set(loaded)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
row_values = st.dictionaries(st.sampled_from([*GOOD, "x"]), json_values)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.binary(max_size=60)
    | json_values.map(lambda value: json.dumps(value).encode())
    | st.lists(row_values, max_size=3).map(lambda rows: json.dumps({"rows": rows}).encode())
)
def test_any_body_is_either_rows_that_can_be_predicted_or_refused(predictor, body):
    try:
        rows = parse_rows(body, FEATURES.inputs, 10)
    except Refusal as refusal:
        rows, status = None, refusal.status
        json.dumps(refusal.body)
    if rows is None:
        assert status in (400, 413, 422)
    else:
        assert len(predictor.predict(rows)) == len(rows)


def test_vectors_and_lists_of_categories_come_as_json_lists() -> None:
    inputs = {"pixels": "vector", "tags": "strings"}
    frame = parse_rows(b'{"rows": [{"pixels": [1, 2.5], "tags": ["a"]}, {"pixels": null, "tags": []}]}', inputs, 10)
    assert frame["pixels"].tolist() == [[1, 2.5], None]
    assert frame["tags"].tolist() == [["a"], []]
    with pytest.raises(Refusal) as refused:
        parse_rows(b'{"rows": [{"pixels": [1, "x"], "tags": "a"}]}', inputs, 10)
    assert [problem["column"] for problem in refused.value.body["problems"]] == ["pixels", "tags"]
