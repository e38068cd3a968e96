"""Panels of scores, pictures and detections: what is seen now, beside what was usual."""

from grafana_foundation_sdk.builders import common, dashboard, heatmap
from grafana_foundation_sdk.models import common as c
from grafana_foundation_sdk.models import dashboard as d
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode, HeatmapColorScale
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from vedette_server.alerts.inputs import INPUTS
from vedette_server.alerts.limits import LEAST_DETECTIONS
from vedette_server.dashboards.ask import VS, WHOLE, V, band, mean, rate, usual
from vedette_server.dashboards.panels import (
    COUNT,
    NOW,
    PER_SECOND,
    RATIO,
    SOURCE,
    USUAL,
    WELL,
    Ask,
    Column,
    Panel,
    lines,
    query,
    rows,
)

_UNITS = {"levels": COUNT, "decibels": "dB", "ratio": RATIO}


def _heat(title: str, description: str, ask: Ask, *, span: int, high: float | None = None) -> heatmap.Panel:
    color = (
        heatmap.HeatmapColorOptions()
        .mode(HeatmapColorMode.SCHEME)
        .scheme("Blues")
        .scale(HeatmapColorScale.EXPONENTIAL)
        .exponent(0.5)
        .steps(32)
        .reverse(reverse=False)
        .fill(NOW)
        .min(0)
    )
    if high:
        color = color.max(high)
    return (
        heatmap.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .span(span)
        .height(9)
        .unit(RATIO)
        .calculate(calculate=False)
        .color(color)
        .cell_values(heatmap.CellValues().unit(RATIO).decimals(1))
        .y_axis(heatmap.YAxisConfig().axis_placement(c.AxisPlacement.LEFT).unit(COUNT).reverse(reverse=False))
        .rows_frame(heatmap.RowsHeatmapOptions().layout(c.HeatmapCellLayout.AUTO))
        .show_value(c.VisibilityMode.NEVER)
        .mode(c.TooltipDisplayMode.SINGLE)
        .show_color_scale(show_color_scale=True)
        .scale_distribution(common.ScaleDistributionConfig().type(c.ScaleDistribution.LINEAR))
        .color_scheme(dashboard.FieldColor().mode(d.FieldColorModeId.THRESHOLDS))
        .with_target(query(ask, 0, form=PromQueryFormat.HEATMAP))
    )


def scores() -> list[Panel]:
    """Scores, and how far they are from the baseline."""
    best, everything = "vedette_best_score", f"sum(rate(vedette_best_score_count{{{VS}}}[$__rate_interval]))"
    distances = 'statistic=~"score_distance|class_distance"'
    return [
        _heat(
            "Best score of each answer",
            "Before the threshold, so that quiet and suppressed differ: a quiet street scores low everywhere, a "
            "threshold too high leaves this picture as it was, swapped colours or a dark camera pull it down at once.",
            Ask(f"{rate(f'{best}_bucket', 'le')} / on () group_left () ({everything} > 0)", "{{le}}"),
            span=11,
            high=1,
        ),
        _heat(
            "The same in the baseline",
            "How the best scores were spread when all was well. It does not change over time: compare the shades.",
            Ask(
                f"label_replace({usual('vedette_baseline_best_score_cumulative_ratio', by='edge')}, "
                '"le", "$1", "edge", "(.+)")',
                "{{le}}",
            ),
            span=5,
            high=1,
        ),
        lines(
            "Distance from the baseline",
            "Of the whole model: how far scores (Kolmogorov-Smirnov) and the mix of classes (total variation) are from "
            "the baseline, 0 to 1, with their limits. "
            f"Measured from {LEAST_DETECTIONS} detections on, so that a quiet hour has none.",
            [
                Ask(f'vedette:statistic:window{{{V}, stream="", {distances}}}', "{{statistic}}"),
                Ask(f'max by (statistic) (vedette_baseline_limit{{{WHOLE}, {distances}, bound="high"}})', "its limit"),
            ],
            RATIO,
            span=8,
            height=9,
            colors={"score_distance": NOW, "class_distance": "purple", "its limit": USUAL},
        ),
    ]


def inputs() -> list[Panel]:
    """Panels of the pictures' statistics."""
    return [
        lines(
            one.title,
            one.drawn,
            band(mean(one.metric), name),
            _UNITS[one.unit],
            label=one.axis,
            low=None if one.unit == "ratio" else 0,
            span=6,
            band=True,
        )
        for name, one in INPUTS.items()
    ]


def seen() -> list[Panel]:
    """Panels of detections and near misses."""
    detections = f"sum by (class) (increase(vedette_detections_total{{{V}}}[$window]))"
    whole = f"sum(increase(vedette_detections_total{{{V}}}[$window]))"
    return [
        rows(
            "Mix of classes",
            "Of the whole model: each class's share of the detections over the window, beside that in the baseline. "
            "A class that was usual and is at 0 has gone silent.",
            [
                Ask(f"{detections} / on () group_left () ({whole} > 0)"),
                Ask(f"max by (class) (vedette_baseline_class_share_ratio{{{V}}})"),
                Ask(f"max by (class) (vedette_baseline_class_presence_ratio{{{V}}})"),
            ],
            [
                Column(field="class", title="class"),
                Column(field="A", title="now", unit=RATIO, decimals=1, width=80),
                Column(field="B", title="baseline", unit=RATIO, decimals=1, width=90, nothing="none"),
                Column(field="C", title="windows with it", unit=RATIO, width=130, nothing="none"),
            ],
            span=8,
            height=9,
            sort=("baseline", True),
        ),
        lines(
            "Detections by class",
            "Of the whole model.",
            [Ask(rate("vedette_detections_total", "class", V), "{{class}}")],
            PER_SECOND,
            span=8,
            height=9,
            stacked=True,
        ),
        lines(
            "Detections per answer",
            "Of the whole model, over the window.",
            [Ask(mean("vedette_detections_per_answer", V), "mean")],
            COUNT,
            span=8,
            height=9,
            colors={"mean": NOW},
        ),
        lines(
            "Scores of detections",
            "Of the whole model: the median score of each class's detections.",
            [
                Ask(
                    f"histogram_quantile(0.5, {rate('vedette_detection_score_bucket', 'le, class', V)})",
                    "{{class}}",
                )
            ],
            RATIO,
            span=8,
            low=None,
            high=1,
        ),
        lines(
            "What became of candidates",
            "Of the whole model. Suppressed: between floor and threshold. Overlapped: another box said the same. "
            "Filtered: of a class that was not asked for.",
            [Ask(rate("vedette_candidates_total", "fate", V), "{{fate}}")],
            PER_SECOND,
            span=8,
            stacked=True,
            colors={"detected": WELL},
        ),
        lines(
            "Values that are not finite",
            "Of the whole model: rows that were dropped because they were NaN or infinite, by the part of the model "
            "that made them. Anything but nothing is a broken model.",
            [Ask(rate("vedette_nonfinite_rows_total", "stage", V), "{{stage}}")],
            PER_SECOND,
            span=8,
        ),
    ]
