//! A token row, and what happens to one that is too long.

use super::mask::LossMask;
use crate::encode::TokenId;
use crate::error::Error;

/// What happens to a row with more than `max_tokens` tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverLength {
    /// It is rejected.
    Drop,
    /// It ends with the last target that fits; without one it is rejected.
    CutAtTurn,
}

impl OverLength {
    /// The rule of this name.
    ///
    /// # Errors
    /// [`Error::UnknownOverLength`].
    pub fn parse(name: &str) -> Result<Self, Error> {
        match name {
            "drop" => Ok(Self::Drop),
            "cut_at_turn" => Ok(Self::CutAtTurn),
            _ => Err(Error::UnknownOverLength(name.to_owned())),
        }
    }
}

/// One row: its ids and which of them are trained.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenRow {
    /// The token ids of the rendered conversation, or of its beginning if it was cut.
    pub input_ids: Vec<TokenId>,
    /// The trained runs.
    pub mask: LossMask,
    /// What was left out of a conversation that is too long.
    pub cut: Option<Cut>,
    /// How many of its turns were given as ids that are not what the tokenizer makes of their text.
    pub n_drifted: usize,
}

/// How a conversation was cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// How many of its messages the row has, from the first on; the last one is a target.
    pub n_kept: usize,
    /// How many messages it has.
    pub n_messages: usize,
    /// How many tokens all of them would have.
    pub n_tokens: usize,
}
