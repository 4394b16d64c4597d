//! Writes dashboards as JSON for Grafana 10 or later (schema 38): panels with their places on the grid, and variables.

use serde_json::{Value, json};

/// Schema of Grafana 10.0; later versions migrate it when they load it.
const SCHEMA: u32 = 38;
/// Columns of Grafana's grid.
const WIDTH: u32 = 24;

/// Legend of a query in a table that shows the labels only, because the values carry no information.
pub(super) const LABELS: &str = "labels";

/// A dashboard.
pub(crate) struct Dashboard {
    /// Part of the dashboard's address: must not change.
    pub(crate) uid: &'static str,
    pub(crate) title: &'static str,
    /// The questions that it answers.
    pub(crate) description: &'static str,
    /// Begin of the time range at first, e.g. "now-6h".
    pub(crate) from: &'static str,
    /// Time between refreshes, e.g. "30s".
    pub(crate) refresh: &'static str,
    /// Variables besides the data source; each may use those before it.
    pub(crate) variables: Vec<Variable>,
    pub(crate) rows: Vec<Row>,
}

/// A variable that offers the values of a label.
pub(crate) struct Variable {
    /// Name, as in `$name`.
    pub(crate) name: &'static str,
    /// Name on the dashboard.
    pub(crate) title: &'static str,
    /// PromQL of the series that have the label.
    pub(crate) series: String,
    pub(crate) label: &'static str,
    /// Whether several values, or all, can be chosen.
    pub(crate) several: bool,
}

/// A heading and its panels.
pub(crate) struct Row {
    pub(crate) title: &'static str,
    /// From left to right, wrapped to the grid.
    pub(crate) panels: Vec<Panel>,
}

/// The type of a panel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One number.
    Stat,
    /// Lines over time.
    Lines,
    /// Native histograms over time.
    HeatMap,
    /// The current values, a row for each series.
    Table,
    /// States over time.
    States,
}

/// A panel.
pub(crate) struct Panel {
    pub(crate) title: &'static str,
    /// Its content, what it leaves out, and advice.
    pub(crate) description: &'static str,
    pub(crate) kind: Kind,
    /// Grafana's name of the unit.
    pub(crate) unit: &'static str,
    pub(crate) queries: Vec<Query>,
    /// Columns of the grid, of 24.
    pub(crate) width: u32,
    /// Rows of the grid.
    pub(crate) height: u32,
    /// Values from which the panel is yellow, and red.
    pub(crate) thresholds: Option<(f64, f64)>,
    /// Values with a name and a colour.
    pub(crate) names: &'static [(u32, &'static str, &'static str)],
    /// Whether the axis is logarithmic.
    pub(crate) log: bool,
    /// Whether the lines are parts of a whole, one above the other.
    pub(crate) stacked: bool,
}

/// A query and the legend of its series.
pub(crate) struct Query {
    /// PromQL with Grafana's variables.
    pub(crate) expr: String,
    /// Legend of a series, e.g. "{{vm}}".
    pub(crate) legend: String,
}

impl Query {
    /// A query with its legend.
    pub(crate) fn new(expr: impl Into<String>, legend: impl Into<String>) -> Self {
        Self { expr: expr.into(), legend: legend.into() }
    }
}

/// The variables of both dashboards: host, VM and exit reason. `host` is the matcher of the chosen hosts; `several`
/// says whether more than one host can be chosen.
pub(crate) fn variables(host: &str, several: bool) -> Vec<Variable> {
    let vm = format!("vmentry_entries_total{{{host}}}");
    let reason = format!("vmentry_entry_to_exit_seconds{{{host}, vm=~\"$vm\"}}");
    vec![
        Variable { name: "instance", title: "Host", series: "vmentry_build_info".into(), label: "instance", several },
        Variable { name: "vm", title: "VM", series: vm, label: "vm", several: true },
        Variable { name: "exit_reason", title: "Exit reason", series: reason, label: "exit_reason", several: true },
    ]
}

impl Panel {
    /// A panel of the usual size for its type.
    pub(crate) fn new(
        kind: Kind,
        title: &'static str,
        unit: &'static str,
        description: &'static str,
        queries: Vec<Query>,
    ) -> Self {
        let (width, height) = match kind {
            Kind::Stat => (4, 4),
            Kind::Lines => (12, 8),
            Kind::HeatMap => (12, 9),
            Kind::Table => (12, 9),
            Kind::States => (12, 8),
        };
        Self {
            title,
            description,
            kind,
            unit,
            queries,
            width,
            height,
            thresholds: None,
            names: &[],
            log: false,
            stacked: false,
        }
    }

    /// Sets another width.
    pub(crate) fn wide(self, width: u32) -> Self {
        Self { width, ..self }
    }

    /// Sets the values from which the panel is yellow, and red.
    pub(crate) fn warns(self, yellow: f64, red: f64) -> Self {
        Self { thresholds: Some((yellow, red)), ..self }
    }

    /// Makes the axis logarithmic, because latencies range from microseconds to seconds.
    pub(crate) fn log(self) -> Self {
        Self { log: true, ..self }
    }

    /// Stacks the lines, because they are parts of a whole.
    pub(crate) fn stacked(self) -> Self {
        Self { stacked: true, ..self }
    }

    /// Sets names and colours of values.
    pub(crate) fn named(self, names: &'static [(u32, &'static str, &'static str)]) -> Self {
        Self { names, ..self }
    }

    fn json(&self, id: u32, x: u32, y: u32) -> Value {
        let targets: Vec<_> =
            self.queries.iter().zip('A'..).map(|(query, letter)| self.target(query, letter)).collect();
        let steps = match self.thresholds {
            None => json!([{"color": "green", "value": null}]),
            Some((yellow, red)) => json!([
                {"color": "green", "value": null}, {"color": "yellow", "value": yellow}, {"color": "red", "value": red}
            ]),
        };
        let mut panel = json!({
            "id": id,
            "type": self.kind.name(),
            "title": self.title,
            "description": self.description,
            "datasource": datasource(),
            "gridPos": {"x": x, "y": y, "w": self.width, "h": self.height},
            "fieldConfig": {
                "defaults": {
                    "unit": self.unit,
                    "custom": self.custom(),
                    "mappings": self.mappings(),
                    "thresholds": {"mode": "absolute", "steps": steps},
                    "color": {"mode": if self.thresholds.is_some() || self.kind == Kind::States { "thresholds" } else { "palette-classic" }},
                },
                "overrides": [],
            },
            "options": self.options(),
            "targets": targets,
        });
        if self.kind == Kind::Stat && self.thresholds.is_none() {
            panel["fieldConfig"]["defaults"]["color"] = json!({"mode": "fixed", "fixedColor": "text"});
        }
        if self.kind == Kind::Table {
            panel["transformations"] = self.transformations();
        }
        panel
    }

    /// Makes a table of a row for each series: its labels, and a value from each query.
    fn transformations(&self) -> Value {
        let mut excluded = json!({"Time": true, "__name__": true, "job": true});
        let mut renamed = json!({});
        for (query, letter) in self.queries.iter().zip('A'..) {
            // Grafana names the values of several queries "Value #A", "Value #B", and that of a single one "Value".
            let value = if self.queries.len() == 1 { "Value".to_owned() } else { format!("Value #{letter}") };
            match query.legend.as_str() {
                LABELS => excluded[value] = json!(true),
                legend => renamed[value] = json!(legend),
            }
        }
        json!([
            {"id": "merge", "options": {}},
            {"id": "organize", "options": {"excludeByName": excluded, "indexByName": {}, "renameByName": renamed}},
        ])
    }

    fn target(&self, query: &Query, letter: char) -> Value {
        let instant = matches!(self.kind, Kind::Table);
        json!({
            "refId": letter.to_string(),
            "datasource": datasource(),
            "editorMode": "code",
            "expr": query.expr,
            "legendFormat": query.legend,
            "format": match self.kind { Kind::HeatMap => "heatmap", Kind::Table => "table", _ => "time_series" },
            "instant": instant,
            "range": !instant,
        })
    }

    fn mappings(&self) -> Value {
        if self.names.is_empty() {
            return json!([]);
        }
        let entries: serde_json::Map<_, _> = self
            .names
            .iter()
            .enumerate()
            .map(|(index, (value, text, color))| {
                (value.to_string(), json!({"index": index, "text": text, "color": color}))
            })
            .collect();
        json!([{"type": "value", "options": entries}])
    }

    fn custom(&self) -> Value {
        match self.kind {
            Kind::Lines if self.stacked => json!({
                "drawStyle": "line", "lineWidth": 1, "fillOpacity": 60, "showPoints": "never", "spanNulls": false,
                "scaleDistribution": {"type": "linear"}, "stacking": {"mode": "normal", "group": "A"},
            }),
            Kind::Lines => json!({
                "drawStyle": "line", "lineWidth": 1, "fillOpacity": 5, "showPoints": "auto", "spanNulls": false,
                "scaleDistribution": if self.log { json!({"type": "log", "log": 10}) } else { json!({"type": "linear"}) },
            }),
            Kind::HeatMap => json!({"scaleDistribution": {"type": "linear"}}),
            Kind::States => json!({"lineWidth": 0, "fillOpacity": 70}),
            Kind::Table => json!({"align": "auto", "filterable": true}),
            Kind::Stat => json!({}),
        }
    }

    fn options(&self) -> Value {
        match self.kind {
            Kind::Stat => json!({
                "colorMode": "value", "graphMode": "area", "justifyMode": "auto", "orientation": "auto",
                "textMode": "auto", "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": false},
            }),
            Kind::Lines => json!({
                "legend": {"calcs": ["lastNotNull", "max"], "displayMode": "table", "placement": "bottom", "showLegend": true},
                "tooltip": {"mode": "multi", "sort": "desc"},
            }),
            Kind::HeatMap => json!({
                "calculate": false,
                "cellGap": 0,
                "color": {"mode": "scheme", "scheme": "Oranges", "scale": "exponential", "exponent": 0.5, "steps": 64, "reverse": false, "fill": "dark-orange"},
                "filterValues": {"le": 1e-9},
                "legend": {"show": true},
                "rowsFrame": {"layout": "auto"},
                "tooltip": {"show": true, "yHistogram": true},
                "yAxis": {"axisPlacement": "left", "reverse": false, "unit": self.unit},
            }),
            Kind::Table => json!({"showHeader": true, "cellHeight": "sm", "footer": {"show": false}}),
            Kind::States => json!({
                "alignValue": "left", "mergeValues": true, "rowHeight": 0.8, "showValue": "auto",
                "legend": {"displayMode": "list", "placement": "bottom", "showLegend": true},
                "tooltip": {"mode": "single", "sort": "none"},
            }),
        }
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Stat => "stat",
            Self::Lines => "timeseries",
            Self::HeatMap => "heatmap",
            Self::Table => "table",
            Self::States => "state-timeline",
        }
    }
}

fn datasource() -> Value {
    json!({"type": "prometheus", "uid": "${datasource}"})
}

impl Variable {
    /// The query in Grafana's syntax.
    fn definition(&self) -> String {
        format!("label_values({}, {})", self.series, self.label)
    }

    fn json(&self) -> Value {
        let mut variable = json!({
            "type": "query",
            "name": self.name,
            "label": self.title,
            "datasource": datasource(),
            "definition": self.definition(),
            "query": {"query": self.definition(), "refId": "variable"},
            "refresh": 2,
            "sort": 1,
            "hide": 0,
            "regex": "",
            "skipUrlSync": false,
            "multi": self.several,
            "includeAll": self.several,
            "current": {},
            "options": [],
        });
        if self.several {
            // Matches series without the label too, and avoids a regular expression of a thousand names.
            variable["allValue"] = json!(".*");
            variable["current"] = json!({"selected": true, "text": ["All"], "value": ["$__all"]});
        }
        variable
    }
}

impl Dashboard {
    /// Replaces words in the braces of all queries by matchers: HOST by that of the hosts, VMS by those of hosts and
    /// VMs, SERIES by those of hosts, VMs and exit reasons.
    pub(crate) fn selecting(mut self, host: &str) -> Self {
        let vms = format!("{host}, vm=~\"$vm\"");
        let series = format!("{vms}, exit_reason=~\"$exit_reason\"");
        for query in self.rows.iter_mut().flat_map(|row| &mut row.panels).flat_map(|panel| &mut panel.queries) {
            query.expr = query
                .expr
                .replace("{HOST", &format!("{{{host}"))
                .replace("{VMS", &format!("{{{vms}"))
                .replace("{SERIES", &format!("{{{series}"));
        }
        self
    }

    /// Content of the file.
    pub(crate) fn json(&self) -> Value {
        let (mut panels, mut id, mut y) = (Vec::new(), 0, 0);
        for row in &self.rows {
            id += 1;
            panels.push(json!({
                "id": id, "type": "row", "title": row.title, "collapsed": false, "panels": [],
                "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1},
            }));
            y += 1;
            let (mut x, mut height) = (0, 0);
            for panel in &row.panels {
                if x + panel.width > WIDTH {
                    (x, y, height) = (0, y + height, 0);
                }
                id += 1;
                panels.push(panel.json(id, x, y));
                x += panel.width;
                height = height.max(panel.height);
            }
            y += height;
        }
        let source = json!({
            "type": "datasource", "name": "datasource", "label": "Data source", "query": "prometheus", "regex": "",
            "refresh": 1, "hide": 0, "multi": false, "includeAll": false, "skipUrlSync": false, "current": {}, "options": [],
        });
        let variables: Vec<_> = std::iter::once(source).chain(self.variables.iter().map(Variable::json)).collect();
        json!({
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": ["vmentry"],
            "schemaVersion": SCHEMA,
            "version": 1,
            "editable": true,
            "graphTooltip": 1,
            "timezone": "",
            "time": {"from": self.from, "to": "now"},
            "refresh": self.refresh,
            "annotations": {"list": []},
            "links": [{
                "type": "dashboards", "title": "vmentry", "tags": ["vmentry"], "asDropdown": true, "icon": "external link",
                "includeVars": true, "keepTime": true, "targetBlank": false, "tooltip": "", "url": "",
            }],
            "templating": {"list": variables},
            "panels": panels,
        })
    }

    /// All panels.
    pub(crate) fn panels(&self) -> impl Iterator<Item = &Panel> {
        self.rows.iter().flat_map(|row| &row.panels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dashboard(widths: &[u32]) -> Dashboard {
        let panel =
            |&width: &u32| Panel::new(Kind::Lines, "t", "s", "d", vec![Query::new("up", "{{instance}}")]).wide(width);
        let row = || Row { title: "r", panels: widths.iter().map(panel).collect() };
        Dashboard {
            uid: "u",
            title: "t",
            description: "d",
            from: "now-1h",
            refresh: "30s",
            variables: vec![],
            rows: vec![row(), row()],
        }
    }

    #[test]
    fn panels_wrap_within_the_grid_and_never_overlap() {
        let json = dashboard(&[12, 12, 8, 16, 24]).json();
        let panels = json["panels"].as_array().unwrap();
        let place = |p: &Value| ["x", "y", "w", "h"].map(|k| p["gridPos"][k].as_u64().unwrap());
        let places: Vec<_> = panels.iter().map(place).collect();
        assert!(places.iter().all(|[x, _, w, _]| x + w <= 24));
        for (i, [ax, ay, aw, ah]) in places.iter().enumerate() {
            for [bx, by, bw, bh] in &places[..i] {
                assert!(ax + aw <= *bx || bx + bw <= *ax || ay + ah <= *by || by + bh <= *ay, "{places:?}");
            }
        }
        let ids: std::collections::BTreeSet<_> = panels.iter().map(|p| p["id"].as_u64().unwrap()).collect();
        assert_eq!(ids.len(), panels.len());
    }
}
