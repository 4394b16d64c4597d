//! Content negotiation: the format by the Accept header.

/// A format of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// delimited io.prometheus.client.MetricFamily, with native histograms
    Protobuf,
    /// OpenMetrics text
    OpenMetrics,
    /// classic Prometheus text
    Classic,
}

impl Format {
    /// Value of Content-Type.
    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// The accepted format of highest quality; classic text without a header or a known format.
    pub(crate) fn negotiate(accept: &str) -> Self {
        let mut best = (0.0, Self::Classic);
        for part in accept.split(',') {
            let mut fields = part.split(';').map(str::trim);
            let kind = fields.next().unwrap_or_default().to_ascii_lowercase();
            let parameters: Vec<String> = fields.map(|f| f.to_ascii_lowercase().replace([' ', '"'], "")).collect();
            let value = |name: &str| parameters.iter().find_map(|p| p.strip_prefix(name)?.strip_prefix('='));
            let format = match kind.as_str() {
                "application/vnd.google.protobuf"
                    if value("proto") == Some("io.prometheus.client.metricfamily")
                        && value("encoding") == Some("delimited") =>
                {
                    Self::Protobuf
                }
                "application/openmetrics-text" => Self::OpenMetrics,
                "text/plain" | "text/*" | "*/*" => Self::Classic,
                _ => continue,
            };
            let quality = value("q").map_or(1.0, |q| q.parse().unwrap_or(0.0));
            // Among equals, the first.
            if quality > best.0 {
                best = (quality, format);
            }
        }
        best.1
    }
}

/// Whether an Accept-Encoding header allows gzip.
pub(crate) fn allows_gzip(accept: &str) -> bool {
    accept.split(',').any(|part| {
        let (name, quality) = part.split_once(';').unwrap_or((part, "q=1"));
        let quality = quality.trim().strip_prefix("q=").and_then(|q| q.parse::<f64>().ok());
        name.trim().eq_ignore_ascii_case("gzip") && quality.is_some_and(|q| q > 0.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prometheus_gets_its_preferred_format() {
        let native = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,\
                      application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        assert_eq!(Format::negotiate(native), Format::Protobuf);
        let text = "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;q=0.2";
        assert_eq!(Format::negotiate(text), Format::OpenMetrics);
        assert_eq!(Format::negotiate("text/plain;version=0.0.4"), Format::Classic);
    }

    #[test]
    fn a_missing_or_malformed_header_gives_classic_text() {
        for accept in ["", "*/*", "text/html", ";;;,,,=", "application/openmetrics-text;q=0", "application/json;q=nan"]
        {
            assert_eq!(Format::negotiate(accept), Format::Classic, "{accept}");
        }
        assert_eq!(Format::negotiate("application/vnd.google.protobuf"), Format::Classic);
    }

    #[test]
    fn gzip_is_used_only_if_allowed() {
        assert!(allows_gzip("gzip") && allows_gzip("deflate, gzip;q=0.5") && allows_gzip("br , GZIP"));
        assert!(!allows_gzip("") && !allows_gzip("identity") && !allows_gzip("gzip;q=0") && !allows_gzip("gzipped"));
    }
}
