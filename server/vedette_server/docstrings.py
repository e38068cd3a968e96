"""The docstrings of a class's fields, which Python itself does not keep: what pages say of settings and parameters."""

import ast
import inspect
import textwrap


def of_fields(kind: type) -> dict[str, str]:
    """Return the string that follows each annotated field of a class, by the field's name."""
    source = ast.walk(ast.parse(textwrap.dedent(inspect.getsource(kind))))
    described = next(node for node in source if isinstance(node, ast.ClassDef))
    found = {}
    for field, told in zip(described.body, described.body[1:], strict=False):
        match field, told:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(meaning))):
                found[name] = meaning
    return found
