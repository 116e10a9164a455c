//! Errors as Python's exceptions.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::error::Error;

pyo3::create_exception!(negtraj_dagster._trajtok, TrajtokError, PyValueError);
pyo3::create_exception!(negtraj_dagster._trajtok, TokenizerError, TrajtokError);
pyo3::create_exception!(negtraj_dagster._trajtok, TemplateError, TrajtokError);
pyo3::create_exception!(negtraj_dagster._trajtok, PackError, TrajtokError);

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::TokenizerFile { .. } | Error::UnsupportedTokenizer { .. } | Error::Encode { .. } => {
                TokenizerError::new_err(message)
            }
            Error::Template { .. }
            | Error::TemplateInput { .. }
            | Error::UnknownTemplate { .. }
            | Error::MissingControlToken { .. }
            | Error::UnsupportedControlToken { .. } => TemplateError::new_err(message),
            Error::Capacity { .. } | Error::PackCapacity(_) | Error::PackLength { .. } | Error::PackRows(_) => {
                PackError::new_err(message)
            }
            Error::Rejected(_)
            | Error::UnknownOverLength(_)
            | Error::UnknownEmptyThink(_)
            | Error::MaxTokens(_)
            | Error::UnequalLengths { .. }
            | Error::BatchTooLarge { .. }
            | Error::Arrow(_)
            | Error::SignatureSetting { .. }
            | Error::SignatureBands { .. }
            | Error::MinSimilarity(_)
            | Error::PairColumns { .. }
            | Error::SketchLength { .. }
            | Error::SketchOrder { .. }
            | Error::ReaderSetting { .. }
            | Error::Read { .. }
            | Error::OpenRecords { .. }
            | Error::WriteRows { .. }
            | Error::Threads(_) => TrajtokError::new_err(message),
        }
    }
}
