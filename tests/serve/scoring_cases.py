"""Requests to MLflow's scoring protocol and what the real server answers to them, which tests/platform compares."""

import json
from typing import Any, NamedTuple

import numpy as np

JSON = "application/json"
PARQUET = "application/vnd.apache.parquet"
BAD, UNFIT = "BAD_REQUEST", "INVALID_PARAMETER_VALUE"


class Case(NamedTuple):
    name: str
    body: bytes
    status: int
    code: str | None = None
    """Of MLflow's errors."""
    seen: tuple[int, ...] = ()
    """With 200: the answer is that to `pixels` of each of these."""
    content_type: str | None = JSON


def pixels(value: Any) -> list[list[Any]]:
    """[28][28]: a slope above, `value` in each of the rows below."""
    return [[8 * column for column in range(28)] for _ in range(14)] + [[value] * 28 for _ in range(14)]


def flat(value: Any) -> list[Any]:
    """[784]: the same."""
    return [pixel for row in pixels(value) for pixel in row]


def images(case: Case) -> np.ndarray[Any, Any]:
    """uint8 [N, 28, 28]: what the model is to see."""
    return np.array([pixels(value) for value in case.seen], np.uint8)


def ok(name: str, content: Any, *seen: int, content_type: str = JSON) -> Case:
    return Case(name, json.dumps(content).encode(), 200, None, seen, content_type)


def bad(name: str, content: Any, code: str = BAD) -> Case:
    return Case(name, content if isinstance(content, bytes) else json.dumps(content).encode(), 400, code)


def typed(content_type: str | None, status: int = 415, code: str | None = None) -> Case:
    seen = (7,) if status == 200 else ()
    return Case(f"type {content_type}", json.dumps({"inputs": [pixels(7)]}).encode(), status, code, seen, content_type)


P = pixels(7)
NAN = float("nan")
CASES = [
    ok("inputs", {"inputs": [P]}, 7),
    ok("instances", {"instances": [P, pixels(200)]}, 7, 200),
    *(ok(f"value {v!r}", {"inputs": [pixels(v)]}, s) for v, s in ((0.5, 0), (255.9, 255), (-0.5, 0), (True, 1))),
    *(ok(f"value {v!r}", {"instances": [pixels(v)]}, 7) for v in (7.0, "7", " 7")),
    *(bad(f"value {v!r}", {"inputs": [pixels(v)]}) for v in (300, -1, 300.0, -1.0, 1 << 64, 10**30, 1e300, NAN)),
    *(bad(f"value {v!r}", {"instances": [pixels(v)]}) for v in (None, "x", "", "1.5", "300", {}, [], [1])),
    *(bad(f"whole {v!r}", {"inputs": v}) for v in (None, {}, {"images": [P]}, "x", [None], ["x"], 300)),
    *(bad(f"whole {v!r}", {"inputs": v}, UNFIT) for v in ([], [[]], 5, 5.5, True, "5", [{}], [{"images": P}])),
    bad("one image", {"inputs": P}, UNFIT),
    bad("flat", {"inputs": flat(7)}, UNFIT),
    bad("flat batch", {"instances": [flat(7)]}, UNFIT),
    bad("27 rows", {"inputs": [P[1:]]}, UNFIT),
    bad("four dimensions", {"inputs": [[P]]}, UNFIT),
    bad("ragged", {"inputs": [P, P[:5]]}),
    bad("objects of lists nested unevenly", {"inputs": [{"a": [[1], [2, 3]]}]}),
    bad("objects and a number", {"instances": [{}, 1]}),
    bad("objects with other names", {"instances": [{"a": 1}, {"a": 1}, {"b": 1}]}),
    bad("objects of other shapes", {"instances": [{"a": 1}, {"a": [1]}]}),
    bad("objects", {"instances": [{"a": 1}, {"a": 2}]}, UNFIT),
    bad("65 deep", b'{"inputs":' + b"[" * 65 + b"]" * 65 + b"}"),
    bad("64 deep", b'{"inputs":' + b"[" * 64 + b"]" * 64 + b"}", UNFIT),
    *(bad(f"body {b!r}", b) for b in (b"", b"{", b"[]", b"5", b"null", b'"a"', b"\xff", b'{"inputs":"\xe4"}', b"NaN")),
    bad("no field", {}),
    bad("an unknown field", {"x": [P]}),
    bad("two fields", {"inputs": [P], "instances": [P]}),
    ok("a further field", {"inputs": [P], "x": 1}, 7),
    ok("NaN in a further field", {"inputs": [P], "x": NAN}, 7),
    *(ok(f"params {v!r}", {"inputs": [P], "params": v}, 7) for v in ({"a": 1}, 5, None)),
    bad("for a language model", {"inputs": [P], "messages": []}, UNFIT),
    Case("UTF-16", json.dumps({"inputs": [P]}).encode("utf-16"), 200, None, (7,)),
    ok("split", {"dataframe_split": {"columns": ["a"], "data": [[flat(7)], [flat(0.5)]]}}, 7, 0),
    ok("split without columns", {"dataframe_split": {"data": [[flat("7")]]}}, 7),
    bad("split, two columns", {"dataframe_split": {"data": [[flat(7), flat(7)]]}}, UNFIT),
    bad("split, 784 columns", {"dataframe_split": {"data": [flat(7)]}}, UNFIT),
    bad("split, images", {"dataframe_split": {"data": [[P]]}}, UNFIT),
    bad("split, 783", {"dataframe_split": {"data": [[flat(7)[1:]]]}}, UNFIT),
    bad("split, text", {"dataframe_split": {"data": [["x"]]}}),
    bad("split, other columns", {"dataframe_split": {"columns": ["a"], "data": [[1, 2]]}}),
    bad("split, a further field", {"dataframe_split": {"data": [[flat(7)]], "x": 1}}),
    *(bad(f"split {v!r}", {"dataframe_split": v}) for v in ([], 5, None, {}, {"data": "x"})),
    ok("records", {"dataframe_records": [{"a": flat(7)}, {"a": flat(9)}]}, 7, 9),
    ok("records as lists", {"dataframe_records": [[flat(7)]]}, 7),
    bad("records, scalars", {"dataframe_records": [{"a": 1}]}, UNFIT),
    bad("records, one without", {"dataframe_records": [{"a": flat(7)}, {}]}, UNFIT),
    bad("records, the first without", {"dataframe_records": [{}, {"a": flat(7)}]}),
    *(bad(f"records {v!r}", {"dataframe_records": v}) for v in ({}, 5, None, "x", [{"a": [1]}, 1], [None])),
    *(bad(f"records {v!r}", {"dataframe_records": v}, UNFIT) for v in ([], [{}], [1])),
    *(typed(t, 200) for t in ("application/json; charset=utf-8", "application/json;charset=UTF-8")),
    *(
        typed(t)
        for t in ("application/json;", 'application/json; charset="utf-8"', "application/json; charset=latin-1")
    ),
    *(typed(t) for t in ("application/json; x=1", "Application/JSON", "text/plain", "", "text/csv; charset=ascii")),
    typed("text/csv", 400, BAD),
    typed(PARQUET, 400, BAD),
    Case("CSV of an image", ",".join(map(str, range(784))).encode(), 400, BAD, (), "text/csv"),
]

DIFFERENT = [
    (typed(None), 500),
    (bad("nested too deeply", b'{"inputs":' + b"[" * 5000 + b"]" * 5000 + b"}"), 500),
    (bad("a number too long", b'{"inputs":' + b"9" * 5000 + b"}"), 500),
    (bad("300 in a frame", {"dataframe_split": {"data": [[flat(300)]]}}, UNFIT), 200),
    (bad("NaN in a frame", {"dataframe_records": [{"a": flat(NAN)}]}, UNFIT), 200),
    (ok("an index", {"dataframe_split": {"data": [[flat(7)]], "index": [3]}}, 7), 400),
    (bad("an object of columns", {"dataframe_split": {"data": {"a": [flat(7)]}}}), 200),
]
"""What the service answers, and the status of the real server, where they differ; why, says fmnist.serve.scoring."""
