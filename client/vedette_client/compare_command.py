"""`vedette compare`: the same images through Detectron2 in this process and through a server, with the differences."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.table import Table
from vedette_commands import text

from vedette_client import asking, compare, matching
from vedette_client.client import Client
from vedette_client.detect_command import hopeless
from vedette_client.errors import VedetteError
from vedette_client.folder import Folder
from vedette_client.matching import Comparison, Match
from vedette_client.pictures import Missing, Picture
from vedette_client.results import Detection, Model, Result


@dataclass(frozen=True, kw_only=True)
class ComparisonOptions:
    """The options of a comparison."""

    config: str  # a file, or a path in the model zoo
    weights: Path
    plugins: Sequence[str]
    model: str
    threshold: float | None
    folder: Folder | None  # destination of pictures


@dataclass(frozen=True)
class Compared:
    """The comparison of one image, with hints on differences."""

    picture: Picture
    served: Result
    comparison: Comparison
    hints: Sequence[str]


def run(
    client: Client,
    pictures: Sequence[Picture | Missing],
    wanted: ComparisonOptions,
    failed: Callable[[str, VedetteError], None],
) -> Iterator[Compared]:
    """Compare every picture; a failed one is passed to `failed`, and does not stop the others.

    The server is called first, because its threshold applies to both. Raises `ServerError` if it does not have the
    model, `LocalError` if Detectron2 is missing or cannot load the local one.
    """
    asking.options({"threshold": wanted.threshold})  # otherwise every picture would be refused for it
    model = client.model(wanted.model)
    answers = list(_answers(client, model, pictures, wanted, failed))
    if not answers:
        return
    local = compare.load(wanted.config, wanted.weights, wanted.plugins, answers[0][1].threshold)
    for picture, served in answers:
        try:
            yield _compare(picture, served, local, model, wanted.folder)
        except VedetteError as error:
            failed(picture.name, error)


def _answers(
    client: Client,
    model: Model,
    pictures: Sequence[Picture | Missing],
    wanted: ComparisonOptions,
    failed: Callable[[str, VedetteError], None],
) -> Iterator[tuple[Picture, Result]]:
    ask = {"model": model.name, "version": model.version, "threshold": wanted.threshold}
    answered = 0
    for number, picture in enumerate(pictures, 1):
        try:
            if isinstance(picture, Missing):
                raise picture.error
            yield picture, client.detect(picture.read(), **ask)  # type: ignore[arg-type]  # as in Ask
            answered += 1
        except VedetteError as error:
            left = len(pictures) - number
            if left and hopeless(error, answered):
                failed("", error)
                return
            failed(picture.name, error)


def _compare(picture: Picture, served: Result, local: compare.Local, model: Model, folder: Folder | None) -> Compared:
    assert picture.path is not None  # noqa: S101  standard input is not compared
    found = local.detect(picture.path, served, model.contract.class_names)
    comparison = matching.compare(found.detections, served.detections, served.threshold)
    if folder:
        saved = folder.write(picture, compare.sheet(picture.read(), found, served))
        click.echo(f"saved {text.plain(text.name(saved))}", err=True)
    hints = compare.hints(local, model.contract, served.threshold, same=comparison.same)
    return Compared(picture, served, comparison, hints)


def table(compared: Iterable[Compared]) -> Table:
    """Make a table with a row for each object that either has found."""
    shown = text.table("image", "class", "found by", "local score", "served score", "box differs by", "mask IoU")
    for one in compared:
        for match in one.comparison.both:
            by = "both" if match.same else "both, differently"
            iou = "" if match.mask_iou is None else f"{match.mask_iou:.3f}"
            scores = f"{match.local.score:.4f}", f"{match.served.score:.4f}"
            text.row(
                shown, Path(one.picture.name).name, match.local.class_name, by, *scores, f"{match.box:.2f} px", iou
            )
        for item in one.comparison.only_local:
            text.row(shown, Path(one.picture.name).name, item.class_name, "only local", f"{item.score:.4f}")
        for item in one.comparison.only_served:
            text.row(shown, Path(one.picture.name).name, item.class_name, "only served", "", f"{item.score:.4f}")
    return shown


def verdicts(compared: Iterable[Compared]) -> Iterator[str]:
    """Yield a line for each image, then each hint once."""
    hints: dict[str, None] = {}
    for one in compared:
        yield f"{Path(one.picture.name).name}: {one.comparison.verdict}"
        hints |= dict.fromkeys(one.hints)
    yield from (f"hint: {hint}" for hint in hints)


def record(one: Compared) -> str:
    """Format the comparison of one image as a line of JSON."""
    told = {
        "image": one.picture.name,
        "model": one.served.model,
        "version": one.served.version,
        "threshold": one.comparison.threshold,
        "same": one.comparison.same,
        "verdict": one.comparison.verdict,
        "both": [_both(match) for match in one.comparison.both],
        "only_local": [_found(item) for item in one.comparison.only_local],
        "only_served": [_found(item) for item in one.comparison.only_served],
        "hints": one.hints,
    }
    return json.dumps(told)


def _both(match: Match) -> dict[str, Any]:
    return {
        "local": _found(match.local),
        "served": _found(match.served),
        "score_difference": round(match.score, 6),
        "box_difference": round(match.box, 3),
        "mask_iou": match.mask_iou,
        "same": match.same,
    }


def _found(item: Detection) -> dict[str, Any]:
    box = [round(edge, 3) for edge in item.box]
    return {"class": item.class_name, "class_id": item.class_id, "score": round(item.score, 6), "box": box}
