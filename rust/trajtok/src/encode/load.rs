//! Chooses the fastest encoder that gives Hugging Face's ids for a file.

use std::path::Path;

use super::encoder::Encoder;
use super::hf::HfEncoder;
use super::native::NativeEncoder;
use crate::error::Error;

/// The fastest encoder that gives Hugging Face's ids for this tokenizer.json: [`NativeEncoder`] where it covers the file
/// and agrees with Hugging Face's on every probe, else [`HfEncoder`], whose note says why.
///
/// # Errors
/// As [`HfEncoder::from_file`].
pub fn load_encoder(path: &Path) -> Result<Box<dyn Encoder>, Error> {
    let origin = path.display().to_string();
    let json = std::fs::read(path)
        .map_err(|error| Error::TokenizerFile { path: origin.clone(), problem: error.to_string() })?;
    let hf = HfEncoder::from_json(&json, origin)?;
    Ok(match NativeEncoder::new(&json, hf) {
        Ok(native) => Box::new(native),
        Err(refused) => {
            let (mut hf, why) = *refused;
            hf.note = Some(why);
            Box::new(hf)
        }
    })
}
