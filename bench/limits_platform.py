"""How ten thousand runs in the platform's Postgres are borne, before and after MLflow's own gc.

make bench-limits-platform
make bench-limits-platform ARGS="--runs 300 --deleted 60"

A real run is made in the notebook's container, and its rows as often as it takes, under other ids.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from containers import Copy
from crowd import OLD, ONE_RUNS_TABLES, Ids, copies_of
from limits import ROUNDS, Times, asked, table
from results import keep, machine
from sqlalchemy.types import Integer, String

ROOT = Path(__file__).parents[1]
VERBS = {"models": "fmnist models", "doctor": "fmnist doctor", "gc": "fmnist gc (looks)"}
STORE = "postgresql+psycopg2://mlflow@postgres/mlflow?passfile=/run/mlflow/pgpass"
GC = ("mlflow", "gc", "--tracking-uri", "http://mlflow:5000", "--backend-store-uri", STORE, "--older-than", "7d")
PSQL = (
    *("psql", "--username", "postgres", "--dbname", "mlflow", "--no-psqlrc", "--set", "ON_ERROR_STOP=1"),
    *("--quiet", "--tuples-only", "--no-align", "--single-transaction", "--file", "-"),
)
CROWD = """CREATE TEMPORARY TABLE crowd AS SELECT
  number,
  md5(random()::text) AS run_uuid,
  'm-' || md5(random()::text) AS model_id,
  to_char(now() - number * interval '1 minute', 'YYYYMMDD-HH24MISS-') || substr(md5(random()::text), 1, 5) AS run_id
FROM generate_series(1, {count}) number;"""
DELETE = """CREATE TEMPORARY TABLE gone AS SELECT run_uuid, model_id FROM crowd WHERE number <= {deleted};
DELETE FROM model_version_tags WHERE version IN
  (SELECT version FROM model_versions WHERE run_id IN (SELECT run_uuid FROM gone));
DELETE FROM model_versions WHERE run_id IN (SELECT run_uuid FROM gone);
UPDATE runs SET lifecycle_stage = 'deleted', deleted_time = {moment},
  start_time = start_time - {old}, end_time = end_time - {old} WHERE run_uuid IN (SELECT run_uuid FROM gone);
ANALYZE;
SELECT * FROM gone;"""
LINKS = """cd /artifacts
declare -A places
while read -r source target; do
  from=${places[$source]:=$(find . -maxdepth 4 -type d -name "$source")}
  cp -al "$from" "${from%/*}/$target"
done"""
"""Artifacts of those that were deleted: the same files, under their names too."""


class Crowded(Copy):
    """The platform with many runs."""

    def ask(self, sql: str) -> list[list[str]]:
        """Rows. All of it is one transaction."""
        told = self.inside("postgres", *PSQL, given=sql)
        return [line.split("|") for line in told.splitlines()]

    def train_one(self) -> Ids:
        """The real run, of a few hundred images."""
        few = self.folder / "var" / "data" / "few"
        few.mkdir()
        for file in (ROOT / "tests" / "data").glob("*ubyte*"):
            shutil.copy2(file, few)
        train = ("fmnist", "train", "--batch-size", "64", "--data", "/workspace/var/data/few", "--json")
        told = self.inside("notebook", *train)
        self.inside("notebook", "fmnist", "sync")
        ((run_uuid, model_id),) = self.ask("SELECT source_run_id, model_id FROM logged_models")
        return Ids(json.loads(told)["run_id"], run_uuid, model_id)

    def multiply(self, original: Ids, count: int, deleted: int) -> None:
        """`count` more runs, a minute apart; the newest of them deleted, days ago, with their versions."""
        types = {"character varying": String(), "text": String()}
        found = self.ask("SELECT table_name, column_name, data_type FROM information_schema.columns")
        script = [CROWD.format(count=count)]
        for name in ONE_RUNS_TABLES:
            columns = [{"name": column, "type": types.get(kind, Integer())} for of, column, kind in found if of == name]
            script.append(f"{copies_of(name, columns)};")
        old = OLD * 1000
        script.append(DELETE.format(deleted=deleted, moment=int(time.time() * 1000) - old, old=old))
        sql = "\n".join(script)
        for field, value in vars(original).items():
            sql = sql.replace(f":{field}", f"'{value}'")
        gone = self.ask(sql)
        pairs = ((original.run_uuid, run, original.model_id, model) for run, model in gone)
        links = "".join(f"{mine} {run}\n{model} {copy}\n" for mine, run, model, copy in pairs)
        self.inside("mlflow", "bash", "-ec", LINKS, given=links)

    def verb(self, name: str) -> float:
        """Seconds that a command on the host takes."""
        port = self.environment["FMNIST_MLFLOW_PORT"]
        own = {"FMNIST_HOME": str(self.folder / "var"), "PYTHONPATH": str(self.folder)}
        environment = self.environment | own | {"MLFLOW_TRACKING_URI": f"http://localhost:{port}"}
        started = time.perf_counter()
        command = [sys.executable, "-m", "fmnist", name]
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - started
        if done.returncode and name != "doctor":  # whether all is well is not what is measured
            raise SystemExit(f"{name}: {done.stderr}")
        return seconds

    def look(self) -> Times:
        """Seconds by the clock."""
        times = asked(f"http://localhost:{self.environment['FMNIST_MLFLOW_PORT']}", time.perf_counter)
        for verb, name in VERBS.items():
            times[name] = [self.verb(verb) for _ in range(1 if verb == "gc" else ROUNDS)]
        print(json.dumps(times), flush=True)
        return times


def section(runs: int, deleted: int, columns: dict[str, Times], facts: str) -> str:
    told = f"In the platform, each run as a real one of 8 epochs leaves it ({deleted:,} of them deleted); {machine()}"
    how = f"seconds by the clock, median and range of n = {ROUNDS}, of gc 1. `make bench-limits-platform`"
    return "\n".join([f"## {runs:,} runs in Postgres", "", f"{told}; {how}", "", *table(columns), "", facts])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--deleted", type=int, default=2_000)
    arguments = parser.parse_args()
    with Crowded.built() as copy:
        copy.start()
        original = copy.train_one()
        columns = {"1 run": copy.look()}
        copy.multiply(original, arguments.runs - 1, arguments.deleted)
        columns[f"{arguments.runs:,} runs"] = copy.look()
        ((size,),) = copy.ask("SELECT pg_database_size('mlflow') / 1000000")
        started = time.perf_counter()
        copy.inside("mlflow", *GC)
        freed = time.perf_counter() - started
        print(f"mlflow gc: {freed:.0f} s", flush=True)
        columns[f"{arguments.runs - arguments.deleted:,}, after gc"] = copy.look()
    facts = f"The database: {size} MB. `mlflow gc` took {freed:,.0f} s for the {arguments.deleted:,}."
    text = section(arguments.runs, arguments.deleted, columns, facts)
    print(text)
    if arguments.runs >= 10_000:
        keep("<!-- limits, Postgres -->", text)


if __name__ == "__main__":
    main()
