"""The table of errors as a page for users: `make docs` writes it, a test holds the page to the table."""

import re

from vedette_server.rpc.errors import DOMAIN, TABLE, Row

_HEAD = f"""\
# Errors

Every failed call carries a `google.rpc.Status` with exactly one `ErrorInfo`: its `domain` is `{DOMAIN}`, its `reason`
is one of those below, its `metadata` holds the facts in the message. Invalid input carries
`BadRequest.field_violations` too, and what may be tried again carries `RetryInfo`. The client raises
`vedette_client.ServerError`; the commands exit with 64 plus the gRPC code's number.

This page is written from the table in `vedette_server/rpc/errors.py` by `make docs`.
"""


def page() -> str:
    """The page, as Markdown."""
    return _HEAD + "".join(_section(reason, row) for reason, row in TABLE.items())


def _section(reason: str, row: Row) -> str:
    facts = [f"code `{row.code.name}` ({row.code.value[0]})"]
    if row.field:
        facts.append(f"field `{_readable(row.field)}`")
    if row.retry:
        facts.append("with `RetryInfo`")
    return f"\n## {reason}\n\n{', '.join(facts)}\n\n{_readable(row.message)} {_readable(row.remedy)}\n"


def _readable(template: str) -> str:
    """A message with its facts as words: {max_bytes} becomes MAX BYTES."""
    return re.sub(r"{(\w+)(?:!r)?}", lambda found: found[1].replace("_", " ").upper(), template)


if __name__ == "__main__":
    print(page(), end="")
