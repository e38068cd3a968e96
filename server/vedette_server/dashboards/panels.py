"""The parts of the dashboards: one way to ask, one set of colours, one kind of each panel.

Colours mean the same everywhere: green is well, orange is a warning, red pages, grey is not known; blue is what is
seen now, grey dashes are what was usual when the baseline was captured.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as c
from grafana_foundation_sdk.models import dashboard as d
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

WELL, WARNING, CRITICAL, UNKNOWN, INFO = "green", "orange", "red", "#808890", "semi-dark-blue"
NOW, USUAL = "blue", "#9AA0A6"

RATIO, SECONDS, COUNT, PER_SECOND = units.PercentUnit, units.Seconds, units.Short, units.CountsPerSecond
SOURCE = d.DataSourceRef(type_val="prometheus", uid="${datasource}")
LINE = 24  # columns of Grafana's grid

Panel: TypeAlias = Builder[d.Panel]


@dataclass(frozen=True)
class Ask:
    """One query, and what its series are called."""

    expr: str
    legend: str = "__auto"
    exemplars: bool = False


def query(
    ask: Ask, index: int, *, instant: bool = False, form: PromQueryFormat = PromQueryFormat.TIME_SERIES
) -> prometheus.Dataquery:
    """The `index`-th query of a panel."""
    made = prometheus.Dataquery().ref_id(chr(ord("A") + index)).datasource(SOURCE).expr(ask.expr).format(form)
    made = made.instant() if instant else made.range()
    if ask.exemplars:
        made = made.exemplar(exemplar=True)
    return made.legend_format(ask.legend)


def steps(*pairs: tuple[float | None, str]) -> dashboard.ThresholdsConfig:
    """Colours from a value on; the first has none."""
    return (
        dashboard.ThresholdsConfig()
        .mode(d.ThresholdsMode.ABSOLUTE)
        .steps([d.Threshold(value=value, color=color) for value, color in pairs])
    )


PLAIN = ((None, NOW),)
BAD_FROM_ONE = ((None, WELL), (1, CRITICAL))
WARNING_FROM_ONE = ((None, WELL), (1, WARNING))
GOOD_FROM_ONE = ((None, CRITICAL), (1, WELL))


def words(texts: dict[int, tuple[str, str]]) -> list[d.ValueMapping]:
    """Text and colour for values."""
    return [
        d.ValueMap(
            {
                str(value): d.ValueMappingResult(text=text, color=color, index=index)
                for index, (value, (text, color)) in enumerate(texts.items())
            }
        )
    ]


def instead_of_nothing(text: str) -> list[d.ValueMapping]:
    """Text where a cell has no value."""
    empty = d.ValueMappingResult(text=text, index=0)
    return [d.SpecialValueMap(d.DashboardSpecialValueMapOptions(match=d.SpecialValueMatch.NULL_AND_NAN, result=empty))]


def number(  # noqa: PLR0913  all but four are keywords
    title: str,
    description: str,
    ask: Ask,
    unit: str,
    *,
    colors: Sequence[tuple[float | None, str]] = PLAIN,
    span: int = 3,
    decimals: int | None = None,
    texts: dict[int, tuple[str, str]] | None = None,
    name: bool = False,
    nothing: str = "no data",
) -> stat.Panel:
    """One large figure with its course beneath it; with `name` the series' name, as text without a course."""
    made = (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .span(span)
        .height(4)
        .unit(unit)
        .thresholds(steps(*colors))
        .color_mode(c.BigValueColorMode.BACKGROUND_SOLID if colors is not PLAIN else c.BigValueColorMode.VALUE)
        .graph_mode(c.BigValueGraphMode.NONE if name else c.BigValueGraphMode.AREA)
        .text_mode(c.BigValueTextMode.NAME if name else c.BigValueTextMode.VALUE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .no_value(nothing)
        .with_target(query(ask, 0, instant=name))
    )
    if decimals is not None:
        made = made.decimals(decimals)
    return made.mappings(words(texts)) if texts else made


def lines(  # noqa: PLR0913  all but three are keywords
    title: str,
    description: str,
    asks: Sequence[Ask],
    unit: str,
    *,
    span: int = 12,
    height: int = 8,
    stacked: bool = False,
    low: float | None = 0,
    high: float | None = None,
    label: str = "",
    colors: dict[str, str] | None = None,
    band: bool = False,
) -> timeseries.Panel:
    """Courses over time; with `band` those called "low" and "high" are the bounds of a grey band."""
    made = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .span(span)
        .height(height)
        .unit(unit)
        .line_width(2)
        .fill_opacity(60 if stacked else 0)
        .show_points(c.VisibilityMode.NEVER)
        .color_scheme(dashboard.FieldColor().mode(d.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
        .axis_label(label)
        .legend(
            common.VizLegendOptions()
            .display_mode(c.LegendDisplayMode.LIST)
            .placement(c.LegendPlacement.BOTTOM)
            .show_legend(show_legend=True)
        )
        .tooltip(common.VizTooltipOptions().mode(c.TooltipDisplayMode.MULTI).sort(c.SortOrder.DESCENDING))
    )
    if stacked:
        made = made.stacking(common.StackingConfig().mode(c.StackingMode.NORMAL).group("A")).line_width(1)
    if low is not None:
        made = made.axis_soft_min(low)
    if high is not None:
        made = made.axis_soft_max(high)
    for index, ask in enumerate(asks):
        made = made.with_target(query(ask, index))
    for name, color in (colors or {}).items():
        made = made.override_by_name(name, [fixed(color)])
    if band:
        dashes = d.DynamicConfigValue("custom.lineStyle", {"fill": "dash", "dash": [6, 6]})
        for name in ("low", "high"):
            more = (
                [d.DynamicConfigValue("custom.fillBelowTo", "low"), d.DynamicConfigValue("custom.fillOpacity", 10)]
                if name == "high"
                else []
            )
            made = made.override_by_name(
                name, [fixed(USUAL), dashes, d.DynamicConfigValue("custom.lineWidth", 1), *more]
            )
        made = made.override_by_name("now", [fixed(NOW)])
    return made


def fixed(color: str) -> d.DynamicConfigValue:
    """One colour for one series."""
    return d.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": color})


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table: of a query's values, or of a label."""

    field: str  # the label, or the letter of the query
    title: str
    unit: str = COUNT
    decimals: int | None = None
    width: int | None = None
    texts: dict[int, tuple[str, str]] | None = None
    colors: Sequence[tuple[float | None, str]] = ()
    nothing: str = ""  # shown where there is no value
    link: str = ""  # URL


def _properties(column: Column, *, value: bool) -> list[d.DynamicConfigValue]:
    made = [d.DynamicConfigValue("unit", column.unit)] if value else []
    if column.decimals is not None:
        made.append(d.DynamicConfigValue("decimals", column.decimals))
    if column.width:
        made.append(d.DynamicConfigValue("custom.width", column.width))
    if column.texts:
        made.append(d.DynamicConfigValue("mappings", words(column.texts)))
    elif column.nothing:
        made.append(d.DynamicConfigValue("mappings", instead_of_nothing(column.nothing)))
    if column.colors:
        made.append(d.DynamicConfigValue("thresholds", steps(*column.colors).build()))
    if column.colors or column.texts:
        cell = c.TableColoredBackgroundCellOptions(mode=c.TableCellBackgroundDisplayMode.BASIC)
        made.append(d.DynamicConfigValue("custom.cellOptions", cell))
    if column.link:
        links = [{"title": "Look closer", "url": column.link, "targetBlank": False}]
        made.append(d.DynamicConfigValue("links", links))
    return made


def rows(
    title: str,
    description: str,
    asks: Sequence[Ask],
    columns: Sequence[Column],
    *,
    span: int = LINE,
    height: int = 7,
    sort: tuple[str, bool] | None = None,
) -> table.Panel:
    """A table with a row for each set of labels that the queries share; shows `columns` and nothing else."""
    letters = [chr(ord("A") + index) for index in range(len(asks))]
    named = {column.field: f"Value #{column.field}" if len(asks) > 1 else "Value" for column in columns}
    fields = [named[column.field] if column.field in letters else column.field for column in columns]
    made = (
        table.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .span(span)
        .height(height)
        .unit(COUNT)
        .filterable(filterable=False)
        .cell_options(c.TableAutoCellOptions())
        .thresholds(steps((None, "text")))
        .transformations(
            [
                d.DataTransformerConfig("merge", options={}),
                d.DataTransformerConfig("filterFieldsByName", options={"include": {"names": fields}}),
                d.DataTransformerConfig(
                    "organize",
                    options={
                        "excludeByName": {},
                        "indexByName": {field: index for index, field in enumerate(fields)},
                        "renameByName": {field: column.title for field, column in zip(fields, columns, strict=True)},
                    },
                ),
            ]
        )
    )
    for index, ask in enumerate(asks):
        made = made.with_target(query(ask, index, instant=True, form=PromQueryFormat.TABLE))
    for column in columns:
        made = made.override_by_name(column.title, _properties(column, value=column.field in letters))
    if sort:
        made = made.sort_by([common.TableSortByFieldState().display_name(sort[0]).desc(sort[1])])
    return made


def course_of_states(
    title: str, description: str, ask: Ask, texts: dict[int, tuple[str, str]], *, span: int = LINE, height: int = 8
) -> statetimeline.Panel:
    """Bars that show when something held."""
    return (
        statetimeline.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .span(span)
        .height(height)
        .unit(COUNT)
        .mappings(words(texts))
        .show_value(c.VisibilityMode.NEVER)
        .merge_values(merge_values=True)
        .row_height(0.8)
        .fill_opacity(90)
        .thresholds(steps((None, UNKNOWN)))
        .color_scheme(dashboard.FieldColor().mode(d.FieldColorModeId.THRESHOLDS))
        .legend(common.VizLegendOptions().show_legend(show_legend=False))
        .with_target(query(ask, 0))
    )
