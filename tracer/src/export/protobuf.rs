//! Families as length-delimited io.prometheus.client.MetricFamily, from which Prometheus reads native histograms. Tags are those of
//! io/prometheus/client/metrics.proto in github.com/prometheus/client_model (v0.6.2).

use prost::Message;

use super::{
    distribution::{BOUNDS, Distribution, SCHEMA, ZERO_THRESHOLD_S},
    family::{Family, Sample, Value},
};
use crate::export::metrics::MetricKind;

const COUNTER: i32 = 0;
const GAUGE: i32 = 1;
const HISTOGRAM: i32 = 4;

#[derive(Clone, PartialEq, Message)]
struct MetricFamily {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(string, optional, tag = "2")]
    help: Option<String>,
    #[prost(int32, optional, tag = "3")]
    kind: Option<i32>,
    #[prost(message, repeated, tag = "4")]
    metric: Vec<Metric>,
    #[prost(string, optional, tag = "5")]
    unit: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Metric {
    #[prost(message, repeated, tag = "1")]
    label: Vec<LabelPair>,
    #[prost(message, optional, tag = "2")]
    gauge: Option<Gauge>,
    #[prost(message, optional, tag = "3")]
    counter: Option<Counter>,
    #[prost(message, optional, tag = "7")]
    histogram: Option<Histogram>,
}

#[derive(Clone, PartialEq, Message)]
struct LabelPair {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(string, optional, tag = "2")]
    value: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Gauge {
    #[prost(double, optional, tag = "1")]
    value: Option<f64>,
}

#[derive(Clone, PartialEq, Message)]
struct Counter {
    #[prost(double, optional, tag = "1")]
    value: Option<f64>,
    #[prost(message, optional, tag = "3")]
    created: Option<Timestamp>,
}

/// google.protobuf.Timestamp
#[derive(Clone, PartialEq, Message)]
struct Timestamp {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Histogram {
    #[prost(uint64, optional, tag = "1")]
    count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    sum: Option<f64>,
    #[prost(message, repeated, tag = "3")]
    bucket: Vec<Bucket>,
    #[prost(sint32, optional, tag = "5")]
    schema: Option<i32>,
    #[prost(double, optional, tag = "6")]
    zero_threshold: Option<f64>,
    #[prost(uint64, optional, tag = "7")]
    zero_count: Option<u64>,
    #[prost(message, repeated, tag = "12")]
    positive_span: Vec<BucketSpan>,
    // Not packed, because the schema is proto2.
    #[prost(sint64, repeated, packed = "false", tag = "13")]
    positive_delta: Vec<i64>,
    #[prost(message, optional, tag = "15")]
    created: Option<Timestamp>,
}

#[derive(Clone, PartialEq, Message)]
struct Bucket {
    #[prost(uint64, optional, tag = "1")]
    cumulative_count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    upper_bound: Option<f64>,
}

#[derive(Clone, PartialEq, Message)]
struct BucketSpan {
    #[prost(sint32, optional, tag = "1")]
    offset: Option<i32>,
    #[prost(uint32, optional, tag = "2")]
    length: Option<u32>,
}

/// Encodes all families.
pub(crate) fn encode(families: &[Family<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for family in families {
        out.extend(message(family).encode_length_delimited_to_vec());
    }
    out
}

fn message(family: &Family<'_>) -> MetricFamily {
    let metric = family.metric;
    MetricFamily {
        name: Some(metric.name.into()),
        help: Some(metric.help.into()),
        kind: Some(match metric.kind {
            MetricKind::Counter => COUNTER,
            MetricKind::Gauge | MetricKind::Info => GAUGE,
            MetricKind::Histogram => HISTOGRAM,
        }),
        metric: family.samples.iter().map(|s| sample(s, metric.kind)).collect(),
        unit: (!metric.unit.is_empty()).then(|| metric.unit.into()),
    }
}

fn sample(sample: &Sample<'_>, kind: MetricKind) -> Metric {
    let pair = |(name, value): &(&str, std::borrow::Cow<'_, str>)| LabelPair {
        name: Some((*name).into()),
        value: Some(value.clone().into_owned()),
    };
    let mut metric = Metric { label: sample.labels.iter().map(pair).collect(), ..Metric::default() };
    let created = sample.created_ns.map(timestamp);
    let value = match sample.value {
        Value::Histogram(distribution) => {
            metric.histogram = Some(Histogram { created, ..histogram(distribution) });
            return metric;
        }
        Value::Count(n) => Some(n as f64),
        Value::Number(n) => Some(n),
    };
    match kind {
        MetricKind::Counter => metric.counter = Some(Counter { value, created }),
        _ => metric.gauge = Some(Gauge { value }),
    }
    metric
}

#[expect(clippy::cast_possible_wrap, reason = "quotient and remainder fit")]
const fn timestamp(ns: u64) -> Timestamp {
    Timestamp { seconds: (ns / 1_000_000_000) as i64, nanos: (ns % 1_000_000_000) as i32 }
}

fn histogram(distribution: &Distribution) -> Histogram {
    let bucket = |((ns, _), count): (&(u64, &str), u64)| Bucket {
        cumulative_count: Some(count),
        upper_bound: Some(*ns as f64 / 1e9),
    };
    let (positive_span, positive_delta) = sparse(distribution);
    Histogram {
        count: Some(distribution.count()),
        sum: Some(distribution.sum_s()),
        bucket: BOUNDS.iter().zip(distribution.cumulative()).map(bucket).collect(),
        schema: Some(SCHEMA),
        zero_threshold: Some(ZERO_THRESHOLD_S),
        zero_count: Some(distribution.zeros()),
        positive_span,
        positive_delta,
        created: None,
    }
}

/// Runs of buckets, each by its distance from the run before, and the difference of every count from the count before.
fn sparse(distribution: &Distribution) -> (Vec<BucketSpan>, Vec<i64>) {
    let (mut spans, mut deltas) = (Vec::<BucketSpan>::new(), Vec::new());
    let (mut next, mut last) = (0, 0);
    for (index, n) in distribution.native() {
        match spans.last_mut() {
            Some(BucketSpan { length: Some(length), .. }) if index == next => *length += 1,
            _ => spans.push(BucketSpan { offset: Some(index - next), length: Some(1) }),
        }
        let n = n.cast_signed();
        deltas.push(n.wrapping_sub(last));
        (next, last) = (index + 1, n);
    }
    (spans, deltas)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::{distribution::tests::of, metrics};

    fn decode(mut bytes: &[u8]) -> Vec<MetricFamily> {
        let mut families = Vec::new();
        while !bytes.is_empty() {
            families.push(MetricFamily::decode_length_delimited(&mut bytes).unwrap());
        }
        families
    }

    #[test]
    fn the_native_buckets_equal_the_distributions() {
        let distribution = of(&[0, 900, 1_000, 1_000, 1_020, 1_000_000_000]);
        let value = Value::Histogram(&distribution);
        let sample = Sample { labels: vec![("vm", "a\"b".into())], value, created_ns: Some(1_500_000_002) };
        let family = Family { metric: &metrics::ENTRY_TO_EXIT, samples: vec![sample] };
        let decoded = decode(&encode(&[family.clone(), family])).remove(1);
        assert_eq!((decoded.name.as_deref(), decoded.kind), (Some("vmentry_entry_to_exit_seconds"), Some(HISTOGRAM)));
        assert_eq!(decoded.unit.as_deref(), Some("seconds"));
        let metric = &decoded.metric[0];
        assert_eq!(metric.label[0].value.as_deref(), Some("a\"b"));
        let h = metric.histogram.as_ref().unwrap();
        assert_eq!(h.created, Some(Timestamp { seconds: 1, nanos: 500_000_002 }));
        assert_eq!((h.count, h.zero_count, h.schema), (Some(6), Some(1), Some(5)));
        let (mut index, mut count, mut deltas) = (0, 0, h.positive_delta.iter());
        let mut native = Vec::new();
        for span in &h.positive_span {
            index += span.offset.unwrap();
            for _ in 0..span.length.unwrap() {
                count += deltas.next().unwrap();
                native.push((index, u64::try_from(count).unwrap()));
                index += 1;
            }
        }
        assert_eq!(deltas.next(), None);
        assert_eq!(native, distribution.native().collect::<Vec<_>>());
        assert_eq!(native.iter().map(|n| n.1).sum::<u64>() + 1, 6);
        assert_eq!(h.bucket.len(), BOUNDS.len());
        assert_eq!(h.bucket[24], Bucket { cumulative_count: Some(6), upper_bound: Some(10.0) });
    }

    #[test]
    fn the_bytes_follow_the_official_schema() {
        let family = Family::one(&metrics::SERIES, Value::Count(2), None);
        let help = metrics::SERIES.help;
        let mut expected = vec![0x0a, 14];
        expected.extend(b"vmentry_series");
        expected.extend([0x12, u8::try_from(help.len()).unwrap()]);
        expected.extend(help.as_bytes());
        // type 1; metric: gauge: value 2.0
        expected.extend([0x18, 1, 0x22, 11, 0x12, 9, 0x09, 0, 0, 0, 0, 0, 0, 0, 0x40]);
        let length = expected.len();
        let [low, high] = [length & 0x7f, length >> 7].map(|n| u8::try_from(n).unwrap());
        let prefix = if high == 0 { vec![low] } else { vec![low | 0x80, high] };
        assert_eq!(encode(&[family]), [prefix, expected].concat());
    }
}
