//! Proves token rows before they are published, with no code of what made them.
//!
//! For every trained turn of a row: what is trained decodes to all that the agent said in it and the end token; what precedes
//! it, as text and as tokens, is what a served model is given there; a conversation that ends with the turn has the same.
//!
//! The proof is one-sided. [`Proof::prove`] gives the number of proved turns, or `None` for a row that it does not vouch for:
//! one that is wrong, and one that has what is not looked at here (weights of ranges, recorded token ids, texts that Unicode
//! normalization changes, escapes that templates seldom write). Whoever asks proves those otherwise, and says what is wrong.
//!
//! Three things are this crate's own, so that no fault of the making hides itself: the native templates ([`NativeTexts`]; what
//! Jinja itself wrote is given, as [`GivenTexts`]), the reading of ids by the vocabulary of the tokenizer's file ([`Reader`]),
//! and the walk over the row. What a served model is given is asked of the serving side ([`Served`]). `serde_json` and Rust's own
//! formatting of numbers are shared: a number that either might read or write unlike Python is not vouched for ([`Json`]).

mod conversation;
mod json;
mod python_text;
mod reader;
mod render;
mod row;
mod served;
mod texts;

pub use conversation::{Call, Conversation, Message};
pub use json::Json;
pub use reader::Reader;
pub use render::{GivenTexts, NativeTexts, Template, Texts};
pub use row::{Proof, Row, Span};
pub use served::{Piece, Prompt, Served};
