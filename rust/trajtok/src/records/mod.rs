//! Reads files of records strictly, in bounded memory.

mod messages;
mod reader;

pub use messages::{RecordMessage, Shape};
pub use reader::{Place, ReaderSettings, Record, RecordBatch, RecordReader};
