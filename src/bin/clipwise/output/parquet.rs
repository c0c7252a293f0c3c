//! Results as a Parquet table, as DuckDB, Polars, pandas and Spark read it. The schema is described in `docs/tables.md`.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::sync::Arc;

use clipwise::LabelSet;
use jiff::civil::DateTime;
use parquet::basic::Encoding;
use parquet::data_type::{ByteArray, ByteArrayType, DataType, DoubleType, FloatType, Int32Type};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::ColumnPath;

use super::{Named, Record, RecordWriter, writer};
use crate::message::Failure;

/// The one schema of all tables.
const SCHEMA: &str = "message clipwise {
    REQUIRED BYTE_ARRAY path (STRING);
    REQUIRED BYTE_ARRAY file (STRING);
    OPTIONAL DOUBLE start;
    OPTIONAL DOUBLE end;
    OPTIONAL BYTE_ARRAY time (STRING);
    OPTIONAL INT32 sample_rate;
    OPTIONAL DOUBLE duration;
    REQUIRED BYTE_ARRAY model (STRING);
    REQUIRED BYTE_ARRAY model_sha256 (STRING);
    OPTIONAL GROUP tags (LIST) { REPEATED GROUP list { REQUIRED GROUP element {
        REQUIRED INT32 index;
        OPTIONAL BYTE_ARRAY id (STRING);
        REQUIRED BYTE_ARRAY label (STRING);
        REQUIRED FLOAT score;
    } } }
    OPTIONAL GROUP scores (LIST) { REPEATED GROUP list { REQUIRED FLOAT element; } }
    OPTIONAL GROUP embedding (LIST) { REPEATED GROUP list { REQUIRED FLOAT element; } }
    OPTIONAL BYTE_ARRAY error (STRING);
}";
/// Rows of a group at most.
const MAX_ROWS: usize = 512;
/// Scores and values of embeddings in a group at most; a group is held in memory.
const MAX_VALUES: usize = 1 << 21;

/// Which model made a table.
#[derive(Clone, Debug)]
pub struct Provenance {
    pub model: String,
    /// In hexadecimal.
    pub sha256: String,
    pub labels: LabelSet,
}

/// Writes a table of records.
pub struct Parquet {
    writer: SerializedFileWriter<Named<BufWriter<File>>>,
    of: Provenance,
    start: Option<DateTime>,
    rows: Rows,
}

/// The rows of a group, by column.
#[derive(Default)]
struct Rows {
    n_rows: usize,
    path: Column<ByteArrayType>,
    start: Column<DoubleType>,
    end: Column<DoubleType>,
    time: Column<ByteArrayType>,
    sample_rate: Column<Int32Type>,
    duration: Column<DoubleType>,
    model: Column<ByteArrayType>,
    sha256: Column<ByteArrayType>,
    index: Column<Int32Type>,
    id: Column<ByteArrayType>,
    label: Column<ByteArrayType>,
    score: Column<FloatType>,
    scores: Column<FloatType>,
    embedding: Column<FloatType>,
    error: Column<ByteArrayType>,
}

/// Values with Dremel's levels, as Parquet stores nested data.
struct Column<T: DataType> {
    values: Vec<T::T>,
    definition: Vec<i16>,
    repetition: Vec<i16>,
}

impl<T: DataType> Default for Column<T> {
    fn default() -> Self {
        Self { values: Vec::new(), definition: Vec::new(), repetition: Vec::new() }
    }
}

impl<T: DataType> Column<T> {
    /// A value of a column that is no list.
    fn push(&mut self, value: Option<T::T>) {
        self.definition.push(i16::from(value.is_some()));
        self.repetition.push(0);
        self.values.extend(value);
    }

    /// A list, or null. Only values that may be null can be `None`.
    fn push_list(&mut self, list: Option<impl Iterator<Item = Option<T::T>>>, may_be_null: bool) {
        let Some(list) = list else {
            self.definition.push(0);
            self.repetition.push(0);
            return;
        };
        let mut repetition = 0;
        for value in list {
            self.definition.push(2 + i16::from(may_be_null && value.is_some()));
            self.repetition.push(repetition);
            self.values.extend(value);
            repetition = 1;
        }
        if repetition == 0 {
            self.definition.push(1); // an empty list
            self.repetition.push(0);
        }
    }

    fn write(&self, group: &mut SerializedRowGroupWriter<Named<BufWriter<File>>>) -> Result<(), Failure> {
        let mut column = group.next_column()?.ok_or("the schema has fewer columns")?;
        column.typed::<T>().write_batch(&self.values, Some(&self.definition), Some(&self.repetition))?;
        Ok(column.close()?)
    }
}

impl Parquet {
    /// With the clock time of the beginning of recordings, `start`, each event has its own.
    pub fn create(path: &Path, of: Provenance, start: Option<DateTime>) -> Result<Self, Failure> {
        let vector = |name: &str| ColumnPath::from(vec![name.into(), "list".into(), "element".into()]);
        let names: Vec<&str> = of.labels.iter().map(|label| label.name.as_str()).collect();
        let ids: Vec<Option<&str>> = of.labels.iter().map(|label| label.id.as_deref()).collect();
        let metadata = [
            ("clipwise.version", env!("CARGO_PKG_VERSION").to_string()),
            ("clipwise.model", of.model.clone()),
            ("clipwise.model_sha256", of.sha256.clone()),
            ("clipwise.labels", serde_json::to_string(&names)?),
            ("clipwise.label_ids", serde_json::to_string(&ids)?),
        ];
        let metadata = metadata.map(|(key, value)| KeyValue::new(key.to_string(), value)).to_vec();
        let mut properties = WriterProperties::builder().set_key_value_metadata(Some(metadata));
        for column in ["scores", "embedding"].map(vector) {
            properties = properties
                .set_column_dictionary_enabled(column.clone(), false)
                .set_column_encoding(column.clone(), Encoding::PLAIN)
                .set_column_statistics_enabled(column, EnabledStatistics::None);
        }
        let schema = Arc::new(parse_message_type(SCHEMA)?);
        let writer = SerializedFileWriter::new(writer(path)?, schema, Arc::new(properties.build()))?;
        Ok(Self { writer, of, start, rows: Rows::default() })
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let rows = std::mem::take(&mut self.rows);
        if rows.n_rows == 0 {
            return Ok(());
        }
        let mut group = self.writer.next_row_group()?;
        rows.path.write(&mut group)?;
        rows.path.write(&mut group)?; // `file`, which scripts may read
        rows.start.write(&mut group)?;
        rows.end.write(&mut group)?;
        rows.time.write(&mut group)?;
        rows.sample_rate.write(&mut group)?;
        rows.duration.write(&mut group)?;
        rows.model.write(&mut group)?;
        rows.sha256.write(&mut group)?;
        rows.index.write(&mut group)?;
        rows.id.write(&mut group)?;
        rows.label.write(&mut group)?;
        rows.score.write(&mut group)?;
        rows.scores.write(&mut group)?;
        rows.embedding.write(&mut group)?;
        rows.error.write(&mut group)?;
        group.close()?;
        Ok(())
    }
}

impl RecordWriter for Parquet {
    fn write(&mut self, record: &Record) -> Result<(), Failure> {
        match record.events.as_deref() {
            None => self.write_row(record),
            // The file has no event: one row, without tags.
            Some([]) => self.write_row(&Record { tags: Some(Vec::new()), ..record.clone() }),
            Some(_) => record.of_events(self.start).iter().try_for_each(|record| self.write_row(record)),
        }
    }

    fn finish(mut self: Box<Self>) -> Result<(), Failure> {
        self.flush()?;
        self.writer.close()?;
        Ok(())
    }
}

impl Parquet {
    fn write_row(&mut self, record: &Record) -> Result<(), Failure> {
        let (rows, event) = (&mut self.rows, record.event.as_ref());
        let of_event = event.map(|event| (event.index, event.id.as_ref(), &event.label, event.peak));
        let tags = record
            .tags
            .iter()
            .flatten()
            .map(|shown| &shown.tag)
            .map(|tag| (tag.index, tag.id.as_ref(), &tag.label, tag.score));
        let tags: Vec<_> = of_event.into_iter().chain(tags).collect();
        let tags = (record.tags.is_some() || event.is_some()).then_some(tags);
        let text = |text: &str| Some(ByteArray::from(text));
        rows.n_rows += 1;
        rows.path.push(text(&record.file));
        rows.start.push(event.map(|event| event.onset).or(record.duration.map(|_| 0.0)));
        rows.end.push(event.map(|event| event.offset).or(record.duration));
        rows.time.push(record.time.as_deref().and_then(text));
        rows.sample_rate.push(record.sample_rate.map(i32::try_from).transpose()?);
        rows.duration.push(record.duration);
        rows.model.push(text(&self.of.model));
        rows.sha256.push(text(&self.of.sha256));
        let tags = tags.as_ref().map(|tags| tags.iter());
        rows.index.push_list(tags.clone().map(|tags| tags.map(|tag| i32::try_from(tag.0).ok())), false);
        rows.id.push_list(tags.clone().map(|tags| tags.map(|tag| tag.1.map(|id| id.as_str().into()))), true);
        rows.label.push_list(tags.clone().map(|tags| tags.map(|tag| text(tag.2))), false);
        rows.score.push_list(tags.map(|tags| tags.map(|tag| Some(tag.3))), false);
        rows.scores.push_list(record.clipwise_output.as_ref().map(|scores| scores.iter().copied().map(Some)), false);
        rows.embedding.push_list(record.embedding.as_ref().map(|values| values.iter().copied().map(Some)), false);
        rows.error.push(record.error.as_deref().and_then(text));
        let n_values = rows.scores.values.len() + rows.embedding.values.len();
        if rows.n_rows >= MAX_ROWS || n_values >= MAX_VALUES { self.flush() } else { Ok(()) }
    }
}
