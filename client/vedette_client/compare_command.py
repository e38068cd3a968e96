"""`vedette compare`: the same images to Detectron2 in this process and to a server, and where the answers differ."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from vedette_client import compare, matching
from vedette_client.client import Client
from vedette_client.errors import VedetteError
from vedette_client.matching import Comparison, Match
from vedette_client.results import Detection, Model, Result


@dataclass(frozen=True)
class Wanted:
    """What is to be compared, and with what."""

    config: str  # a file, or a path within the model zoo
    weights: Path
    plugins: Sequence[str]
    model: str
    threshold: float | None
    save: Path | None


@dataclass(frozen=True)
class Compared:
    """One image, and what may explain a difference."""

    path: Path
    served: Result
    comparison: Comparison
    hints: Sequence[str]


def run(
    client: Client, images: Iterable[Path], wanted: Wanted, failed: Callable[[Path, VedetteError], None]
) -> Iterator[Compared]:
    """Compare every image; one that fails is told to `failed` and does not keep the others from being looked at.

    The server is asked first: it says the threshold that both are held to. Raises `ServerError` if it has no such
    model, `LocalError` if Detectron2 is missing or cannot load the local one.
    """
    model = client.model(wanted.model)
    answers: list[tuple[Path, Result]] = []
    for path in images:
        try:
            ask = {"model": model.name, "version": model.version, "threshold": wanted.threshold}
            answers.append((path, client.detect(path, **ask)))  # type: ignore[arg-type]  # as Ask has them
        except VedetteError as error:
            failed(path, error)
    if not answers:
        return
    local = compare.load(wanted.config, wanted.weights, wanted.plugins, answers[0][1].threshold)
    for path, served in answers:
        try:
            yield _compare(path, served, local, model, wanted.save)
        except VedetteError as error:
            failed(path, error)


def _compare(path: Path, served: Result, local: compare.Local, model: Model, save: Path | None) -> Compared:
    found = local.detect(path, served, model.contract.class_names)
    comparison = matching.compare(found.detections, served.detections, served.threshold)
    if save:
        click.echo(f"saved {compare.save(path, found, served, save)}", err=True)
    hints = compare.hints(local, model.contract, served.threshold, same=comparison.same)
    return Compared(path, served, comparison, hints)


def table(compared: Iterable[Compared]) -> Table:
    """One row for each object that either has found."""
    shown = Table("image", "class", "found by", "local score", "served score", "box differs by", "mask IoU")
    for one in compared:
        for match in one.comparison.both:
            by = "both" if match.same else "both, otherwise"
            iou = "" if match.mask_iou is None else f"{match.mask_iou:.3f}"
            scores = f"{match.local.score:.4f}", f"{match.served.score:.4f}"
            shown.add_row(one.path.name, match.local.class_name, by, *scores, f"{match.box:.2f} px", iou)
        for item in one.comparison.only_local:
            shown.add_row(one.path.name, item.class_name, "only local", f"{item.score:.4f}")
        for item in one.comparison.only_served:
            shown.add_row(one.path.name, item.class_name, "only served", "", f"{item.score:.4f}")
    return shown


def verdicts(compared: Iterable[Compared]) -> Iterator[str]:
    """A line for each image, then each hint once."""
    hints: dict[str, None] = {}
    for one in compared:
        yield f"{one.path.name}: {one.comparison.verdict}"
        hints |= dict.fromkeys(one.hints)
    yield from (f"hint: {hint}" for hint in hints)


def record(one: Compared) -> str:
    """One image as a line of JSON."""
    told = {
        "image": str(one.path),
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
