//! A table of one row a file, as DuckDB, Polars, pandas and Spark read it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::basic::Encoding;
use parquet::data_type::{ByteArray, ByteArrayType, DataType, DoubleType, FloatType, Int32Type};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::ColumnPath;

use crate::command_line::Failure;

const SCHEMA: &str = "message embeddings {
    REQUIRED BYTE_ARRAY file (STRING);
    REQUIRED INT32 sample_rate;
    REQUIRED DOUBLE duration;
    REQUIRED GROUP embedding (LIST) { REPEATED GROUP list { REQUIRED FLOAT element; } }
}";
/// Values of embeddings in a row group, which is held in memory: 8 MiB.
const GROUP: usize = 1 << 21;

/// Written under another name until it is complete: the index of a Parquet file stands at its end.
pub struct Parquet {
    writer: SerializedFileWriter<File>,
    path: PathBuf,
    partial: PathBuf,
    files: Vec<ByteArray>,
    sample_rates: Vec<i32>,
    durations: Vec<f64>,
    /// The embeddings one after the other; for each value 0 where a row begins, else 1.
    values: Vec<f32>,
    levels: Vec<i16>,
}

impl Parquet {
    pub fn create(path: &Path, model: &str) -> Result<Self, Failure> {
        let embedding = ColumnPath::from(vec!["embedding".into(), "list".into(), "element".into()]);
        let properties = WriterProperties::builder()
            .set_key_value_metadata(Some(vec![KeyValue::new("clipwise.model".to_string(), model.to_string())]))
            .set_column_dictionary_enabled(embedding.clone(), false)
            .set_column_encoding(embedding.clone(), Encoding::PLAIN)
            .set_column_statistics_enabled(embedding, EnabledStatistics::None)
            .build();
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let schema = Arc::new(parse_message_type(SCHEMA)?);
        let writer = SerializedFileWriter::new(File::create(&partial)?, schema, Arc::new(properties))?;
        let (files, sample_rates, durations) = (Vec::new(), Vec::new(), Vec::new());
        let (values, levels) = (Vec::new(), Vec::new());
        Ok(Self { writer, path: path.into(), partial, files, sample_rates, durations, values, levels })
    }

    pub fn write(&mut self, file: &str, sample_rate: u32, duration: f64, embedding: &[f32]) -> Result<(), Failure> {
        self.files.push(file.into());
        self.sample_rates.push(i32::try_from(sample_rate)?);
        self.durations.push(duration);
        self.values.extend(embedding);
        self.levels.extend((0..embedding.len()).map(|i| i16::from(i > 0)));
        if self.values.len() >= GROUP { self.write_group() } else { Ok(()) }
    }

    fn write_group(&mut self) -> Result<(), Failure> {
        if self.files.is_empty() {
            return Ok(());
        }
        let mut group = self.writer.next_row_group()?;
        write_column::<ByteArrayType>(&mut group, &self.files, None)?;
        write_column::<Int32Type>(&mut group, &self.sample_rates, None)?;
        write_column::<DoubleType>(&mut group, &self.durations, None)?;
        write_column::<FloatType>(&mut group, &self.values, Some(&self.levels))?;
        group.close()?;
        self.files.clear();
        self.sample_rates.clear();
        self.durations.clear();
        self.values.clear();
        self.levels.clear();
        Ok(())
    }

    /// Writes the index and gives the file its name.
    pub fn finish(self) -> Result<(), Failure> {
        let path = self.path.clone();
        Ok(std::fs::rename(self.finish_partial()?, path)?)
    }

    /// Writes the index and leaves the file the name that it has until it is complete, which is returned.
    pub fn finish_partial(mut self) -> Result<PathBuf, Failure> {
        self.write_group()?;
        self.writer.close()?;
        Ok(self.partial)
    }
}

/// Writes the next column of a group; of lists where there are levels, none of them empty.
fn write_column<T: DataType>(
    group: &mut SerializedRowGroupWriter<File>,
    values: &[T::T],
    levels: Option<&[i16]>,
) -> Result<(), Failure> {
    let mut column = group.next_column()?.ok_or("the schema has fewer columns")?;
    let present = levels.map(|levels| vec![1; levels.len()]);
    column.typed::<T>().write_batch(values, present.as_deref(), levels)?;
    Ok(column.close()?)
}
