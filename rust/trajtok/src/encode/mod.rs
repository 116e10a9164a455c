//! Encoders: text into token ids, with no text ever becoming an added token.

mod encoder;
mod hf;
mod load;
mod native;
mod tokens;
mod unknown;

pub use encoder::Encoder;
pub use hf::HfEncoder;
pub use load::load_encoder;
pub use native::NativeEncoder;
pub use tokens::{TokenId, Tokens};
pub(crate) use unknown::{check_no_byte_is_lost, check_no_text_is_unknown, no_token};
