"""What doctor mends itself: what can lose nothing."""

import shutil
from collections.abc import Iterable, Iterator

from fmnist.errors import Failure, one_line
from fmnist.ops.doctor import Patient
from fmnist.ops.finding import Finding
from fmnist.ops.holdings import known_here, left_behind, left_over
from fmnist.ops.secrecy import known_secrets
from fmnist.tracking.elsewhere import check_journal, forget_elsewhere
from fmnist.tracking.fetching import HELD
from fmnist.tracking.shipper import ship


def mend(patient: Patient, findings: Iterable[Finding]) -> Iterator[str]:
    """Mend what was found and is safe to mend. Gives a line for each thing done, or tried in vain."""
    mendable = {"secrets": _secrets, "leftovers": _leftovers, "records": _records}
    states = {finding.what: finding.state for finding in findings}
    if states.get("database") == "bad":  # to send records would open it, and MLflow might change an older one
        del mendable["records"]
    for what, state in states.items():
        if what in mendable and state in ("warning", "bad"):
            try:
                yield from mendable[what](patient)
            except (OSError, Failure) as error:
                yield f"{what}: not mended ({one_line(error)})"


def _secrets(patient: Patient) -> Iterator[str]:
    for secret in known_secrets(patient.home, patient.checkout, patient.key_file):
        if secret.is_open:
            yield f"{secret.path}: {secret.close()}"


def _leftovers(patient: Patient) -> Iterator[str]:
    for folder in left_over(patient.home):
        shutil.rmtree(folder)
        yield f"{folder}: removed"


def _records(patient: Patient) -> Iterator[str]:
    """As `fmnist sync` does; a place that does not answer is not asked for every run."""
    for run in left_behind(patient.home, patient.destinations):
        try:
            check_journal(run)
        except Failure as error:  # asks for a person
            yield f"{run.title}: not mended ({one_line(error)})"
            continue
        forget_elsewhere(run, patient.destinations, known_here(patient.destinations, [run]))
        if errors := ship(run, patient.destinations.sinks(run), follow=False):
            yield from (f"{run.title}, {lane}: {error}" for lane, error in errors.items())
            if all(HELD in error for error in errors.values()):
                continue
            return
        yield f"{run.title}: all is sent"
