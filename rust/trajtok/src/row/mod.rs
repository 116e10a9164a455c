//! One conversation as a token row with its loss mask, and batches of rows.

mod batch;
mod mask;
mod token_row;
mod tokenizer;

pub use batch::{Batch, CutRow, RejectedRow, TOKEN_FORMAT_VERSION, schema};
pub use mask::{LossMask, TrainedTokens, mask_tokens};
pub use token_row::{Cut, OverLength, TokenRow};
pub use tokenizer::Tokenizer;
