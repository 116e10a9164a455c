//! Turns conditioned conversations into token ids, a loss mask and packing bins.
//!
//! A conversation is JSON text: `{"messages": [{"role": …, "content": …, "weight": …}]}`; a weight above 0 marks a
//! target. A template writes it as text with control tokens, an encoder turns the text into ids, and the mask says which
//! tokens are trained: every target's content and the control token that ends it.
//!
//! The invariant: **control tokens come from the template alone.** No text from a message ever becomes one, whatever it
//! says. And every row that is given comes back, as tokens or as a rejection with its reason.
//!
//! ```
//! use trajtok::{Encoder, Error, OverLength, TokenId, Tokenizer, Tokens};
//!
//! /// One token per byte, and ChatML's control tokens behind them.
//! struct Bytes;
//!
//! const CONTROLS: [&str; 2] = ["<|im_start|>", "<|im_end|>"];
//!
//! impl Encoder for Bytes {
//!     fn name(&self) -> &'static str { "bytes" }
//!     fn origin(&self) -> &str { "this example" }
//!     fn encode_text(&self, text: &str, start: usize, tokens: &mut Tokens) -> Result<(), Error> {
//!         for (at, byte) in text.bytes().enumerate() {
//!             tokens.push(TokenId::from(byte), start + at..start + at + 1);
//!         }
//!         Ok(())
//!     }
//!     fn control_id(&self, token: &str) -> Option<TokenId> {
//!         (256..).zip(CONTROLS).find(|(_, control)| *control == token).map(|(id, _)| id)
//!     }
//!     fn added_token(&self, id: TokenId) -> Option<&str> {
//!         (256..).zip(CONTROLS).find(|(known, _)| *known == id).map(|(_, control)| control)
//!     }
//!     fn added_tokens(&self) -> Vec<(String, bool)> { CONTROLS.map(|token| (token.to_owned(), true)).to_vec() }
//!     fn unsupported_flag(&self, _token: &str) -> Option<&'static str> { None }
//! }
//!
//! let tokenizer = Tokenizer::new(Box::new(Bytes), "chatml", 4096, OverLength::Drop)?;
//! let row = tokenizer.encode_row(
//!     br#"{"messages": [{"role": "user", "content": "<|im_end|>", "weight": 0.0},
//!                       {"role": "assistant", "content": "no", "weight": 1.0}]}"#,
//! )?;
//! let trained = row.mask.runs[0].tokens.clone();
//! assert_eq!(row.input_ids[trained], [110, 111, 257]); // "n", "o", <|im_end|>
//! assert_eq!(row.input_ids.iter().filter(|&&id| id >= 256).count(), 4); // two messages, nothing from the content
//! # Ok::<(), Error>(())
//! ```

mod condition;
mod conversation;
mod digest;
mod encode;
mod error;
#[cfg(test)]
mod fixture;
mod json;
mod json_text;
mod pack;
mod plain;
mod prepare;
#[cfg(feature = "python")]
mod py;
mod records;
mod row;
mod signature;
mod template;

pub use condition::Conditioning;
pub use conversation::{Conversation, Message, Role, ToolCall, WeighedField, WeightRange};
pub use encode::{Encoder, HfEncoder, NativeEncoder, TokenId, Tokens, load_encoder};
pub use error::{Error, Reason, Rejection};
pub use json::MAX_DEPTH;
pub use pack::{Packing, pack, pack_flat};
pub use plain::{Layout, PlainReader, PlainRollout, Seen};
pub use prepare::{PrepareSettings, Prepared, prepare};
pub use records::{Place, ReaderSettings, Record, RecordBatch, RecordMessage, RecordReader, Shape};
pub use row::{
    Batch, Cut, CutRow, LossMask, OverLength, RejectedRow, TOKEN_FORMAT_VERSION, TokenRow, Tokenizer, TrainedTokens,
    mask_tokens, schema,
};
pub use signature::{MAX_PERMUTATIONS, MinHashSettings, PairSettings, contaminated, minhash, ngrams, similar_pairs};
pub use template::{
    ChatTemplate, EmptyThink, JinjaChat, JinjaInput, JinjaTemplate, MAX_TEMPLATE_BYTES, Piece, Rendering, RowRule,
    Segment, SegmentKind, TEMPLATES, Target, TemplateSource, TextPlace, TrainedBytes, find_template,
};

/// This crate's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
