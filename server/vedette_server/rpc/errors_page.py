"""The tables of errors and checks as a page for users, written by `make docs`; a test compares it to the tables."""

import re

from vedette_server.contract.loading import CHECKS, Check
from vedette_server.rpc.errors import DOMAIN, TABLE, ErrorRow

_HEAD = f"""\
# Errors

Every failed call carries a `google.rpc.Status` with exactly one `ErrorInfo`: its `domain` is `{DOMAIN}`, its `reason`
is one of those below, its `metadata` holds the facts in the message. Invalid input also carries
`BadRequest.field_violations`, and errors that can be retried carry `RetryInfo`. The client raises
`vedette_client.ServerError`; the commands exit with 64 plus the gRPC code's number. Over HTTP, an error has the status
below and the body `{{"error": "REASON: message"}}`, with `Retry-After` where gRPC has `RetryInfo`.

[Below](#checks-of-a-model) are the checks that a model must pass before it serves.

`make docs` writes this page from the tables in `vedette_server/rpc/errors.py` and
`vedette_server/contract/loading.py`.
"""

_CHECKS_HEAD = """
# Checks of a model

`vedette-server import` refuses a model that fails one of these, and the server refuses to serve it; the message names
the check, and says what was seen and what to do. The operator can waive checks marked so, by name,
in the model's model.toml: `waivers = ["TENSORS_UNEXPECTED"]`. A waiver appears in GetModel (`vedette models`), in the
log and in the metric `vedette_check_waived`.
"""


def page() -> str:
    """Return the page as Markdown."""
    errors = "".join(_section(reason, row) for reason, row in TABLE.items())
    return _HEAD + errors + _CHECKS_HEAD + "".join(_check(check) for check in CHECKS)


def _check(check: Check) -> str:
    row = CHECKS[check]
    waivable = " It can be waived." if row.waivable else ""
    return f"\n## {check}\n\n{row.meaning} Remedy: {row.remedy}.{waivable}\n"


def _section(reason: str, row: ErrorRow) -> str:
    facts = [f"code `{row.code.name}` ({row.code.value[0]}), HTTP {row.http}"]
    if row.field:
        facts.append(f"field `{_readable(row.field)}`")
    if row.retry:
        facts.append("with `RetryInfo`")
    return f"\n## {reason}\n\n{', '.join(facts)}\n\n{_readable(row.message)} {_readable(row.remedy)}\n"


def _readable(template: str) -> str:
    """Return a message with its facts as words: {max_bytes} becomes MAX BYTES."""
    return re.sub(r"{(\w+)(?:!r)?}", lambda found: found[1].replace("_", " ").upper(), template)


if __name__ == "__main__":
    print(page(), end="")
