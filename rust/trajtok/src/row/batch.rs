//! The output: an Arrow record batch of token rows, and the rows that were refused.

use std::sync::Arc;

use arrow_array::builder::{Float32Builder, Int32Builder, ListBuilder, StringBuilder};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema};

use crate::error::{Error, Reason};
use crate::row::mask::TrainedTokens;
use crate::row::token_row::{Cut, TokenRow};

/// Changes when, and only when, the same input yields other bytes.
pub const TOKEN_FORMAT_VERSION: u32 = 1;

/// One refused row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedRow {
    /// The row's key.
    pub key: String,
    /// Why.
    pub reason: Reason,
    /// What was found.
    pub detail: String,
}

/// One row that lacks the end of its conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutRow {
    /// The row's key.
    pub key: String,
    /// What it has and what it lacks.
    pub cut: Cut,
}

/// Token rows and refused rows, each in input order; together they are all rows that were given.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// The columns of [`schema`].
    pub records: RecordBatch,
    /// The rows that are not in `records`.
    pub rejected: Vec<RejectedRow>,
    /// The rows of `records` that lack the end of their conversation.
    pub cut: Vec<CutRow>,
    /// How many tokens of `records` lie on both sides of a trained stretch's border.
    pub n_straddling: usize,
    /// How many turns of `records` were given as ids that are not what the tokenizer makes of their text.
    pub n_drifted: usize,
}

/// The columns: `span_*` are parallel lists, one entry per trained message; a span is a half-open range of tokens.
#[must_use]
pub fn schema() -> Schema {
    let list = |name: &str, of: DataType| Field::new_list(name, Field::new_list_field(of, true), true);
    Schema::new(vec![
        Field::new("token_key", DataType::Utf8, false),
        list("input_ids", DataType::Int32),
        list("span_start", DataType::Int32),
        list("span_end", DataType::Int32),
        list("span_weight", DataType::Float32),
        Field::new("n_tokens", DataType::Int32, true),
        Field::new("n_trained", DataType::Int32, true),
    ])
}

impl Batch {
    /// Sorts outcomes into rows and rejections.
    ///
    /// # Errors
    /// The first outcome that is an error and no rejection; [`Error::BatchTooLarge`].
    pub fn collect<K: AsRef<str>>(keys: &[K], outcomes: Vec<Result<TokenRow, Error>>) -> Result<Self, Error> {
        let (mut rows, mut rejected) = (Vec::with_capacity(outcomes.len()), Vec::new());
        for (key, outcome) in keys.iter().map(AsRef::as_ref).zip(outcomes) {
            match outcome {
                Ok(row) => rows.push((key, row)),
                Err(Error::Rejected(rejection)) => {
                    let (reason, detail) = (rejection.reason, rejection.detail);
                    rejected.push(RejectedRow { key: key.to_owned(), reason, detail });
                }
                Err(error) => return Err(error),
            }
        }
        to_index(rows.iter().map(|(key, _)| key.len()).sum(), "bytes of keys")?;
        to_index(rows.iter().map(|(_, row)| row.input_ids.len()).sum(), "tokens")?;
        let cut_row = |(key, row): &(&str, TokenRow)| Some(CutRow { key: (*key).to_owned(), cut: row.cut.clone()? });
        let cut = rows.iter().filter_map(cut_row).collect();
        let n_straddling = rows.iter().map(|(_, row)| row.mask.n_straddling).sum();
        let n_drifted = rows.iter().map(|(_, row)| row.n_drifted).sum();
        Ok(Self { records: build_records(&rows)?, rejected, cut, n_straddling, n_drifted })
    }
}

fn build_records(rows: &[(&str, TokenRow)]) -> Result<RecordBatch, Error> {
    let mut columns = Columns::default();
    for (key, row) in rows {
        columns.push_row(key, row)?;
    }
    Ok(RecordBatch::try_new(Arc::new(schema()), columns.finish())?)
}

/// The columns being built, fed row by row so that they cannot drift apart.
#[derive(Default)]
struct Columns {
    token_key: StringBuilder,
    input_ids: ListBuilder<Int32Builder>,
    span_start: ListBuilder<Int32Builder>,
    span_end: ListBuilder<Int32Builder>,
    span_weight: ListBuilder<Float32Builder>,
    n_tokens: Int32Builder,
    n_trained: Int32Builder,
}

impl Columns {
    fn push_row(&mut self, key: &str, row: &TokenRow) -> Result<(), Error> {
        self.token_key.append_value(key);
        self.input_ids.values().append_slice(&row.input_ids);
        self.input_ids.append(true);
        for run in &row.mask.runs {
            self.push_span(run)?;
        }
        self.span_start.append(true);
        self.span_end.append(true);
        self.span_weight.append(true);
        self.n_tokens.append_value(to_index(row.input_ids.len(), "tokens")?);
        self.n_trained.append_value(to_index(row.mask.n_trained(), "tokens")?);
        Ok(())
    }

    fn push_span(&mut self, run: &TrainedTokens) -> Result<(), Error> {
        self.span_start.values().append_value(to_index(run.tokens.start, "tokens")?);
        self.span_end.values().append_value(to_index(run.tokens.end, "tokens")?);
        #[allow(clippy::cast_possible_truncation, reason = "parsing refused weights that f32 does not hold")]
        self.span_weight.values().append_value(run.weight as f32);
        Ok(())
    }

    fn finish(mut self) -> Vec<ArrayRef> {
        vec![
            Arc::new(self.token_key.finish()),
            Arc::new(self.input_ids.finish()),
            Arc::new(self.span_start.finish()),
            Arc::new(self.span_end.finish()),
            Arc::new(self.span_weight.finish()),
            Arc::new(self.n_tokens.finish()),
            Arc::new(self.n_trained.finish()),
        ]
    }
}

fn to_index(n: usize, what: &'static str) -> Result<i32, Error> {
    i32::try_from(n).map_err(|_| Error::BatchTooLarge { n, what })
}

#[cfg(test)]
mod tests {
    use arrow_array::cast::AsArray;
    use arrow_array::types::{Float32Type, Int32Type};

    use super::*;
    use crate::error::Rejection;
    use crate::row::mask::LossMask;

    fn row() -> TokenRow {
        let runs = vec![TrainedTokens { tokens: 1..3, weight: 0.5 }];
        TokenRow { input_ids: vec![7, 8, 9], mask: LossMask { runs, n_straddling: 2 }, cut: None, n_drifted: 0 }
    }

    #[test]
    fn rows_and_rejections_keep_their_order_and_their_keys() {
        let refuse = |detail: &str| Err(Rejection::error(Reason::OverLength, detail));
        let outcomes = vec![refuse("1"), Ok(row()), refuse("2"), Ok(row())];
        let batch = Batch::collect(&["a", "b", "c", "d"], outcomes).unwrap();
        let keys: Vec<_> = batch.records.column(0).as_string::<i32>().iter().flatten().collect();
        assert_eq!(keys, ["b", "d"]);
        let rejected: Vec<_> = batch.rejected.iter().map(|row| (row.key.as_str(), row.detail.as_str())).collect();
        assert_eq!(rejected, [("a", "1"), ("c", "2")]);
        assert_eq!(batch.n_straddling, 4);
    }

    #[test]
    fn columns_hold_ids_spans_weights_and_counts() {
        let records = Batch::collect(&["a"], vec![Ok(row())]).unwrap().records;
        let ints = |column: usize| {
            records.column(column).as_list::<i32>().value(0).as_primitive::<Int32Type>().values().to_vec()
        };
        assert_eq!((ints(1), ints(2), ints(3)), (vec![7, 8, 9], vec![1], vec![3]));
        assert_eq!(records.column(4).as_list::<i32>().value(0).as_primitive::<Float32Type>().values()[..], [0.5]);
        let counts: Vec<_> = [5, 6].map(|column| records.column(column).as_primitive::<Int32Type>().value(0)).into();
        assert_eq!(counts, [3, 2]);
    }

    #[test]
    fn a_batch_without_rows_has_the_schema() {
        let batch = Batch::collect(&[] as &[&str], vec![]).unwrap();
        assert_eq!((batch.records.num_rows(), batch.records.schema().as_ref()), (0, &schema()));
    }

    #[test]
    fn an_error_that_concerns_no_row_alone_stops_the_batch() {
        assert!(matches!(Batch::collect(&["a"], vec![Err(Error::MaxTokens(0))]), Err(Error::MaxTokens(0))));
    }
}
