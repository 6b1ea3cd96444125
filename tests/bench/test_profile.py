"""From samples to the cost of one request by part of the service, and its pictures."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from bench import flame, folded, profile

LOOP = "Hub.run (gevent/hub.py:600)"
REQUEST = f"{LOOP};SSEWorker.handle (sse/worker/worker.py:240);Connection.requests (sse/worker/connection.py:150)"
FLASK = f"{REQUEST};SSEWorker._answer (sse/worker/worker.py:290);Flask.wsgi_app (flask/app.py:1500)"
VIEW = f"{FLASK};publish_one (sse/web/routes.py:49)"

SAMPLES = [
    pytest.param(f"{LOOP}", folded.LOOP, id="the loop itself"),
    pytest.param("main (somewhere.py:1)", folded.OTHER, id="nothing known"),
    pytest.param(f"{REQUEST};Parser.parse (gunicorn/http/parser.py:9)", "parse: connection, header, body", id="header"),
    pytest.param(f"{REQUEST};Reader.chunk (sse/worker/reader.py:36)", "parse: connection, header, body", id="reading"),
    pytest.param(f"{REQUEST};HeadMemory.look (sse/worker/head_memory.py:220)", "parse: connection, header, body", id="a known header"),
    pytest.param(f"{FLASK.rpartition(';')[0]};create (sse/worker/head_memory.py:140)", "environ", id="a known environ"),
    pytest.param(f"{FLASK};Response.write (sse/worker/response.py:111)", "answer: head, body, send", id="answering"),
    pytest.param(f"{FLASK}", "Flask: context, routing, response", id="Flask"),
    pytest.param(f"{VIEW};dumps (json/__init__.py:183)", "view: publish or stream", id="json on behalf of the view"),
    pytest.param(f"{FLASK};publish_event (sse/web/publishing.py:45)", "view: publish or stream", id="the fast path's view"),
    pytest.param(f"{VIEW};SQLiteLog.append (sse/log/sqlite/engine.py:125)", "log append", id="append"),
    pytest.param(f"{VIEW};Authenticator.grant (sse/auth/authenticator.py:9)", "auth and limits", id="auth"),
    pytest.param(
        f"{LOOP};Tailer.run (sse/streams/tailer.py:80);SQLiteLog.follow (sse/log/sqlite/engine.py:274);_page (sse/log/sqlite/engine.py:372)",
        "tailer: read the log, dispatch",
        id="tailing",
    ),
    pytest.param(f"{LOOP};Fanout._write_all (sse/fanout/passes.py:174)", "fan-out: pass and write", id="writing"),
]


@pytest.mark.parametrize(("path", "group"), SAMPLES)
def test_a_sample_belongs_to_the_deepest_known_part(path: str, group: str) -> None:
    assert folded.group_of(folded.parse(f"{path} 1")[0]) == group


def test_the_shares_of_all_groups_add_up_to_one() -> None:
    stacks = folded.parse("\n".join(f"{sample.values[0]} {n + 1}" for n, sample in enumerate(SAMPLES)))
    assert sum(folded.shares(stacks).values()) == pytest.approx(1)


def test_hot_spots_separate_own_time_from_called_time() -> None:
    stacks = folded.parse(f"{VIEW} 1\n{VIEW};dumps (json/__init__.py:183) 3")
    own = {frame.name: (alone, inclusive) for frame, alone, inclusive in folded.hot_spots(stacks, 9)}
    assert own == {"dumps": (0.75, 0.75), "publish_one": (0.25, 1.0)}


def test_a_flame_graph_is_well_formed_and_joins_equal_callers() -> None:
    stacks = folded.parse(f"{VIEW};a<b> (x.py:1) 1\n{LOOP} 2\n{VIEW};c (x.py:1) 1")
    root = ElementTree.fromstring(flame.draw(stacks, "R & D"))
    names = [element.text for element in root.iter("{http://www.w3.org/2000/svg}title")]
    assert len([name for name in names if name and name.startswith("Hub.run")]) == 1
    assert any(name and name.startswith("a<b> (x.py), 25.0%") for name in names)


def test_frames_too_narrow_to_see_are_left_out() -> None:
    stacks = folded.parse("\n".join([f"{LOOP} 100000", *(f"{LOOP};f{n} (x.py:1) 1" for n in range(5000))]))
    assert len(flame.draw(stacks, "many")) < 5000


PERF = """# Overhead       Command  Shared Object         Symbol
#
    22.20%\tlibpython3.11.so.1.0  \t[.] _PyEval_EvalFrameDefault
     4.90%\t[kernel.kallsyms]     \t[k] tcp_sendmsg_locked

# (Tip: …)
"""


def test_perf_lines_are_parsed_into_kernel_and_user_symbols() -> None:
    symbols = profile.perf_symbols(PERF)
    assert [(symbol.name, symbol.in_kernel) for symbol in symbols] == [
        ("_PyEval_EvalFrameDefault", False),
        ("tcp_sendmsg_locked", True),
    ]
    assert symbols[1].share == pytest.approx(0.049)


def test_the_costs_of_a_request_are_shares_of_its_cpu_time() -> None:
    plain = {"publishes_per_second": 2000.0, "server_cpu": 1.0, "server_kernel": 0.2}
    sampled = {"publishes_per_second": 1900.0}
    stacks = folded.parse(f"{FLASK} 3\n{VIEW};SQLiteLog.append (sse/log/sqlite/engine.py:125) 1")
    text = profile.render(profile.MODES["publish"], plain, sampled, stacks, profile.perf_symbols(PERF))
    assert "500.00 µs of CPU time per publish request: 400.00 µs in user code, 100.00 µs in the kernel" in text
    assert "the rate was 95.0 % of that" in text
    assert "| Flask: context, routing, response | 75.0 % | 375 |" in text
    assert "| log append | 25.0 % | 125 |" in text
    assert "By perf, 4.9 % of the worker's samples were in the kernel" in text
