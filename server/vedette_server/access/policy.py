"""The policy: a TOML file of rules. Calls that no rule allows are refused."""

import tomllib
from enum import StrEnum, auto
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from vedette_server.access.files import AccessError, text

ANONYMOUS = "anonymous"
JWT_GROUP = "jwt-group:"
_KINDS = ("token:", "jwt:", JWT_GROUP, "cert:")
_GROUP = "group:"


class Verb(StrEnum):
    """An action that a call performs."""

    DETECT = auto()
    STREAM = auto()
    SHARE = auto()  # have images and answers in the caller's own memory
    LOAD = auto()  # load and unload models
    DIAGNOSE = auto()
    DESCRIBE = auto()  # list models and their contracts
    METRICS = auto()
    HEALTH = auto()
    REFLECTION = auto()


def _check_name(name: str, *, groups: bool) -> str:
    if name in ("*", ANONYMOUS) or name.startswith(_KINDS) or (groups and name.startswith(_GROUP)):
        return name
    known = ", ".join(
        ["token:NAME", "jwt:SUB", "jwt-group:NAME", "cert:SUBJECT", *(["group:NAME"] if groups else []), "*", ANONYMOUS]
    )
    msg = f"{name!r} is not a caller: write one of {known}"
    raise ValueError(msg)


class Rule(BaseModel):
    """Permissions of some callers, and the limits of each."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    who: tuple[str, ...]
    may: tuple[Verb, ...]
    models: tuple[str, ...] = ("*",)  # names, with the wildcards * and ?
    max_streams: Annotated[int, Field(ge=1)] | None = None  # open at once
    rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None  # requests per second

    @field_validator("who")
    @classmethod
    def _who(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_check_name(name, groups=True) for name in value)


class Policy(BaseModel):
    """An ordered list of rules. The first that allows a call applies, and sets its limits."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    groups: dict[str, tuple[str, ...]] = {}
    rules: tuple[Rule, ...]

    @field_validator("groups")
    @classmethod
    def _groups(cls, value: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        return {group: tuple(_check_name(name, groups=False) for name in names) for group, names in value.items()}

    @model_validator(mode="after")
    def _known_groups(self) -> Self:
        named = [name.removeprefix(_GROUP) for rule in self.rules for name in rule.who if name.startswith(_GROUP)]
        if unknown := sorted(set(named) - set(self.groups)):
            msg = f"[groups] does not define {', '.join(unknown)}"
            raise ValueError(msg)
        return self

    def rule(self, who: tuple[str, ...], verb: Verb, model: str | None = None) -> Rule | None:
        """Return the first rule that allows `verb` to a caller with these names, or None.

        Without a model, a rule for any model counts.
        """
        for rule in self.rules:
            if (
                verb in rule.may
                and any(self._names(rule.who, one) for one in who)
                and (model is None or _matches(rule.models, model))
            ):
                return rule
        if verb is Verb.HEALTH and not any(verb in rule.may for rule in self.rules):
            return _OPEN  # orchestrators use it, and have no credentials
        return None

    @property
    def names_jwt_groups(self) -> bool:
        """True if a rule refers to groups of JWTs."""
        named = [*(rule.who for rule in self.rules), *self.groups.values()]
        return any(name.startswith(JWT_GROUP) for names in named for name in names)

    def _names(self, names: tuple[str, ...], who: str) -> bool:
        for name in names:
            if name.startswith(_GROUP):
                if self._names(self.groups[name.removeprefix(_GROUP)], who):
                    return True
            elif name == who or (who != ANONYMOUS and fnmatchcase(who, name)):
                return True
        return False


def _matches(patterns: tuple[str, ...], name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


_OPEN = Rule(who=("*", ANONYMOUS), may=tuple(Verb))
EVERYBODY = Policy(rules=(_OPEN,))  # without any means of identification
THE_KNOWN = Policy(rules=(Rule(who=("*",), may=tuple(verb for verb in Verb if verb is not Verb.HEALTH)),))


def read(path: Path, *, jwt_groups: bool = True) -> Policy:
    """Read a policy; without `jwt_groups`, its rules may not refer to those. Raises `AccessError`."""
    written = text(path)
    try:
        found = Policy.model_validate(tomllib.loads(written))
    except ValidationError as error:
        told = (
            f"{'.'.join(map(str, one['loc'])) or 'the file'}: {one['msg'].removeprefix('Value error, ')}"
            for one in error.errors()
        )
        msg = f"{path}: {'; '.join(told)}"
        raise AccessError(msg) from error
    except (ValueError, RecursionError) as error:  # includes huge numbers and deeply nested lists
        msg = f"{path} is not TOML: {error}"
        raise AccessError(msg) from error
    if found.names_jwt_groups and not jwt_groups:
        msg = f"{path} has rules for {JWT_GROUP}NAME, but no claim holds groups: name one with --jwt-groups"
        raise AccessError(msg)
    return found
