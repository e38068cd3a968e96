"""Common parts of the dashboards: variables, links, refresh and finishing."""

from collections.abc import Sequence

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models import dashboard as d

from vedette_server.alerts import limits
from vedette_server.alerts.parts import duration
from vedette_server.dashboards.panels import SOURCE, Panel

TAG = "vedette"
UIDS = {"fleet": "vedette-fleet", "stream": "vedette-stream", "serving": "vedette-serving"}


def board(uid: str, title: str, description: str, *, since: str = "now-3h") -> dashboard.Dashboard:
    """An empty dashboard, with the data source as its first variable."""
    return (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG])
        .timezone("browser")
        .readonly()
        .refresh("30s")
        .time(since, "now")
        .tooltip(d.DashboardCursorSync.CROSSHAIR)
        .with_variable(
            dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus").description("Prometheus")
        )
        .link(
            dashboard.DashboardLink("Vedette")
            .type(d.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .as_dropdown(as_dropdown=False)
            .include_vars(include_vars=True)
            .keep_time(keep_time=True)
        )
    )


def choice(name: str, label: str, series: str, *, everything: bool, many: bool = False) -> dashboard.QueryVariable:
    """The values that a label has on `series`."""
    made = (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query({"query": f"label_values({series}, {name})", "refId": name})
        .refresh(d.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(d.VariableSort.NATURAL_ASC)
        .multi(multi=many)
        .include_all(include_all=everything)
    )
    if everything:
        made = made.all_value(".*").current(
            d.VariableOption(selected=True, text=["All"] if many else "All", value=["$__all"] if many else "$__all")
        )
    return made


def window() -> dashboard.IntervalVariable:
    """The time over which shares and means are taken; at first that of the alerts, and of a baseline."""
    usual = duration(limits.WINDOW)
    choices = (usual, "15m", duration(limits.LONG))
    return (
        dashboard.IntervalVariable("window")
        .label("Window")
        .description(
            f"Over which shares and means are taken; limits were taken over windows of {usual} unless told otherwise"
        )
        .values(",".join(choices))
        .current(d.VariableOption(selected=True, text=usual, value=usual))
        .options([d.VariableOption(selected=one == usual, text=one, value=one) for one in choices])
    )


def finished(made: dashboard.Dashboard) -> d.Dashboard:
    """Number the panels in their order, so that the same code always writes the same file."""
    built = made.build()
    for index, panel in enumerate(built.panels or [], start=1):
        panel.id_val = index
    for variable in built.templating.list_val or []:
        variable.auto = variable.auto_min = variable.auto_count = (
            None  # the SDK's own; Grafana's type has no such thing
        )
    return built


def add(made: dashboard.Dashboard, title: str, panels: Sequence[Panel]) -> dashboard.Dashboard:
    """Add a row with its panels."""
    made = made.with_row(dashboard.Row(title))
    for panel in panels:
        made = made.with_panel(panel)
    return made
