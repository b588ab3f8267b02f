//! The log with one JSON object per line (`--log-format json`).

use std::fmt::{self, Debug, Write};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

/// Writes `timestamp`, `level`, `target`, `message`, the event's fields, and its spans.
pub(crate) struct JsonLine;

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let mut object = Map::new();
        object.insert("timestamp".into(), time.into());
        object.insert("level".into(), event.metadata().level().as_str().into());
        object.insert("target".into(), event.metadata().target().into());
        event.record(&mut FieldsOf(&mut object));
        let mut spans = Vec::new();
        for span in context.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            let mut one = Map::new();
            one.insert("name".into(), span.name().into());
            if let Some(fields) = span.extensions().get::<FormattedFields<N>>()
                && !fields.fields.is_empty()
            {
                one.insert("fields".into(), fields.fields.as_str().into());
            }
            spans.push(Value::Object(one));
        }
        if !spans.is_empty() {
            object.insert("spans".into(), spans.into());
        }
        writeln!(writer, "{}", Value::Object(object))
    }
}

/// Puts an event's fields into an object. A field never replaces one that every line has.
struct FieldsOf<'a>(&'a mut Map<String, Value>);

impl FieldsOf<'_> {
    fn put(&mut self, field: &Field, value: Value) {
        let taken = ["timestamp", "level", "target", "spans"].contains(&field.name());
        let name = if taken { format!("field.{field}") } else { field.name().to_owned() };
        self.0.insert(name, value);
    }
}

impl Visit for FieldsOf<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = write!(text, "{value:?}");
        self.put(field, text.into());
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    #[derive(Clone, Default)]
    struct KeptLines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for KeptLines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for KeptLines {
        type Writer = Self;
        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    #[test]
    fn each_line_is_an_object_with_all_that_the_event_has() {
        let kept = KeptLines::default();
        let log = tracing_subscriber::fmt()
            .with_ansi(false)
            .event_format(JsonLine)
            .with_writer(kept.clone())
            .finish();
        tracing::subscriber::with_default(log, || {
            let span = tracing::info_span!("request", ino = 5);
            let _inside = span.enter();
            let error = io::Error::other("a \"quoted\"\nline");
            tracing::warn!(%error, count = 3, level = true, "it failed");
            tracing::info!("again");
        });
        let text = String::from_utf8(kept.0.lock().clone()).unwrap();
        let lines: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["message"], "it failed");
        assert_eq!(lines[0]["error"], "a \"quoted\"\nline");
        assert_eq!((&lines[0]["count"], &lines[0]["level"]), (&3.into(), &"WARN".into()));
        assert_eq!(lines[0]["field.level"], true);
        assert_eq!(lines[0]["spans"][0]["name"], "request");
        assert!(lines[0]["timestamp"].as_str().unwrap().ends_with('Z'));
        assert_eq!(lines[1]["message"], "again");
    }
}
