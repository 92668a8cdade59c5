"""The addresses, who may call them, and a tab's websocket."""

import base64
import contextlib
import json
import os

import numpy as np
import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

import hcrot
from hcrot.commands import main
from hcrot.files.json_and_arrays import write_json
from hcrot.files.wishes import pictures_asked_for, rate_asked_for, stop_asked_for
from hcrot.pipelines.cascade import cascade
from hcrot.samplers import sampler_of
from hcrot.view import draw
from hcrot.view.messages import pack
from hcrot.view.runs import Tail
from hcrot.view.server import create_app
from support.view_runs import save_two_networks

COLUMN = {"sampler": "ddim", "steps": 2, "guidance": 1.5, "seed": 0}
DRAW = {"do": "draw", "network": "digits", "labels": [3, None], "columns": [COLUMN]}


def answers(socket, message, last=("done", "error", "answer", "cancelled")):
    """Everything that is sent back for one message."""
    socket.send_text(message if isinstance(message, str) else json.dumps({"id": 1, **message}))
    found = [socket.receive_json()]
    while found[-1]["kind"] not in last:
        found.append(socket.receive_json())
    return found


def test_the_page_and_its_parts(client):
    page = client.get("/")
    assert "hcrot" in page.text and "default-src 'self'" in page.headers["content-security-policy"]
    assert client.get("/page/main.js").status_code == client.get("/page/style.css").status_code == 200


@pytest.mark.parametrize("path", [
    "/page/..%2fserver.py", "/page/../server.py", "/page/index.html.py", "/page/%2e%2e", "/runs/a/config.json",
    "/runs/a/..%2f..%2fsecret.png", "/runs/../secret.png", "/runs/%2e%2e/secret.png",
    "/runs/./secret.png", "/runs/a/link.png", "/runs/out/secret.png", "/runs/a/x%00.png",
])  # fmt: skip
def test_no_file_outside_is_served(client, runs, tmp_path, path):
    (runs / "a").mkdir()
    (tmp_path / "secret.png").write_bytes(b"secret")
    (runs / "secret.png").write_bytes(b"secret")
    (runs / "a" / "config.json").write_text("{}")
    (runs / "a" / "samples.png").write_bytes(b"picture")
    (runs / "a" / "link.png").symlink_to(tmp_path / "secret.png")
    (runs / "out").symlink_to(tmp_path)
    assert client.get("/runs/a/samples.png").content == b"picture"
    answer = client.get(path)
    assert answer.status_code == 404 and b"secret" not in answer.content


def test_only_who_knows_the_token_is_let_in(runs):
    with TestClient(create_app(runs, ["digits"], token="abc"), base_url="http://localhost") as client:
        for path in ("/", "/?token=abd", "/page/main.js"):
            assert client.get(path).status_code == 403
        with pytest.raises(WebSocketDisconnect), client.websocket_connect("ws://localhost/ws"):
            pass
        assert client.get("/?token=abc").status_code == 200
        assert client.get("/page/main.js").status_code == 200  # by the cookie
        with client.websocket_connect("ws://localhost/ws") as socket:
            assert answers(socket, {"do": "runs"})[0]["runs"] == []


def test_pages_of_other_servers_are_kept_out(client):
    assert client.get("/", headers={"host": "evil.example"}).status_code == 403
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("ws://localhost/ws", headers={"origin": "http://evil.example"}):
        pass
    with client.websocket_connect("ws://localhost/ws", headers={"origin": "http://localhost"}) as socket:
        assert answers(socket, {"do": "runs"})[0]["kind"] == "answer"


@pytest.mark.parametrize(("message", "words"), [
    ("{", "Expecting"), ("[1]", "a message must be a JSON object, got list"), ('{"id": 1}', "do must be one of cancel, draw"),
    ('{"id": -1, "do": "runs"}', "id must be a number from 0"), ({"do": "runs", "lane": 3}, "lane must be a text"),
    ("x" * 200_001, "a message may have 200,000 characters"), (DRAW | {"network": "../digits"}, "network must be one of digits"),
    (DRAW | {"labels": [12]}, "labels must be classes from 0 to 10"), (DRAW | {"columns": [COLUMN | {"steps": 1001}]}, "steps must be"),
    (DRAW | {"columns": [COLUMN | {"sampler": "magic"}]}, "sampler must be one of ddpm"), (DRAW | {"columns": []}, "columns must be"),
    ({"do": "look", "network": "digits", "labels": [3], "seed": 0, "t": 1000}, "t must be a number from 0 to 999"),
    ({"do": "break", "defect": "sign", "layer": "nowhere", "steps": 1, "seed": 0, "lr": 0.1}, "layer must be one of"),
    ({"do": "start", "name": "../a", "data": "digits"}, "name must be letters"),
    ({"do": "start", "name": "a", "data": "/etc"}, "data must be one of"),
    ({"do": "follow", "name": "..", "lines": 0}, "there is no run"),
    ({"do": "stop", "name": "a"}, "there is no run"),
])  # fmt: skip
def test_bad_input_gets_a_message(client, message, words):
    with client.websocket_connect("ws://localhost/ws") as socket:
        last = answers(socket, message)[-1]
        assert last["kind"] == "error" and words in last["message"]
        assert answers(socket, {"do": "runs"})[0]["kind"] == "answer"  # the tab is still there


def test_a_drawing_comes_step_by_step(client):
    with client.websocket_connect("ws://localhost/ws") as socket:
        found = answers(socket, DRAW | {"columns": [COLUMN, COLUMN | {"sampler": "euler", "steps": 3}]})
    steps = [(message["column"], message["step"]) for message in found if message["kind"] in ("step", "picture")]
    assert steps == [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2), (1, 3)]
    assert found[-1]["kind"] == "done" and found[1]["x"]["shape"] == found[1]["x0"]["shape"] == [2, 1, 14, 14]


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "pndm", "dpmsolver++", "sde-dpmsolver++", "unipc", "euler", "heun"])
def test_every_sampler_shows_the_end_that_is_predicted(client, sampler):
    """Half way x_t is mostly noise; what is predicted is nearly black and white, as digits are."""
    with client.websocket_connect("ws://localhost/ws") as socket:
        found = answers(socket, DRAW | {"columns": [COLUMN | {"sampler": sampler, "steps": 8}]})
    middle = [message for message in found if message["kind"] == "step" and 300 < message["t"] < 600][0]
    x, x0 = (np.frombuffer(base64.b64decode(middle[name]["data"]), np.uint8) for name in ("x", "x0"))
    assert np.mean((x0 < 40) | (x0 > 215)) > 0.6 > np.mean((x < 40) | (x > 215))


def test_a_tab_that_goes_or_asks_anew_ends_its_drawing(client, monkeypatch):
    drawn = []
    frame = draw.Predictions.frame
    monkeypatch.setattr(draw.Predictions, "frame", lambda self, *of: drawn.append(1) or frame(self, *of))
    long = DRAW | {"columns": [COLUMN | {"sampler": "ddpm", "steps": 1000}]}
    with client.websocket_connect("ws://localhost/ws") as socket:
        answers(socket, long, last=("step",))
    with client.websocket_connect("ws://localhost/ws") as socket:
        answers(socket, long, last=("step",))
        found = answers(socket, DRAW | {"id": 2})
        assert "cancelled" in [message["kind"] for message in found if message["id"] == 1]
        while found[-1]["kind"] != "done":
            found.append(socket.receive_json())
    assert found[-1]["id"] == 2 and len(drawn) < 1000


def command(*words):
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return ended.value.code


def test_the_command_refuses_in_one_sentence(monkeypatch, capsys, tmp_path):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert command("view", "--port", taken.getsockname()[1]) == 2
    assert "another program listens there, try --port 0" in capsys.readouterr().err
    assert command("view", "--port", 70000) == 2
    assert "expected a number up to 65535" in capsys.readouterr().err
    assert command("view", "--data", tmp_path / "nowhere") == 2
    assert "there is no folder" in capsys.readouterr().err
    monkeypatch.setitem(__import__("sys").modules, "uvicorn", None)
    assert command("view") == 2
    assert capsys.readouterr().err.strip().endswith('pip install "hcrot[view]"')


def test_what_is_no_address_or_no_name_is_refused_in_a_sentence(client):
    assert client.get("/", headers={"host": "["}).status_code == 403
    assert client.get(f"/runs/{'a' * 300}/samples.png").status_code == 404


def test_a_damaged_run_and_a_message_that_fails_leave_the_page_whole(client, runs):
    folder = runs / "half" / "checkpoint"
    folder.mkdir(parents=True)
    for name in ("config.json", "scheduler_config.json"):
        (folder / name).write_text('{"sample_size": 8}')
    (runs / "half" / "classes.json").write_text("{")
    with client.websocket_connect("ws://localhost/ws") as socket:
        assert [network["name"] for network in answers(socket, {"do": "about"})[0]["networks"]] == ["digits"]
        socket.send_text("[" * 100_000)
        assert socket.receive_json()["kind"] == "error"
        assert answers(socket, {"do": "runs"})[0]["kind"] == "answer"


def test_a_run_that_was_started_elsewhere_is_stopped_and_changed_by_wishes(client, runs):
    run = runs / "far"
    run.mkdir(parents=True)
    for name, text in (("metrics.jsonl", ""), (".lock", "1"), ("config.json", '{"learning_rate": 0.001}')):
        (run / name).write_text(text)
    with client.websocket_connect("ws://localhost/ws") as socket:
        assert "no run of hcrot train" in answers(socket, {"do": "stop", "name": "far"})[0]["message"]
        write_json(run / "config.json", {"learning_rate": 0.001, "ddpm_num_steps": 1000})
        assert answers(socket, {"do": "follow", "name": "far", "lines": 0})[0]["lr"] == 0.001
        assert answers(socket, {"do": "change", "name": "far", "lr": 3e-4})[0]["kind"] == "answer"
        assert "lr must be a number from" in answers(socket, {"do": "change", "name": "far", "lr": 2})[0]["message"]
        assert answers(socket, {"do": "stop", "name": "far"})[0]["kind"] == "answer"
        assert not pictures_asked_for(run), "the last ones are young"
        for name in ("config.json", "samples.png"):
            (run / "samples.png").touch()
            os.utime(run / name, (0, 0))
        answers(socket, {"do": "follow", "name": "far", "lines": 0})
        assert pictures_asked_for(run)
        assert rate_asked_for(run) == 3e-4 and stop_asked_for(run) and not stop_asked_for(run)
        os.utime(run / "metrics.jsonl", (0, 0))
        assert "far has ended" in answers(socket, {"do": "change", "name": "far", "lr": 3e-4})[0]["message"]


def test_of_a_run_of_two_networks_the_second_enlarges(client, runs):
    save_two_networks(runs / "two")
    (runs / "two" / "small" / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n')
    with client.websocket_connect("ws://localhost/ws") as socket:
        [_, network] = answers(socket, {"do": "about"})[0]["networks"]
        assert (network["name"], network["size"], network["channels"], network["times"]) == ("two", 8, 1, 200)
        assert network["enlarged"] == 16
        found = answers(socket, {"do": "draw", "network": "two", "count": 2, "columns": [COLUMN | {"guidance": 1}]})
        assert found[-1]["kind"] == "done", found
        frames = [message for message in found if message["kind"] in ("step", "picture")]
        assert [frame["step"] for frame in frames] == [0, 1, 2, 3, 4]
        assert [frame.get("second", False) for frame in frames] == [False, False, True, True, False]
        assert [frame["x"]["shape"] for frame in frames] == [[2, 1, 8, 8]] * 2 + [[2, 1, 16, 16]] * 3
        pairs = [hcrot.pipelines.load(runs / place / "checkpoint") for place in ("two/small", "two")]
        both = [(model.eval(), sampler_of("ddim", scheduler)) for model, scheduler in pairs]
        drawn = cascade(*both, generator=[np.random.default_rng([0, k]) for k in range(2)], num_inference_steps=2, progress=False)
        assert frames[-1]["x"] == pack(drawn)
        picture, hole = (base64.b64encode(pixels).decode() for pixels in (bytes(64), bytes([0] * 32 + [255] * 32)))
        asked = {"network": "two", "steps": 2, "guidance": 1, "seed": 0, "sampler": "ddim", "level": 100, "count": 3,
                 "picture": picture, "hole": hole}  # fmt: skip
        for doing, other, steps in (("finish", {}, 4), ("fill", {}, None), ("morph", {"other_seed": 1}, None), ("pick", {}, 0)):
            found = answers(socket, {"do": doing, **asked, **other})
            assert found[-1]["kind"] == "done", found
            assert found[-2]["images"]["shape"] == ([1, 1, 8, 8] if doing == "pick" else [3, 1, 16, 16])
            assert steps is None or [message["kind"] for message in found].count("step") == steps
        (runs / "two" / "checkpoint" / "scheduler_config.json").rename(runs / "kept")  # as long as the first one learns
        assert answers(socket, {"do": "about"})[0]["networks"][1]["enlarged"] is None
        found = answers(socket, {"do": "draw", "network": "two", "count": 1, "columns": [COLUMN | {"guidance": 1}]})
        assert found[-2]["x"]["shape"] == [1, 1, 8, 8]
        assert answers(socket, {"do": "runs"})[0]["runs"][0]["name"] == "two"
        assert answers(socket, {"do": "follow", "name": "two", "lines": 0})[0]["last"]["loss"] == 0.5
        (runs / "two" / "metrics.jsonl").write_text('{"step": 1, "loss": 0.25}\n')
        assert answers(socket, {"do": "follow", "name": "two", "lines": 1})[0]["last"]["loss"] == 0.25
        os.utime(runs / "two" / "metrics.jsonl", (0, 0))  # the first one learns on
        for place, rate in ((runs / "two", 1e-3), (runs / "two" / "small", 2e-3)):
            write_json(place / "config.json", {"learning_rate": rate, "ddpm_num_steps": 1000})
        answer = answers(socket, {"do": "follow", "name": "two", "lines": 1})[0]
        assert answer["last"]["loss"] == 0.5 and answer["lr"] == 2e-3


def test_tabs_that_watch_share_what_was_read_and_one_that_reads_nothing_holds_up_nobody(client, runs, monkeypatch):
    (runs / "watched").mkdir()
    (runs / "watched" / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n' * 1000)
    added = []
    add = Tail.add
    monkeypatch.setattr(Tail, "add", lambda self, row: added.append(row) or add(self, row))
    watch = {"do": "follow", "name": "watched", "lines": 0}
    with contextlib.ExitStack() as stack:
        silent, *tabs = [stack.enter_context(client.websocket_connect("ws://localhost/ws")) for _ in range(5)]
        for number in range(300):
            silent.send_text(json.dumps({"id": number, **watch}))
        silent.send_text(json.dumps({"id": 300, **DRAW, "columns": [COLUMN | {"sampler": "ddpm", "steps": 1000}]}))
        for tab in tabs:
            assert answers(tab, watch)[-1]["curves"]["loss"][-1] == 0.5
        assert len(added) == 1000  # each line was taken in once
